"""The circuit breaker's table."""

from __future__ import annotations

import pytest

from sbc.store.breaker import TABLE, Action, Breaker, Event, State


def breaker_in(state: State) -> Breaker:
    breaker = Breaker()
    breaker.state = state
    return breaker


def test_every_state_can_be_left_and_stopped() -> None:
    for state in State:
        assert TABLE[state, Event.STOP][0] is State.OFF
        assert any(row[0] is not state for (of, event), row in TABLE.items() if of is state and event is not Event.STOP)


def test_the_third_failure_in_a_row_opens_the_circuit() -> None:
    breaker = breaker_in(State.READY)
    assert breaker.step(Event.MISSED) == (Action.DROP, Action.CONNECT)
    assert breaker.step(Event.LOST) == (Action.DROP, Action.CONNECT)
    assert not breaker.is_open
    assert breaker.step(Event.MISSED) == (Action.DROP, Action.REFUSE, Action.BACK_OFF)
    assert breaker.state is State.OPEN
    assert breaker.is_open


def test_a_reply_between_failures_keeps_it_closed() -> None:
    breaker = breaker_in(State.READY)
    for _ in range(10):
        breaker.step(Event.LOST)
        breaker.step(Event.PROVED)
        breaker.succeeded()
    assert breaker.state is State.READY


def test_a_store_that_answers_only_pings_is_refused_at_its_first_miss() -> None:
    breaker = breaker_in(State.READY)
    for _ in range(3):
        breaker.step(Event.LOST)
    breaker.step(Event.BACKED_OFF)
    assert breaker.state is State.RETRYING
    assert breaker.step(Event.PROVED) == (Action.FLUSH,)
    assert breaker.step(Event.MISSED) == (Action.DROP, Action.REFUSE, Action.BACK_OFF)


def test_probes_come_further_and_further_apart() -> None:
    breaker = Breaker()
    delays = [breaker.next_back_off() for _ in range(8)]
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    breaker.succeeded()
    assert breaker.next_back_off() == 0.05


def test_late_events_of_a_dead_state_do_nothing() -> None:
    breaker = breaker_in(State.OFF)
    for event in (Event.LOST, Event.MISSED, Event.PROVED, Event.BACKED_OFF):
        assert breaker.step(event) == ()
    assert breaker.state is State.OFF
