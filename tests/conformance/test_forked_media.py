"""Ladders of calls to several targets at once: whom the caller hears, and how often media are asked for."""

from __future__ import annotations

from media.protocol import Delete, Reply
from tests.support.forks import BOTH, attempts, cancelled, dialling, hang_up, refuse, ringing
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    D_HOST,
    MEDIA_A,
    MEDIA_B,
    TARGET_B,
    TARGET_C,
    TARGET_D,
    sdp,
)

# media


def test_the_caller_hears_the_first_and_the_answer_of_the_second_is_the_answer() -> None:
    """RFC 3261 §13.2.1 leaves one description to a dialog: c's 183 is relayed without its own while A hears b."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(183, body=sdp(B_HOST))
    heard = f.a.expect(183)
    assert MEDIA_A.encode() in heard.body
    f.c.reply(183, body=sdp(C_HOST))
    assert f.a.expect(183).body == b""
    f.c.reply(180)
    assert f.a.expect(180).body == b""
    f.c.reply(200, body=sdp(C_HOST, codec="8"))
    answer = f.a.expect(200)
    assert b"RTP/AVP 8" in answer.body
    assert MEDIA_A.encode() in answer.body
    cancelled(f.b)
    f.a.ack()
    f.c.expect("ACK")
    f.a.request("INVITE", body=sdp(A_HOST, version=2))  # no offer is left open
    f.a.expect(100)
    f.c.reply(200, to=f.c.expect("INVITE"), body=sdp(C_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_a_description_that_was_withheld_is_the_answer_of_a_200_without_one() -> None:
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(183, body=sdp(B_HOST))
    f.a.expect(183)
    f.c.reply(183, body=sdp(C_HOST, codec="8"))
    f.a.expect(183)
    f.c.reply(200)
    assert b"RTP/AVP 8" in f.a.expect(200).body
    cancelled(f.b)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_whom_the_caller_hears_when_the_first_is_out() -> None:
    f = dialling((TARGET_B, TARGET_C, TARGET_D))
    ringing("b", "c", "d", f=f)
    f.b.reply(183, body=sdp(B_HOST))
    f.a.expect(183)
    f.c.reply(183, body=sdp(C_HOST, codec="8"))
    assert f.a.expect(183).body == b""
    refuse(f.b, 486)
    assert b"RTP/AVP 8" in f.a.expect(183).body
    refuse(f.c, 486)
    f.d.reply(183, body=sdp(D_HOST))
    assert f.a.expect(183).body
    refuse(f.d, 486)
    f.a.refused(486)
    f.over()


def test_a_reliable_answer_is_final_for_the_caller() -> None:
    """RFC 3262 §5: b's answer went reliably; c answers the call; A's 200 has no description, and media follow."""
    f = dialling(BOTH)
    ringing("b", "c", f=f, extra=[("Supported", "100rel")])
    assert f.b.invite is not None
    assert "100rel" in (f.b.invite.get("Supported") or "")
    f.b.reply(183, body=sdp(B_HOST), extra=[("Require", "100rel"), ("RSeq", "7")])
    f.b.reply(200, to=f.b.expect("PRACK"))
    progress = f.a.expect(183)
    assert progress.body
    f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
    f.a.expect(200)
    f.c.reply(183, body=sdp(C_HOST), extra=[("Require", "100rel"), ("RSeq", "9")])
    f.c.reply(200, to=f.c.expect("PRACK"))  # each branch has its own
    progress = f.a.expect(183)
    assert progress.body == b""
    f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
    f.a.expect(200)
    f.c.reply(200)
    assert f.a.expect(200).body == b""
    answered = f.media[-1] if not isinstance(f.media[-1], Delete) else f.media[-2]
    assert (answered.from_leg, answered.to_leg) == ("b2", "a")
    cancelled(f.b)
    f.a.ack(cseq=1)
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_an_offer_of_the_branch_that_is_not_heard_has_to_wait() -> None:
    """UPDATE in c's early dialog while A has its session with b (RFC 3311 §5.2)."""
    f = dialling(BOTH)
    ringing("b", "c", f=f, extra=[("Supported", "100rel")])
    branch = f.a.branch
    for phone, rseq in ((f.b, "7"), (f.c, "9")):
        phone.reply(183, body=sdp(phone.host), extra=[("Require", "100rel"), ("RSeq", rseq)])
        phone.reply(200, to=phone.expect("PRACK"))
        progress = f.a.expect(183)
        f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
        f.a.expect(200)
    f.c.request("UPDATE", body=sdp(C_HOST, version=2))
    f.c.expect(491)
    f.b.request("UPDATE", body=sdp(B_HOST, version=2))
    f.a.reply(200, to=f.a.expect("UPDATE"), body=sdp(A_HOST, version=2))
    f.b.expect(200)
    f.a.branch = branch
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_a_call_without_offer_to_several() -> None:
    """The 2xx of the winner brings the offer, A's ACK the answer; no branch could make one earlier (no 100rel)."""
    f = dialling(BOTH)
    ringing("b", "c", f=f, offer=False, extra=[("Supported", "100rel")])
    for phone in (f.b, f.c):
        assert phone.invite is not None
        assert "100rel" not in (phone.invite.get("Supported") or "")
    f.b.reply(183, body=sdp(B_HOST))
    assert f.a.expect(183).body == b""
    f.c.reply(200, body=sdp(C_HOST))
    offer = f.a.expect(200)
    assert MEDIA_A.encode() in offer.body
    cancelled(f.b)
    f.a.ack(body=sdp(A_HOST))
    assert MEDIA_B.encode() in f.c.expect("ACK").body
    assert f.media_legs == {f.call.key: {"a", "b2"}}
    hang_up(f, f.c)
    f.over()


