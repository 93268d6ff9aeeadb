"""Port pairs, and the E-model on known values."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.config import RealmInterface
from media.ports import PortPairs
from media.quality import estimate, mos, r_factor


def test_pairs_are_even_and_each_is_given_once() -> None:
    pairs = PortPairs(30001, 30021, 2.0, Random(3))
    drawn = [pairs.take(0.0) for _ in range(10)]
    assert sorted(port for port in drawn if port) == list(range(30002, 30022, 2))
    assert pairs.take(0.0) is None
    assert drawn != sorted(drawn, key=lambda port: port or 0), "the order is random"


def test_the_pair_whose_rtcp_port_lies_outside_is_left_out() -> None:
    assert PortPairs(30000, 30002, 2.0, Random(1)).free == 1


def test_release_twice_and_foreign_ports_change_nothing() -> None:
    pairs = PortPairs(30000, 30003, 2.0, Random(1))
    port = pairs.take(0.0)
    assert port
    pairs.release(port, 1.0)
    pairs.release(port, 1.0)
    pairs.release(9, 1.0)
    assert (pairs.free, pairs.quarantined) == (1, 1)


@given(st.lists(st.integers(0, 3), max_size=200))
def test_no_pair_is_ever_given_twice_or_within_its_quarantine(steps: list[int]) -> None:
    pairs, now, held, released = PortPairs(30000, 30019, 2.0, Random(5)), 0.0, list[int](), dict[int, float]()
    for step in steps:
        now += 0.3
        if step and (port := pairs.take(now)) is not None:
            assert port not in held
            assert now - released.get(port, -9.0) >= 2.0
            held.append(port)
        elif held:
            released[held[0]] = now
            pairs.release(held.pop(0), now)
        assert len(held) + pairs.free + pairs.quarantined == 10


@given(st.integers(1, 9), st.integers(30000, 30005), st.integers(30040, 30060))
def test_workers_share_a_range_without_overlap(count: int, low: int, high: int) -> None:
    shares = [RealmInterface("127.0.0.1", "", (low, high)).share(slot, count).ports for slot in range(count)]
    every = [p for first, last in shares for p in range(first, last, 2)]
    assert every == list(range(low + low % 2, high, 2))


@pytest.mark.parametrize(
    ("rating", "expected"), [(93.2, 4.41), (80, 4.02), (70, 3.6), (50, 2.58), (0, 1.0), (100, 4.5)]
)
def test_mos_of_rating(rating: float, expected: float) -> None:
    assert mos(rating) == pytest.approx(expected, abs=0.01)  # G.107 Annex B, table B.1


def test_loss_and_delay_lower_the_rating() -> None:
    assert r_factor(0, 0) == 93.2
    assert r_factor(5, 0) == pytest.approx(93.2 - 95 * 5 / 30.1)
    assert r_factor(0, 250) == pytest.approx(93.2 - 0.024 * 250 - 0.11 * 72.7)
    assert r_factor(100, 5000) == 0


def test_estimates() -> None:
    assert estimate(0, 0, 0) == 0.0
    assert 4.35 < estimate(1000, 0, 1) <= 4.41
    assert estimate(950, 50, 1) < 3.95
    assert estimate(950, 50, 200) < estimate(950, 50, 1)
    assert all(1.0 <= estimate(1, lost, 100) <= 4.5 for lost in range(0, 2000, 50))
