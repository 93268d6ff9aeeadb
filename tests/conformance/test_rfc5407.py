"""The races of RFC 5407 through the SBC: what crosses on one side must neither hang nor show on the other.

Where the RFC has two users, we are one of them to each side. Races that :mod:`tests.conformance.test_ladders` shows are
not repeated here; ``docs/conformance.md`` names the test of each.
"""

from __future__ import annotations

import pytest

from sbc.dialog.session_timer import Policy
from tests.support.ladder import A_HOST, B_HOST, C_HOST, Ladder, ring_all, sdp


def ringing() -> Ladder:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    return f


def answered() -> Ladder:
    """Our 200 is with A, whose ACK is still to come: RFC 5407 calls this the moratorium."""
    f = ringing()
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    return f


def hang_up(f: Ladder) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


# 3.1 In the moratorium


def test_invite_again_after_our_200() -> None:
    """RFC 5407 §3.1.1: A repeated its INVITE before our 200 arrived; the transaction absorbs it.

    A                  SBC                  B
    |---- INVITE ------>|                   |
    |---- INVITE --. .--|-- 200             |   cross
    |<----- 200 ---- X  |                   |
    |              '--->|   absorbed        |
    |------ ACK ------->|------ ACK ------->|
    """
    f = answered()
    f.a.again()
    f.a.nothing()
    f.b.nothing()
    f.a.ack()
    f.b.expect("ACK")
    assert f.counts["CALLS_STARTED"] == 1
    hang_up(f)


def test_early_bye_meets_our_200() -> None:
    """RFC 5407 §3.1.3: A ends the early dialog while our 200 is on its way; it then acknowledges that 200.

    A                  SBC                  B
    |------ BYE --. .---|-- 200             |
    |<----- 200 --- X   |   to INVITE       |
    |              '--->|------ ACK ------->|
    |<----- 200 --------|------ BYE ------->|   to BYE
    |------ ACK ------->|   for nobody      |
    """
    f = answered()
    f.a.request("BYE")
    f.a.expect(200)
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.after(5)
    f.a.nothing()  # the 200 is not repeated to somebody who has gone
    assert (f.cdr["hangup"], f.cdr["answered"]) == ("a", True)
    f.over()


@pytest.mark.parametrize("ack", ["late", "lost"])
def test_reinvite_overtakes_the_ack(ack: str) -> None:
    """RFC 5407 §3.1.4: offer and answer are complete, so the re-INVITE is served; B gets its ACK first.

    A                  SBC                  B
    |-- ACK -. .-INVITE>|------ ACK ------->|
    |         X         |----- INVITE ----->|
    |        ' '------->|   the ACK         |
    |<----- 200 --------|<------ 200 -------|
    |------ ACK ------->|------ ACK ------->|
    """
    f = answered()
    f.a.request("INVITE", body=sdp(A_HOST, version=2, direction="sendonly"))
    f.a.expect(100)
    f.b.expect("ACK")
    invite = f.b.expect("INVITE")
    if ack == "late":
        f.a.ack(cseq=1)
        f.b.nothing()
    f.b.reply(200, to=invite, body=sdp(B_HOST, version=2, direction="recvonly"))
    assert f.a.expect(200).cseq_number == 2
    f.a.ack()
    f.b.expect("ACK")
    f.after(5)
    f.a.nothing()
    hang_up(f)


def test_reinvite_overtakes_the_ack_with_the_answer() -> None:
    """RFC 5407 §3.1.5: our 200 made an offer, and its answer is in the ACK that is still to come: 491."""
    f = Ladder()
    f.a.request("INVITE")
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.refused(491)
    f.b.nothing()
    f.a.ack(body=sdp(A_HOST), cseq=1)
    assert f.b.expect("ACK").body
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    hang_up(f)


def test_bye_overtakes_the_ack() -> None:
    """RFC 5407 §3.1.6: the ACK was lost; B gets one all the same, then BYE."""
    f = answered()
    f.after(0.6)
    f.a.expect(200)
    f.a.request("BYE", cseq=2)
    f.a.expect(200)
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.after(40)
    f.a.nothing()
    assert f.cdr["hangup"] == "a"
    f.over()


