"""A phone behind NAT, by the policy of its realm (``nat: auto``): where it is called, answered and heard.

A writes 192.168.7.7:5062 of itself and is seen at 192.0.2.10:6111.
"""

from __future__ import annotations

from typing import Any

import pytest

from media.protocol import Answer, Offer
from sbc.b2bua.call import Call, Target
from sbc.b2bua.settings import RealmSettings
from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.sip.flow import Flow
from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp
from tests.support.natted import INSIDE_HOST, INSIDE_PORT, PUBLIC_PORT, Sent, hide

AUTO = {"inside": RealmSettings("inside", nat="auto"), "outside": RealmSettings("outside", nat="auto")}
NEVER = {"inside": RealmSettings("inside"), "outside": RealmSettings("outside")}
VIA = {"inside": RealmSettings("inside", nat="auto", answers_to_via=True), "outside": RealmSettings("outside")}
OFFER, ANSWER = sdp(INSIDE_HOST), sdp(B_HOST)
OWN_URI = f"sip:a@{INSIDE_HOST}:{INSIDE_PORT};line=1"


class NatLadder(Ladder):
    """``sent`` keeps where messages went."""

    def __init__(self, contact: str = f"<{OWN_URI}>", **changes: Any) -> None:  # Any: what a ladder takes
        self.sent = Sent()
        super().__init__(**({"realms": AUTO} | changes))
        self.phone = hide(self, contact)

    def perform(self, effect: object) -> None:
        self.sent.note(effect)
        super().perform(effect)

    def ends(self) -> None:
        """B hangs up, and all is over."""
        self.b.request("BYE")
        self.b.expect(200)
        bye = self.a.expect("BYE")
        self.a.reply(200, to=bye)
        self.over()


def across(f: Ladder, subject: OutOfDialogRequest) -> None:
    """Phones reach their registrar, B; a Contact of ours leads to its phone."""
    target = f.core.requests.binding(subject.message.uri, subject.source.realm)
    f.core.requests.relay(subject, target or Target(f"sip:{B_HOST}:5070", "outside", peer="carrier-b"), f.now)


def dial_binding(f: Ladder, call: Call) -> None:
    target = f.core.requests.binding(call.ruri, call.a.realm)
    assert target is not None
    f.core.dial(call, [target], f.now)


def registered(f: Ladder) -> str:
    """A registers at B; the URI under which B calls it."""
    f.a.request("REGISTER", uri="sip:example.com", extra=[("Expires", "300")])
    sent = f.b.expect("REGISTER")
    contact = sent.contact()
    assert contact is not None
    f.b.contact = sent.get("Contact") or ""
    f.b.reply(200, to=sent, extra=[("Expires", "300")])
    f.a.expect(200)
    f.b.contact = f"<sip:b@{B_HOST}:5070>"
    f.a.dialog = f.b.dialog = None
    return str(contact.uri)


def test_it_calls() -> None:
    """
    A (NAT)            SBC               B
    |---- INVITE ------>|---- INVITE ---->|
    |<----- 200 --------|<----- 200 ------|   to the port of its NAT
    |------ ACK ------->|------ ACK ----->|
    |<-- re-INVITE -----|<-- re-INVITE ---|   to the same, for the Contact that it wrote
    |<----- BYE --------|<----- BYE ------|
    """
    f = NatLadder()
    f.set_up(offer=OFFER, answer=ANSWER)
    assert f.call.a.nat == f"its Contact {INSIDE_HOST} is private and it was seen at {A_HOST}"
    assert f.call.describe()["a_nat"] == f.call.a.nat
    assert f.call.describe()["b_nat"] == ""
    f.b.request("INVITE", body=sdp(B_HOST, version=2, direction="sendonly"))
    f.b.expect(100)
    invite = f.a.expect("INVITE")
    assert invite.uri == OWN_URI
    f.a.reply(200, body=sdp(INSIDE_HOST, version=2, direction="recvonly"))
    f.b.expect(200)
    f.b.ack()
    f.a.expect("ACK")
    f.ends()
    for what in ("100", "180", "200", "INVITE", "ACK", "BYE"):
        assert f.sent.to(A_HOST, what) == {PUBLIC_PORT}, what
    assert INSIDE_HOST.encode() not in b"".join(f.b.all)


