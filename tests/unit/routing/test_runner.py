"""Routes that wait, fail, take too long; timers and events: on a real event loop whose time is virtual."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import current_task
from collections.abc import Callable
from typing import Any

import pytest

from sbc.b2bua.call import Call as CallSubject
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import GONE, Leg
from sbc.clock import VirtualClock
from sbc.routing import MediaTimeout, Node, Request, Routes
from sbc.routing.routes import RouteFailed, RouteTimedOut
from sbc.routing.runner import Runner
from tests.support.virtual_loop import run_virtually
from tests.unit.routing.stage import CONFIG

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="outside")


class Desk:
    """What the runner asks of the core, noted. ``key`` is all that it reads of a call here."""

    def __init__(self) -> None:
        self.calls: dict[str, CallSubject] = {}
        self.done: list[BaseException | None] = []
        self.released: list[str] = []

    def route_done(self, effect: RunRoute, error: BaseException | None, now: float) -> None:
        self.done.append(error)

    def release(self, call: CallSubject, now: float, *, reason: str, cause: int = 16, status: int = 500) -> None:
        self.released.append(reason)

    requests: Any = None  # Any, in these eight: never asked for in these tests
    listener_of: Any = None
    reject: Any = None
    dial: Any = None
    dial_next: Any = None
    move_media: Any = None
    drop: Any = None
    reply_bad: Any = None


class Rig:
    """A runner on the running loop."""

    def __init__(self, routes: Routes, *, loop: bool = True) -> None:
        self.desk = Desk()
        self.counts: dict[str, int] = {}
        self.drains = 0
        self.runner = Runner(
            routes,
            Node(CONFIG, self.desk, VirtualClock()),
            loop=asyncio.get_running_loop() if loop else None,
            drain=self._drain,
            count=self._count,
        )

    def _drain(self) -> None:
        self.drains += 1

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def request(self) -> None:
        leg = Leg("a", GONE.dialog, GONE.flow, "inside", "phones", "from_phones")
        call = CallSubject("key", 1, leg, 0.0, 0.0)
        self.runner.perform(RunRoute(RouteKind.REQUEST, call))


def virtually(test: Callable[[], Any]) -> Callable[[], None]:  # Any: a coroutine
    """Run a test on the virtual loop."""

    def run() -> None:
        run_virtually(test)

    run.__name__ = test.__name__
    return run


def main_route(route: Callable[[Request], Any]) -> Routes:  # Any: a coroutine
    routes = Routes()
    routes.route(route)
    return routes


@virtually
async def test_a_route_that_does_not_wait_is_over_at_once_and_makes_no_task() -> None:
    tasks: list[object] = []

    async def plain() -> int:
        return 7

    async def route(request: Request) -> None:
        assert await plain() == 7
        tasks.extend(asyncio.all_tasks())

    before = asyncio.all_tasks()
    me = current_task()
    rig = Rig(main_route(route))
    rig.request()
    assert rig.desk.done == [None]
    assert set(tasks) == before
    assert current_task() is me


@virtually
async def test_a_route_that_waits_goes_on_as_a_task() -> None:
    steps: list[object] = []
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def route(request: Request) -> None:
        await asyncio.sleep(0)
        steps.append("slept 0")
        steps.append(await future)
        await asyncio.sleep(2)
        steps.append(await asyncio.gather(asyncio.sleep(1, "x"), asyncio.sleep(1, "y")))

    rig = Rig(main_route(route))
    rig.request()
    assert rig.desk.done == []
    await asyncio.sleep(0.1)
    assert steps == ["slept 0"]
    future.set_result("woken")
    await asyncio.sleep(0.1)
    assert steps == ["slept 0", "woken"]
    drains = rig.drains
    assert drains >= 2  # what a step asked of the core is not left lying
    await asyncio.sleep(4)
    assert steps[2:] == [["x", "y"]]
    assert rig.desk.done == [None]
    assert rig.drains > drains
    assert not rig.runner._waiting


@virtually
async def test_a_future_that_fails_is_seen_where_it_is_awaited() -> None:
    seen: list[str] = []
    futures = [asyncio.get_running_loop().create_future() for _ in range(2)]

    async def route(request: Request) -> None:
        for future in futures:
            try:
                await future
            except OSError as error:
                seen.append(str(error))
        raise ValueError("at the end")

    rig = Rig(main_route(route))
    rig.request()
    for number, future in enumerate(futures):
        future.set_exception(OSError(number))
        await asyncio.sleep(0.1)
    assert seen == ["0", "1"]
    assert [str(error) for error in rig.desk.done] == ["at the end"]


@virtually
async def test_timeouts_and_task_groups_work_before_and_after_the_first_wait() -> None:
    seen: list[str] = []

    async def at_once() -> None: ...

    async def route(request: Request) -> None:
        async with asyncio.timeout(3):
            await at_once()
            seen.append("in time, without waiting")
        for _ in range(2):  # the first begins before there is a task, the second after
            try:
                async with asyncio.timeout(0.5):
                    await asyncio.sleep(60)
            except TimeoutError:
                seen.append("timed out")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.1))
        seen.append("grouped")

    rig = Rig(main_route(route))
    rig.request()
    await asyncio.sleep(3)
    assert seen == ["in time, without waiting", "timed out", "timed out", "grouped"]
    assert rig.desk.done == [None]


@virtually
async def test_a_task_group_that_opens_before_the_first_wait_is_cancelled_by_its_child() -> None:
    async def fail() -> None:
        raise OSError("child")

    seen: list[str] = []

    async def route(request: Request) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(60)
        except* OSError:
            seen.append("child failed")
        task = current_task()
        assert task is not None
        assert task.cancelling() == 0

    rig = Rig(main_route(route))
    rig.request()
    await asyncio.sleep(1)
    assert seen == ["child failed"]
    assert rig.desk.done == [None]


@virtually
async def test_a_route_may_cancel_itself_before_it_waits() -> None:
    async def route(request: Request) -> None:
        task = current_task()
        assert task is not None
        task.cancel()
        assert task.cancelling() == 1
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            task.uncancel()
            raise LookupError from None

    rig = Rig(main_route(route))
    rig.request()
    await asyncio.sleep(0.1)
    assert [type(error) for error in rig.desk.done] == [LookupError]


@virtually
async def test_context_variables_are_the_routes_own_from_beginning_to_end() -> None:
    seen: list[str] = []

    async def route(request: Request) -> None:
        token = VARIABLE.set("inside")
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())
        VARIABLE.reset(token)  # raises ValueError in any context but the one of set()
        seen.append(VARIABLE.get())

    rig = Rig(main_route(route))
    rig.request()
    assert VARIABLE.get() == "outside"
    await asyncio.sleep(0.1)
    assert seen == ["inside", "outside"]
    assert rig.desk.done == [None]


@virtually
async def test_a_route_that_takes_too_long_is_ended_and_only_that_one() -> None:
    ended: list[str] = []
    stubborn = asyncio.Event()

    async def route(request: Request) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            await stubborn.wait()
            ended.append("and gone on")

    rig = Rig(main_route(route))
    rig.request()
    await asyncio.sleep(4.9)
    assert rig.desk.done == []
    await asyncio.sleep(0.2)
    assert [type(error) for error in rig.desk.done] == [RouteTimedOut]
    assert rig.counts == {"ROUTES_RUN": 1, "ROUTE_TIMEOUTS": 1}
    assert ended == ["cancelled"]
    stubborn.set()
    await asyncio.sleep(0.1)
    assert len(rig.desk.done) == 1  # what it does after its end concerns nobody
    assert not rig.runner._waiting


@virtually
async def test_closing_ends_what_waits() -> None:
    cleaned: list[str] = []

    async def route(request: Request) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("cleaned")

    rig = Rig(main_route(route))
    rig.request()
    rig.request()
    await asyncio.sleep(0.1)
    rig.request()  # this one has not had its first step as a task yet
    rig.runner.close()
    await asyncio.sleep(0.1)
    assert cleaned == ["cleaned"] * 3
    assert [type(error) for error in rig.desk.done] == [asyncio.CancelledError] * 3


def test_without_a_loop_a_route_may_not_wait() -> None:
    async def route(request: Request) -> None:
        await asyncio.sleep(0)

    rig = Rig(main_route(route), loop=False)
    rig.request()
    (error,) = rig.desk.done
    assert "where no event loop runs" in str(error)


def test_a_plain_function_that_was_armed_is_an_error_of_that_route() -> None:
    rig = Rig(Routes(), loop=False)
    rig.runner.perform(RunRoute(RouteKind.FAILURE, CallSubject("k", 1, GONE, 0.0, 0.0), lambda failure: None))
    assert [type(error) for error in rig.desk.done] == [AttributeError]


def test_a_kind_without_a_route_is_done_at_once() -> None:
    rig = Rig(Routes(), loop=False)
    rig.runner.perform(RunRoute(RouteKind.LOCAL, object()))
    assert rig.desk.done == [None]
    assert rig.counts == {}


@virtually
async def test_startup_routes_run_in_order_and_what_they_raise_passes_on() -> None:
    ran: list[str] = []
    routes = Routes()

    @routes.startup_route
    async def first(node: Node) -> None:
        await asyncio.sleep(1)
        ran.append(node.name)

    @routes.startup_route
    async def second(node: Node) -> None:
        ran.append("second")
        raise RouteFailed("no table")

    with pytest.raises(RouteFailed, match="no table"):
        await Rig(routes).runner.start_up()
    assert ran == ["sbc1", "second"]


@virtually
async def test_a_timer_first_runs_after_one_interval_and_never_twice_at_a_time() -> None:
    loop = asyncio.get_running_loop()
    begun: list[float] = []
    running: list[int] = []
    start = loop.time()
    routes = Routes()

    @routes.timer_route(every_s=10)
    async def slow(node: Node) -> None:
        begun.append(round(loop.time() - start))
        running.append(1)
        assert len(running) == 1
        if len(begun) == 2:
            await asyncio.sleep(25)  # two turns fall into this
        running.clear()
        if len(begun) == 3:
            raise ValueError("a timer goes on after an error")

    rig = Rig(routes)
    await rig.runner.start_up()
    await asyncio.sleep(71)
    assert begun == [10, 20, 50, 60, 70]
    assert rig.counts == {"ROUTE_ERRORS": 1}
    rig.runner.close()
    await asyncio.sleep(60)
    assert len(begun) == 5


@virtually
async def test_replaced_routes_take_their_timers_with_them() -> None:
    old_ran: list[str] = []
    new_ran: list[str] = []

    def routes_with(ran: list[str], duration_s: float) -> Routes:
        routes = Routes()

        @routes.timer_route(every_s=10)
        async def tick(node: Node) -> None:
            ran.append("tick")
            await asyncio.sleep(duration_s)

        return routes

    rig = Rig(routes_with(old_ran, 5))
    await rig.runner.start_up()
    await asyncio.sleep(12)  # in the middle of the old one's run
    new = routes_with(new_ran, 0)
    await rig.runner.prepare(new)
    rig.runner.replace(new, CONFIG)
    await asyncio.sleep(31)
    assert (len(old_ran), len(new_ran)) == (1, 3)
    rig.runner.close()


@virtually
async def test_event_routes_of_one_name_run_side_by_side() -> None:
    heard: list[tuple[str, str, float]] = []
    routes = Routes()

    @routes.event_route("media.timeout")
    async def first(event: MediaTimeout) -> None:
        raise ValueError("the others hear it all the same")

    @routes.event_route("media.timeout")
    async def second(event: MediaTimeout) -> None:
        await asyncio.sleep(1)
        heard.append((event.call.key, event.leg, event.silent_s))
        await event.call.release("no media", cause=102)

    rig = Rig(routes)
    call = CallSubject("key", 1, GONE, 0.0, 0.0)
    rig.runner.media_timeout(call, "b1", 30.0)
    rig.runner.raise_event("nobody.listens", object())
    await asyncio.sleep(2)
    assert heard == [("key", "b1", 30.0)]
    assert rig.desk.released == ["no media"]
    assert rig.counts == {"ROUTES_RUN": 2, "ROUTE_ERRORS": 1}
    assert rig.drains >= 2