# 3.2 In the mortal state: we have sent BYE


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO", "OPTIONS", "REFER", "MESSAGE", "PRACK"])
def test_request_meets_our_bye(method: str) -> None:
    """RFC 5407 §3.2.2, §3.3.3 and appendix D: whatever B sent before our BYE reached it gets 481.

    A                  SBC                  B
    |------ BYE ------->|                   |
    |<----- 200 --------|-- BYE --. .-- re-INVITE
    |                   |          X        |
    |                   |<--------' '------>|
    |                   |------ 481 ------->|
    |                   |<------ 200 -------|   to BYE
    """
    f = Ladder()
    f.set_up()
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    body = sdp(B_HOST, version=2) if method in ("INVITE", "UPDATE") else b""
    f.b.request(method, body=body, extra=[("RAck", "1 1 INVITE")] if method == "PRACK" else [])
    if method == "INVITE":
        f.b.refused(481)
    else:
        f.b.expect(481)
    f.b.reply(200, to=bye)
    f.a.nothing()
    f.over()


@pytest.mark.parametrize("method", ["UPDATE", "INFO"])
def test_request_of_a_branch_that_has_lost(method: str) -> None:
    """The same of a phone that answered a little late, while the call is up with another: it has been sent BYE."""
    f = Ladder(route=ring_all, session_timers=Policy(90))
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.c.expect("INVITE")
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    f.b.reply(200, body=sdp(B_HOST))
    f.b.expect("ACK")
    bye = f.b.expect("BYE")
    f.b.request(method, extra=[("Session-Expires", "90"), ("Supported", "timer")])
    f.b.expect(481)
    f.b.reply(200, to=bye)
    f.after(44)
    f.b.nothing()  # nobody refreshes a session that is over
    assert f.call.state.name == "UP"
    f.a.request("BYE")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("BYE"))
    f.over()


@pytest.mark.parametrize("status", [200, 488])
def test_answer_to_reinvite_meets_the_bye(status: int) -> None:
    """RFC 5407 §3.2.3: B hangs up and answers the re-INVITE that was under way; A's is over with 487.

    A                  SBC                  B
    |---- INVITE ------>|----- INVITE ----->|
    |<----- 487 --------|<------ BYE -------|
    |<----- BYE --------|------- 200 ------>|   to BYE
    |                   |<------ 200 -------|   to INVITE: acknowledged
    |                   |------ ACK ------->|
    """
    f = Ladder()
    f.set_up()
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    f.a.refused(487)
    f.a.reply(200, to=bye)
    f.b.reply(status, to=invite, body=sdp(B_HOST, version=2) if status == 200 else b"")
    f.b.expect("ACK")
    f.b.nothing()
    assert f.cdr["hangup"] == "b"
    f.over()


def test_ack_meets_our_bye() -> None:
    """RFC 5407 §3.2.4: B hangs up at once. Our BYE to A waits for A's ACK, so that nothing can cross there."""
    f = answered()
    f.b.request("BYE")
    f.b.expect(200)
    f.b.expect("ACK")
    f.after(0.6)
    f.a.expect(200)  # our 200 again
    f.a.ack()
    f.a.reply(200, to=f.a.expect("BYE"))
    f.a.ack()  # once more, after the BYE
    f.a.nothing()
    f.over()


# 3.3 Others


def test_reinvites_cross_and_come_again() -> None:
    """RFC 5407 §3.3.1: both get 491. A owns the Call-ID of its leg and waits 2.1 to 4 s, B on the other leg does not
    and waits less (RFC 3261 §14.1): 491 and its cause are told from end to end, so B comes first, and both succeed.

    A                  SBC                  B
    |---- INVITE ------>|-- INVITE -. .-INVITE
    |                   |<---------- X ---->|
    |                   |------- 491 ------>|
    |<----- 491 --------|<------ 491 -------|
    |<---- INVITE ------|<----- INVITE -----|   0 to 2 s later
    |---- INVITE ------>|----- INVITE ----->|   2.1 to 4 s later
    """
    f = Ladder()
    f.set_up()
    f.a.request("INVITE", body=sdp(A_HOST, version=2, direction="sendonly"))
    f.a.expect(100)
    from_a = f.b.expect("INVITE")
    f.b.request("INVITE", body=sdp(B_HOST, version=2, direction="sendonly"))
    f.b.refused(491)
    f.b.reply(491, to=from_a)
    f.b.expect("ACK")
    f.a.refused(491)
    f.after(1.0)
    for sender, receiver in ((f.b, f.a), (f.a, f.b)):
        sender.request("INVITE", body=sdp(sender.host, version=3, direction="inactive"))
        sender.expect(100)
        receiver.reply(200, to=receiver.expect("INVITE"), body=sdp(receiver.host, version=3, direction="inactive"))
        sender.expect(200)
        sender.ack()
        receiver.expect("ACK")
        f.after(1.5)
    hang_up(f)


