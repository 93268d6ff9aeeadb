"""Transfers by REFER as ladders (RFC 3515, RFC 5589): refused, passed on, and carried out by us."""

from __future__ import annotations

import pytest

from media.protocol import Answer, Delete, Offer, Record
from sbc.b2bua.call import Call
from sbc.b2bua.settings import MediaProfile, MediaProfiles
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    MEDIA_A,
    MEDIA_B,
    OUR_A,
    OUR_B,
    TARGET_B,
    TARGET_C,
    Ladder,
    sdp,
)
from tests.support.transfers import PASS, accepted, blind, dial, ends, hang_up, joined, ladder, notified, refer

# refuse


def test_refused_by_default() -> None:
    """RFC 3515 §2.4.2: 603, and nothing happens."""
    f = Ladder()
    f.set_up()
    refer(f.a)
    f.a.expect(603)
    f.b.nothing()
    f.c.nothing()
    assert f.counts["TRANSFERS_REFUSED"] == 1
    hang_up(f, f.a, f.b)


@pytest.mark.parametrize(
    ("refer_to", "status"),
    [
        ("http://example.com/", 416),
        ("<sip:+4930999@192.0.2.1;method=BYE>", 603),
        ("<sip:c@192.0.2.1?Replaces=x>", 400),
        ("<sip:c@192.0.2.1?Replaces=nobody%40x%3Bto-tag%3D1%3Bfrom-tag%3D2>", 481),
    ],
)
def test_what_a_refer_may_not_ask(refer_to: str, status: int) -> None:
    f = ladder()
    f.set_up()
    refer(f.a, refer_to)
    f.a.expect(status)
    f.c.nothing()
    hang_up(f, f.b, f.a)


def test_a_refer_without_target_is_malformed() -> None:
    f = ladder()
    f.set_up()
    f.a.request("REFER")
    f.a.expect(400)
    hang_up(f, f.b, f.a)


def test_outside_a_dialog() -> None:
    """Anybody's new call it would be: 403, unless a route answers otherwise."""
    f = ladder()
    refer(f.a)
    f.a.expect(403)
    f.b.nothing()
    f.c.nothing()


# pass


def test_passed_to_the_other_side() -> None:
    f = ladder(transfers=PASS)
    f.set_up()
    refer(f.a, f'"Carol" <sip:+4930999@{A_HOST}:5071;transport=udp>')
    request = f.b.expect("REFER")
    assert request.get("Refer-To") == f"<sip:+4930999@{OUR_B}>"
    assert request.get("Referred-By") == f"<sip:boss@{OUR_B}>"
    assert request.contact() is not None
    f.b.reply(202, to=request)
    assert f.a.expect(202).contact() is not None
    # b's NOTIFYs name the REFER by the number that b has seen, and what b says of the call stays with b
    event = ("Event", f"refer;id={request.cseq_number}")
    for status, state in ((100, "active;expires=60"), (200, "terminated;reason=noresource")):
        body = f"SIP/2.0 {status} So says {B_HOST}\r\nContact: <sip:x@{C_HOST}>\r\n".encode()
        f.b.request(
            "NOTIFY",
            body=body,
            content_type="message/sipfrag",
            extra=[event, ("Subscription-State", state)],
            cseq=status,
        )
        notify = f.a.expect("NOTIFY")
        assert notify.get("Event") == f"refer;id={f.a.cseq}"
        assert notify.get("Subscription-State") == state
        assert notify.body.count(b"\r\n") == 1
        assert B_HOST.encode() not in notify.raw
        assert C_HOST.encode() not in notify.raw
        f.a.reply(200, to=notify)
        f.b.expect(200)
    f.a.request("BYE")
    f.a.expect(200)
    ends(f.b)
    f.over()
    assert f.counts["TRANSFERS_PASSED"] == 1


def test_a_refusal_passes_too() -> None:
    f = ladder(transfers=PASS)
    f.set_up()
    refer(f.b)
    f.a.reply(603, to=f.a.expect("REFER"))
    f.b.expect(603)
    hang_up(f, f.b, f.a)


# terminate: blind


