"""The E-model on known values."""

from __future__ import annotations

import pytest

from media.quality import estimate, mos, r_factor


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