def test_it_is_called_where_it_registered_from() -> None:
    """After a refresh by another port of the NAT the new Contact leads there, and the call goes by it."""
    f = NatLadder(requests=across, route=dial_binding)
    first = registered(f)
    f.phone.public_port = 6222
    uri = registered(f)
    assert uri != first
    f.b.request("INVITE", uri=uri, body=ANSWER)
    f.b.expect(100)
    invite = f.a.expect("INVITE")
    assert invite.uri == OWN_URI
    assert f.sent.to(A_HOST, "INVITE") == {6222}
    f.a.reply(200, body=OFFER)
    f.b.expect(200)
    f.b.ack()
    f.a.expect("ACK")
    f.ends()
    assert f.sent.to(A_HOST, "ACK") == f.sent.to(A_HOST, "BYE") == {6222}


def test_a_call_by_the_former_contact_still_goes_the_former_way() -> None:
    f = NatLadder(requests=across, route=dial_binding)
    uri = registered(f)
    f.phone.public_port = 6222
    registered(f)
    f.b.request("OPTIONS", uri=uri)
    f.a.reply(200, to=f.a.expect("OPTIONS"))
    f.b.expect(200)
    assert f.sent.to(A_HOST, "OPTIONS") == {PUBLIC_PORT}
    f.over()


def test_a_new_port_of_the_nat_is_followed_within_the_call() -> None:
    f = NatLadder()
    f.set_up(offer=OFFER, answer=ANSWER)
    f.phone.public_port = 6222
    f.a.request("INFO")
    f.b.reply(200, to=f.b.expect("INFO"))
    f.a.expect(200)
    f.ends()
    assert f.sent.to(A_HOST, "BYE") == {6222}


REPAIRED = f"<sip:a@{A_HOST}:5062>"  # what an ALG leaves: the public address and the port of before


def test_a_contact_that_an_alg_has_repaired_halfway() -> None:
    """The Via still tells the truth, so the port is that of the source; a journal keeps it over the worker's death."""
    f = NatLadder(REPAIRED)
    f.set_up(offer=OFFER, answer=ANSWER)
    assert f.call.a.nat_given == f"its Via {INSIDE_HOST} is private and it was seen at {A_HOST}"
    f.dies()
    f.b.request("INFO")
    info = f.a.expect("INFO")
    assert info.uri == f"sip:a@{A_HOST}:5062"
    f.a.reply(200, to=info)
    f.b.expect(200)
    assert f.sent.to(A_HOST, "INFO") == {PUBLIC_PORT}
    f.ends()


def test_the_same_for_a_registration() -> None:
    f = NatLadder(REPAIRED, requests=across)
    uri = registered(f)
    f.b.request("MESSAGE", uri=uri)
    f.a.reply(200, to=f.a.expect("MESSAGE"))
    f.b.expect(200)
    assert f.sent.to(A_HOST, "MESSAGE") == {PUBLIC_PORT}
    f.over()


