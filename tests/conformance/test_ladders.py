"""Call flows in the order of RFC 3665, and the ones that it leaves out because they go wrong."""

from __future__ import annotations

import pytest

from media.protocol import Delete, Offer, Reply
from sbc.b2bua.call import Call, Target
from sbc.b2bua.effects import RouteKind
from sbc.sip.flow import Flow
from tests.support.ladder import A_HOST, B_HOST, C_HOST, STRANGER, TARGET_B, TARGET_C, Ladder, hunt, sdp


def test_success_a_hangs_up() -> None:
    """RFC 3665 §3.1.

    A                  SBC                  B
    |---- INVITE ------>|                   |
    |<----- 100 --------|----- INVITE ----->|
    |                   |<------ 180 -------|
    |<----- 180 --------|<------ 200 -------|
    |<----- 200 --------|                   |
    |------ ACK ------->|------ ACK ------->|
    |------ BYE ------->|                   |
    |<----- 200 --------|------ BYE ------->|
    |                   |<------ 200 -------|
    """
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(100)
    f.b.reply(180)
    f.a.expect(180)
    f.after(2)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.b.nothing()
    f.a.ack()
    f.b.expect("ACK")
    f.after(10)
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    f.b.reply(200, to=bye)
    f.a.nothing()
    f.b.nothing()
    assert f.cdr["status"] == 200
    assert f.cdr["hangup"] == "a"
    assert f.cdr["duration_s"] == 10.0
    assert f.cdr["setup_s"] == 2.0
    assert f.cdr["attempts"] == [
        {"gateway": "gw-b", "uri": f"sip:+4930123@{B_HOST}:5070", "leg": "b1", "status": 200, "pdd_ms": 0}
    ]
    assert f.cdr["media"]["a"]["packets"] == 150
    f.over()


def test_b_hangs_up() -> None:
    """RFC 3665 §3.1 with BYE from the other side."""
    f = Ladder()
    f.set_up()
    f.b.request("BYE", extra=[("Reason", f'Q.850;cause=31;text="from {B_HOST}"')])
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert bye.get("Reason") == "Q.850;cause=31"
    f.a.reply(200, to=bye)
    assert (f.cdr["hangup"], f.cdr["cause"]) == ("b", 31)
    f.over()


def test_busy() -> None:
    """RFC 3665 §3.8: unsuccessful busy."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.a.nothing()
    assert (f.cdr["status"], f.cdr["answered"], f.cdr["hangup"], f.cdr["cause"]) == (486, False, "b", 17)
    assert f.cdr["answer"] is None
    f.over()


def test_no_answer_then_cancel() -> None:
    """RFC 3665 §3.9: A gives up while B rings."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.after(20)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    cancel = f.b.expect("CANCEL")
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    assert (f.cdr["status"], f.cdr["hangup"]) == (487, "a")
    f.over()


def test_cancel_before_any_reply_of_b_waits_for_one() -> None:
    """RFC 3261 §9.1: no CANCEL before a provisional."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.b.nothing()
    f.b.reply(100)
    cancel = f.b.expect("CANCEL")
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    f.over()


def test_cancel_crosses_200() -> None:
    """RFC 5407 §3.1.2 for a B2BUA: A is told 487, and B, which has answered, gets ACK and BYE."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.b.expect("CANCEL")
    f.b.reply(200, body=sdp(B_HOST))  # it had left before the CANCEL came
    f.b.expect("ACK")
    bye = f.b.expect("BYE")
    f.b.again()  # its 200 again: the ACK was lost
    f.b.expect("ACK")
    f.b.reply(200, to=bye)
    assert f.cdr["status"] == 487
    assert f.counts["CANCEL_CROSSED"] == 1
    f.over()


def test_cancel_while_the_journal_writes() -> None:
    """B has answered, A's 200 waits for the journal: the CANCEL still wins, and B gets ACK and BYE."""
    f = Ladder()
    f.hold_journal = True
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.nothing()
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.core.saved(f.saves[0].key, f.saves[0].version, True, f.now)
    f.drain()
    f.a.nothing()
    assert (f.cdr["status"], f.cdr["answered"]) == (487, False)
    assert f.finished[0].saved
    f.over()


