"""Where other border elements have lost their way while hiding topology, as regression tests.

Each test tells the situation of an issue that users of OpenSIPS have reported (its number is in the docstring). Here
both legs have their whole dialog state, so that nothing of it has to be carried by the messages themselves.
"""

from __future__ import annotations

import pytest

from sbc.b2bua.settings import RealmSettings
from sbc.sip.flow import Flow
from tests.conformance.test_requests import nothing_of
from tests.conformance.test_subscriptions import accepted, join, notify, relay_b
from tests.support.ladder import A_HOST, B_HOST, OUR_A, OUR_B, Ladder, sdp

NAT = {"inside": RealmSettings("inside", nat="auto"), "outside": RealmSettings("outside")}


def answered(f: Ladder, *, a: list[tuple[str, str]] | None = None, b: list[tuple[str, str]] | None = None) -> None:
    """INVITE, 200, ACK with these headers of either side."""
    f.a.request("INVITE", body=sdp(A_HOST), extra=a or [])
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST), extra=b or [])
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")


def test_bye_of_b_passes_every_proxy_of_a() -> None:
    """2333: with two proxies before us, the BYE of the other side bypassed the first of them."""
    f = Ladder()
    near, far = f"<sip:{A_HOST}:5072;lr>", "<sip:far.a.example;lr>"
    answered(f, a=[("Record-Route", near), ("Record-Route", far)])
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert (bye.uri, bye.get_all("Route")) == (f"sip:a@{A_HOST}:5070", [near, far])
    f.a.reply(200, to=bye)
    nothing_of(f.a, f.b, "far.a.example")
    f.over()


@pytest.mark.parametrize("route", [f"<sip:{OUR_A};lr>", f"<sip:{OUR_A}:5060;lr>, <sip:elsewhere.example;lr>"])
def test_bye_with_a_route(route: str) -> None:
    """2084: a request that names us in the Request-URI and carries a Route as well found no dialog."""
    f = Ladder()
    answered(f)
    f.a.request("INFO", extra=[("Route", route)])
    info = f.b.expect("INFO")
    assert info.get("Route") is None
    f.b.reply(200, to=info)
    f.a.expect(200)
    f.a.request("BYE", extra=[("Route", route)])
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


@pytest.mark.parametrize("side", ["a", "b"])
def test_contact_without_brackets(side: str) -> None:
    """2172, 2871: what stands after such a Contact belongs to the header, and what we write is well formed."""
    f = Ladder()
    phone = f.a if side == "a" else f.b
    phone.contact = f"sip:{phone.name}@{phone.host}:5070;expires=60"
    answered(f)
    for one, other in ((f.a, f.b), (f.b, f.a)):
        one.request("INFO")
        info = other.expect("INFO")
        assert info.uri == f"sip:{other.name}@{other.host}:5070"
        other.reply(200, to=info)
        one.expect(200)
    told = [line for data in f.a.all + f.b.all for line in data.decode().split("\r\n") if line.startswith("Contact")]
    assert told
    assert all(line.count("sip:") == 1 and line.endswith(">") for line in told)
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_bye_to_a_caller_behind_nat() -> None:
    """1063: the caller wrote a private address; B hangs up, and the BYE must go to where the caller was seen."""
    f = Ladder(realms=NAT)
    f.a.contact = "<sip:a@10.1.2.3:5060>"
    answered(f)
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")  # it came to the phone, so it was sent to its public address
    assert bye.uri == "sip:a@10.1.2.3:5060"
    f.a.reply(200, to=bye)
    assert b"10.1.2.3" not in b"".join(f.b.all)
    f.over()


def test_a_new_port_of_the_nat_is_followed() -> None:
    """1063 again, after the NAT has given the caller another port."""
    f = Ladder(realms=NAT)
    f.a.contact = "<sip:a@10.1.2.3:5060>"
    answered(f)
    f.a.request("INFO")
    f.b.reply(200, to=f.b.expect("INFO"))
    f.a.expect(200)
    moved = f.a.sent.replace(b"z9hG4bKa", b"z9hG4bKmoved").replace(b"CSeq: 2", b"CSeq: 3")
    f.deliver(moved, Flow(0, "udp", A_HOST, 6111))
    f.b.reply(200, to=f.b.expect("INFO"))
    assert f.call.a.out(f.core).port == 6111
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_route_set_of_a_subscription_comes_from_its_notify() -> None:
    """2696: a subscriber that follows RFC 6665 takes target and routes from the NOTIFY, which must be ours too."""
    f = Ladder(requests=relay_b)
    accepted(f)
    f.b.request(
        "NOTIFY",
        extra=[
            ("Event", "dialog;id=7"),
            ("Subscription-State", "active;expires=600"),
            ("Record-Route", f"<sip:{B_HOST}:5072;lr>"),
        ],
    )
    told = f.a.expect("NOTIFY")
    assert told.get("Record-Route") is None
    contact = told.contact()
    assert contact is not None
    assert contact.uri.host == OUR_A
    join(f.a, told)
    f.a.reply(200, to=told)
    f.b.expect(200)
    nothing_of(f.b, f.a, OUR_B, f"{B_HOST}:5072")
    f.b.request("NOTIFY", extra=[("Event", "dialog;id=7"), ("Subscription-State", "terminated;reason=noresource")])
    f.a.reply(200, to=f.a.expect("NOTIFY"))
    f.b.expect(200)
    f.over()


def test_call_id_is_hidden_in_both_directions() -> None:
    """1991: the Call-ID of calls in one direction was left as it was; and a NOTIFY inside the dialog of a call, whose
    tags are those of the other direction, goes by that dialog's routes."""
    f = Ladder()
    proxy = f"<sip:{A_HOST}:5072;lr>"
    answered(f, a=[("Record-Route", proxy)])
    notify(f.b)
    told = f.a.expect("NOTIFY")
    assert (told.get("Route"), told.uri) == (proxy, f"sip:a@{A_HOST}:5070")
    f.a.reply(200, to=told)
    f.b.expect(200)
    assert f.b.dialog is not None
    assert f.b.dialog[0].encode() not in b"".join(f.a.all)
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


@pytest.mark.parametrize("status", [180, 183, 200])
def test_contact_of_a_reply_is_ours_on_that_side(status: int) -> None:
    """556: with another border element behind us, the Contact of a reply was the one that we had shown to the other
    side. What B answers with, even a Contact that looks like ours, A gets the address that we have on A's side."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    shown = invite.get("Contact") or ""
    f.b.contact = shown  # a reflection of what it was sent
    f.b.reply(status, body=sdp(B_HOST) if status > 180 else b"")
    contact = f.a.expect(status).contact()
    assert contact is not None
    assert (contact.uri.host, OUR_B in str(contact.uri)) == (OUR_A, False)
    assert (contact.uri.user or "?") not in shown
    if status == 200:
        f.a.ack()
    f.core.release(f.call, f.now, reason="test")
    f.drain()


def test_both_realms_behave_alike() -> None:
    """A call from outside hides the outside as a call from inside hides the inside."""
    realms = {"inside": RealmSettings("inside"), "outside": RealmSettings("outside")}
    f = Ladder(realms=realms)
    answered(f)
    for one, other in ((f.a, f.b), (f.b, f.a)):
        one.request("INFO", extra=[("P-Asserted-Identity", f"<sip:x@{one.host}>"), ("X-Host", one.host)])
        other.reply(200, to=other.expect("INFO"))
        one.expect(200)
    nothing_of(f.a, f.b, OUR_A)
    nothing_of(f.b, f.a, OUR_B)
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()
