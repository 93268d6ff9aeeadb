"""Ladders of what surrounds a call: hooks, media, lifetime, release, the death of a worker."""

from __future__ import annotations

import pytest

from media.protocol import Delete, Offer, Reply
from sbc.b2bua.call import Call
from tests.support.ladder import A_HOST, B_HOST, TARGET_B, Ladder, sdp


def test_branch_reply_and_drop_hooks() -> None:
    def on_branch(ladder: Ladder, branch: object) -> None:
        branch.headers.append(("X-Account", "7"))  # type: ignore[attr-defined]  # a Branch
        branch.uri = branch.uri.replace("+49", "0049")  # type: ignore[attr-defined]

    def on_reply(ladder: Ladder, reply: object) -> None:
        if reply.status == 180:  # type: ignore[attr-defined]  # a ReplyEvent
            reply.drop()  # type: ignore[attr-defined]
        reply.headers.append(("X-Seen", "1"))  # type: ignore[attr-defined]

    def route(ladder: Ladder, call: Call) -> None:
        ladder.core.dial(call, [TARGET_B], ladder.now, on_branch=on_branch, on_reply=on_reply)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert invite.get("X-Account") == "7"
    assert invite.uri == f"sip:004930123@{B_HOST}:5070"
    f.b.reply(180)
    f.b.reply(183, body=sdp(B_HOST))
    progress = f.a.expect(183)
    assert progress.get("X-Seen") == "1"
    assert b"192.0.2.2" in progress.body
    f.b.reply(200, body=sdp(B_HOST))
    assert f.a.expect(200).body == progress.body
    assert len([request for request in f.media if not isinstance(request, Offer)]) == 1  # the 183 had the answer
    f.a.ack()
    f.b.expect("ACK")


def test_a_dropped_branch_counts_as_480() -> None:
    def route(ladder: Ladder, call: Call) -> None:
        ladder.core.dial(call, [TARGET_B], ladder.now, on_branch=lambda _, branch: branch.drop())

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.refused(480)
    f.b.nothing()
    f.over()


@pytest.mark.parametrize(("code", "status"), [("full", 503), ("timeout", 503), ("unsupported", 488)])
def test_media_refuses_the_offer(code: str, status: int) -> None:
    """Where there is no room, or no time, the caller is told when to come again (RFC 3261 §21.5.4)."""
    f = Ladder()
    f.media_refusal = Reply(ok=False, code=code, reason="no")
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    assert f.a.refused(status).get("Retry-After") == ("5" if status == 503 else None)
    f.b.nothing()
    f.over()


def test_media_refuses_the_answer() -> None:
    """B is told: ACK, then BYE."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.media_refusal = Reply(ok=False, code="unreachable")
    f.b.reply(200, body=sdp(B_HOST))
    assert f.a.refused(503).get("Retry-After") == "5"
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_media_refuses_in_mid_call() -> None:
    """The re-INVITE fails, the call lives."""
    f = Ladder()
    f.set_up()
    f.media_refusal = Reply(ok=False, code="timeout")
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.a.refused(500)
    f.b.nothing()
    f.media_refusal = None
    f.a.request("INVITE", body=sdp(A_HOST, version=3))
    f.a.expect(100)
    f.b.expect("INVITE")


def test_cancel_while_media_is_asked() -> None:
    """The session that the late reply tells of is deleted where it is."""
    f = Ladder()
    f.held_media = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    assert not f.cdrs
    f.release_media()
    assert isinstance(f.media[-1], Delete)
    assert f.media[-1].leg == ""
    f.b.nothing()
    assert f.cdr["status"] == 487
    f.over()


def test_replies_wait_for_media_in_order() -> None:
    """183 and 200 come close together; A sees them in order."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.held_media = []
    f.b.reply(183, body=sdp(B_HOST))
    f.b.reply(200, body=sdp(B_HOST))
    f.a.nothing()
    f.release_media()
    f.a.expect(183)
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")


def test_direct_media_passes_octet_for_octet() -> None:
    f = Ladder(engage=False)
    offer, answer = sdp(A_HOST), sdp(B_HOST)
    f.a.request("INVITE", body=offer)
    f.a.expect(100)
    assert f.b.expect("INVITE").body == offer
    f.b.reply(200, body=answer)
    assert f.a.expect(200).body == answer
    f.a.ack()
    f.b.expect("ACK")
    assert not f.media
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    assert "media" not in f.cdr
    f.over()


def test_lifetime() -> None:
    f = Ladder(dialog_lifetime_s=60.0)
    f.set_up()
    f.after(60)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))
    assert (f.cdr["note"], f.cdr["hangup"], f.cdr["duration_s"]) == ("lifetime", "sbc", 60.0)
    f.over()


@pytest.mark.parametrize("answered", [True, False])
def test_release(answered: bool) -> None:
    """What management and media time-outs do."""
    f = Ladder()
    if answered:
        f.set_up()
    else:
        f.a.request("INVITE", body=sdp(A_HOST))
        f.a.expect(100)
        f.b.expect("INVITE")
        f.b.reply(180)
        f.a.expect(180)
    f.core.release(f.call, f.now, reason="no media", cause=102)
    f.drain()
    if answered:
        bye = f.a.expect("BYE")
        assert bye.get("Reason") == "Q.850;cause=102"
        f.a.reply(200, to=bye)
        f.b.reply(200, to=f.b.expect("BYE"))
    else:
        f.a.refused(500)
        f.b.reply(200, to=f.b.expect("CANCEL"))
        f.b.reply(487)
        f.b.expect("ACK")
    assert (f.cdr["note"], f.cdr["cause"]) == ("no media", 102)
    f.over()