def test_cancel_after_200_changes_nothing() -> None:
    """RFC 3261 §9.2: a CANCEL after the final response is answered and has no effect."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.cancel()
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.cdr["status"] == 200
    f.over()


def test_cancel_of_nothing() -> None:
    f = Ladder()
    f.a.branch = "z9hG4bKnever"
    f.a.cancel()
    f.a.expect(481)
    assert f.counts["STRAY_CANCEL"] == 1
    f.over()


def test_b_never_answers_at_all() -> None:
    """Timer B: 408 to A after 64*T1."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.after(33)
    for _ in range(7):  # 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s
        f.b.expect("INVITE")
    f.b.nothing()
    f.a.refused(408)
    assert f.cdr["attempts"][0]["status"] == 408
    f.over()


def test_ringing_for_ever_ends_by_timer_c() -> None:
    """RFC 3261 §16.8: CANCEL to B, 408 to A."""
    f = Ladder(timer_c_s=180.0)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.after(180.3)
    f.b.reply(200, to=f.b.expect("CANCEL"))
    f.a.refused(408)
    f.b.reply(487)
    f.b.expect("ACK")
    f.over()


def test_delayed_offer() -> None:
    """RFC 3261 §13.2.1: INVITE without offer, offer in 200, answer in ACK."""
    f = Ladder()
    f.a.request("INVITE")
    f.a.expect(100)
    assert f.b.expect("INVITE").body == b""
    f.b.reply(180)
    f.a.expect(180)
    f.b.reply(200, body=sdp(B_HOST))
    assert b"c=IN IP4 192.0.2.2" in f.a.expect(200).body
    f.a.ack(body=sdp(A_HOST))
    ack = f.b.expect("ACK")
    assert b"c=IN IP4 198.51.100.2" in ack.body
    assert [type(request).__name__ for request in f.media] == ["Offer", "Answer"]
    assert (f.media[0].from_leg, f.media[0].to_leg) == ("b1", "a")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_hold_and_resume_both_ways() -> None:
    """RFC 3665 §3.7 and RFC 5359 §2.1: re-INVITE from either side; o= rises by one each time, and only then."""
    f = Ladder()
    f.set_up()
    first = f.b.invite
    assert first is not None
    versions = [_origin(first.body)]
    for number, direction in enumerate(("sendonly", "sendrecv"), 2):
        f.a.request("INVITE", body=sdp(A_HOST, version=number, direction=direction))
        f.a.expect(100)
        invite = f.b.expect("INVITE")
        versions.append(_origin(invite.body))
        assert direction.encode() in invite.body
        f.b.reply(200, body=sdp(B_HOST, version=number, direction="recvonly" if number == 2 else "sendrecv"))
        answer = f.a.expect(200)
        assert b"a=recvonly" in answer.body if number == 2 else b"a=sendrecv" in answer.body
        f.b.nothing()
        f.a.ack()
        f.b.expect("ACK")
    assert [version - versions[0][1] for _, version in versions] == [0, 1, 2]
    assert len({session for session, _ in versions}) == 1
    f.b.request("INVITE", body=sdp(B_HOST, version=4, direction="inactive"))
    f.b.expect(100)
    invite = f.a.expect("INVITE")
    assert b"a=inactive" in invite.body
    f.a.reply(200, to=invite, body=sdp(A_HOST, version=4, direction="inactive"))
    f.b.expect(200)
    f.b.ack()
    f.a.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_reinvite_refused_leaves_the_call() -> None:
    """RFC 3261 §14.1."""
    f = Ladder()
    f.set_up()
    f.a.request("INVITE", body=sdp(A_HOST, version=2, codec="18"))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(488)
    f.b.expect("ACK")
    f.a.refused(488)
    f.a.request("INVITE", body=sdp(A_HOST, version=3))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST, version=3))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_delayed_offer_in_reinvite() -> None:
    f = Ladder()
    f.set_up()
    f.b.request("INVITE")
    f.b.expect(100)
    invite = f.a.expect("INVITE")
    assert invite.body == b""
    f.a.reply(200, to=invite, body=sdp(A_HOST, version=2))
    assert b"c=IN IP4 198.51.100.2" in f.b.expect(200).body
    f.b.ack(body=sdp(B_HOST, version=2))
    assert b"c=IN IP4 192.0.2.2" in f.a.expect("ACK").body
    f.b.request("BYE")
    f.b.expect(200)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.over()


