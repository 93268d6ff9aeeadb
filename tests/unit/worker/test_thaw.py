"""A worker that stood still, by a clock that the test moves."""

from __future__ import annotations

import time

import pytest

from sbc.clock import VirtualClock
from sbc.telemetry.role import Role, RoleCell
from sbc.worker.thaw import PATIENCE_S, ThawClock

LIMIT_S = 0.4


class EndedError(Exception):
    pass


class Worker:
    """Its clock is that of the machine, moved on; ``later`` is what ``ha`` finds so long after a thaw (None: sure)."""

    def __init__(self, role: Role = Role.ACTIVE) -> None:
        self.clock = VirtualClock(time.monotonic())
        self.cell = RoleCell(["sip 0"])
        self.cell.now = self.clock.monotonic
        if role is not Role.PASSIVE:
            self.cell.set(role, 1)
        self.later: tuple[float, Role | None] = (float("inf"), None)
        self.thaw = ThawClock(self.clock, self.cell, LIMIT_S, sleep=self._sleep, end=self._end)

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.clock.now >= self.later[0]:
            role, self.later = self.later[1], (float("inf"), None)
            if role is None:
                self.cell.sure()
            else:
                self.cell.set(role, 2)

    def _end(self, code: int) -> None:
        raise EndedError(code)

    def frozen(self, seconds: float, role: Role | None, after_s: float = 0.01) -> float:
        """How long the clock is not told after a thaw."""
        self.clock.advance(seconds)
        self.later = (self.clock.now + after_s, role)
        began = self.clock.now
        return self.thaw.monotonic() - began


def test_who_works_is_not_asked() -> None:
    worker = Worker()
    for _ in range(100):
        worker.clock.advance(0.1)  # ha is dead, say: its successor goes on
        assert worker.thaw.monotonic() == worker.clock.now


def test_who_alone_stood_still_goes_on() -> None:
    worker = Worker()
    worker.clock.advance(5.0)
    worker.cell.sure()
    assert worker.thaw.monotonic() == worker.clock.now


def test_a_node_that_is_active_still_goes_on_once_it_knows() -> None:
    assert 0.01 <= Worker().frozen(5.0, None) < 0.02


@pytest.mark.parametrize("after_s", [0.0, 0.2])
def test_a_node_that_was_replaced_ends_without_a_word(after_s: float) -> None:
    with pytest.raises(EndedError) as ended:
        Worker().frozen(5.0, Role.PASSIVE, after_s)
    assert ended.value.args == (0,)


def test_who_is_told_nothing_ends_as_well() -> None:
    with pytest.raises(EndedError) as ended:
        Worker().frozen(5.0, None, PATIENCE_S + 1)
    assert ended.value.args == (1,)


def test_who_stands_by_may_sleep() -> None:
    worker = Worker(Role.PASSIVE)
    worker.clock.advance(3600.0)
    assert worker.thaw.monotonic() == worker.clock.now
    worker.clock.advance(3600.0)
    worker.cell.set(Role.ACTIVE, 3)
    assert worker.thaw.monotonic() == worker.clock.now
    with pytest.raises(EndedError):
        worker.frozen(5.0, Role.PASSIVE)