@pytest.mark.parametrize("who", ["a", "b"])
def test_blind(who: str) -> None:
    """RFC 5589 §6.1, with us in the transferee's place: either side may transfer the other."""
    f = ladder()
    f.set_up()
    transferor, moved = (f.a, f.b) if who == "a" else (f.b, f.a)
    invite = blind(f, transferor, moved)
    assert invite.uri == TARGET_C.uri
    assert not invite.body
    assert str(invite.from_().uri).startswith("sip:+4930123@" if moved is f.b else "sip:alice@")
    joined(f, moved)
    notified(transferor, 200, "terminated;reason=noresource")
    ends(transferor)
    moved.nothing()
    old = f.cdr
    assert (old["answered"], old["hangup"], old["note"]) == (True, "sbc", "transferred")
    new = f.call
    assert old["transferred_to"] == new.key
    assert new.transferred_from == old["id"]
    moved.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay", cseq=70)
    f.c.reply(200, to=f.c.expect("INFO"))
    moved.expect(200)
    f.c.request("INVITE", body=sdp(C_HOST, 6002, version=2))
    f.c.expect(100)
    moved.reply(200, to=moved.expect("INVITE"), body=sdp(moved.host, 4444, version=3))
    f.c.expect(200)
    f.c.ack()
    moved.expect("ACK")
    hang_up(f, moved, f.c)
    assert [cdr["id"] for cdr in f.cdrs] == [old["id"], new.key]
    assert f.cdrs[1]["transferred_from"] == old["id"]
    assert f.cdrs[1]["answered"] is True
    assert f.cdrs[1]["a_peer"] == ("phones" if moved is f.a else "carrier-b")
    assert f.counts["TRANSFERS_DONE"] == 1


@pytest.mark.parametrize("who", ["a", "b"])
def test_what_comes_of_a_recorded_call_is_recorded_too(who: str) -> None:
    """As a call of its own, under the profile of the side that was moved."""
    profiles = MediaProfiles({"default": MediaProfile(record="wav")}, {})
    f = ladder(media_profiles=profiles)
    f.set_up()
    transferor, moved = (f.a, f.b) if who == "a" else (f.b, f.a)
    blind(f, transferor, moved)
    joined(f, moved)
    notified(transferor, 200, "terminated;reason=noresource")
    ends(transferor)
    files = [one.file + ".wav" for one in f.media if isinstance(one, Record)]
    assert [f.cdr["recording"], f.call.recording] == files
    hang_up(f, moved, f.c)
    assert [cdr["recording"] for cdr in f.cdrs] == files


def test_the_description_in_a_dialog_goes_on_in_its_numbering() -> None:
    """RFC 3264 §8: the same o= session, a higher version, though another call speaks now."""
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    before = f.a.expect(200).body.decode().split("\r\n")[1].split()
    f.a.ack()
    f.b.expect("ACK")
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    after = f.a.expect("INVITE").body.decode().split("\r\n")[1].split()
    assert after[1] == before[1]
    assert int(after[2]) == int(before[2]) + 1


def test_media_of_a_transfer() -> None:
    """The two that talk in the end have a session of their own, the former one ends, and each leg is named once."""
    f = ladder()
    f.set_up()
    former = f.call.key
    del f.media[:]
    blind(f, f.b, f.a)
    joined(f, f.a)
    offer, answer, delete = f.media
    assert isinstance(offer, Offer)
    assert isinstance(answer, Answer)
    assert (offer.from_leg, offer.from_realm, offer.to_leg, offer.to_realm) == ("b1", "outside", "a", "inside")
    assert (answer.session, answer.from_leg, answer.to_leg) == (offer.session, "a", "b1")
    assert answer.streams[0].port == 4444
    assert isinstance(delete, Delete)
    assert (delete.session, delete.leg) == (former, "")


def test_without_subscription() -> None:
    """RFC 4488: no NOTIFY, and the transferor learns of success by its BYE."""
    f = ladder()
    f.set_up()
    refer(f.b, extra=[("Refer-Sub", "false")])
    assert f.b.expect(200).get("Refer-Sub") == "false"
    f.c.expect("INVITE")
    f.c.reply(180)
    f.b.nothing()
    joined(f, f.a)
    ends(f.b)
    f.b.nothing()
    hang_up(f, f.c, f.a)


def test_extensions_of_transfers() -> None:
    """Said to be supported, and so allowed to be required (RFC 3891 §6.1, RFC 4488 §4)."""
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Require", "replaces")])
    f.a.expect(100)
    assert f.b.expect("INVITE").get_all("Supported") == ["replaces", "norefersub"]
    f.b.reply(200, body=sdp(B_HOST))
    assert f.a.expect(200).get_all("Supported")[:2] == ["replaces", "norefersub"]
    f.a.ack()
    f.b.expect("ACK")
    refer(f.b, extra=[("Require", "norefersub"), ("Refer-Sub", "false")])
    f.b.expect(200)
    f.c.expect("INVITE")
    joined(f, f.a)
    ends(f.b)
    hang_up(f, f.c, f.a)


