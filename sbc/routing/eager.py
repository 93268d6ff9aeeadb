"""Runs a coroutine at once and by hand; only one that really waits becomes a task of the event loop.

Most routes decide without waiting for anything, and a task for each would cost more than the route. asyncio of Python
3.11 has no eager tasks, and a task cannot adopt a coroutine that has begun, so two things are done here:

- while a coroutine is driven by hand, its :class:`Run` stands in as the current task, so that ``asyncio.timeout`` and
  ``TaskGroup``, which ask for one before they wait, work; it hands on to the task that may follow;
- when it waits, a task goes on in its place: :func:`steps` first gives the loop the future that the coroutine has
  already yielded, then passes whatever the loop sends or throws to it.

The coroutine runs in a context of its own from the first step to the last, as it would in a task. Each step is under
the watchdog, and so are the steps of tasks that it begins (:func:`task_factory`). Whatever it raises ends it and nobody
else, also SystemExit.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import types
from asyncio import tasks
from collections.abc import Callable, Generator
from time import monotonic
from typing import Any

from sbc.routing.routes import RouteError, RouteFailed, RouteOverran, Work
from sbc.routing.watchdog import Ration, Watchdog, boundary

Finished = Callable[["Run", BaseException | None], None]


class Run:
    """One coroutine from its first step to its end; to the code that it runs, a task.

    ``route`` is called with ``argument`` in the first step. ``finished`` is called once, with the error that ended it
    or None. ``key`` is the caller's.
    """

    __slots__ = (
        "__weakref__",
        "_argument",
        "_cancels",
        "_context",
        "_coro",
        "_finished",
        "_loop",
        "_ration",
        "_route",
        "_stepped",
        "_watchdog",
        "key",
        "name",
        "over",
        "task",
    )

    def __init__(
        self,
        route: Callable[[Any], Work],  # Any: each kind of route has an argument of its own
        argument: object,
        loop: asyncio.AbstractEventLoop | None,
        watchdog: Watchdog,
        ration: Ration,
        finished: Finished,
        stepped: Callable[[], None],
        key: Any = None,  # Any: carried, not read
    ) -> None:
        self._route = route
        self._argument = argument
        self._coro: Work | None = None
        self._loop = loop
        self._watchdog = watchdog
        self._ration = ration
        self._finished = finished
        self._stepped = stepped
        self._context = contextvars.copy_context()
        self._cancels = 0
        self.key = key
        self.over = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> bool:
        """Run to the end or to the first wait; True when it has ended.

        Without a loop (virtual time) a coroutine that waits ends with a RouteError.
        """
        loop, watchdog, ration = self._loop, self._watchdog, self._ration
        outer = None
        if loop is not None:
            outer = tasks.current_task(loop)
            if outer is not None:
                tasks._leave_task(loop, outer)
            tasks._enter_task(loop, self)  # type: ignore[arg-type]  # a stand-in for a task, see above
        error: BaseException | None = None
        waits = False
        interrupted = watchdog.enter(ration)
        try:
            yielded = self._context.run(self._first)
            waits = True
        except StopIteration:
            pass
        except BaseException as raised:
            if _is_control_c(raised):
                raise
            error = raised
        finally:
            overran = watchdog.leave(ration, interrupted)
            if loop is not None:
                tasks._leave_task(loop, self)  # type: ignore[arg-type]  # as above
                if outer is not None:
                    tasks._enter_task(loop, outer)
        if waits and overran is None and loop is not None:
            self._adopt(loop, yielded)
            return False
        if waits:
            self._close()
            error = RouteError("a route waited where no event loop runs")
        self.end(overran or error)
        return True

    def _first(self) -> Any:  # Any: a future or None, asyncio's own
        coro = self._coro = self._route(self._argument)
        return coro.send(None)

    def _close(self) -> None:
        if self._coro is not None:
            close(self._coro, self._watchdog)

    def end(self, error: BaseException | None) -> None:
        """Report the end, once; what the coroutine does after that concerns nobody."""
        if not self.over:
            self.over = True
            self._finished(self, error)

    def abandon(self, error: BaseException) -> None:
        """Report ``error`` as the end now, and cancel what still runs."""
        self.end(error)
        self.cancel()

    def kill(self) -> None:
        """End what goes on although it was cancelled."""
        self._ration.dead = True
        self.cancel()

    def _adopt(self, loop: asyncio.AbstractEventLoop, yielded: Any) -> None:  # Any: a future or None, asyncio's own
        self.task = asyncio.Task(self._rest(yielded), loop=loop, context=self._context)
        self.task.add_done_callback(self._task_ended)
        for _ in range(self._cancels):  # after the task's first step, so that the coroutine sees it at its own wait
            loop.call_soon(self.task.cancel)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never enters ``_rest``."""
        if not self.over:
            self._close()
            self.end(asyncio.CancelledError())
            self._stepped()

    async def _rest(self, yielded: Any) -> None:  # Any: as above
        try:
            await steps(self._coro, self._watchdog, self._ration, self._stepped, yielded)
        except (Exception, asyncio.CancelledError) as error:
            self.end(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self.end(None)
        finally:
            self._stepped()

    # What asyncio and libraries ask of the current task.

    def cancel(self, msg: Any = None) -> bool:  # Any: asyncio's signature
        if self.task is not None:
            return self.task.cancel(msg)
        self._cancels += 1
        return True

    def cancelling(self) -> int:
        return self.task.cancelling() if self.task is not None else self._cancels

    def uncancel(self) -> int:
        if self.task is not None:
            return self.task.uncancel()
        self._cancels = max(0, self._cancels - 1)
        return self._cancels

    def done(self) -> bool:
        return self.over if self.task is None else self.task.done()

    def cancelled(self) -> bool:
        return self.task is not None and self.task.cancelled()

    def get_name(self) -> str:
        return "route" if self.task is None else self.task.get_name()

    def get_coro(self) -> Work | None:
        return self._coro

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop


@types.coroutine
def steps(
    coro: Any, watchdog: Watchdog, ration: Ration, stepped: Callable[[], None], *waits_for: Any
) -> Generator[Any, Any, Any]:
    """Drive a coroutine to its end and return its result; ``waits_for`` is what one that has begun has yielded.

    ``stepped`` is called after each step but the last. Raises what it raises, RouteOverran where the watchdog ended it,
    and RouteFailed for what would end the process. Any: a coroutine of whatever make, and asyncio's own.
    """
    begun = bool(waits_for)
    yielded = waits_for[0] if begun else None
    while True:
        sent, thrown, rested_at = None, None, monotonic()
        if begun:
            try:
                sent = yield yielded
            except GeneratorExit:
                close(coro, watchdog)
                raise
            except BaseException as error:
                thrown = error
            if ration.dead:
                close(coro, watchdog)
                return None
            watchdog.rested(ration, monotonic() - rested_at)
        begun = True
        outer = watchdog.enter(ration)
        failed: BaseException | None = None
        result, over = None, False
        try:
            yielded = coro.send(sent) if thrown is None else coro.throw(thrown)
        except StopIteration as end:
            result, over = end.value, True
        except BaseException as error:
            if _is_control_c(error):
                raise
            failed, over = error, True
        finally:
            overran = watchdog.leave_resumed(ration, outer, coro)
        if overran is not None:
            if not over:
                close(coro, watchdog)
            raise overran
        if failed is not None:
            if isinstance(failed, Exception | asyncio.CancelledError):
                raise failed
            raise RouteFailed(f"{type(failed).__name__}: {failed}") from failed
        if over:
            return result
        stepped()


def close(coro: Work, watchdog: Watchdog) -> None:
    """Throw GeneratorExit into a coroutine; where it does not end of that, it stays where it is for good."""
    ration = watchdog.ration()
    outer = watchdog.enter(ration)
    try:
        coro.close()
    except BaseException as error:
        if _is_control_c(error):
            raise
    finally:
        watchdog.leave(ration, outer)


def task_factory(
    watchdog: Watchdog, strayed: Callable[[RouteOverran], None]
) -> Callable[..., asyncio.Task[Any]]:  # Any: whatever a task returns, in these three
    """For ``loop.set_task_factory``: tasks that routes begin are watched as they are. ``strayed`` is told of each that
    was ended, since nobody may ever ask for its result."""

    async def watched(coro: Any, ration: Ration) -> Any:
        try:
            return await steps(coro, watchdog, ration, _nothing)
        except RouteOverran as error:
            if error is ration.ended:
                strayed(error)
            raise

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        if watchdog.current is not None:
            coro = watched(coro, watchdog.ration_of_task(coro))
        return asyncio.Task(coro, loop=loop, **options)

    return make


def _nothing() -> None:
    pass


def _is_control_c(error: BaseException) -> bool:
    """Whether the user of a command wants it to end; a worker has a handler of its own for SIGINT."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


for _function in (Run.start, Run._first, Run._close, steps, close):
    boundary(_function.__code__)
