"""Routes that hold their worker: each is ended where it is, whatever it does about that."""

# ruff: noqa: ASYNC110 - what must not be done is what is tried here

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from sbc.b2bua.call import Call as CallSubject
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import GONE
from sbc.routing import Node, Request, Routes
from sbc.routing.routes import RouteFailed, RouteOverran, RouteTimedOut
from sbc.routing.watchdog import Ration, Watchdog
from tests.support.virtual_loop import run_virtually
from tests.unit.routing.misbehaving import MISBEHAVIOURS, PATIENCE_S, STEP_MS, Rig, is_within, loops, name_of, sleeps
from tests.unit.routing.test_runner import main_route, virtually


@pytest.mark.parametrize("misbehave", MISBEHAVIOURS, ids=lambda one: one.__name__)
def test_what_blocks_is_ended_where_it_is(misbehave: Callable[[], None]) -> None:
    bad = True

    async def route(request: Request) -> None:
        if bad:
            misbehave()

    async def test() -> None:
        nonlocal bad
        with Rig(main_route(route)).awake() as rig:
            began = time.monotonic()
            error = rig.request()
            assert time.monotonic() - began < PATIENCE_S
            assert isinstance(error, RouteOverran), error
            assert error.function == misbehave.__qualname__
            assert is_within(error.where, misbehave), error
            assert error.status == 500
            assert error.took_s >= STEP_MS / 1000
            assert rig.counts == {"ROUTES_RUN": 1, "ROUTE_OVERRUNS": 1}
            ((event, fields),) = rig.lines
            assert (event, fields["route"], fields["function"]) == (
                "route blocked and was ended",
                "route",
                misbehave.__name__,
            )
            assert error.where in fields["reason"]
            bad = False
            rig.request()
            assert rig.desk.done[1] is None
            assert sys.gettrace() is None

    run_virtually(test)


@virtually
async def test_code_that_hears_no_signal_is_ended_when_it_returns() -> None:
    going_on: list[str] = []

    async def route(request: Request) -> None:
        sum(range(20_000_000))
        going_on.append("a line later, at most")
        sum(range(10_000))
        going_on.append("and another one")

    with Rig(main_route(route)).awake() as rig:
        error = rig.request()
        assert name_of(error).endswith("route")
        assert len(going_on) <= 1


@virtually
async def test_what_blocks_after_a_wait_is_ended_too() -> None:
    async def route(request: Request) -> None:
        await asyncio.sleep(1)
        loops()

    with Rig(main_route(route)).awake() as rig:
        assert rig.request() is None
        await asyncio.sleep(2)
        (error,) = rig.desk.done
        assert name_of(error) == "loops"


@virtually
async def test_a_route_that_catches_its_end_and_decides_all_the_same_has_failed() -> None:
    ends: list[str] = []

    async def route(request: Request) -> None:
        try:
            sleeps()
        except BaseException:
            ends.append("caught")
        await request.call.release("all the same")

    with Rig(main_route(route)).awake() as rig:
        error = rig.request()
        assert name_of(error) == "sleeps"
        assert ends == ["caught"]


@virtually
async def test_a_route_that_waits_after_its_end_is_not_driven_on() -> None:
    steps: list[str] = []

    async def route(request: Request) -> None:
        try:
            sleeps()
        finally:
            try:
                await asyncio.sleep(1)
                steps.append("driven on")
            finally:
                steps.append("closed")

    with Rig(main_route(route)).awake() as rig:
        assert isinstance(rig.request(), RouteOverran)
        await asyncio.sleep(3)
        assert steps == ["closed"]


@virtually
async def test_short_steps_are_ended_together_where_they_wait() -> None:
    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    async def route(request: Request) -> None:
        await spins()

    with Rig(main_route(route)).awake() as rig:
        rig.request()
        began = time.monotonic()
        while not rig.desk.done and time.monotonic() - began < PATIENCE_S:
            await asyncio.sleep(0)
        (error,) = rig.desk.done
        assert isinstance(error, RouteOverran)
        assert error.function.endswith("spins")
        assert "many steps" in str(error)
        assert is_within(error.where, spins)


def test_the_last_of_many_steps_is_not_said_to_have_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_used_up = Ration(STEP_MS / 1000, 4 * STEP_MS / 1000)
    nearly_used_up.left_s = nearly_used_up.limit_s = 0.002
    monkeypatch.setattr(Watchdog, "ration", lambda *_, **__: nearly_used_up)

    async def route(request: Request) -> None:
        loops()

    async def test() -> None:
        with Rig(main_route(route)).awake() as rig:
            error = rig.request()
            assert isinstance(error, RouteOverran)
            said = re.search(r"ran for (\d+) ms in many steps", str(error))
            assert said is not None
            assert int(said[1]) >= 4 * STEP_MS - 2

    run_virtually(test)


