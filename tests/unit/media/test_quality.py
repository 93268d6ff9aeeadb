"""The E-model on known values."""

from __future__ import annotations

import pytest

from media.quality import CODECS, Codec, estimate, mos, named, rating


@pytest.mark.parametrize(("value", "expected"), [(93.2, 4.41), (80, 4.02), (70, 3.6), (50, 2.58), (0, 1.0), (100, 4.5)])
def test_mos_of_rating(value: float, expected: float) -> None:
    assert mos(value) == pytest.approx(expected, abs=0.01)  # G.107 Annex B, table B.1


def test_loss_and_delay_lower_the_rating() -> None:
    assert rating(0, 0) == 93.2
    assert rating(5, 0) == pytest.approx(93.2 - 95 * 5 / 30.1)
    assert rating(0, 250) == pytest.approx(93.2 - 0.024 * 250 - 0.11 * 72.7)
    assert rating(100, 5000) == 0


def test_estimates() -> None:
    assert estimate(0, 0, 0) == 0.0
    assert 4.35 < estimate(1000, 0, 1) <= 4.41
    assert estimate(950, 50, 1) < 3.95
    assert estimate(950, 50, 200) < estimate(950, 50, 1)
    assert all(1.0 <= estimate(1, lost, 100) <= 4.5 for lost in range(0, 2000, 50))


def test_each_codec_falls_with_loss_and_the_known_ones_have_their_order() -> None:
    for codec in CODECS:
        values = [estimate(1000 - lost, lost, 5, codec) for lost in (0, 10, 50, 200)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
    whole = {codec: estimate(1000, 0, 1, codec) for codec in CODECS}
    assert whole[Codec.G711] > whole[Codec.AMR] > whole[Codec.G729] > whole[Codec.G723] > whole[Codec.GSM]
    assert 4.0 < whole[Codec.G729] < 4.2  # R 82 at Ie 11
    assert whole[Codec.OPUS] > whole[Codec.G722] > 4.2  # on the wideband scale


def test_a_long_round_trip_is_heard() -> None:
    assert estimate(1000, 0, 1, round_trip_ms=40) == estimate(1000, 0, 1)
    assert estimate(1000, 0, 1, round_trip_ms=600) < 3.9


def test_codecs_are_known_by_their_names() -> None:
    formats = [
        "0",
        "8 PCMA/8000",
        "111 opus/48000/2 useinbandfec=1",
        "97 AMR-WB/16000",
        "101 telephone-event/8000 0-16",
    ]
    assert named([*formats, "98 speex/8000", "300 opus/48000", "x"]) == {
        111: Codec.OPUS,
        97: Codec.AMR_WB,
        101: Codec.EVENT,
    }
