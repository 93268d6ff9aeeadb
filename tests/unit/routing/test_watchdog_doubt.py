"""What has blocked is doubted for a while: it gets less and less time, and nobody else does."""

# ruff: noqa: ASYNC251 - what must not be done is what is tried here

from __future__ import annotations

import re
import sys
import time

import pytest

from sbc.routing import Request
from sbc.routing.doubt import FORGIVEN_S, REFILL, Doubt
from sbc.routing.routes import RouteOverran
from tests.unit.routing.misbehaving import PATIENCE_S, Rig, loops, name_of, sleeps
from tests.unit.routing.test_runner import main_route, virtually


@virtually
async def test_a_function_that_blocks_again_and_again_is_held_off_and_others_are_not() -> None:
    what = "good"

    def blocks_elsewhere() -> None:
        time.sleep(3600)

    async def route(request: Request) -> None:
        if what == "bad":
            time.sleep(3600)
        if what == "worse":
            blocks_elsewhere()

    def take(kind: str) -> BaseException | None:
        nonlocal what
        what = kind
        rig.request()
        return rig.desk.done[-1]

    with Rig(main_route(route)).awake() as rig:
        began, held = time.monotonic(), 0
        while held < 5 and time.monotonic() - began < PATIENCE_S:
            error = take("bad")
            assert isinstance(error, RouteOverran)
            held += error.was_held_off
            assert take("good") is None
        assert held == 5
        assert rig.counts["ROUTES_HELD_OFF"] == 5
        assert sys.gettrace() is None
        assert "too often" in rig.lines[-1][1]["reason"]
        error = take("worse")  # another function: it has an allowance of its own
        assert name_of(error).endswith("blocks_elsewhere")
        assert "too often" not in str(error)


@virtually
async def test_a_line_that_is_passed_quickly_is_passed_while_it_is_doubtful() -> None:
    text = ""

    async def route(request: Request) -> None:
        re.match(r"(a+)+$", text)

    with Rig(main_route(route), step_ms=100).awake() as rig:
        text = "a" * 60 + "b"
        assert isinstance(rig.request(), RouteOverran)
        text = "quick"
        for _ in range(20):
            rig.request()
            assert rig.desk.done[-1] is None


def test_an_allowance_refills_with_time_and_what_is_owed_has_an_end() -> None:
    doubt = Doubt(loops.__code__, 0.15, 0.0)
    doubt.charge(7, 0.05, 0.0)
    assert doubt.refill(0.0) == pytest.approx(0.1)
    doubt.charge(8, 3.0, 1.0)
    assert doubt.refill(1.0) == pytest.approx(-0.15)
    assert doubt.refill(1.0 + 0.15 / REFILL) == pytest.approx(0.0)
    assert doubt.refill(1000.0) == 0.15
    assert doubt.lines == {7, 8}


def test_a_doubtful_line_gets_a_twentieth_of_the_budget_as_long_as_there_is_some() -> None:
    doubt = Doubt(loops.__code__, 0.08, 0.0)
    doubt.charge(7, 0.04, 0.0)
    taken = []
    while leash_s := doubt.leash(0.04, 0.0):
        taken.append(leash_s)
        doubt.charge(7, leash_s, 0.0)
    assert taken == pytest.approx([0.002] * 20)
    assert doubt.leash(0.04, 0.3) == pytest.approx(0.0015)
    assert doubt.leash(0.005, 100.0) == 0.001  # of a small budget a tenth would be nothing


@virtually
async def test_what_is_no_longer_doubtful_costs_nothing_any_more() -> None:
    bad = True

    async def route(request: Request) -> None:
        if bad:
            sleeps()
        seen.append(sys.gettrace())

    seen: list[object] = []
    with Rig(main_route(route)).awake() as rig:
        rig.request()
        bad = False
        rig.request()
        assert seen.pop() is not None
        for doubt in rig.runner.watchdog._doubtful.values():
            doubt.charged_s -= FORGIVEN_S
        rig.runner.watchdog._cleaned -= 10
        rig.request()
        rig.request()
        assert seen[-1] is None
        assert not rig.runner.watchdog._doubtful
