"""The life of a child and the order of a stop, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from sbc.supervisor.child import (
    BEAT_LIMIT_S,
    BOOT_LIMIT_S,
    GRACE_S,
    HURRY_S,
    TABLE,
    Child,
    Event,
    Group,
    Order,
    Shutdown,
    State,
    backoff_s,
)


def ready(now: float = 0.0) -> Child:
    child = Child()
    child.on(Event.START, now)
    child.on(Event.SERVES, now)
    return child


def test_a_first_life_that_ends_early_halts_the_node() -> None:
    child = Child()
    assert child.on(Event.START, 0.0) == (Order.FORK,)
    assert child.alive
    assert child.on(Event.DIED, 1.0) == (Order.HALT,)
    assert child.state is State.STOPPED


def test_a_later_life_that_ends_early_only_waits_longer() -> None:
    child = ready()
    now = 1.0
    waits = []
    for _ in range(9):
        assert child.on(Event.DIED, now) == (Order.WAIT,)
        waits.append(round(child.due_s - now, 3))
        if waits[-1] > 0:
            assert child.look(child.due_s - 0.001, beat_s=0, serves=False) is None
        now = child.due_s
        assert child.look(now, beat_s=0, serves=False) is Event.DUE
        assert child.on(Event.DUE, now) == (Order.FORK,)
        assert child.state is State.STARTING
    assert waits == [0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert backoff_s(1000) == 5.0


@pytest.mark.parametrize(
    ("lives_s", "waits_s"),
    [
        ((0.3,) * 3, [0.0, 0.0, 0.0]),  # twice within a second is no reason to wait
        ((0.3,) * 5, [0.0, 0.0, 0.0, 0.1, 0.2]),
        ((9.9,) * 5, [0.0, 0.0, 0.0, 0.1, 0.2]),
        ((10.0,) * 5, [0.0] * 5),
        ((0.3, 0.3, 0.3, 0.3, 10.0, 0.3, 0.3, 0.3), [0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.1]),
    ],
)
def test_the_first_deaths_in_a_row_cost_no_wait_and_ten_seconds_of_health_forgive(
    lives_s: tuple[float, ...], waits_s: list[float]
) -> None:
    child, now, waits = ready(), 0.0, []
    for life_s in lives_s:
        now += life_s
        assert child.on(Event.DIED, now) == (Order.WAIT,)
        waits.append(round(child.due_s - now, 3))
        now = child.due_s
        child.on(Event.DUE, now)
        child.on(Event.SERVES, now)
    assert waits == waits_s


def test_a_child_without_a_beat_is_killed_once() -> None:
    child = ready(10.0)
    assert child.look(10.0 + BEAT_LIMIT_S, beat_s=10.0, serves=True) is None
    late = 10.0 + BEAT_LIMIT_S + 0.1
    assert child.look(late, beat_s=10.0, serves=True) is Event.HUNG
    assert child.on(Event.HUNG, late) == (Order.KILL,)
    assert child.look(late + 0.5, beat_s=10.0, serves=True) is Event.HUNG
    assert child.on(Event.HUNG, late + 0.5) == ()
    assert child.on(Event.DIED, late + 0.6) == (Order.WAIT,)
    assert child.on(Event.DUE, late + 0.6) == (Order.FORK,)
    assert child.on(Event.SERVES, late + 0.7) == ()
    assert child.on(Event.HUNG, late + 9.0) == (Order.KILL,)


def test_a_start_that_takes_too_long_is_a_hang_unless_it_beats() -> None:
    child = Child()
    child.on(Event.START, 0.0)
    assert child.look(BOOT_LIMIT_S, beat_s=0.0, serves=False) is None
    assert child.look(BOOT_LIMIT_S + 1, beat_s=20.0, serves=False) is None
    assert child.look(BOOT_LIMIT_S + 1, beat_s=0.0, serves=False) is Event.HUNG
    assert child.look(1.0, beat_s=0.0, serves=True) is Event.SERVES


def test_a_stop_while_it_waits_needs_no_signal() -> None:
    child = ready()
    child.on(Event.DIED, 1.0)
    assert child.on(Event.STOP, 1.0) == ()
    assert child.state is State.STOPPED
    assert child.look(100.0, beat_s=0, serves=False) is None


def test_every_state_that_lives_can_be_stopped_and_ends_when_it_dies() -> None:
    for state in (State.BOOTING, State.STARTING, State.READY, State.DRAINING):
        assert TABLE[(state, Event.STOP)] == (State.DRAINING, (Order.TERMINATE,))
        assert (state, Event.DIED) in TABLE
        assert (state, Event.HUNG) in TABLE


def test_no_sequence_of_events_forks_a_second_process() -> None:
    """From every state, for every four events: a fork only follows a death or a first start."""
    for events in itertools.product(Event, repeat=4):
        child = ready()
        running = True
        for event in events:
            if event is Event.DIED and not running:
                break  # a process that does not exist cannot die
            orders = child.on(event, 1.0)
            if event is Event.DIED:
                running = False
            if Order.FORK in orders:
                assert not running, events
                running = True
            assert child.alive == running, events


# --- stopping


ALL = frozenset(Group)


def test_groups_stop_one_after_the_other() -> None:
    stop = Shutdown(drain_s=10.0)
    assert stop.step(0.0, ALL) == [(Group.SIP, Event.STOP)]
    assert stop.step(5.0, ALL) == []
    assert stop.step(6.0, ALL - {Group.SIP}) == [(Group.MEDIA, Event.STOP)]
    assert stop.step(6.1, frozenset({Group.CONTROL, Group.STORE})) == [(Group.CONTROL, Event.STOP)]
    assert stop.step(6.2, frozenset({Group.STORE})) == [(Group.STORE, Event.STOP)]
    assert not stop.done
    assert stop.step(6.3, frozenset()) == []
    assert stop.done


def test_a_group_that_takes_too_long_is_told_once() -> None:
    stop = Shutdown(drain_s=10.0)
    stop.step(0.0, ALL)
    limit = 10.0 + GRACE_S[Group.SIP]
    assert stop.step(limit - 0.1, ALL) == []
    assert stop.step(limit, ALL) == [(Group.SIP, Event.LATE)]
    assert stop.step(limit + 1, ALL) == []


def test_a_second_request_shortens_the_wait() -> None:
    stop = Shutdown(drain_s=100.0)
    stop.step(0.0, ALL)
    assert stop.hurry(5.0) == [(Group.SIP, Event.STOP)]
    assert stop.step(5.0 + HURRY_S - 0.1, ALL) == []
    assert stop.step(5.0 + HURRY_S, ALL) == [(Group.SIP, Event.LATE)]


def test_groups_that_are_gone_are_passed_over() -> None:
    stop = Shutdown(drain_s=1.0)
    told = [stop.step(float(now), frozenset()) for now in range(5)]
    assert [events[0][0] for events in told if events] == [Group.SIP, Group.MEDIA, Group.CONTROL, Group.STORE]
    assert stop.done
