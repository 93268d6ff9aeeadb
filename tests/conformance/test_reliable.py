"""Reliable provisionals (RFC 3262) on one side, the other, or both, and UPDATE before the answer (RFC 3311)."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.b2bua.settings import RealmSettings
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, C_HOST, Ladder, Phone, hunt, sdp

REL = ("Supported", "100rel")
MUST = ("Require", "100rel")


def invite(f: Ladder, *extra: tuple[str, str], offer: bool = True) -> Message:
    f.a.request("INVITE", body=sdp(A_HOST) if offer else b"", extra=list(extra))
    f.a.expect(100)
    return f.b.expect("INVITE")


def reliably(phone: Phone, status: int, rseq: int, body: bytes = b"") -> None:
    phone.reply(status, to=phone.invite, body=body, extra=[MUST, ("RSeq", str(rseq))])


def pracked(phone: Phone, rack: str) -> Message:
    msg = phone.expect("PRACK")
    assert msg.get("RAck") == rack
    phone.reply(200, to=msg)
    return msg


def prack(phone: Phone, response: Message, body: bytes = b"", status: int = 200) -> Message:
    rseq = response.get("RSeq")
    phone.request("PRACK", body=body, extra=[("RAck", f"{rseq} {response.cseq_number} INVITE")])
    return phone.expect(status)


def finish(f: Ladder, *, body: bytes = b"") -> Message:
    """200, ACK, BYE."""
    f.b.reply(200, body=body)
    answer = f.a.expect(200)
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    hang_up(f)
    return answer


def hang_up(f: Ladder) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def realms(**reliable: Any) -> dict[str, RealmSettings]:  # Any: never, follow or always
    return {
        name: RealmSettings(name, trusted=name == "inside", reliable=reliable.get(name, "follow"))
        for name in ("inside", "outside")
    }


def test_both_sides() -> None:
    """The answer goes in 183, once: neither A's 200 nor a later provisional says it again.

    A                  SBC                  B
    |---- INVITE ------>|----- INVITE ----->|
    |                   |<-- 183 RSeq 41 ---|
    |<--- 183 RSeq n ---|------ PRACK ----->|
    |----- PRACK ------>|<------ 200 -------|
    |<----- 200 --------|                   |
    |                   |<-- 180 RSeq 42 ---|
    |<-- 180 RSeq n+1 --|------ PRACK ----->|
    """
    f = Ladder()
    assert invite(f, REL).get_all("Supported") == ["100rel"]
    reliably(f.b, 183, 41, sdp(B_HOST))
    pracked(f.b, f"41 {f.b.invite.cseq_number} INVITE")  # type: ignore[union-attr]  # invite() expects it
    progress = f.a.expect(183)
    assert b"c=IN IP4 192.0.2.2" in progress.body
    assert progress.get_all("Require") == ["100rel"]
    prack(f.a, progress)
    reliably(f.b, 180, 42)
    pracked(f.b, "42 1 INVITE")
    ringing = f.a.expect(180)
    assert int(ringing.get("RSeq") or 0) == int(progress.get("RSeq") or 0) + 1
    prack(f.a, ringing)
    f.b.nothing()
    assert finish(f).body == b""


def test_b_alone() -> None:
    """A does not speak it: its 183 and 200 are as ever, and B gets its PRACK from us."""
    f = Ladder(realms=realms(outside="always"))
    assert invite(f).get_all("Supported") == ["100rel"]
    reliably(f.b, 183, 7, sdp(B_HOST))
    pracked(f.b, "7 1 INVITE")
    progress = f.a.expect(183)
    assert (progress.get("RSeq"), progress.get("Require")) == (None, None)
    assert progress.body
    assert finish(f).body == progress.body


def test_a_alone_insists() -> None:
    """A requires it, B knows nothing of it."""
    f = Ladder()
    assert invite(f, MUST).get("Require") is None
    f.b.reply(183, body=sdp(B_HOST))
    progress = f.a.expect(183)
    prack(f.a, progress)
    f.b.nothing()
    f.b.reply(180)
    ringing = f.a.expect(180)
    prack(f.a, ringing)
    assert finish(f, body=sdp(B_HOST)).body == b""


def test_supported_alone_makes_nothing_reliable() -> None:
    f = Ladder()
    invite(f, REL)
    f.b.reply(180)
    assert f.a.expect(180).get("RSeq") is None
    finish(f, body=sdp(B_HOST))


def test_never() -> None:
    """A realm without it: 420 to who requires it, silence to who supports it."""
    f = Ladder(realms=realms(inside="never"))
    f.a.request("INVITE", body=sdp(A_HOST), extra=[MUST])
    assert f.a.refused(420).get_all("Unsupported") == ["100rel"]
    f = Ladder(realms=realms(outside="never"))
    assert invite(f, REL).get("Supported") is None
    f.b.reply(180)
    f.a.expect(180)
    finish(f, body=sdp(B_HOST))


def test_repeated_until_the_prack() -> None:
    """§3: at T1, doubling; the next one and the 200 wait for it."""
    f = Ladder()
    invite(f, MUST)
    f.b.reply(183, body=sdp(B_HOST))
    progress = f.a.expect(183)
    f.b.reply(180)
    f.b.reply(200, body=sdp(B_HOST))
    for delay in (0.5, 1.0, 2.0):
        f.after(delay + 0.01)
        assert f.a.expect(183).get("RSeq") == progress.get("RSeq")
        f.a.nothing()
    prack(f.a, progress)
    f.a.expect(200)
    f.a.nothing()
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    hang_up(f)


def test_provisionals_wait_in_order() -> None:
    f = Ladder()
    invite(f, MUST)
    for status in (180, 181, 182):
        f.b.reply(status)
    for status in (180, 181, 182):
        response = f.a.expect(status)
        f.a.nothing()
        prack(f.a, response)
    f.b.reply(200, body=sdp(B_HOST))
    assert f.a.expect(200).body
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    hang_up(f)


def test_a_200_does_not_wait_for_the_prack_of_a_ringing() -> None:
    """No description is at stake; a PRACK that comes after the 200 is still welcome."""
    f = Ladder()
    invite(f, MUST)
    f.b.reply(180)
    ringing = f.a.expect(180)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    prack(f.a, ringing)
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    hang_up(f)


def test_no_prack_at_all() -> None:
    """§3: 64*T1, then 504, and B is told to stop."""
    f = Ladder()
    invite(f, MUST)
    f.b.reply(180)
    f.after(31.9)
    f.b.nothing()
    f.after(0.2)
    while f.a.inbox[0].status == 180:
        f.a.expect(180)
    f.a.refused(504)
    f.b.reply(200, to=f.b.expect("CANCEL"))
    f.b.reply(487)
    f.b.expect("ACK")
    assert (f.cdr["status"], f.cdr["note"]) == (504, "no PRACK")
    assert f.counts["PRACK_MISSING"] == 1
    f.over()


def test_a_prack_for_nothing() -> None:
    f = Ladder()
    invite(f, MUST)
    f.b.reply(180)
    ringing = f.a.expect(180)
    rseq, cseq = int(ringing.get("RSeq") or 0), ringing.cseq_number
    for rack, status in (
        (f"{rseq + 1} {cseq} INVITE", 481),
        (f"{rseq} {cseq + 1} INVITE", 481),
        (f"{rseq} {cseq} UPDATE", 481),
        ("rubbish", 400),
        ("", 400),
        (f"{rseq} {cseq} INVITE", 200),
        (f"{rseq} {cseq} INVITE", 481),
    ):
        f.a.request("PRACK", extra=[("RAck", rack)])
        f.a.expect(status)
    finish(f, body=sdp(B_HOST))


def test_order_at_our_side() -> None:
    """§4: what comes again is ignored, what comes too early is not acknowledged."""
    f = Ladder()
    invite(f, REL)
    reliably(f.b, 180, 5)
    pracked(f.b, "5 1 INVITE")
    prack(f.a, f.a.expect(180))
    reliably(f.b, 180, 5)
    reliably(f.b, 183, 7, sdp(B_HOST))
    f.b.nothing()
    f.a.nothing()
    reliably(f.b, 181, 6)
    pracked(f.b, "6 1 INVITE")
    prack(f.a, f.a.expect(181))
    reliably(f.b, 183, 7, sdp(B_HOST))
    pracked(f.b, "7 1 INVITE")
    prack(f.a, f.a.expect(183))
    finish(f)


def test_offer_in_183_answer_in_prack() -> None:
    """§5: INVITE without offer; the answer of A's PRACK goes in ours to B."""
    f = Ladder()
    invite(f, REL, offer=False)
    reliably(f.b, 183, 1, sdp(B_HOST))
    f.b.nothing()
    progress = f.a.expect(183)
    assert b"c=IN IP4 192.0.2.2" in progress.body
    prack(f.a, progress, sdp(A_HOST))
    assert b"c=IN IP4 198.51.100.2" in pracked(f.b, "1 1 INVITE").body
    assert [type(request).__name__ for request in f.media] == ["Offer", "Answer"]
    assert finish(f).body == b""


