"""Pings inside dialogs: a call whose other side is dead does not live until its lifetime ends."""

from __future__ import annotations

import pytest

from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp


def hang_up(f: Ladder) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_options_on_both_legs() -> None:
    """Any answer will do; a phone that does not know OPTIONS is alive, too."""
    f = Ladder(ping_interval_s=30.0)
    f.set_up()
    for status in (200, 405, 200):
        f.after(30.1)
        f.a.reply(status, to=f.a.expect("OPTIONS"))
        f.b.reply(status, to=f.b.expect("OPTIONS"))
    assert f.counts["PINGS_SENT"] == 6
    hang_up(f)


def test_reinvite_says_nothing_new() -> None:
    f = Ladder(ping_interval_s=30.0, ping_method="invite")
    f.set_up()
    first = f.b.invite
    assert first is not None
    f.after(30.1)
    for phone, host in ((f.a, A_HOST), (f.b, B_HOST)):
        invite = phone.expect("INVITE")
        phone.reply(200, to=invite, body=sdp(host))
        phone.expect("ACK")
    assert f.b.invite is not None
    assert f.b.invite.body == first.body
    hang_up(f)


@pytest.mark.parametrize("method", ["options", "invite"])
@pytest.mark.parametrize("status", [0, 408, 481])
def test_the_dead_are_found(method: str, status: int) -> None:
    """B never answers, or knows no such dialog: both sides get BYE."""
    f = Ladder(ping_interval_s=60.0, ping_method=method)
    f.set_up()
    f.after(60.1)
    a_ping, b_ping = f.a.expect(method.upper()), f.b.expect(method.upper())
    f.a.reply(200, to=a_ping, body=sdp(A_HOST) if method == "invite" else b"")
    if method == "invite":
        f.a.expect("ACK")
    if status:
        f.b.reply(status, to=b_ping)
        if method == "invite":
            f.b.expect("ACK")
    else:
        f.after(32.1)
        while f.b.inbox[0].method == method.upper():
            f.b.expect(method.upper())
        if f.a.inbox[0].method == method.upper():
            f.a.expect(method.upper())
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.cdr["hangup"] == "sbc"
    assert f.cdr["note"].endswith("ping on leg b1")
    f.over()


def test_pings_go_on_after_death_of_the_worker() -> None:
    f = Ladder(ping_interval_s=30.0)
    f.set_up()
    f.after(20)
    f.dies()
    f.after(30.1)
    f.a.reply(200, to=f.a.expect("OPTIONS"))
    f.b.reply(200, to=f.b.expect("OPTIONS"))
    hang_up(f)


def test_off_by_default() -> None:
    f = Ladder()
    f.set_up()
    f.after(40_000)
    f.a.nothing()
    f.b.nothing()
    hang_up(f)
