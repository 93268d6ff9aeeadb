"""Runs a coroutine at once and by hand; only one that really waits becomes a task of the event loop.

Most routes decide without waiting for anything, and a task for each would cost more than the route. asyncio of Python
3.11 has no eager tasks, and a task cannot adopt a coroutine that has begun, so two things are done here:

- while a coroutine is driven by hand, its :class:`Run` stands in as the current task, so that ``asyncio.timeout`` and
  ``TaskGroup``, which ask for one before they wait, work; it hands on to the task that may follow;
- when it waits, a task goes on in its place: :func:`_go_on` first gives the loop the future that the coroutine has
  already yielded, then passes whatever the loop sends or throws to it.

The coroutine runs in a context of its own from the first step to the last, as it would in a task.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from asyncio import tasks
from collections.abc import Callable, Generator
from typing import Any

from sbc.routing.routes import RouteError, Work

Finished = Callable[["Run", BaseException | None], None]


class Run:
    """One coroutine from its first step to its end; to the code that it runs, a task.

    ``finished`` is called once, with the error that ended it or None. ``key`` is the caller's.
    """

    __slots__ = (
        "__weakref__",
        "_cancels",
        "_context",
        "_coro",
        "_finished",
        "_loop",
        "_stepped",
        "key",
        "name",
        "over",
        "task",
    )

    def __init__(
        self,
        coro: Work,
        loop: asyncio.AbstractEventLoop | None,
        finished: Finished,
        stepped: Callable[[], None],
        key: Any = None,  # Any: carried, not read
    ) -> None:
        self._coro = coro
        self._loop = loop
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
        loop = self._loop
        outer = None
        if loop is not None:
            outer = tasks.current_task(loop)
            if outer is not None:
                tasks._leave_task(loop, outer)
            tasks._enter_task(loop, self)  # type: ignore[arg-type]  # a stand-in for a task, see above
        try:
            yielded = self._context.run(self._coro.send, None)
        except StopIteration:
            error: BaseException | None = None
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        else:
            if loop is not None:
                self._adopt(loop, yielded)
                return False
            self._coro.close()
            error = RouteError("a route waited where no event loop runs")
        finally:
            if loop is not None:
                tasks._leave_task(loop, self)  # type: ignore[arg-type]  # as above
                if outer is not None:
                    tasks._enter_task(loop, outer)
        self.end(error)
        return True

    def end(self, error: BaseException | None) -> None:
        """Report the end, once; what the coroutine does after that concerns nobody."""
        if not self.over:
            self.over = True
            self._finished(self, error)

    def abandon(self, error: BaseException) -> None:
        """Report ``error`` as the end now, and cancel what still runs."""
        self.end(error)
        self.cancel()

    def _adopt(self, loop: asyncio.AbstractEventLoop, yielded: Any) -> None:  # Any: a future or None, asyncio's own
        self.task = loop.create_task(self._rest(yielded), context=self._context)
        self.task.add_done_callback(self._task_ended)
        for _ in range(self._cancels):  # after the task's first step, so that the coroutine sees it at its own wait
            loop.call_soon(self.task.cancel)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never enters ``_rest``."""
        if not self.over:
            self._coro.close()
            self.end(asyncio.CancelledError())
            self._stepped()

    async def _rest(self, yielded: Any) -> None:  # Any: as above
        try:
            await _go_on(self._coro, yielded, self._stepped)
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

    def get_coro(self) -> Work:
        return self._coro

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop


@types.coroutine
def _go_on(coro: Work, yielded: Any, stepped: Callable[[], None]) -> Generator[Any, Any, None]:  # Any: asyncio's own
    """Drive a coroutine on that has begun and has yielded ``yielded``; ``stepped`` is called after each step."""
    sent = None
    while True:
        try:
            sent = yield yielded
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as error:
            thrown: BaseException | None = error
        else:
            thrown = None
        try:
            yielded = coro.send(sent) if thrown is None else coro.throw(thrown)
        except StopIteration:
            return
        stepped()