def test_reinvite_cancelled() -> None:
    f = Ladder()
    f.set_up()
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.cancel()
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("CANCEL"))
    f.b.reply(487)
    f.b.expect("ACK")
    f.a.refused(487)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_glare() -> None:
    """RFC 3261 §14.2: re-INVITEs cross, both get 491; a second one before the answer to the first gets 500."""
    f = Ladder()
    f.set_up()
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    from_a = f.b.expect("INVITE")
    f.b.request("INVITE", body=sdp(B_HOST, version=2))
    f.b.refused(491)
    f.a.request("INVITE", body=sdp(A_HOST, version=3))
    assert f.a.refused(500).get("Retry-After") is not None
    f.b.reply(491, to=from_a)
    f.b.expect("ACK")
    f.a.refused(491)
    f.after(1)
    f.b.request("UPDATE", body=sdp(B_HOST, version=3))
    update = f.a.expect("UPDATE")
    f.a.request("UPDATE", body=sdp(A_HOST, version=4))
    f.a.expect(491)
    f.a.reply(200, to=update, body=sdp(A_HOST, version=4))
    f.b.expect(200)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_bye_crosses_bye() -> None:
    """RFC 5407 §3.3.1: both get 200, one CDR."""
    f = Ladder()
    f.set_up()
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    f.b.request("BYE")
    f.b.expect(200)
    f.b.reply(200, to=bye)
    f.a.nothing()
    assert f.cdr["hangup"] == "a"
    f.over()


def test_bye_comes_again() -> None:
    f = Ladder()
    f.set_up()
    f.a.request("BYE")
    f.a.expect(200)
    f.a.again()
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.b.nothing()
    f.over()


def test_bye_instead_of_cancel() -> None:
    """RFC 3261 §15: a caller may end an early dialog by BYE."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.a.request("BYE")
    f.a.expect(200)
    assert f.a.expect(487).cseq_method == "INVITE"
    f.b.reply(200, to=f.b.expect("CANCEL"))
    f.b.reply(487)
    f.b.expect("ACK")
    assert f.cdr["hangup"] == "a"
    f.over()


def test_b_hangs_up_before_the_ack() -> None:
    """RFC 3261 §15: our BYE to A waits for its ACK."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.b.request("BYE")
    f.b.expect(200)
    f.b.expect("ACK")
    f.a.nothing()
    f.a.ack()
    f.a.reply(200, to=f.a.expect("BYE"))
    assert f.cdr["hangup"] == "b"
    f.over()


def test_lost_ack() -> None:
    """A's ACK is lost: our 200 comes again (T1, doubling) until one arrives; B's 200s are absorbed meanwhile."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.after(0.6)
    f.a.expect(200)
    f.b.again()
    f.b.nothing()
    f.after(1.0)
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.after(10)
    f.a.nothing()
    f.b.again()  # B did not get our ACK
    f.b.expect("ACK")
    f.a.ack()  # and A repeats its own
    f.b.nothing()
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_no_ack_ever() -> None:
    """RFC 3261 §13.3.1.4: after 64*T1 both sides get BYE."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.after(31.9)
    while f.a.inbox:
        f.a.expect(200)
    f.after(0.2)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    assert (f.cdr["hangup"], f.cdr["note"], f.cdr["status"]) == ("sbc", "no ACK", 200)
    f.over()


