"""Codecs one after the other, judged by what a tone is afterwards: level and distance from noise."""

from __future__ import annotations

import array
import math
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from media import _datapath
from media.conversion import load_codecs
from media.counters import Handled, Reason
from media.processing import Codec, Format, Process
from media.rules import NO_SEQUENCE, Address, Feature, Rule, RuleFlag
from media.srtp import LegKeys, Suite
from media.webrtc import WebrtcLeg
from tests.parity.test_datapath import SOURCES
from tests.support.secure import TwinKeys, master

BUILT = load_codecs()
MS = 1_000_000
AMPLITUDE = 8000.0
CLOCKS = {Codec.PCMU: 8000, Codec.PCMA: 8000, Codec.G722: 8000, Codec.OPUS: 48000}


def needs(codec: Codec) -> None:
    name = {Codec.G722: "G722", Codec.OPUS: "opus"}.get(codec)
    if name and name not in BUILT:
        assert not os.environ.get("SBC_REQUIRE_PEERS"), f"{name} is not built"
        pytest.skip(f"{name} is not built")


def fit(samples: list[int], hz: float, rate: int) -> tuple[float, float]:
    """Amplitude of a tone in samples, and its distance from all else in dB (least squares)."""
    angles = [2 * math.pi * hz * n / rate for n in range(len(samples))]
    mean = sum(samples) / len(samples)
    a = 2 * sum((s - mean) * math.cos(w) for s, w in zip(samples, angles, strict=True)) / len(samples)
    b = 2 * sum((s - mean) * math.sin(w) for s, w in zip(samples, angles, strict=True)) / len(samples)
    rest = sum((s - mean - a * math.cos(w) - b * math.sin(w)) ** 2 for s, w in zip(samples, angles, strict=True))
    return math.hypot(a, b), 10 * math.log10((a * a + b * b) / 2 * len(samples) / max(rest, 1e-9))


def tone(hz: float, count: int, rate: int = 8000) -> list[int]:
    return [round(AMPLITUDE * math.sin(2 * math.pi * hz * n / rate)) for n in range(count)]


class Way:
    """One way through the datapath: packets in, packets out."""

    ways = 0

    def __init__(self, codec: Codec, to_codec: Codec, packet_ms: int = 0, suite: Suite | None = None) -> None:
        needs(codec)
        needs(to_codec)
        self.rules, self.keys, self.processes = (Rule * 2)(), (LegKeys * 2)(), (Process * 2)()
        self.webrtc = (WebrtcLeg * 2)()
        for at, rule in enumerate(self.rules):
            rule.flags, rule.peer, rule.bad_sequence, rule.clock_rate_hz = RuleFlag.IN_USE, 1 - at, NO_SEQUENCE, 8000
            for name in ("rtp_signalled", "rtp_remote", "rtcp_signalled", "rtcp_remote"):
                setattr(rule, name, Address.from_buffer_copy(SOURCES[0]))
        self.rules[1].features = Feature.PROCESSED
        process = self.processes[1]
        process.count = 1
        process.formats[0] = Format(100, 101, codec, to_codec, CLOCKS[codec], CLOCKS[to_codec])
        process.packet_ms = packet_ms
        Way.ways += 1
        process.generation = Way.ways
        self.now_ns = 0
        if suite is not None:
            self.rules[1].flags |= RuleFlag.SRTP
            _datapath.install(self.keys[1].sending, suite, master(suite, 1))

    def inspect(self, packet: bytes) -> tuple[int, int, bool, bool, int, bytes]:
        return _datapath.inspect(
            self.rules, self.keys, self.webrtc, 0, False, packet, SOURCES[0], self.now_ns, processes=self.processes
        )

    def feed(self, packet: bytes) -> list[bytes]:
        self.now_ns += 20 * MS
        got = self.inspect(packet)
        assert got[0] in (Reason.FORWARD, Handled.NOT_CARRIED)
        found = [got[5]] if got[0] == Reason.FORWARD else []
        while got[0] == Reason.FORWARD and (
            more := _datapath.further(self.rules, self.keys, self.webrtc, 1, self.processes)
        ):
            found.append(more)
        return found


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    _datapath.forget(1)


def packets(codec: Codec, samples: list[int], size: int = 160, lost: tuple[int, ...] = ()) -> Iterator[bytes]:
    for number, start in enumerate(range(0, len(samples) - size + 1, size)):
        payload = bytes(_datapath.g711_octet(codec, sample) for sample in samples[start : start + size])
        if number not in lost:
            yield struct.pack("!BBHII", 0x80, 100, 1000 + number, 5000 + start, 7) + payload


def heads(found: list[bytes]) -> list[tuple[int, int]]:
    """Sequence number and timestamp."""
    return [struct.unpack_from("!HI", packet, 2) for packet in found]


def values(codec: Codec, found: list[bytes]) -> list[int]:
    return [_datapath.g711_value(codec, octet) for packet in found for octet in packet[12:]]


