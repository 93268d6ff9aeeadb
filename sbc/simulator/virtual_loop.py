"""The event loop that waiting routes go on in: its time is that of the stage, and its timers wait in the stage's queue.

What a route awaits of this process (``asyncio.sleep``, a lock, a task) takes virtual time only. What it awaits of the
world (a socket, a thread) takes the real time that it takes, and the virtual clock moves as much.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import time
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sbc.clock import VirtualClock

MAX_TURNS = 100_000  # of one moment; a route that needs more will never be done
LOOK_S = 0.005  # how long the world is waited for at a time


class RestlessRoute(Exception):
    """A route will never be done: it keeps the loop busy, or waits for nothing that could come."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """``schedule(at, run)`` puts something into the queue of the stage, which moves ``clock``."""

    def __init__(self, clock: VirtualClock, schedule: Callable[[float, Callable[[], None]], None]) -> None:
        self._virtual_clock = clock
        self._schedule = schedule
        self._jobs = 0  # in threads
        super().__init__(selectors.DefaultSelector())
        self._own = len(self._selector.get_map())  # type: ignore[attr-defined]  # the pipe that wakes the loop itself

    def time(self) -> float:
        return self._virtual_clock.now

    def call_at(  # type: ignore[override]  # typeshed has TypeVarTuples here
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        # Any: arguments of the callback
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._schedule(when, lambda: None if handle.cancelled() else handle._run())
        return handle

    def run_in_executor(  # type: ignore[override]  # as above
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        # Any: asyncio's own signature
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _future: asyncio.Future[Any]) -> None:  # Any: as above
        self._jobs -= 1

    @property
    def is_ready(self) -> bool:
        """Whether something can run now."""
        return bool(self._ready)  # type: ignore[attr-defined]  # there is no public way to ask

    @property
    def waits_for_the_world(self) -> bool:
        """Whether a socket or a thread may wake somebody."""
        return self._jobs > 0 or len(self._selector.get_map()) > self._own  # type: ignore[attr-defined]

    def settle(self) -> None:
        """Run what can run until nothing more can. Raises RestlessRoute."""
        for _ in range(MAX_TURNS):
            if not self.is_ready:
                return
            self._turn()
        raise RestlessRoute(f"a route was not at rest after {MAX_TURNS} turns of the event loop")

    def look(self) -> float:
        """Give sockets and threads a little real time; returns it, in seconds."""
        began = time.monotonic()
        self._selector.select(LOOK_S)  # type: ignore[attr-defined]
        self._turn()
        return time.monotonic() - began

    def _turn(self) -> None:
        with running(None):
            self.call_soon(self.stop)
            self.run_forever()


@contextmanager
def running(loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
    """``loop`` is the running loop of this thread meanwhile, also where another one runs (an asynchronous test)."""
    outer = events._get_running_loop()
    events._set_running_loop(loop)
    try:
        yield
    finally:
        events._set_running_loop(outer)