@pytest.mark.parametrize("side", ["a", "b"])
def test_bye_after_the_worker_died(side: str) -> None:
    """kill -9 of an answered call: either side can still end it, the other is told, one CDR, right duration."""
    f = Ladder()
    f.set_up()
    f.after(10)
    f.dies()
    f.after(20)
    ender, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    ender.request("BYE")
    ender.expect(200)
    bye = other.expect("BYE")
    assert bye.cseq_number > 100
    other.reply(200, to=bye)
    assert (f.cdr["hangup"], f.cdr["duration_s"], f.cdr["resumed"]) == (side, 30.0, True)
    assert f.cdr["media"]["b"]["packets"] == 150
    f.over()


def test_death_between_the_journal_and_the_200() -> None:
    """The record was written, the 200 never left: the resumed worker sends it, and the call comes up."""
    f = Ladder()
    f.hold_journal = True
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.nothing()
    f.dies()
    f.a.expect(200)
    f.b.again()
    f.b.nothing()
    f.a.ack()
    f.b.expect("ACK")
    f.b.again()
    f.b.expect("ACK")
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.b.request("BYE")
    f.b.expect(200)
    f.a.reply(200, to=f.a.expect("BYE"))
    assert f.cdr["answered"] is True
    f.over()


def test_the_invite_comes_again_after_death() -> None:
    """A has not heard our 200 and repeats its INVITE: the resumed worker absorbs it and repeats the 200, and does not
    take it for a new call."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    invite = f.a.sent
    f.b.expect("INVITE")
    f.lose_next = 1
    f.b.reply(200, body=sdp(B_HOST))
    f.dies()
    first = f.a.expect(200)
    f.a._send(invite)
    f.a.nothing()
    f.b.nothing()
    f.a.cancel()  # too late: it has no effect, but an answer
    f.a.expect(200)
    f.after(0.5)
    assert f.a.expect(200).raw == first.raw
    f.a.ack()
    f.b.expect("ACK")
    assert len(f.core.calls) == 1
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_lifetime_goes_on_after_death() -> None:
    f = Ladder(dialog_lifetime_s=60.0)
    f.set_up()
    f.after(50)
    f.dies()
    f.after(9)
    f.a.nothing()
    f.after(1.1)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_a_refusal_that_cannot_be_written() -> None:
    """A route's header with a line break: the call is refused without it, and over."""

    def route(ladder: Ladder, call: Call) -> None:
        ladder.core.reject(call, 403, ladder.now, headers=[("X-Why", "a\r\nX-Smuggled: b")])

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.refused(403)
    assert b"Smuggled" not in b"".join(f.a.all)
    assert f.cdr["status"] == 403
    f.over()


def test_a_route_set_that_nobody_can_use() -> None:
    """What B asks for cannot be written: the call still ends on both sides, with its CDR."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST), extra=[("Record-Route", "<not a uri>")])
    f.a.expect(200)
    f.a.ack()
    f.a.request("BYE")
    f.a.expect(200)
    assert f.cdr["hangup"] == "a"
    f.over()


def test_an_established_call_waits_for_no_store() -> None:
    """The journal never confirms anything but the answer; every later message goes on at once."""
    f = Ladder()
    f.set_up()
    waits = [save.wait for save in f.saves]
    assert waits == [True, False]
    versions = [save.version for save in f.saves]
    assert versions == sorted(set(versions))
    f.hold_journal = True
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    assert not any(save.wait for save in f.saves[2:])


def test_no_record_is_made_where_nobody_keeps_it() -> None:
    """The call goes the same way; the answer still passes the journal, which may be one that keeps nothing."""
    f = Ladder()
    f.core.journalled = False
    f.set_up()
    assert [(save.wait, save.record) for save in f.saves] == [(True, b"")]
    f.a.request("BYE")
    f.a.expect(200)
    f.b.expect("BYE")
    f.b.reply(200)
    assert not f.finished[0].saved
    f.over()


def test_retransmissions_wait_for_nothing() -> None:
    """Media and journal are away: the INVITE that comes again is answered at once."""
    f = Ladder()
    f.held_media = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.again()
    f.a.expect(100)
    f.release_media()
    f.b.expect("INVITE")
    f.hold_journal = True
    f.b.reply(200, body=sdp(B_HOST))
    f.a.again()
    f.a.expect(100)
    f.a.nothing()


def test_what_an_operator_sees() -> None:
    f = Ladder()
    f.set_up()
    seen = f.call.describe()
    assert (seen["state"], seen["a_peer"], seen["b_peer"]) == ("up", "phones", "carrier-b")
    assert (seen["media_node"], seen["from"]) == ("media-0", f"sip:alice@{A_HOST}")
    assert seen["a_call_id"] != seen["b_call_id"]
