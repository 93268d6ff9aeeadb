"""Overload: the refused share rises with too much work, falls with room, and is spread evenly."""

from __future__ import annotations

from sbc.policy.overload import LATE_S, MOST, PATIENCE_S, TARGET_BUSY, Overload


def feed(overload: Overload, busy: float, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        overload.measure(busy * 0.1, 0.1)


def test_nothing_is_refused_up_to_the_target() -> None:
    overload = Overload()
    feed(overload, TARGET_BUSY, 60)
    assert overload.share == 0
    assert not any(overload.refuses() for _ in range(100))


def test_full_overload_is_met_within_seconds_and_never_refuses_everything() -> None:
    overload = Overload()
    feed(overload, 1.0, 3.0)
    assert overload.share == MOST
    assert sum(not overload.refuses() for _ in range(1000)) in (50, 51)  # 5 %, give or take the first


def test_room_brings_the_calls_back() -> None:
    overload = Overload()
    feed(overload, 1.0, 5)
    feed(overload, 0.1, 4)
    assert overload.share == 0


def test_a_share_is_spread_evenly() -> None:
    overload = Overload()
    overload.share = 0.25
    pattern = [overload.refuses() for _ in range(400)]
    assert sum(pattern) == 100
    assert all(sum(pattern[start : start + 4]) == 1 for start in range(0, 400, 4))


def test_no_time_passed_changes_nothing() -> None:
    overload = Overload()
    overload.measure(1.0, 0.0)
    assert overload.share == 0


def test_a_short_burst_is_worked_off() -> None:
    overload = Overload()
    feed(overload, 0.5, 2)
    feed(overload, 1.0, 0.5)
    assert overload.share == 0


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
    overload.share = 0.2
    overload.waited(LATE_S + 0.01, 10.0)
    assert overload.late