@pytest.mark.parametrize("contact", [f"<sip:a@{A_HOST}:5070>", "<sip:a@192.0.2.11:5070>"])
def test_a_contact_that_can_be_reached_is_believed(contact: str) -> None:
    """A gateway sends from one port and listens on another, or elsewhere."""
    f = NatLadder(contact)
    f.phone.via = f"{A_HOST}:5070"
    f.set_up(offer=sdp(A_HOST), answer=ANSWER)
    assert f.call.a.nat == ""
    host, port = contact[7:-1].split(":")
    assert f.call.a.out(f.core) == Flow(0, "udp", host, int(port))
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_a_route_before_the_phone_is_judged_in_its_place() -> None:
    f = NatLadder()
    f.phone.via = f"{A_HOST}:5070"
    f.phone.asks_for_rport = True
    f.a.request("INVITE", body=OFFER, extra=[("Record-Route", f"<sip:{A_HOST}:5080;lr>")])
    f.a.expect(100)
    f.b.expect("INVITE")
    assert f.call.a.nat == ""
    assert f.call.a.out(f.core).port == 5080
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.over()


def test_the_called_side_may_be_behind_nat() -> None:
    f = NatLadder(f"<sip:a@{A_HOST}:5070>")
    f.phone.via, f.phone.public_port = f"{A_HOST}:5070", 5070
    f.b.contact = "<sip:b@10.9.9.9:5099>"
    f.set_up(offer=sdp(A_HOST), answer=ANSWER)
    f.a.request("BYE")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.a.expect(200)
    assert f.sent.to(B_HOST, "BYE") == f.sent.to(B_HOST, "ACK") == {5070}
    f.over()


def latches(f: Ladder) -> dict[str, str]:
    return {one.from_leg: one.from_latch for one in f.media if isinstance(one, Offer | Answer)}


ICE = sdp(A_HOST) + b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"


@pytest.mark.parametrize(
    ("realms", "contact", "offer", "expected"),
    [
        (AUTO, f"<{OWN_URI}>", sdp(A_HOST), {"a": "learn", "b1": ""}),  # STUN has told it its address, not its port
        (AUTO, f"<{OWN_URI}>", ICE, {"a": "", "b1": ""}),
        (AUTO, "<sip:a@192.0.2.11:5070>", sdp(A_HOST), {"a": "", "b1": ""}),
        (NEVER, f"<{OWN_URI}>", OFFER, {"a": "", "b1": ""}),
    ],
)
def test_media_are_learned_of_those_who_are_behind_nat(
    realms: dict[str, RealmSettings], contact: str, offer: bytes, expected: dict[str, str]
) -> None:
    f = NatLadder(contact, realms=realms)
    f.set_up(offer=offer, answer=ANSWER)
    assert latches(f) == expected
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


@pytest.mark.parametrize(("via", "port"), [(f"{INSIDE_HOST}:{INSIDE_PORT}", PUBLIC_PORT), (f"{A_HOST}:5070", 5070)])
def test_answers_go_to_the_port_of_the_via_only_where_no_nat_is_before_it(via: str, port: int) -> None:
    """``answers_to: via`` is for gateways that do not listen on the port that they send from."""
    f = NatLadder(realms=VIA)
    f.phone.via, f.phone.asks_for_rport = via, False
    f.a.request("OPTIONS", uri="sip:192.0.2.1")
    f.a.expect(200)
    assert f.sent.to(A_HOST, "200") == {port}
    f.over()


def test_a_subscriber_behind_nat_is_notified_where_it_was_seen() -> None:
    f = NatLadder(REPAIRED, requests=across)
    f.a.request("SUBSCRIBE", extra=[("Event", "presence"), ("Expires", "600")])
    sent = f.b.expect("SUBSCRIBE")
    f.b.reply(200, to=sent, extra=[("Expires", "600")])
    f.a.expect(200)
    f.dies()
    tag = f"{sent.get('To')};tag={f.b.tag}"
    f.b.dialog = (sent.call_id, tag, sent.get("From") or "", str(sent.contact().uri))  # type: ignore[union-attr]
    f.b.request("NOTIFY", extra=[("Event", "presence"), ("Subscription-State", "terminated")])
    f.a.reply(200, to=f.a.expect("NOTIFY"))
    f.b.expect(200)
    assert f.sent.to(A_HOST, "NOTIFY") == {PUBLIC_PORT}
    f.over()