def test_lost_200() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.lose_next = 1
    f.b.reply(200, body=sdp(B_HOST))
    f.a.nothing()
    f.after(0.5)
    assert f.a.expect(200).raw == f.lost[0]
    f.a.ack()
    f.b.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_failover_to_the_second_target() -> None:
    """503 from b: the failure route goes on to c; b's endpoints are given back; the CDR tells both attempts."""
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(503)
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    assert Delete(f.call.key, "b1") in f.media
    f.a.request("BYE")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("BYE"))
    assert [(t["gateway"], t["status"]) for t in f.cdr["attempts"]] == [("gw-b", 503), ("gw-c", 200)]
    assert f.counts["FAILOVERS"] == 1
    f.over()


def test_busy_is_not_failed_over() -> None:
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.c.nothing()
    f.over()


def test_every_target_fails() -> None:
    """The best answer goes to A: 404 of the first beats 503 of the second (RFC 3261 §16.7 step 6)."""

    def both(ladder: Ladder, call: Call) -> None:
        def on_failure(ladder: Ladder, call: Call) -> None:
            ladder.core.dial_next(call, ladder.now)

        ladder.core.dial(call, [TARGET_B, TARGET_C], ladder.now, on_failure=on_failure)

    f = Ladder(route=both)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(404, extra=[("Reason", 'Q.850;cause=1;text="no such host"')])
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(503)
    f.c.expect("ACK")
    assert f.a.refused(404).get("Reason") == "Q.850;cause=1"
    f.over()


@pytest.mark.parametrize(
    ("answer", "refusal", "by"), [(486, 486, "b"), (401, 403, "b"), (486, 480, "sbc"), (0, 408, "sbc")]
)
def test_a_failure_route_passes_the_failure_on(answer: int, refusal: int, by: str) -> None:
    """To reject with the best status is to relay what B said; any other status, and a silence, is our own word."""

    def route(ladder: Ladder, call: Call) -> None:
        def on_failure(ladder: Ladder, call: Call) -> None:
            ladder.core.reject(call, call.best_status if refusal != 480 else 480, ladder.now)

        ladder.core.dial(call, [Target(TARGET_B.uri, "outside", timeout_s=3)], ladder.now, on_failure=on_failure)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(answer or 180, extra=[("Reason", "Q.850;cause=17")])
    if answer:
        f.b.expect("ACK")
    else:
        f.a.expect(180)
        f.after(3)
        f.b.reply(200, to=f.b.expect("CANCEL"))
        f.b.reply(487)
        f.b.expect("ACK")
    assert f.a.refused(refusal).get("Reason") == ("Q.850;cause=17" if by == "b" else None)
    assert f.cdr["hangup"] == by
    f.over()


def test_target_with_its_own_timeout() -> None:
    """A gateway that rings too long is cancelled, and the next one is tried."""

    def route(ladder: Ladder, call: Call) -> None:
        def on_failure(ladder: Ladder, call: Call) -> None:
            ladder.core.dial_next(call, ladder.now)

        slow = Target(TARGET_B.uri, "outside", peer="carrier-b", timeout_s=3)
        ladder.core.dial(call, [slow, TARGET_C], ladder.now, on_failure=on_failure)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(100)
    f.after(3)
    cancel = f.b.expect("CANCEL")
    f.c.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))  # too late: it crossed
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.b.reply(200, to=cancel)
    f.c.reply(486)
    f.c.expect("ACK")
    f.a.refused(486)
    f.over()