def test_the_transferor_unsubscribes() -> None:
    """RFC 3515 §2.4.4: the transfer goes on in silence."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.b.request("SUBSCRIBE", extra=[("Event", f"refer;id={f.b.cseq}"), ("Expires", "0")])
    notified(f.b, 180, "terminated")
    assert f.b.expect(200).get("Expires") == "0"
    joined(f, f.a)
    ends(f.b)
    f.b.nothing()
    hang_up(f, f.c, f.a)


def test_notify_is_not_wanted() -> None:
    """A transferor that knows nothing of NOTIFY: neither the transfer nor the call ends by that."""
    f = ladder()
    f.set_up()
    refer(f.b)
    f.b.expect(202)
    f.b.reply(481, to=f.b.expect("NOTIFY"))
    f.c.expect("INVITE")
    f.c.reply(180)
    f.b.nothing()
    joined(f, f.a)
    ends(f.b)
    hang_up(f, f.c, f.a)


def test_route_refuses() -> None:
    """A REFER leads nowhere unless a route says so: its refusal answers the REFER."""

    def route(f: Ladder, call: Call) -> None:
        if call.joining is not None:
            f.core.reject(call, 403, f.now)
        else:
            dial(f, call)

    f = ladder(route=route)
    f.set_up()
    refer(f.b)
    f.b.expect(403)
    f.c.nothing()
    f.a.nothing()
    assert (f.cdr["status"], f.cdr["answered"]) == (403, False)
    hang_up(f, f.b, f.a)


def test_a_second_target_after_the_first_failed() -> None:
    """What a route may do for a call it may do for a transfer."""

    def hunt(f: Ladder, call: Call) -> None:
        f.core.dial_next(call, f.now)

    def route(f: Ladder, call: Call) -> None:
        if call.joining is not None:
            f.core.dial(call, [TARGET_B, TARGET_C], f.now, on_failure=hunt)
        else:
            dial(f, call)

    f = ladder(route=route)
    f.set_up()
    refer(f.a)
    accepted(f.a)
    f.b.reply(503, to=f.b.expect("INVITE"))
    f.b.expect("ACK")
    f.c.expect("INVITE")
    joined(f, f.b)
    notified(f.a, 200, "terminated")
    ends(f.a)
    hang_up(f, f.c, f.b)


def test_transfers_count_as_calls_of_the_transferor() -> None:
    f = ladder()
    f.set_up()
    f.peers.limit = 1
    refer(f.b)
    assert f.b.expect(503).get("Retry-After") == "5"
    f.c.nothing()
    hang_up(f, f.b, f.a)


def test_nothing_of_one_side_reaches_the_target_or_the_transferor() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.a, f.b)
    joined(f, f.b)
    notified(f.a, 200, "terminated")
    ends(f.a)
    for phone, strange in ((f.a, (B_HOST, C_HOST, OUR_B, MEDIA_B)), (f.c, (A_HOST, B_HOST, OUR_A, MEDIA_A))):
        wire = b"\n".join(phone.all).decode()
        assert [token for token in strange if token in wire] == []
    wire = b"\n".join(f.c.all).decode()
    for other in (f.a, f.b):
        assert other.dialog is not None
        assert other.dialog[0] not in wire
        assert f"Phone-{other.name}" not in wire
    hang_up(f, f.c, f.b)


@pytest.mark.parametrize("trusted", [False, True])
def test_referred_by_is_for_trusted_targets(trusted: bool) -> None:
    """RFC 3892, with our host in it."""
    from dataclasses import replace

    f = ladder()
    realms = dict(f.core.settings.realms)
    realms["outside"] = replace(realms["outside"], trusted=trusted)
    f.core.reconfigure(replace(f.core.settings, realms=realms))
    f.set_up()
    invite = blind(f, f.b, f.a)
    assert invite.get("Referred-By") == (f"<sip:boss@{OUR_B}>" if trusted else None)


# journal


def test_a_transferred_call_survives_its_worker() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    joined(f, f.a)
    notified(f.b, 200, "terminated")
    ends(f.b)
    f.dies()
    hang_up(f, f.a, f.c)
    assert f.cdrs[-1]["resumed"] is True
    assert f.cdrs[-1]["transferred_from"] == f.cdrs[0]["id"]


def test_a_transfer_that_dies_with_its_worker_leaves_the_call() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.dies()
    assert f.call.state.name == "UP"
    f.a.request("BYE")
    f.a.expect(200)
    ends(f.b)
    assert len(f.cdrs) == 1


def test_a_transfer_that_dies_without_its_transferor_ends_the_call() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.b.request("BYE")
    f.b.expect(200)
    f.dies()
    ends(f.a)
    assert f.cdr["note"] == "a transfer was lost with its worker"