@virtually
async def test_a_route_that_cannot_be_cancelled_is_not_driven_on_for_ever() -> None:
    turns, over = 0, False

    async def route(request: Request) -> None:
        nonlocal turns
        while not over:
            turns += 1
            try:
                await asyncio.sleep(1)
            except BaseException:
                continue

    with Rig(main_route(route)).awake() as rig:
        rig.request()
        await asyncio.sleep(5.5)
        assert [type(error) for error in rig.desk.done] == [RouteTimedOut]
        await asyncio.sleep(6)
        stood = turns
        await asyncio.sleep(10)
        assert turns == stood
        over = True
        assert not rig.runner._abandoned


@virtually
async def test_endless_recursion_costs_the_route_alone() -> None:
    async def route(request: Request) -> None:
        await route(request)

    with Rig(main_route(route), step_ms=500).awake() as rig:
        assert isinstance(rig.request(), RecursionError)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("x")], ids=repr)
@pytest.mark.parametrize("waits", [False, True])
def test_no_exception_ends_the_worker(error: BaseException, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    former = signal.signal(signal.SIGINT, lambda *_: None)  # as in a worker

    async def route(request: Request) -> None:
        if waits:
            await asyncio.sleep(1)
        raise error

    async def test() -> None:
        with Rig(main_route(route)).awake() as rig:
            rig.request()
            await asyncio.sleep(2)
            (found,) = rig.desk.done
            assert found is error or (isinstance(found, RouteFailed) and type(error).__name__ in str(found))

    try:
        run_virtually(test)
    finally:
        signal.signal(signal.SIGINT, former)


@virtually
async def test_a_task_of_a_route_is_watched_as_the_route_is() -> None:
    async def blocks() -> None:
        await asyncio.sleep(1)
        loops()

    async def leaves() -> None:
        raise SystemExit(1)

    tasks: list[asyncio.Task[Any]] = []  # Any: they return nothing

    async def route(request: Request) -> None:
        tasks.extend([asyncio.create_task(blocks()), asyncio.create_task(leaves())])
        await asyncio.gather(asyncio.create_task(asyncio.sleep(0.5)))

    with Rig(main_route(route)).awake() as rig:
        rig.request()
        await asyncio.sleep(3)
        assert rig.desk.done == [None]
        found = [task.exception() for task in tasks]
        assert name_of(found[0]) == "loops"
        assert isinstance(found[1], RouteFailed)
        assert rig.counts == {"ROUTES_RUN": 1, "ROUTE_OVERRUNS": 1}
        assert rig.lines[0][1]["route"] == "a task of a route"


@virtually
async def test_a_spinning_task_of_a_route_is_ended() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    async def route(request: Request) -> None:
        tasks.append(asyncio.create_task(spins()))

    with Rig(main_route(route)).awake() as rig:
        rig.request()
        began = time.monotonic()
        while not tasks[0].done() and time.monotonic() - began < PATIENCE_S:
            await asyncio.sleep(0)
        assert isinstance(tasks[0].exception(), RouteOverran)


@virtually
async def test_other_kinds_of_routes_are_watched_and_timers_go_on() -> None:
    routes = Routes()
    turns: list[int] = []

    @routes.timer_route(every_s=10)
    async def tick(node: Node) -> None:
        turns.append(1)
        sleeps()

    @routes.event_route("media.timeout")
    async def hear(event: object) -> None:
        sleeps()

    @routes.local_route
    async def stamp(request: object) -> None:
        sleeps()

    with Rig(routes).awake() as rig:
        await rig.runner.start_up()
        await asyncio.sleep(25)
        assert len(turns) == 2
        rig.runner.raise_event("media.timeout", object())
        call = CallSubject("key", 1, GONE, 0.0, 0.0)
        for kind in (RouteKind.BRANCH, RouteKind.REPLY, RouteKind.FAILURE, RouteKind.ERROR):
            rig.runner._run(stamp, object(), rig.runner._route_ended, RunRoute(kind, call))
        assert [type(error) for error in rig.desk.done] == [RouteOverran] * 4
        assert rig.counts["ROUTE_OVERRUNS"] + rig.counts.get("ROUTES_HELD_OFF", 0) == 7


@virtually
async def test_a_startup_route_that_blocks_is_refused_with_a_sentence() -> None:
    routes = Routes()

    @routes.startup_route
    async def load(node: Node) -> None:
        sleeps()

    with Rig(routes).awake() as rig, pytest.raises(RouteOverran, match=r"sleeps blocked for \d+ ms"):
        await rig.runner.prepare(routes)
