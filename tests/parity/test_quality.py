"""What the compiled datapath and the Python reference make of RTCP and of each second is the same, octet by octet."""

from __future__ import annotations

import random
import struct

import pytest

from media import _datapath, reference_datapath, reference_quality
from media.counters import Handled, Reason
from media.rules import RuleFlag
from media.samples import DIRECTIONS, QUALITY_BYTES, Direction, Quality, Sample, recent
from media.srtp import Suite
from tests.parity.test_datapath import SOURCES, Twin, rtp
from tests.support.secure import TwinKeys, master

SECOND_NS = 10**9
START_NS = 5_000 * SECOND_NS


class Pair(Twin):
    """Two legs that send to each other, and how their call goes, twice."""

    def __init__(self, flags: int = 0, suites: dict[int, Suite] | None = None) -> None:
        super().__init__(flags, 1, suites)
        self.compiled_quality, self.reference_quality = (Quality * 2)(), (Quality * 2)()
        for quality in (self.compiled_quality, self.reference_quality):
            for one in quality:
                one.direction = DIRECTIONS["sendrecv"]

    @property
    def quality(self) -> list[Quality]:
        return list(self.reference_quality)

    def pass_on(
        self, data: bytes, source: bytes, now_ns: int, *, index: int = 0, rtcp_port: bool = False
    ) -> Reason | Handled:
        packet = (index, rtcp_port, data, source, now_ns)
        got = _datapath.inspect(
            self.compiled, self.compiled_keys, self.compiled_webrtc, *packet, quality=self.compiled_quality
        )
        expected = reference_datapath.inspect(
            self.reference, self.reference_keys, self.reference_webrtc, *packet, quality=self.reference_quality
        )
        assert got[0] == expected.reason
        self.compare()
        return expected.reason

    def sample(self, now_ns: int, patience_s: int = 10) -> list[int]:
        second = now_ns // SECOND_NS
        got = _datapath.sample(self.compiled_quality, self.compiled, 0, 2, second, now_ns, patience_s)
        expected = reference_quality.sample(self.reference_quality, self.reference, 0, 2, second, now_ns, patience_s)
        assert got == expected
        self.compare()
        return got

    def compare(self) -> None:
        assert bytes(self.compiled) == bytes(self.reference)
        assert bytes(self.compiled_quality) == bytes(self.reference_quality)

    def audio(self, legs: tuple[int, ...], first: int, count: int, now_ns: int) -> None:
        for number in range(first, first + count):
            for leg in legs:
                data = rtp(number, number * 160, ssrc=leg + 1)
                assert (
                    self.pass_on(data, SOURCES[0], now_ns + (number - first) * 20_000_000, index=leg) is Reason.FORWARD
                )


def sender_report(ssrc: int, ntp: int, *blocks: bytes) -> bytes:
    """``ntp`` is the middle of its NTP time."""
    words = struct.pack("!IIIIII", ssrc, ntp >> 16, (ntp & 0xFFFF) << 16, 0, 0, 0)
    return struct.pack("!BBH", 0x80 | len(blocks), 200, 6 + 6 * len(blocks)) + words + b"".join(blocks)


def receiver_report(ssrc: int, *blocks: bytes) -> bytes:
    return struct.pack("!BBHI", 0x80 | len(blocks), 201, 1 + 6 * len(blocks), ssrc) + b"".join(blocks)


def block(ssrc: int, lsr: int = 0, dlsr_s: float = 0.0, lost: int = 0, fraction: int = 0, jitter: int = 0) -> bytes:
    word = fraction << 24 | lost & 0xFFFFFF
    return struct.pack("!IIIIII", ssrc, word, 0, jitter, lsr, int(dlsr_s * 65536))


def test_the_layouts_agree() -> None:
    assert _datapath.QUALITY_BYTES == QUALITY_BYTES


