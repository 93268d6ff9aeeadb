"""An event loop whose time is virtual: where nothing can be read, it jumps to the next timer instead of waiting.

Sockets work as usual, so both ends of a connection must live in the same loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout is None or timeout <= 0:
            return events if events or timeout is not None else super().select(None)
        self.now_s += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` moves only as timers need it to."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:  # Any: asyncio's own signature
    """Run a test's coroutine function in a VirtualLoop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
