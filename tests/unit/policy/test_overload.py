"""Overload: the refused share follows how long messages wait, and is spread evenly; who refuses stays busy."""

from __future__ import annotations

from collections import deque

import pytest

from sbc.policy.overload import KNOWN, LATE_S, MOST, PATIENCE_S, TARGET_S, Overload

LOOK_S = 0.1


def feed(overload: Overload, wait_s: float, seconds: float) -> None:
    """For so long, the oldest message had always waited so long."""
    for _ in range(round(seconds / LOOK_S)):
        overload.waited(wait_s, 0.0)
        overload.look(LOOK_S, 0.0)


class Worker:
    """One server in steps of 5 ms: each call that it takes on is work at once, and twice more later."""

    STEP_S = 0.005
    CALLS_PER_S = 2000.0  # that it can do

    def __init__(self) -> None:
        self.overload = Overload()
        self.now = 0.0
        self.done = self.refused = 0
        self.longest_s = 0.0
        self._queue: deque[tuple[float, str]] = deque()
        self._later: deque[tuple[float, str]] = deque()
        self._offered = 0.0
        self._steps = 0

    def stand_still(self, rate: float, seconds: float) -> None:
        """The machine does, but its peers do not."""
        for _ in range(round(seconds / self.STEP_S)):
            self._arrive(rate)
            self.now += self.STEP_S

    def run(self, rate: float, seconds: float) -> float:
        """Offer ``rate`` calls a second; the calls that were brought to their end, per second."""
        before = self.done
        for _ in range(round(seconds / self.STEP_S)):
            self._step(rate)
        return (self.done - before) / seconds

    def _arrive(self, rate: float) -> None:
        self._offered += rate * self.STEP_S
        while self._offered >= 1:
            self._offered -= 1
            self._queue.append((self.now, "call"))
        while self._later and self._later[0][0] <= self.now:
            self._queue.append(self._later.popleft())

    def _step(self, rate: float) -> None:
        self._arrive(rate)
        wait_s = self.now - self._queue[0][0] if self._queue else 0.0
        self.longest_s = max(self.longest_s, wait_s)
        self.overload.waited(wait_s + 1e-4, self.now)
        left_s = self.STEP_S
        while self._queue and left_s > 0:
            _, kind = self._queue.popleft()
            if kind == "call" and self.overload.refuses():
                left_s -= 0.02 / self.CALLS_PER_S
                self.refused += 1
                continue
            left_s -= 1 / 3 / self.CALLS_PER_S
            if kind == "end":
                self.done += 1
            else:
                self._later.append((self.now + 0.05, "answer" if kind == "call" else "end"))
        self.now += self.STEP_S
        self._steps += 1
        if self._steps % round(LOOK_S / self.STEP_S) == 0:
            self.overload.look(LOOK_S, 0.0)


@pytest.mark.parametrize("times", [1.1, 2, 4, 10])
def test_an_overloaded_worker_does_what_it_can_and_keeps_waits_short(times: float) -> None:
    worker = Worker()
    worker.run(times * Worker.CALLS_PER_S, 3)
    worker.longest_s = 0.0
    done = worker.run(times * Worker.CALLS_PER_S, 10)
    assert done > 0.9 * (1 - 0.02 * times) * Worker.CALLS_PER_S  # refusing costs something too
    assert worker.longest_s < 0.3  # well within T1


@pytest.mark.parametrize("times", [2, 4, 10])
@pytest.mark.parametrize("before", [0.0, 0.5])
def test_at_the_beginning_of_an_overload_nobody_waits_until_he_repeats(before: float, times: float) -> None:
    worker = Worker()
    worker.run(before * Worker.CALLS_PER_S, 1)
    worker.run(times * Worker.CALLS_PER_S, 3)
    assert worker.longest_s < 0.3  # T1 is 0.5, and a call needs time besides


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_with_room_nothing_is_refused(share: float) -> None:
    worker = Worker()
    done = worker.run(share * Worker.CALLS_PER_S, 10)
    assert done == pytest.approx(share * Worker.CALLS_PER_S, rel=0.02)
    assert not worker.overload.share


