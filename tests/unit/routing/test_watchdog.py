"""Routes that hold their worker: each is ended where it is, whatever it does about that, and nobody else is."""

# ruff: noqa: ASYNC110, ASYNC251, SIM105 - what must not be done is what is tried here

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sbc.b2bua.call import Call as CallSubject
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import GONE, Leg
from sbc.clock import VirtualClock
from sbc.config.budget import RoutesBudget
from sbc.routing import Node, Request, Routes
from sbc.routing.acts import Acts
from sbc.routing.doubt import FORGIVEN_S, REFILL, Doubt
from sbc.routing.routes import RouteFailed, RouteOverran, RouteTimedOut
from sbc.routing.runner import Runner
from sbc.routing.watchdog import Ration, Watchdog
from sbc.telemetry.log import Logger
from tests.support.virtual_loop import run_virtually
from tests.unit.routing.stage import CONFIG
from tests.unit.routing.test_runner import Desk, main_route, virtually

STEP_MS = 20.0
PATIENCE_S = 20.0  # of a loaded machine; what is not ended would go on for ever


class Lines(Logger):
    """A log that keeps what it is told, in the list that stands in the place of its sink."""

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:  # Any: log fields are free
        self._logger.append((event, fields))


class Rig:
    """A runner whose watchdog is awake."""

    def __init__(self, routes: Routes, step_ms: float = STEP_MS, total_s: float = 5.0) -> None:
        self.desk = Desk()
        self.counts: dict[str, int] = {}
        self.node = Node(CONFIG, self.desk, VirtualClock())
        self.lines: list[tuple[str, dict[str, Any]]] = []  # Any: log fields are free
        self.node.log = Lines(self.lines, [], {})
        self.runner = Runner(
            routes,
            self.node,
            loop=asyncio.get_running_loop(),
            count=self._count,
            budget=RoutesBudget(step_ms=step_ms, total_s=total_s),
        )

        self.runner.watch_tasks()

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def request(self) -> BaseException | None:
        """Run the main route for a call; how its first step ended, if it did."""
        leg = Leg("a", GONE.dialog, GONE.flow, "inside", "phones", "from_phones")
        self.runner.perform(RunRoute(RouteKind.REQUEST, CallSubject("key", 1, leg, 0.0, 0.0)))
        return self.desk.done[-1] if self.desk.done else None

    @contextlib.contextmanager
    def awake(self) -> Iterator[Rig]:
        with self.runner.watchdog.installed():
            yield self
        self.runner.close()
        asyncio.get_running_loop().set_task_factory(None)


def loops() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(3600)


def matches() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def reads() -> None:
    near, _far = socket.socketpair()
    with near:
        near.recv(1)


def locks() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def swallows_exceptions() -> None:
    while True:
        try:
            time.sleep(3600)
        except Exception:
            pass


def swallows_everything() -> None:
    while True:
        try:
            time.sleep(3600)
        except:  # noqa: E722  # what is tried
            pass


def swallows_twice() -> None:
    while True:
        try:
            try:
                sum(range(20_000))
            except BaseException:
                sum(range(20_000))
        except BaseException:
            sum(range(20_000))


def suppresses() -> None:
    while True:
        with contextlib.suppress(BaseException):
            sum(range(1000))


def cleans_up_slowly() -> None:
    try:
        time.sleep(3600)
    finally:
        time.sleep(3600)


MISBEHAVIOURS = (
    loops,
    sleeps,
    matches,
    reads,
    locks,
    swallows_exceptions,
    swallows_everything,
    swallows_twice,
    suppresses,
    cleans_up_slowly,
)


def name_of(error: BaseException | None) -> str:
    """The function that an error of the watchdog names."""
    assert isinstance(error, RouteOverran), error
    return error.function


def is_within(where: str, function: Callable[..., object]) -> bool:
    """Whether ``file:line`` is a line of the body of a function."""
    file, _, line = where.rpartition(":")
    lines, first = inspect.getsourcelines(function)
    return file == __file__ and first < int(line) < first + len(lines)


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
