"""Routes that hold their worker, and a runner whose watchdog is awake."""

# ruff: noqa: SIM105 - what must not be done is what is tried here

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sbc.b2bua.call import Call as CallSubject
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import GONE, Leg
from sbc.clock import VirtualClock
from sbc.config.budget import RoutesBudget
from sbc.routing import Node, Routes
from sbc.routing.routes import RouteOverran
from sbc.routing.runner import Runner
from sbc.telemetry.log import Logger
from tests.unit.routing.stage import CONFIG
from tests.unit.routing.test_runner import Desk

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
    return file == inspect.getsourcefile(function) and first < int(line) < first + len(lines)
