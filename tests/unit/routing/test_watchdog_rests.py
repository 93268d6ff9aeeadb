"""What the watchdog leaves alone, and when it rests."""

# ruff: noqa: ASYNC251 - what must not be done is what is tried here

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from typing import Any

from sbc.config.budget import RoutesBudget
from sbc.routing import Node, Request, Routes
from sbc.routing.acts import Acts
from sbc.routing.routes import RouteOverran
from sbc.routing.watchdog import Watchdog
from tests.unit.routing.misbehaving import PATIENCE_S, STEP_MS, Rig, loops, name_of, sleeps
from tests.unit.routing.stage import CONFIG
from tests.unit.routing.test_runner import Desk, main_route, virtually


@virtually
async def test_while_nobody_is_served_a_startup_route_may_take_longer() -> None:
    routes = Routes()

    @routes.startup_route
    async def load(node: Node) -> None:
        time.sleep(4 * STEP_MS / 1000)

    with Rig(routes).awake() as rig:
        await rig.runner.start_up()


@virtually
async def test_the_core_is_never_interrupted() -> None:
    """What the core does for a route is done whole, even where that takes longer; then the route is ended."""
    done: list[str] = []

    class Slow(Desk):
        def release(self, *args: Any, **options: Any) -> None:  # Any: of the core's method
            time.sleep(3 * STEP_MS / 1000)
            done.append("whole")

    async def route(request: Request) -> None:
        await request.call.release("x")
        done.append("back")
        loops()

    with Rig(main_route(route)).awake() as rig:
        rig.desk = rig.node.core = Slow()
        error = rig.request()
        assert done[0] == "whole"
        assert name_of(error) in ("loops", route.__qualname__)
        assert rig.node.acts.depth == 0


@virtually
async def test_no_budget_no_end() -> None:
    async def route(request: Request) -> None:
        time.sleep(3 * STEP_MS / 1000)
        await asyncio.sleep(3600)

    with Rig(main_route(route), step_ms=0, total_s=0).awake() as rig:
        rig.request()
        await asyncio.sleep(3599)
        assert rig.desk.done == []
        await asyncio.sleep(2)
        assert rig.desk.done == [None]


@virtually
async def test_what_others_had_the_signal_for_goes_on() -> None:
    rung: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:

        async def route(request: Request) -> None:
            sleeps()

        with Rig(main_route(route)).awake() as rig:
            assert isinstance(rig.request(), RouteOverran)
        began = time.monotonic()
        while not rung and time.monotonic() - began < PATIENCE_S:
            time.sleep(0.01)
        assert rung == [1]
    finally:
        signal.signal(signal.SIGALRM, former)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_outside_of_the_main_thread_it_rests() -> None:
    found: list[bool] = []

    def run() -> None:
        watchdog = Watchdog(0.02, Acts())
        with watchdog.installed():
            found.append(watchdog.active)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


@virtually
async def test_a_debugger_is_given_time() -> None:
    async def route(request: Request) -> None:
        sys.settrace(lambda *_: None)
        try:
            time.sleep(4 * STEP_MS / 1000)
        finally:
            sys.settrace(None)

    with Rig(main_route(route)).awake() as rig:
        assert rig.request() is None
        assert rig.desk.done == [None]


@virtually
async def test_a_reload_takes_another_budget_over() -> None:
    async def route(request: Request) -> None:
        time.sleep(2 * STEP_MS / 1000)

    routes = main_route(route)

    def reload(**budget: float) -> None:
        rig.runner.replace(routes, CONFIG.model_copy(update={"routes_budget": RoutesBudget(**budget)}))

    with Rig(routes).awake() as rig:
        assert isinstance(rig.request(), RouteOverran)
        reload(step_ms=0)
        assert rig.request() is None
        reload(step_ms=STEP_MS)
        assert isinstance(rig.request(), RouteOverran)
        reload(step_ms=1000)
        assert rig.request() is None