@pytest.mark.parametrize("suites", [{}, {1: Suite.AES_CM_128_HMAC_SHA1_80}])
def test_the_round_trip_is_between_us_and_the_leg(suites: dict[int, Suite]) -> None:
    """Leg 0 sends a report, which leaves for leg 1; that answers after 2 s and 30 ms on the way."""
    pair, keys = Pair(suites=suites), None
    if suites:
        keys = TwinKeys(suites[1], master(suites[1], 1))
    pair.audio((0,), 1, 5, START_NS)
    pair.pass_on(sender_report(1, 0x12345678), SOURCES[1], START_NS, rtcp_port=True)
    answer = receiver_report(2, block(1, 0x12345678, 2.0, lost=3, fraction=26, jitter=80))
    if keys is not None:
        answer = keys.protect(answer, is_rtcp=True)[1]
    assert pair.pass_on(answer, SOURCES[1], START_NS + 2_030_000_000, index=1, rtcp_port=True) is Reason.FORWARD
    leg = pair.quality[1]
    assert (leg.round_trips, leg.round_trip_us // 100, leg.round_trip_least_us) == (1, 300, leg.round_trip_us)
    assert (leg.reports, leg.far_lost, leg.far_fraction, leg.far_jitter) == (1, 3, 26, 100)
    assert pair.quality[0].reports == pair.quality[0].round_trips == 0


def test_what_cannot_be_true_is_not_believed() -> None:
    pair = Pair()
    pair.audio((0,), 1, 50, START_NS)
    for number in range(6):
        report = sender_report(1, 0x1000 + number)
        pair.pass_on(report, SOURCES[1], START_NS + number * SECOND_NS, rtcp_port=True)
    now_ns = START_NS + 7 * SECOND_NS
    for what in (
        block(1, 0x1000, 1.0),  # of a report that is too old to be known
        block(1, 0x9999, 1.0),  # of one that was never sent
        block(1, 0, 0.0),  # of none
        block(1, 0x1005, 2.1),  # it was kept longer than ago it left
        block(1, 0x1005, 60_000.0),
        block(7, 0x1005, 1.0),  # about a stream that we do not send
    ):
        pair.pass_on(receiver_report(2, what), SOURCES[1], now_ns, index=1, rtcp_port=True)
    leg = pair.quality[1]
    assert leg.round_trips == 0
    assert leg.reports == 5
    pair.pass_on(
        receiver_report(2, block(1, 0x1005, 1.5)), SOURCES[1], now_ns + 20 * SECOND_NS, index=1, rtcp_port=True
    )
    assert leg.round_trips == 0, "more than 10 s is a clock that jumped"
    for lost, expected in ((-5, 0), (0x7FFFFF, 50), (20, 20)):
        report = receiver_report(2, block(1, lost=lost, jitter=2**31))
        pair.pass_on(report, SOURCES[1], now_ns, index=1, rtcp_port=True)
        assert (leg.far_lost, leg.far_jitter) == (expected, 0)


def test_reports_that_only_the_ends_can_read_are_left_alone() -> None:
    pair = Pair(RuleFlag.SECURE)
    pair.audio((0,), 1, 5, START_NS)
    pair.pass_on(receiver_report(2, block(1)), SOURCES[1], START_NS, index=1, rtcp_port=True)
    assert pair.quality[1].reports == 0


def test_seconds_are_sampled_and_summed_up() -> None:
    pair, number = Pair(), 1
    for second in range(100):
        now_ns = START_NS + second * SECOND_NS
        pair.audio((0, 1), number, 50, now_ns)
        number += 50 if second != 70 else 60  # ten packets are lost
        pair.sample(now_ns + 990_000_000)
    leg, second = pair.quality[0], (START_NS // SECOND_NS) + 99
    found = recent(leg, second, 60)
    assert [sample.second for sample in found] == list(range(second - 59, second + 1))
    assert {(s.packets_in, s.packets_out) for s in found} == {(50, 50)}
    assert [s.lost_in for s in found].index(10) == 31
    assert sum(s.lost_in for s in found) == 10
    worst = min(found, key=lambda s: s.mos_in)
    assert worst.lost_in == 10
    judged = leg.received
    assert (judged.seconds, judged.low_seconds, judged.worst_second, judged.mos_least) == (100, 1, 71, worst.mos_in)
    assert 215 < judged.mos_sum / judged.seconds < 221
    assert [s.packets_in for s in recent(leg, second + 10, 20)] == [50] * 10
    assert recent(leg, second + 100, 60) == []


def test_what_the_far_end_reports_stands_until_it_is_old() -> None:
    pair = Pair()
    for second in range(14):
        now_ns = START_NS + second * SECOND_NS
        pair.audio((0,), 1 + 50 * second, 50, now_ns)
        if second == 1:
            report = receiver_report(2, block(1, lost=5, fraction=13, jitter=160))
            pair.pass_on(report, SOURCES[1], now_ns, index=1, rtcp_port=True)
        pair.sample(now_ns + 500_000_000)
    samples = recent(pair.quality[1], START_NS // SECOND_NS + 13, 60)
    assert [bool(s.mos_out) for s in samples] == [False] + [True] * 10 + [False] * 3
    assert [s.lost_out for s in samples] == [0, 5] + [0] * 12
    assert samples[1].jitter_out == 200
    assert pair.quality[1].reported.seconds == 10
    assert pair.quality[1].received.seconds == 0


def silence(pair: Pair, seconds: int, first: int = 0, *, kind: int = 8) -> list[int]:
    """Leg 0 talks, leg 1 does not: the seconds at which somebody is named."""
    named = []
    for second in range(first, first + seconds):
        now_ns = START_NS + second * SECOND_NS
        pair.pass_on(rtp(second, second * 8000, ssrc=1, kind=kind), SOURCES[0], now_ns)
        found = pair.sample(now_ns + 100_000_000)
        assert found in ([], [1])
        named += [second] * len(found)
    return named


def test_a_leg_that_never_sends_is_named_at_doubling_intervals() -> None:
    pair = Pair()
    assert silence(pair, 100) == [10, 20, 40, 80]
    assert pair.quality[1].one_way_s == 99
    assert pair.quality[0].one_way_s == 0


def test_a_leg_that_stops_is_given_three_times_as_long_and_six_where_it_said_that_it_is_silent() -> None:
    for kind, expected in ((8, [32, 62, 122]), (13, [62, 122])):
        pair = Pair()
        silence(pair, 2)
        pair.pass_on(rtp(1, 160, ssrc=2, kind=kind), SOURCES[0], START_NS + 2 * SECOND_NS - 1, index=1)
        assert silence(pair, 130, 2) == expected


@pytest.mark.parametrize(
    ("own", "other"), [("recvonly", "sendonly"), ("inactive", "inactive"), ("sendrecv", "sendonly")]
)
def test_a_leg_that_need_not_send_is_never_named(own: str, other: str) -> None:
    pair = Pair()
    for quality in (pair.compiled_quality, pair.reference_quality):
        quality[1].direction, quality[0].direction = DIRECTIONS[own], DIRECTIONS[other]
    assert silence(pair, 100) == []
    for quality in (pair.compiled_quality, pair.reference_quality):
        quality[1].direction = quality[0].direction = DIRECTIONS["sendrecv"]
    assert silence(pair, 15, 100) == [110], "the time counts from the end of the hold"


def test_video_is_counted_but_not_rated_and_nobody_misses_it() -> None:
    pair = Pair()
    for quality in (pair.compiled_quality, pair.reference_quality):
        for one in quality:
            one.direction = DIRECTIONS["sendrecv"] | Direction.NO_VOICE
    assert silence(pair, 30) == []
    assert pair.quality[0].received.seconds == 0
    found = recent(pair.quality[0], START_NS // SECOND_NS + 29, 60)
    assert {(sample.packets_in, sample.mos_in) for sample in found} == {(1, 0)}


def test_patience_of_a_call_goes_before_that_of_the_worker() -> None:
    for patience_s, expected in ((3, [3, 6, 12]), (0xFFFF, [])):
        pair = Pair()
        for quality in (pair.compiled_quality, pair.reference_quality):
            quality[1].patience_s = patience_s
        assert silence(pair, 20) == expected


def test_random_calls() -> None:
    draw = random.Random(3)
    for _ in range(12):
        pair = Pair()
        now_ns, sequence, ntp = START_NS, [draw.randrange(65536) for _ in range(2)], 1
        for quality in (pair.compiled_quality, pair.reference_quality):
            quality[0].format[0], quality[0].format_codec[0] = 128 | 97, 8
        kinds = [draw.choice((0, 3, 4, 8, 9, 15, 18, 97, 111)) for _ in range(2)]
        pair.compiled[0].clock_rate_hz = pair.reference[0].clock_rate_hz = draw.choice((8000, 48000, 16000))
        for _ in range(250):
            now_ns += draw.choice((20_000_000, 20_000_000, 30_000_000, 400_000_000))
            leg = draw.randrange(2)
            if draw.random() < 0.2:
                blocks = [
                    block(
                        draw.choice((2 - leg, 2 - leg, 9)),
                        draw.choice((ntp, ntp - 1, 0)),
                        draw.choice((0.0, 0.1, 3.0)),
                        draw.choice((0, 3, -2, 2**22)),
                        draw.randrange(256),
                        draw.choice((0, 100, 2**31)),
                    )
                    for _ in range(draw.randrange(3))
                ]
                ntp += 1
                data = (
                    sender_report(leg + 1, ntp, *blocks) if draw.random() < 0.6 else receiver_report(leg + 1, *blocks)
                ) + draw.choice((b"", b"", struct.pack("!BBHI", 0x81, 203, 1, 1), receiver_report(1, block(2))))
                pair.pass_on(data, SOURCES[1], now_ns, index=leg, rtcp_port=True)
            else:
                sequence[leg] += draw.choice((1,) * 9 + (3, -1, 0))
                kind = draw.choice((kinds[leg],) * 9 + (13, 101))
                data = rtp(sequence[leg], now_ns // 125_000, leg + 1, kind=kind)
                pair.pass_on(data, SOURCES[0], now_ns, index=leg)
            if draw.random() < 0.1:
                pair.sample(now_ns, draw.choice((0, 1, 5)))
        assert all(isinstance(s, Sample) for s in recent(pair.quality[0], now_ns // SECOND_NS, 60))
