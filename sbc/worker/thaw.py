"""The clock of a SIP or media worker in a pair: whoever stood still for long reads the time again only once its node
knows that it is active still.

A machine that was stopped as a whole (a frozen virtual machine, SIGSTOP) does not know that another node has its calls.
All timers are due then, and datagrams of long ago wait. Whatever comes in, the worker reads the clock first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from sbc.clock import Clock
from sbc.config.models import Config
from sbc.telemetry.role import STOOD_STILL, Role, RoleCell

PATIENCE_S = 3.0  # then nobody will tell any more, and a successor begins anew


class ThawClock:
    """``limit_s`` is less than what the other node takes for a death. Only a gap of that length between two readings
    costs a look at ``cell``, where the process ``ha`` notes when it was sure last."""

    def __init__(
        self,
        clock: Clock,
        cell: RoleCell,
        limit_s: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._read = clock.monotonic
        self._wall = clock.wall
        self._cell = cell
        self._silenced = cell.silenced
        self._limit_s = limit_s
        self._sleep = sleep
        self._end = end
        self._last_s = self._read()

    def wall(self) -> float:
        """As the clock that this one is made of."""
        return self._wall()

    def monotonic(self) -> float:
        """Now; after a long time only if this node is active still, or was not before. Else the process ends in it."""
        now = self._read()
        if now - self._last_s > self._limit_s:
            now = self._sure(now)
        self._last_s = now
        return now

    def _sure(self, now: float) -> float:
        cell, until = self._cell, now + PATIENCE_S
        while True:
            if cell.role is Role.PASSIVE:
                if cell.silenced != self._silenced:
                    self._end(0)  # no BYE, no record: another node has the calls
                return now  # standing by since it began
            if now - cell.sure_s < self._limit_s:
                return now
            if now > until:
                self._end(1)
                return now
            self._sleep(0.002)
            now = self._read()


def watched(clock: Clock, config: Config, cell: RoleCell | None) -> Clock:
    """Of a worker in a pair; a node alone has the clock as it is."""
    if cell is None or config.ha is None:
        return clock
    return ThawClock(clock, cell, STOOD_STILL * config.ha.heartbeat_ms * config.ha.misses / 1000)