@pytest.mark.parametrize(("theirs", "ours"), [(302, 480), (401, 403), (407, 403), (480, 480), (503, 503), (603, 603)])
def test_what_a_is_told(theirs: int, ours: int) -> None:
    """Neither a redirection nor a challenge of B's side crosses."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(theirs, extra=[("WWW-Authenticate", f'Digest realm="{B_HOST}", nonce="x"')])
    f.b.expect("ACK")
    assert f.a.refused(ours).get("WWW-Authenticate") is None
    f.over()


def test_second_answer_of_a_downstream_fork() -> None:
    """RFC 3261 §13.2.2.4: a further 2xx with another tag gets ACK and BYE of its own."""
    f = Ladder()
    f.set_up()
    f.b.reply(200, body=sdp(B_HOST), tag="other-fork")
    ack, bye = f.b.expect("ACK"), f.b.expect("BYE")
    assert ack.to_tag == bye.to_tag == "other-fork"
    assert bye.cseq_number == ack.cseq_number + 1
    f.b.reply(200, to=bye)
    f.a.nothing()
    f.a.request("BYE")  # the call is unharmed
    f.a.expect(200)


def test_requests_in_the_dialog_cross_both_ways() -> None:
    f = Ladder()
    f.set_up()
    for sender, receiver in ((f.a, f.b), (f.b, f.a)):
        sender.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay", extra=[("X-Secret", "1")])
        info = receiver.expect("INFO")
        assert info.body == b"Signal=5\r\n"
        assert info.get("Content-Type") == "application/dtmf-relay"
        assert info.get("X-Secret") is None
        receiver.reply(200, to=info)
        sender.expect(200)
        sender.request("OPTIONS")
        receiver.reply(200, to=receiver.expect("OPTIONS"))
        assert sender.expect(200).get("Allow") is not None
        sender.request("UPDATE")
        receiver.reply(200, to=receiver.expect("UPDATE"))
        assert sender.expect(200).contact() is not None
        sender.request("REFER")
        assert sender.expect(405).get("Allow") is not None
        sender.request("FROB")
        sender.expect(501)
        receiver.nothing()
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_remote_target_refresh() -> None:
    """RFC 3261 §12.2.1.2: a new Contact in a re-INVITE or its 2xx is where later requests go."""
    f = Ladder()
    f.set_up()
    f.a.contact = f"<sip:moved@{A_HOST}:5099>"
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.contact = f"<sip:elsewhere@{B_HOST}:5098;transport=udp>"
    f.b.reply(200, body=sdp(B_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    assert f.b.expect("ACK").uri == f"sip:elsewhere@{B_HOST}:5098;transport=udp"
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert bye.uri == f"sip:moved@{A_HOST}:5099"
    f.a.reply(200, to=bye)
    f.over()


@pytest.mark.parametrize("loose", [True, False])
def test_route_sets(loose: bool) -> None:
    """RFC 3261 §12.2.1.1 with §12.1.1/§12.1.2: Record-Route of either side, in its order; a strict router too."""
    lr = ";lr" if loose else ""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Record-Route", f"<sip:{A_HOST}:5071{lr}>, <sip:pa2.example{lr}>")])
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST), extra=[("Record-Route", f"<sip:pb2.example{lr}>, <sip:{B_HOST}:5072{lr}>")])
    ok = f.a.expect(200)
    assert ok.get_all("Record-Route") == [f"<sip:{A_HOST}:5071{lr}>", f"<sip:pa2.example{lr}>"]
    f.a.ack()
    ack = f.b.expect("ACK")
    if loose:
        assert ack.uri == f"sip:b@{B_HOST}:5070"
        assert ack.get_all("Route") == [f"<sip:{B_HOST}:5072;lr>", "<sip:pb2.example;lr>"]
    else:
        assert ack.uri == f"sip:{B_HOST}:5072"
        assert ack.get_all("Route") == ["<sip:pb2.example>", f"<sip:b@{B_HOST}:5070>"]
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert bye.get_all("Route")[0] == (f"<sip:{A_HOST}:5071;lr>" if loose else "<sip:pa2.example>")
    f.a.reply(200, to=bye)
    f.over()


def test_old_cseq_and_wrong_tags() -> None:
    f = Ladder()
    f.set_up()
    f.a.request("INFO", cseq=1)
    f.a.expect(500)
    f.a.request("INFO", cseq=40)  # gaps are fine
    f.b.reply(200, to=f.b.expect("INFO"))
    f.a.expect(200)
    assert f.a.dialog is not None
    true = f.a.dialog
    f.a.dialog = (true[0], true[1], true[2][:-3] + "xyz", true[3])
    f.a.request("BYE", cseq=41)
    f.a.expect(481)
    f.a.dialog = (true[0] + "x", *true[1:])
    f.a.request("BYE", cseq=42)
    f.a.expect(481)
    f.a.dialog = true
    f.a.request("BYE", cseq=43)
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_requests_in_the_dialog_come_from_its_peer_only() -> None:
    """Another known peer that has learned tags and Call-ID can end nothing."""
    f = Ladder()
    f.set_up()
    f.c.dialog = f.b.dialog
    f.c.request("BYE", cseq=9)
    f.c.expect(481)
    assert f.counts["WRONG_SOURCE_REFUSED"] == 1
    assert f.call.state.name == "UP"


def test_481_in_the_dialog_ends_the_call() -> None:
    """RFC 5057 §5.1."""
    f = Ladder()
    f.set_up()
    f.a.request("INFO")
    f.b.reply(481, to=f.b.expect("INFO"))
    f.a.expect(481)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(481, to=f.b.expect("BYE"))
    assert f.cdr["hangup"] == "sbc"
    f.over()


def test_unknown_source_gets_nothing() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    data = f.a.sent
    for _ in range(3):
        f.deliver(data, Flow(0, "udp", STRANGER, 5060))
    assert f.counts["UNKNOWN_SOURCE_DROPPED"] == 3
    assert len(f.core.calls) == 1
    assert STRANGER not in f.phones


def test_unknown_source_may_be_refused_without_state() -> None:
    f = Ladder(unknown_sources="refuse")
    f.phones[STRANGER] = f.c
    f.a.request("OPTIONS")
    f.a.expect(200)
    transactions = len(f.core.layer)
    f.deliver(f.a.sent, Flow(0, "udp", STRANGER, 5060))
    f.c.expect(403)
    f.deliver(b"SIP/2.0 200 OK\r\n\r\n", Flow(0, "udp", STRANGER, 5060))
    f.deliver(b"\xff" * 900, Flow(0, "udp", STRANGER, 5060))
    f.c.nothing()
    assert len(f.core.layer) == transactions
    assert (f.counts["UNKNOWN_SOURCE_REFUSED"], f.counts["UNKNOWN_SOURCE_DROPPED"]) == (1, 2)


def test_malformed() -> None:
    """What can be answered is; what cannot is dropped; neither leaves anything behind."""
    f = Ladder()
    f.a.request("OPTIONS")
    f.a.expect(200)
    good = f.a.sent
    f.a._send(good.replace(b"Content-Length: 0", b"Content-Length: x"))
    f.a.expect(400)
    f.a._send(b"\r\n\r\n")
    f.a._send(b"no sip at all")
    f.a._send(good[:40])
    f.a.nothing()
    assert f.counts["KEEPALIVE"] == 1
    assert f.counts["MALFORMED_REFUSED"] == 1
    assert f.counts["MALFORMED_DROPPED"] == 2
    f.over()


def test_malformed_with_an_error_route() -> None:
    def refuse(ladder: Ladder, bad: object) -> None:
        ladder.core.reply_bad(bad, 606, ladder.now)  # type: ignore[arg-type]  # the core says what it is

    f = Ladder(routes=frozenset({RouteKind.REQUEST, RouteKind.ERROR}), hooks={"error_route": refuse})
    f.a.request("OPTIONS")
    f.a.expect(200)
    f.a._send(f.a.sent.replace(b"Content-Length: 0", b"Content-Length: x"))
    f.a.expect(606)
    f.over()


def test_ping_and_methods_that_are_not_for_us() -> None:
    f = Ladder()
    f.a.request("OPTIONS")
    pong = f.a.expect(200)
    assert (pong.get("Accept"), pong.get("Server")) == ("application/sdp", "Portcullis")
    assert pong.to_tag
    for method, status in (("REGISTER", 405), ("SUBSCRIBE", 405), ("MESSAGE", 405), ("FROB", 501), ("BYE", 481)):
        f.a.request(method)
        f.a.expect(status)
    f.a.request("OPTIONS", extra=[("Require", "100rel, frob")])
    assert f.a.expect(420).get_all("Unsupported") == ["100rel", "frob"]
    f.a.request("OPTIONS", uri="soap.beep://192.0.2.1:3302")
    f.a.expect(416)
    f.over()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Max-Forwards: 70", b"Max-Forwards: 0"), 483),
        ((b"INVITE sip:", b"INVITE sips:"), 416),
        ((b"INVITE sip:", b"INVITE mailto:"), 416),
        ((b"application/sdp", b"multipart/mixed"), 415),
        ((b"m=audio 4000", b"m=audio bork"), 488),
        ((b"Contact:", b"X-Contact:"), 400),
        ((b"From:", b"Require: timer\r\nFrom:"), 420),
    ],
)
def test_what_is_refused_at_the_door(change: tuple[bytes, bytes], status: int) -> None:
    f = Ladder()
    real, f.a.ladder = f.a.ladder, _Swallow()  # type: ignore[assignment]  # only to get the octets
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.ladder = real
    old, new = change
    assert old in f.a.sent
    f.a._send(f.a.sent.replace(old, new, 1))
    if status == 488:
        f.a.expect(100)
    f.a.refused(status)
    f.b.nothing()
    f.over()


class _Swallow:
    def deliver(self, data: bytes, flow: Flow) -> None:
        """Nothing arrives."""


def test_merged_request() -> None:
    """RFC 3261 §8.2.2.2: the same INVITE by another path."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.a.request("INVITE", body=sdp(A_HOST), cseq=1)
    f.a.expect(482)
    f.b.nothing()
    assert len(f.core.calls) == 1


