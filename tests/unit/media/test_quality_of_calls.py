"""Quality of a call through the relay's requests: patience, holds, samples in replies, resumption."""

from __future__ import annotations

import os

import pytest

from media import reference_quality
from media.protocol import Delete, Query, Stream
from media.rules import RULE_BYTES
from media.samples import PATIENCE_NEVER, QUALITY_BYTES, Direction
from media.state import SLOT_BYTES, Arena, state_size
from tests.unit.media.test_relay import GATEWAY, PHONE, Bench, S


@pytest.fixture
def bench() -> Bench:
    return Bench()


def talk(bench: Bench, seconds: int, *legs: str) -> None:
    """Five packets a second of each leg, and a sample after them."""
    where, arena = {"a": (PHONE, 5000), "b1": (GATEWAY, 6000)}, bench.arena
    for second in range(seconds):
        for leg in legs:
            for number in range(5):
                bench.packet(leg, *where[leg], 1 + 5 * second + number)
        bench.now_ns += S - 5 * len(legs) * 20_000_000
        reference_quality.sample(arena.quality, arena.rules, 0, 8, bench.now_ns // S, bench.now_ns, 10)


def test_statistics_tell_quality_only_where_something_was_carried(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    assert bench.ask(Query("s", samples=60)).stats["a"][0].quality is None
    talk(bench, 12, "a")
    stats = bench.ask(Query("s")).stats
    heard = stats["a"][0].quality
    assert heard is not None
    assert heard.received is not None
    assert heard.received.seconds == 12
    assert 4.3 < heard.received.mos <= 4.5
    assert heard.reported is None
    assert heard.samples == []
    sent = stats["b1"][0].quality
    assert sent is not None
    assert sent.received is None
    assert sent.one_way_s == 11
    rows = bench.ask(Query("s", samples=3)).stats["a"][0].quality
    assert rows is not None
    assert [row[:2] for row in rows.samples] == [[2, 5], [1, 5], [0, 5]]


def test_a_leg_keeps_the_direction_that_it_described(bench: Bench) -> None:
    bench.offer(streams=[Stream(PHONE, 5000, direction="sendonly")])
    bench.answer(streams=[Stream(GATEWAY, 6000, direction="recvonly")])
    quality = bench.arena.quality
    assert quality[bench.rule("a")].direction == Direction.SEND
    assert quality[bench.rule("b1")].direction == Direction.RECEIVE
    bench.offer()
    assert quality[bench.rule("a")].direction == Direction.SEND | Direction.RECEIVE


def test_video_is_no_voice(bench: Bench) -> None:
    bench.offer(streams=[Stream(PHONE, 5000, kind="video", clock_rate_hz=90000)])
    bench.answer(streams=[Stream(GATEWAY, 6000, kind="video", clock_rate_hz=90000)])
    assert bench.arena.quality[bench.rule("a")].direction == Direction.SEND | Direction.RECEIVE | Direction.NO_VOICE
    talk(bench, 3, "a")
    stats = bench.ask(Query("s")).stats["a"][0]
    assert (stats.packets_in, stats.mos) == (15, 0.0)
    assert stats.quality is not None
    assert stats.quality.received is None
    assert len(bench.relay.silence.found(bench.now_ns + 70 * S, 60 * S, 100, 3600 * S)) == 1, "it is no hold"


def test_codecs_are_learned_from_what_was_described(bench: Bench) -> None:
    bench.offer(streams=[Stream(PHONE, 5000, formats=["0", "96 G729/8000", "101 telephone-event/8000"])])
    quality = bench.arena.quality[bench.rule("a")]
    assert list(zip(quality.format, quality.format_codec, strict=True)) == [(224, 4), (229, 14), (0, 0), (0, 0)]


@pytest.mark.parametrize(("one_way_s", "kept"), [(0.0, 0), (30.0, 30), (-1.0, PATIENCE_NEVER)])
def test_patience_is_that_of_the_offer(bench: Bench, one_way_s: float, kept: int) -> None:
    bench.offer(one_way_s=one_way_s)
    bench.answer()
    assert {bench.arena.quality[bench.rule(leg)].patience_s for leg in ("a", "b1")} == {kept}


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sendonly", "recvonly"), ("inactive", "inactive"), ("recvonly", "sendonly")],
)
def test_a_held_call_may_be_silent_for_longer(bench: Bench, offered: str, answered: str) -> None:
    bench.offer(streams=[Stream(PHONE, 5000, direction=offered)])  # type: ignore[arg-type]  # a parametrised literal
    bench.answer(streams=[Stream(GATEWAY, 6000, direction=answered)])  # type: ignore[arg-type]
    start = bench.now_ns
    assert bench.relay.silence.found(start + 70 * S, 60 * S, 100, 3600 * S) == []
    assert [silent for _, silent in bench.relay.silence.found(start + 3700 * S, 60 * S, 100, 3600 * S)] == [3700.0]
    assert bench.relay.silence.found(start + 10_000 * S, 60 * S, 100, 0) == []
    bench.offer(hold_silence_s=100.0, streams=[Stream(PHONE, 5000, direction=offered)])  # type: ignore[arg-type]
    bench.answer(streams=[Stream(GATEWAY, 6000, direction=answered)])  # type: ignore[arg-type]
    assert [silent for _, silent in bench.relay.silence.found(start + 20_000 * S, 60 * S, 100, 0)] == [20_000.0]


def test_the_null_address_is_a_hold_too(bench: Bench) -> None:
    bench.offer()
    bench.answer(streams=[Stream("0.0.0.0", 6000)])
    start = bench.now_ns
    assert bench.relay.silence.found(start + 70 * S, 60 * S, 100, 3600 * S) == []
    bench.offer()
    bench.answer()
    assert len(bench.relay.silence.found(start + 140 * S, 60 * S, 100, 3600 * S)) == 1


def test_a_successor_goes_on_with_samples_and_patience() -> None:
    fd = os.memfd_create("state")
    try:
        os.ftruncate(fd, state_size(8))
        bench = Bench(fd=fd)
        bench.offer(one_way_s=20.0, hold_silence_s=100.0)
        bench.answer()
        talk(bench, 5, "a", "b1")
        successor = Bench(fd=fd)
        assert successor.relay.resume(bench.now_ns) == (1, 0)
        successor.now_ns = bench.now_ns
        session = successor.relay.sessions["s"]
        assert (session.one_way_s, session.hold_silence_s) == (20.0, 100.0)
        told = successor.ask(Query("s", samples=60)).stats["a"][0].quality
        assert told is not None
        assert len(told.samples) == 5
    finally:
        os.close(fd)


def test_the_next_call_of_a_rule_begins_with_nothing(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    talk(bench, 5, "a", "b1")
    ended = bench.ask(Delete("s")).stats["a"][0].quality
    assert ended is not None
    bench.offer()
    bench.answer()
    assert bench.ask(Query("s", samples=60)).stats["a"][0].quality is None
    talk(bench, 1, "a")
    told = bench.ask(Query("s", samples=60)).stats["a"][0].quality
    assert told is not None
    assert len(told.samples) == 1


def test_memory_of_a_call_stays_small() -> None:
    """A call of one stream that carries audio: a slot, two rules, and what is beside them without SRTP."""
    assert SLOT_BYTES + 2 * (RULE_BYTES + QUALITY_BYTES) < 6_000
    assert Arena(-1, 4).quality_octets.nbytes == 16 * QUALITY_BYTES
