"""Which worker has which shards, and how that changes."""

from __future__ import annotations

import pytest

from sbc.worker.seats import MOST, NOBODY, RELIEVES, SERVES, Seats


def test_at_first_each_worker_has_the_seat_of_its_number() -> None:
    seats = Seats(3)
    assert [seats.owner(shard) for shard in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [seats.lives(number) for number in range(4)] == [True, True, True, False]
    assert not seats.lives(MOST + 1)


def test_what_is_prepared_counts_once_it_is_turned_and_only_once() -> None:
    seats = Seats(2)
    former = seats.version
    seats.prepare([2, 1])
    assert seats.numbers == [0, 1]
    assert not seats.look()
    assert seats.prepared == [2, 1]
    seats.turn(former)
    seats.turn(former)
    assert seats.look()
    assert seats.numbers == [2, 1]
    assert seats.owner(4) == 2


def test_the_number_of_seats_may_change() -> None:
    seats = Seats(2)
    seats.prepare([2, 3, 4])
    seats.turn(seats.version)
    assert [seats.owner(shard) for shard in range(3)] == [2, 3, 4]


@pytest.mark.parametrize("numbers", [[], list(range(MOST + 1))])
def test_there_is_a_least_and_a_most(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match=f"not within 1 to {MOST}"):
        Seats(2).prepare(numbers)


def test_others_see_the_same_in_the_same_memory() -> None:
    seats = Seats(2)
    other = Seats(2, seats._memory, former=True)
    seats.mark(2, RELIEVES)
    assert other.relieves(2)
    seats.mark(2, SERVES)
    assert other.lives(2)
    seats.mark(2, NOBODY)
    assert not other.lives(2)
    seats.pause_media(5.0)
    assert other.is_media_pause()
    seats.pause_media(-1.0)
    assert not other.is_media_pause()