def test_retransmitted_invite_makes_one_call() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.a.again()
    f.a.expect(180)
    f.b.nothing()
    assert len(f.core.calls) == 1


def test_draining() -> None:
    """New calls are refused, the others go on."""
    f = Ladder()
    f.set_up()
    f.core.set_draining(True)
    f.a.dialog, dialog = None, f.a.dialog
    f.a.request("INVITE", body=sdp(A_HOST))
    assert f.a.refused(503).get("Retry-After") == "10"
    f.a.dialog = dialog
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_peer_limit() -> None:
    f = Ladder()
    f.peers.limit = 0
    f.a.request("INVITE", body=sdp(A_HOST))
    assert f.a.refused(503).get("Retry-After") is not None
    assert not f.core.calls
    f.over()


@pytest.mark.parametrize("how", ["no decision", "raises", "unreachable"])
def test_a_route_that_fails_costs_its_call_only(how: str) -> None:
    def route(ladder: Ladder, call: Call) -> None:
        if how == "raises":
            raise RuntimeError("author's mistake")
        if how == "unreachable":
            ladder.core.dial(call, [Target("sip:x@host.example", "outside")], ladder.now)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.refused(503 if how == "unreachable" else 500)
    counter = {"no decision": "ROUTE_UNDECIDED", "raises": "ROUTE_ERRORS", "unreachable": "CALLS_FAILED"}[how]
    assert f.counts[counter] == 1
    assert f.cdr["answered"] is False
    f.over()


def test_cancel_while_the_route_runs() -> None:
    """The route decides into the void."""
    f = Ladder()
    f.held_routes = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    held, f.held_routes = f.held_routes, None
    f.run(held[0])
    f.drain()
    f.b.nothing()
    f.over()


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
    f = Ladder()
    f.media_refusal = Reply(ok=False, code=code, reason="no")
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.refused(status)
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
    f.a.refused(503)
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


def _origin(body: bytes) -> tuple[bytes, int]:
    fields = body.partition(b"o=")[2].partition(b"\r\n")[0].split()
    return fields[1], int(fields[2])