def test_a_late_offer_is_not_provoked() -> None:
    """A could not answer before B's 200: so B is not offered 100rel, whatever its realm likes."""
    f = Ladder(realms=realms(outside="always"))
    assert invite(f, offer=False).get("Supported") is None
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack(body=sdp(A_HOST), cseq=1)
    f.b.expect("ACK")
    hang_up(f)


def test_offer_in_prack() -> None:
    """A changes its mind in PRACK: B gets an UPDATE, its answer comes in the 200 to PRACK."""
    f = Ladder()
    invite(f, REL)
    reliably(f.b, 183, 1, sdp(B_HOST))
    pracked(f.b, "1 1 INVITE")
    progress = f.a.expect(183)
    f.a.request(
        "PRACK",
        body=sdp(A_HOST, version=2, direction="sendonly"),
        extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")],
    )
    update = f.b.expect("UPDATE")
    assert b"a=sendonly" in update.body
    f.a.nothing()
    f.b.reply(200, to=update, body=sdp(B_HOST, version=2, direction="recvonly"))
    answer = f.a.expect(200)
    assert answer.cseq_method == "PRACK"
    assert b"a=recvonly" in answer.body
    finish(f)


@pytest.mark.parametrize("side", ["a", "b"])
def test_update_before_the_answer(side: str) -> None:
    """RFC 3311 §5.1, from either side, once the first answer is acknowledged."""
    f = Ladder()
    invite(f, REL)
    reliably(f.b, 183, 1, sdp(B_HOST))
    pracked(f.b, "1 1 INVITE")
    progress = f.a.expect(183)
    sender, receiver = (f.a, f.b) if side == "a" else (f.b, f.a)
    sender.request("UPDATE", body=sdp(sender.host, version=2))
    sender.expect(500 if side == "a" else 491)  # A's answer has no PRACK yet
    prack(f.a, progress)
    sender.request("UPDATE", body=sdp(sender.host, version=3, direction="sendonly"))
    update = receiver.expect("UPDATE")
    assert b"a=sendonly" in update.body
    receiver.request("UPDATE", body=sdp(receiver.host, version=3))
    receiver.expect(491)  # glare
    sender.request("UPDATE", body=sdp(sender.host, version=4))
    assert sender.expect(500).get("Retry-After") is not None
    receiver.reply(200, to=update, body=sdp(receiver.host, version=3, direction="recvonly"))
    assert b"a=recvonly" in sender.expect(200).body
    finish(f)


