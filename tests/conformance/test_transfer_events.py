"""Transfers by REFER as ladders that meet something: a refusal, glare, parties that hang up."""

from __future__ import annotations

import pytest

from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    sdp,
)
from tests.support.transfers import accepted, blind, ends, hang_up, joined, ladder, later, notified, refer


@pytest.mark.parametrize("status", [486, 603, 404, 302, 401])
def test_target_refuses(status: int) -> None:
    """The transferor is told, the call stays, and the held party can be taken back (RFC 5589 §6.2)."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(status, extra=[("Contact", f"<sip:elsewhere@{C_HOST}>")])
    f.c.expect("ACK")
    notified(f.b, {302: 480, 401: 403}.get(status, status), "terminated;reason=noresource")
    f.a.nothing()
    assert f.call.state.name == "UP"
    assert f.cdr["answered"] is False
    f.b.request("INVITE", body=sdp(B_HOST, version=2), cseq=90)
    f.b.expect(100)
    f.a.reply(200, to=f.a.expect("INVITE"), body=sdp(A_HOST, version=2))
    f.b.expect(200)
    f.b.request("ACK", cseq=90)
    f.a.expect("ACK")
    f.b.cseq = 91
    hang_up(f, f.b, f.a)


def test_another_transfer_may_follow_a_failed_one() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    refer(f.b)
    f.b.expect(491)  # one at a time
    f.c.reply(486)
    f.c.expect("ACK")
    notified(f.b, 486, "terminated")
    blind(f, f.b, f.a)
    joined(f, f.a)
    notified(f.b, 200, "terminated")
    ends(f.b)
    hang_up(f, f.c, f.a)


def test_no_answer() -> None:
    """The target rings until its own time is up."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.after(180.2)
    f.c.reply(200, to=f.c.expect("CANCEL"))
    f.c.reply(487)
    f.c.expect("ACK")
    notified(f.b, 408, "terminated")
    assert f.call.state.name == "UP"
    hang_up(f, f.a, f.b)


@pytest.mark.parametrize("ringing", [False, True])
@pytest.mark.parametrize("success", [False, True])
def test_transferor_hangs_up(ringing: bool, success: bool) -> None:
    """At any time: nothing else ends, and the transfer goes on."""
    f = ladder()
    f.set_up()
    refer(f.b)
    accepted(f.b)
    f.c.expect("INVITE")
    if ringing:
        f.c.reply(180)
        notified(f.b, 180, "active")
    f.b.request("BYE")
    f.b.expect(200)
    f.a.nothing()
    f.c.nothing()
    if success:
        joined(f, f.a)
        notified(f.b, 200, "terminated")  # its subscription outlives its session (RFC 5057 §4.2)
        f.b.nothing()
        hang_up(f, f.a, f.c)
    else:
        f.c.reply(486)
        f.c.expect("ACK")
        notified(f.b, 486, "terminated")
        ends(f.a)  # nobody is left to talk to
        f.over()
    assert len(f.cdrs) == 2


def test_transferor_hangs_up_while_the_moved_party_is_asked() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    again = f.a.expect("INVITE")
    f.b.request("BYE")
    f.b.expect(200)
    f.a.reply(200, to=again, body=sdp(A_HOST, 4444))
    f.a.expect("ACK")
    f.c.expect("ACK")
    notified(f.b, 200, "terminated")
    hang_up(f, f.c, f.a)


def test_remaining_party_hangs_up() -> None:
    """CANCEL to the target, 487 to the transferor, and its call is over too."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.a.request("BYE")
    f.a.expect(200)
    ends(f.b)
    notified(f.b, 487, "terminated")
    f.c.reply(200, to=f.c.expect("CANCEL"))
    f.c.reply(487)
    f.c.expect("ACK")
    f.over()
    assert len(f.cdrs) == 2


def test_remaining_party_hangs_up_when_asked() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    again = f.a.expect("INVITE")
    f.a.request("BYE")
    f.a.expect(200)
    f.a.reply(487, to=again)
    f.c.expect("ACK")
    ends(f.c)
    f.over()
    assert len(f.cdrs) == 2


def test_glare_is_waited_out() -> None:
    """RFC 3261 §14.1: 491 from the moved party, and again after a while; the target's 200 waits for its ACK."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    again = f.a.expect("INVITE")
    f.a.reply(491, to=again)
    f.a.expect("ACK")
    f.c.nothing()
    again = later(f, f.a)
    f.a.reply(200, to=again, body=sdp(A_HOST, 4444))
    f.a.expect("ACK")
    f.c.expect("ACK")
    notified(f.b, 200, "terminated")
    ends(f.b)
    assert f.counts["TRANSFER_GLARE"] == 1
    hang_up(f, f.c, f.a)


def test_a_change_under_way_is_waited_for() -> None:
    """The moved party has just offered something to the transferor: both have to finish that first."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.c.reply(200, body=sdp(C_HOST, 6000))
    f.a.nothing()
    f.b.reply(200, body=sdp(B_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.a.reply(200, to=later(f, f.a), body=sdp(A_HOST, 4444, version=3))
    f.a.expect("ACK")
    f.c.expect("ACK")
    notified(f.b, 200, "terminated")
    ends(f.b)
    hang_up(f, f.c, f.a)


def test_endless_glare_ends_the_transfer() -> None:
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    for _ in range(7):
        f.a.reply(491, to=later(f, f.a))
        f.a.expect("ACK")
    while f.c.inbox[0].method != "ACK":
        f.c.inbox.popleft()
    notified(f.b, 491, "terminated")
    f.c.expect("ACK")
    ends(f.c)
    hang_up(f, f.b, f.a)


def test_moved_party_cannot_do_what_the_target_offers() -> None:
    """Nothing has changed for it, and the target, which has answered, is ended."""
    f = ladder()
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    f.a.reply(488, to=f.a.expect("INVITE"))
    f.a.expect("ACK")
    f.c.expect("ACK")
    ends(f.c)
    notified(f.b, 488, "terminated")
    assert f.call.state.name == "UP"
    hang_up(f, f.b, f.a)


def test_target_gives_up_before_the_moved_party_has_answered() -> None:
    """What the moved party was offered has come to nothing: it gets back what it had."""
    f = ladder()
    f.set_up()
    before = next(leg.sdp_out for leg in f.core.legs.values() if leg.flow.host == A_HOST)
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST, 6000))
    again = f.a.expect("INVITE")
    f.c.request("BYE")
    f.c.expect(200)
    f.c.expect("ACK")
    notified(f.b, 480, "terminated")
    f.a.reply(200, to=again, body=sdp(A_HOST, 4444))
    f.a.expect("ACK")
    back = f.a.expect("INVITE")
    assert back.body.partition(b"\r\ns=")[2] == before.partition(b"\r\ns=")[2] != again.body.partition(b"\r\ns=")[2]
    first, second = (int(m.body.decode().split("\r\n")[1].split()[2]) for m in (again, back))
    assert second > first
    f.a.reply(200, to=back, body=sdp(A_HOST))
    f.a.expect("ACK")
    assert f.call.state.name == "UP"
    hang_up(f, f.b, f.a)
