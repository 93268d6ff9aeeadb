"""A call that is over leaves nothing for the garbage collector, which a worker lets run rarely."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from sbc.b2bua.call import Call
from sbc.b2bua.leg import Leg
from sbc.b2bua.subscription import Side, Subscription
from tests.conformance.test_subscriptions import TERMINATED, notified, relay_b, started, subscribe
from tests.support.ladder import A_HOST, Ladder, sdp


def a_hangs_up(f: Ladder) -> None:
    f.set_up()
    f.a.request("BYE")
    f.b.reply(200, to=f.b.expect("BYE"))


def b_hangs_up(f: Ladder) -> None:
    f.set_up()
    f.b.request("BYE")
    f.a.reply(200, to=f.a.expect("BYE"))


def busy(f: Ladder) -> None:
    f.a.request("INVITE", body=sdp(A_HOST))
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.ack()


def cancelled(f: Ladder) -> None:
    f.a.request("INVITE", body=sdp(A_HOST))
    invite = f.b.expect("INVITE")
    f.b.reply(180)
    f.a.cancel()
    f.b.reply(200, to=f.b.expect("CANCEL"))
    f.b.reply(487, to=invite)
    f.b.expect("ACK")
    f.a.ack()


def released(f: Ladder) -> None:
    f.set_up()
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))


@pytest.mark.parametrize("scene", [a_hangs_up, b_hangs_up, busy, cancelled, released])
def test_no_cycle_is_left(scene: Callable[[Ladder], None]) -> None:
    f = Ladder()
    gc.collect()
    gc.disable()
    try:
        scene(f)
        f.after(100)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [thing for thing in gc.garbage if isinstance(thing, Call | Leg)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not f.core.calls


def refused_subscription() -> Ladder:
    f = Ladder(requests=relay_b)
    subscribe(f.a)
    f.b.reply(489, to=f.b.expect("SUBSCRIBE"))
    f.a.expect(489)
    return f


def ended_subscription() -> Ladder:
    f = started()
    notified(f, TERMINATED)
    return f


@pytest.mark.parametrize("scene", [refused_subscription, ended_subscription])
def test_a_subscription_leaves_none_either(scene: Callable[[], Ladder]) -> None:
    gc.collect()
    gc.disable()
    try:
        f = scene()
        f.after(100)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [thing for thing in gc.garbage if isinstance(thing, Subscription | Side)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not f.core.requests.sides
