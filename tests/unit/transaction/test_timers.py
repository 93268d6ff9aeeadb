"""TimerQueue against a heap, and what it holds on to."""

from __future__ import annotations

import gc
import heapq
import math
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.transaction.timers import Timer, TimerQueue

DELAYS = st.one_of(
    st.sampled_from([0.5, 1.0, 2.0, 4.0, 5.0, 32.0]),
    st.floats(0, 400, allow_nan=False).map(lambda x: round(x, 5)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), DELAYS),
        st.tuples(st.just("cancel"), st.integers(0, 10_000)),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.1, 0.4, 3.0])),
        st.tuples(st.just("advance"), st.floats(0, 50, allow_nan=False)),
        st.tuples(st.just("ask"), st.just(0.0)),  # not after each step: it puts the queue in order
    ),
    min_size=20,
    max_size=300,
)


def rounded(delay_s: float) -> float:
    return float(math.ceil(delay_s)) if delay_s > 60 else max(1, math.ceil(delay_s * 1000 - 1e-6)) / 1000


@given(STEPS)
def test_fires_what_a_heap_fires(steps: list[tuple[str, float]]) -> None:
    queue = TimerQueue()
    now = 50.0
    fired: list[int] = []
    timers: list[Timer] = []
    heap: list[tuple[float, int]] = []
    alive: set[int] = set()

    for step, value in steps:
        if step == "start":
            number = len(timers)
            timers.append(queue.start(value, lambda _now, number=number: fired.append(number), now))  # type: ignore[misc]  # a default argument binds the loop variable
            heapq.heappush(heap, (now + rounded(value), number))
            alive.add(number)
        elif step == "cancel" and timers:
            number = int(value) % len(timers)
            timers[number].cancel()
            alive.discard(number)
        elif step == "advance":
            now += value
            expected = []
            while heap and heap[0][0] <= now:
                number = heapq.heappop(heap)[1]
                if number in alive:
                    alive.discard(number)
                    expected.append(number)
            fired.clear()
            queue.fire(now)
            assert [timers[n].deadline for n in fired] == [timers[n].deadline for n in expected]
            assert sorted(fired) == sorted(expected)
        while heap and heap[0][1] not in alive:
            heapq.heappop(heap)
        if step == "ask":
            assert queue.next_deadline() == (heap[0][0] if heap else None)
        assert len(queue) == len(alive)


def test_a_cancelled_head_does_not_make_the_next_fire_early() -> None:
    for asks in (False, True):
        queue = TimerQueue()
        seen: list[float] = []
        queue.start(5.0, seen.append, 0.0).cancel()
        first = queue.start(5.0, seen.append, 1.0)
        queue.start(5.0, seen.append, 3.0)
        first.cancel()
        if asks:
            assert queue.next_deadline() == 8.0
        queue.fire(7.0)
        assert seen == []
        queue.fire(8.0)
        assert seen == [8.0]


def test_nothing_fires_early_and_rounding_goes_up() -> None:
    queue = TimerQueue()
    seen: list[float] = []
    queue.start(0.0001, seen.append, 10.0)
    queue.fire(10.0)
    assert seen == []
    assert queue.next_deadline() == 10.001
    assert queue.start(61.2, seen.append, 10.0).deadline == 72.0
    assert queue.start(0.7, seen.append, 10.0).deadline == 10.7


def test_a_timer_that_restarts_itself_fires_once_per_call() -> None:
    queue = TimerQueue()
    seen: list[float] = []

    def again(now: float) -> None:
        seen.append(now)
        queue.start(0.0, again, now)

    queue.start(0.0, again, 1.0)
    queue.fire(2.0)
    assert seen == [2.0]


def test_time_that_runs_backwards_does_not_disorder() -> None:
    queue = TimerQueue()
    queue.start(1.0, lambda now: None, 100.0)
    assert queue.start(1.0, lambda now: None, 90.0).deadline == 101.0


def test_cancelling_releases_the_callback_at_once() -> None:
    class Call:
        def ring(self, now: float) -> None: ...

    queue = TimerQueue()
    call = Call()
    timer = queue.start(32.0, call.ring, 0.0)
    gone = weakref.ref(call)
    del call
    gc.collect()
    assert gone() is not None
    timer.cancel()
    assert gone() is None


def test_cancelled_timers_are_not_hoarded() -> None:
    queue = TimerQueue()
    long_lived = [queue.start(32.0, lambda now: None, 0.0) for _ in range(10)]
    for i in range(100_000):
        queue.start(32.0, lambda now: None, i / 10_000).cancel()
    (fifo,) = queue._fifos.values()
    assert len(fifo.entries) <= 200
    assert len(queue) == len(long_lived)


def test_empty_queues_of_odd_durations_are_not_hoarded() -> None:
    queue = TimerQueue()
    for i in range(5_000):
        queue.start(0.001 * (i + 1), lambda now: None, 0.0)
    queue.fire(10.0)
    assert len(queue._fifos) <= 256
    assert queue.next_deadline() is None


def test_cancel_after_firing_and_twice_is_harmless() -> None:
    queue = TimerQueue()
    timer = queue.start(1.0, lambda now: None, 0.0)
    other = queue.start(1.0, lambda now: None, 0.5)
    queue.fire(1.0)
    timer.cancel()
    other.cancel()
    other.cancel()
    assert len(queue) == 0
    assert queue.next_deadline() is None


def test_an_exception_leaves_the_other_timers_in_place() -> None:
    queue = TimerQueue()
    seen: list[float] = []

    def broken(now: float) -> None:
        raise ZeroDivisionError

    queue.start(1.0, broken, 0.0)
    queue.start(1.0, seen.append, 0.0)
    with pytest.raises(ZeroDivisionError):
        queue.fire(1.0)
    queue.fire(1.0)
    assert seen == [1.0]