def test_after_an_overload_everything_is_taken_again() -> None:
    worker = Worker()
    worker.run(4 * Worker.CALLS_PER_S, 5)
    assert worker.overload.share > 0.5
    worker.run(0.5 * Worker.CALLS_PER_S, 4)
    assert worker.run(0.5 * Worker.CALLS_PER_S, 5) == pytest.approx(0.5 * Worker.CALLS_PER_S, rel=0.02)
    assert not worker.overload.share


@pytest.mark.parametrize(("share", "seconds"), [(0.1, 3.0), (0.5, 0.45), (0.8, 0.3)])
def test_what_waits_after_the_machine_stood_still_is_worked_off(share: float, seconds: float) -> None:
    worker = Worker()
    rate = share * Worker.CALLS_PER_S
    worker.run(rate, 2)
    worker.stand_still(rate, seconds)
    worker.run(rate, 10)
    assert worker.refused == 0
    assert worker.longest_s > seconds - 0.06


def test_waits_up_to_the_target_refuse_nothing() -> None:
    overload = Overload()
    feed(overload, TARGET_S, 60)
    assert overload.share == 0
    assert not any(overload.refuses() for _ in range(100))


def test_endless_waits_never_make_it_refuse_everything() -> None:
    overload = Overload()
    feed(overload, LATE_S - 0.001, 60)
    assert overload.share == MOST
    assert sum(not overload.refuses() for _ in range(1000)) in (50, 51)  # 5 %, give or take the first


def test_a_wait_seen_at_one_look_is_worked_off() -> None:
    overload = Overload()
    for _ in range(20):
        feed(overload, 0.01, 0.5)
        feed(overload, LATE_S - 0.001, LOOK_S)
        assert overload.share == 0


def test_a_burst_between_two_looks_does_not_count() -> None:
    overload = Overload()
    for _ in range(100):
        overload.waited(0.09, 0.0)
        overload.waited(0.01, 0.0)
        overload.look(LOOK_S, 0.0)
    assert overload.share == 0


def test_where_no_message_tells_its_wait_the_workers_own_timer_does() -> None:
    overload = Overload()
    for _ in range(20):
        overload.waited(0.0, 0.0)  # connections only
        overload.look(LOOK_S + 0.15, 0.15)
    assert overload.share > 0.5
    for _ in range(60):
        overload.look(LOOK_S, 0.001)
    assert overload.share == 0


def test_a_share_is_spread_evenly() -> None:
    overload = Overload()
    overload.share = 0.25
    pattern = [overload.refuses() for _ in range(400)]
    assert sum(pattern) == 100
    assert all(sum(pattern[start : start + 4]) == 1 for start in range(0, 400, 4))


def test_closed_refuses_all_until_it_is_opened() -> None:
    overload = Overload()
    overload.closed = True
    assert all(overload.refuses() for _ in range(100))
    overload.closed = False
    assert not any(overload.refuses() for _ in range(100))


def test_all_are_refused_while_messages_wait_too_long() -> None:
    overload = Overload()
    overload.waited(LATE_S + 0.01, 10.0)
    assert not any(overload.refuses() for _ in range(100))  # a moment in which the machine stood still
    overload.waited(LATE_S + 0.05, 10.0 + PATIENCE_S + 0.01)
    assert all(overload.refuses() for _ in range(100))
    overload.waited(LATE_S / 2, 10.5)
    assert not any(overload.refuses() for _ in range(100))


def test_a_wait_that_ends_within_patience_refuses_nothing() -> None:
    overload = Overload()
    for turn in range(20):
        overload.waited(LATE_S * 3, 10.0 + turn)
        overload.waited(LATE_S / 2, 10.1 + turn)
        assert not overload.late


def test_where_the_load_is_known_already_a_wait_is_met_at_once() -> None:
    overload = Overload()
    overload.share = KNOWN + 0.01
    overload.waited(LATE_S + 0.01, 10.0)
    assert overload.late
