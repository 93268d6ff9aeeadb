"""The one place where shells read time. The core never does: it is handed ``now``."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds for timers, wall-clock seconds for CDRs and logs."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class VirtualClock:
    """A clock that moves only when told: for tests and the simulator."""

    def __init__(self, start_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self.now = start_s
        self.wall_offset = wall_s - start_s

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset

    def advance(self, seconds: float) -> None:
        """Move both clocks forward; ``seconds`` may not be negative."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self.now += seconds