def test_a_failed_early_update_ends_nothing() -> None:
    f = Ladder()
    invite(f, REL)
    reliably(f.b, 183, 1, sdp(B_HOST))
    pracked(f.b, "1 1 INVITE")
    prack(f.a, f.a.expect(183))
    f.a.request("UPDATE", body=sdp(A_HOST, version=2))
    f.b.reply(481, to=f.b.expect("UPDATE"))
    f.a.expect(481)
    finish(f)


def test_b_answers_while_an_update_is_open() -> None:
    f = Ladder()
    invite(f, REL)
    reliably(f.b, 183, 1, sdp(B_HOST))
    pracked(f.b, "1 1 INVITE")
    prack(f.a, f.a.expect(183))
    f.a.request("UPDATE", body=sdp(A_HOST, version=2, direction="sendonly"))
    update = f.b.expect("UPDATE")
    f.b.reply(200)
    f.a.expect(200)
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    f.b.reply(200, to=update, body=sdp(B_HOST, version=2, direction="recvonly"))
    assert f.a.expect(200).cseq_method == "UPDATE"
    hang_up(f)


def test_the_next_gateway_after_a_reliable_answer() -> None:
    """b gave A an answer and failed; c answers too: A hears no second answer, media follow c."""
    f = Ladder(route=hunt)
    invite(f, REL)
    reliably(f.b, 183, 1, sdp(B_HOST))
    pracked(f.b, "1 1 INVITE")
    prack(f.a, f.a.expect(183))
    f.b.reply(503)
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(200, body=sdp(C_HOST, 4800))
    assert f.a.expect(200).body == b""
    f.a.ack(cseq=1)
    f.c.expect("ACK")
    assert (f.media[-1].from_leg, f.media[-1].streams[0].port) == ("b2", 4800)
    f.a.request("BYE")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("BYE"))
    f.over()


def test_cancel_while_the_200_waits_for_a_prack() -> None:
    f = Ladder()
    invite(f, MUST)
    f.b.reply(183, body=sdp(B_HOST))
    f.a.expect(183)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.nothing()
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


@pytest.mark.parametrize("rseq", ["", "0", "x", "99999999999"])
def test_a_broken_rseq_is_a_plain_provisional(rseq: str) -> None:
    f = Ladder()
    invite(f, REL)
    f.b.reply(180, extra=[MUST, ("RSeq", rseq)])
    f.b.nothing()
    assert f.a.expect(180).get("RSeq") is None
    finish(f, body=sdp(B_HOST))