def as_input(packet: bytes) -> bytes:
    return packet[:1] + bytes((packet[1] & 0x80 | 100,)) + packet[2:]


@pytest.mark.parametrize(
    ("between", "least_db", "hz"),
    [
        (Codec.PCMA, 33, 1004),
        (Codec.G722, 30, 1004),
        (Codec.G722, 28, 3000),
        (Codec.OPUS, 20, 1004),
        (Codec.OPUS, 17, 404),
    ],
)
@pytest.mark.parametrize("suite", [None, Suite.AES_CM_128_HMAC_SHA1_80])
def test_there_and_back(between: Codec, least_db: float, hz: float, suite: Suite | None) -> None:
    """µ-law, another codec (in clear, or under a key), µ-law again."""
    there, back, heard = Way(Codec.PCMU, between, suite=suite), None, []
    found = [out for packet in packets(Codec.PCMU, tone(hz, 16_000)) for out in there.feed(packet)]
    if suite:
        far = TwinKeys(suite, master(suite, 1))
        opened = [far.unprotect(packet) for packet in found]
        assert {reason for reason, _ in opened} == {Reason.FORWARD}
        found = [packet for _, packet in opened]
    assert len(found) == 100
    step = 160 * CLOCKS[between] // 8000
    assert heads(found) == [(1000 + n, 5000 + step * n) for n in range(100)]
    _datapath.forget(1)
    back = Way(between, Codec.PCMU)
    for packet in found:
        heard += back.feed(as_input(packet))
    assert heads(heard) == [(1000 + n, 5000 + 160 * n) for n in range(100)]
    level, distance_db = fit(values(Codec.PCMU, heard)[8000:], hz, 8000)
    assert abs(20 * math.log10(level / AMPLITUDE)) < 0.7
    assert distance_db > least_db


@pytest.mark.parametrize(("size", "packet_ms"), [(80, 20), (160, 40), (240, 20), (160, 10), (160, 30), (320, 10)])
def test_another_packet_time(size: int, packet_ms: int) -> None:
    """All samples in their order, in packets of the wanted length."""
    way = Way(Codec.PCMU, Codec.PCMA, packet_ms)
    found = [out for packet in packets(Codec.PCMU, tone(1004, 9600), size) for out in way.feed(packet)]
    each = packet_ms * 8
    assert {len(packet) for packet in found} == {12 + each}
    assert heads(found) == [(1000 + n, 5000 + each * n) for n in range(len(found))]
    level, distance_db = fit(values(Codec.PCMA, found), 1004, 8000)
    assert abs(level / AMPLITUDE - 1) < 0.02
    assert distance_db > 33


@pytest.mark.parametrize("codec", [Codec.G722, Codec.OPUS])
def test_a_loss_stays_one(codec: Codec) -> None:
    """Who hears it is to conceal it: numbers and timestamps have the same gap."""
    way = Way(Codec.PCMU, codec)
    found = [out for packet in packets(Codec.PCMU, tone(1004, 3200), lost=(5, 6, 9)) for out in way.feed(packet)]
    step = 160 * CLOCKS[codec] // 8000
    assert heads(found) == [(1000 + n, 5000 + step * n) for n in range(20) if n not in (5, 6, 9)]


def test_what_is_not_of_its_codec_is_dropped() -> None:
    way = Way(Codec.OPUS, Codec.PCMU)
    packet = struct.pack("!BBHII", 0x80, 100, 1, 1, 7) + b"\xff" * 40
    reason = way.inspect(packet)[0]
    assert reason == Reason.BAD_PAYLOAD


def by_packets(resample: Callable[[bytes], bytes], samples: array.array[int], size: int) -> array.array[int]:
    """Packet after packet, as a stream comes."""
    made = array.array("h")
    for start in range(0, len(samples), size):
        made.frombytes(resample(samples[start : start + size].tobytes()))
    return made


@pytest.mark.parametrize(("hz", "least_db"), [(304, 60), (1004, 60), (3304, 60)])
def test_resampling(hz: float, least_db: float) -> None:
    """8 to 16 kHz and back: the level within 0.1 dB, and nothing else."""
    given = tone(hz, 8000)
    wide = by_packets(_datapath.Resampler().up, array.array("h", given), 160)
    level, distance_db = fit(list(wide)[4000:], hz, 16000)
    assert abs(20 * math.log10(level / AMPLITUDE)) < 0.1
    assert distance_db > least_db
    narrow = by_packets(_datapath.Resampler().down, wide, 320)
    level, distance_db = fit(list(narrow)[2000:], hz, 8000)
    assert abs(20 * math.log10(level / AMPLITUDE)) < 0.1
    assert distance_db > least_db


def test_what_telephones_cannot_hear_does_not_fold_back() -> None:
    narrow = by_packets(_datapath.Resampler().down, array.array("h", tone(5000, 16_000, 16_000)), 320)
    assert max(map(abs, narrow[200:])) < AMPLITUDE / 1000
