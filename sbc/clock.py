"""The one place where shells read time. The core never does: it is handed ``now``."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds for timers, wall-clock seconds for CDRs and logs."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


@cache
def boot() -> str:
    """A name for the monotonic clock of this process: the same for all that share it, of this boot of the machine and
    of this time namespace. Empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            name = file.read().replace("-", "")[:16]
    except OSError:
        return ""
    try:
        return f"{name}-{os.stat('/proc/self/ns/time').st_ino:x}"
    except OSError:  # a kernel without such namespaces
        return name


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
