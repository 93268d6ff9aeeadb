"""Call flows in the order of RFC 3665, and the ones that it leaves out because they go wrong."""

from __future__ import annotations

from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp


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
    """RFC 3665 §3.9: unsuccessful busy."""
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
    """RFC 3665 §3.8: unsuccessful no answer: A gives up while B rings."""
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
    """RFC 3665 §3.10: Timer B, 408 to A after 64*T1."""
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


def _origin(body: bytes) -> tuple[bytes, int]:
    fields = body.partition(b"o=")[2].partition(b"\r\n")[0].split()
    return fields[1], int(fields[2])