def test_the_media_worker_is_chosen_once() -> None:
    """The offers to the other branches wait for the first reply, which says where the session is."""
    f = dialling((TARGET_B, TARGET_C, TARGET_D))
    f.held_media = []
    ringing(f=f)
    assert [getattr(command.request, "to_leg", "") for command in f.held_media] == ["b1"]
    f.release_media()
    for phone in (f.b, f.c, f.d):
        phone.expect("INVITE")
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_a_branch_that_is_given_up_while_media_is_asked() -> None:
    """b answers before the endpoints for c are known: they are given back when they are."""
    f = dialling(BOTH)
    f.held_media = []
    ringing(f=f)
    first = f.held_media.pop()
    f.core.media_done(first.request_id, f.answer_media(first), f.now)
    f.drain()
    f.b.expect("INVITE")
    waiting, f.held_media = f.held_media, None
    assert [getattr(command.request, "to_leg", "") for command in waiting] == ["b2"]
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    (command,) = waiting
    f.core.media_done(command.request_id, f.answer_media(command), f.now)
    f.drain()
    assert f.media_legs == {f.call.key: {"a", "b1"}}
    f.c.nothing()
    f.a.ack()
    f.b.expect("ACK")
    hang_up(f, f.b)
    f.over()


def test_media_for_one_branch_only() -> None:
    """No endpoints for c: that branch fails, the call goes on with b."""
    f = dialling(BOTH)
    f.held_media = []
    ringing(f=f)
    first = f.held_media.pop()
    f.core.media_done(first.request_id, f.answer_media(first), f.now)
    f.drain()
    f.b.expect("INVITE")
    (command,) = f.held_media
    f.held_media = None
    refusal = Reply(ok=False, code="no_ports", reason="none free", worker="media-0")
    f.core.media_done(command.request_id, refusal, f.now)
    f.drain()
    f.c.nothing()
    refuse(f.b, 486)
    f.a.refused(486)
    assert [status for _, _, status in attempts(f)] == [486, 503]
    f.over()


def test_direct_media_to_several() -> None:
    """Without a relay both get A's description octet for octet, and A the winner's."""
    f = dialling(BOTH)
    f.engage = False
    ringing("b", "c", f=f)
    for phone in (f.b, f.c):
        assert phone.invite is not None
        assert phone.invite.body == sdp(A_HOST)
    f.b.reply(183, body=sdp(B_HOST))
    assert f.a.expect(183).body == sdp(B_HOST)
    f.c.reply(200, body=sdp(C_HOST))
    assert f.a.expect(200).body == sdp(C_HOST)
    cancelled(f.b)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    assert not f.media
    f.over()