@pytest.mark.parametrize("first", ["INVITE", "UPDATE"])
def test_update_crosses_reinvite(first: str) -> None:
    """RFC 5407 §3.3.2: whichever of the two is A's, both get 491."""
    second = "UPDATE" if first == "INVITE" else "INVITE"
    f = Ladder()
    f.set_up()
    f.a.request(first, body=sdp(A_HOST, version=2))
    if first == "INVITE":
        f.a.expect(100)
    from_a = f.b.expect(first)
    f.b.request(second, body=sdp(B_HOST, version=2))
    if second == "INVITE":
        f.b.refused(491)
    else:
        f.b.expect(491)
    f.b.reply(491, to=from_a)
    if first == "INVITE":
        f.b.expect("ACK")
        f.a.refused(491)
    else:
        f.a.expect(491)
    f.b.nothing()
    hang_up(f)


def test_our_refresh_crosses_their_reinvite_on_the_leg_whose_call_id_is_theirs() -> None:
    """RFC 3261 §14.1: on A's leg A owns the Call-ID, so that we come again within 2 s, and A after 2.1 s at least."""
    f = Ladder(session_timers=Policy(1800))
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Supported", "timer"), ("Session-Expires", "90;refresher=uas")])
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST), extra=[("Session-Expires", "1800;refresher=uas")])
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.after(45.1)
    ours = f.a.expect("INVITE")
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.refused(491)
    f.a.reply(491, to=ours)
    f.a.expect("ACK")
    f.after(2.05)
    f.a.reply(200, to=f.a.expect("INVITE"), body=sdp(A_HOST))
    f.a.expect("ACK")
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    hang_up(f)


# Appendices


@pytest.mark.parametrize("sender", ["a", "b"])
def test_bye_overlaps_the_senders_own_reinvite(sender: str) -> None:
    """RFC 5407 appendix B: the re-INVITE gets 487, the BYE 200; on the other side the INVITE's late answer an ACK."""
    f = Ladder()
    f.set_up()
    one, other = (f.a, f.b) if sender == "a" else (f.b, f.a)
    one.request("INVITE", body=sdp(one.host, version=2))
    one.expect(100)
    invite = other.expect("INVITE")
    other.reply(180, to=invite)
    one.request("BYE")
    one.expect(200)
    one.refused(487)
    bye = other.expect("BYE")
    other.reply(200, to=bye)
    other.reply(487, to=invite)
    other.expect("ACK")
    assert f.cdr["hangup"] == sender
    f.over()


def test_cancel_is_repeated_only_to_who_may_have_missed_it() -> None:
    """RFC 5407 appendix C: A's CANCEL again is answered again; B gets one CANCEL, repeated by its own transaction."""
    f = ringing()
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.b.expect("CANCEL")
    f.a.cancel()
    f.a.expect(200)
    f.b.nothing()
    f.after(0.6)
    cancel = f.b.expect("CANCEL")
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    f.after(10)
    f.b.nothing()
    f.over()


def test_new_to_tags_of_a_fork() -> None:
    """RFC 5407 appendix E: two phones ring behind B's proxy, the second answers. To A there is one callee: us.

    A                  SBC                  B
    |<----- 180 --------|<---- 180 (t1) ----|
    |<----- 183 --------|<---- 183 (t2) ----|
    |<----- 200 --------|<---- 200 (t2) ----|
    |------ ACK ------->|----- ACK (t2) --->|
    |<----- BYE --------|<---- BYE (t2) ----|
    """
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180, tag="t1")
    tags = {f.a.expect(180).to_tag}
    f.b.reply(183, tag="t2", body=sdp(B_HOST))
    tags.add(f.a.expect(183).to_tag)
    f.b.reply(180, tag="t1")
    tags.add(f.a.expect(180).to_tag)
    f.b.reply(200, tag="t2", body=sdp(B_HOST))
    tags.add(f.a.expect(200).to_tag)
    assert len(tags) == 1
    f.a.ack()
    assert f.b.expect("ACK").to_tag == "t2"
    f.b.request("BYE")
    f.b.expect(200)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.over()
