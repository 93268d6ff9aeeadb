"""Copies of packets in a bounded ring, and the files that are made of them, in virtual time."""

from __future__ import annotations

import errno
import ipaddress
import os
import struct
from pathlib import Path

import pytest

from media import _datapath
from media.rules import NO_SEQUENCE, Address, Feature, Rule, RuleFlag, pack_address
from media.srtp import LegKeys
from media.webrtc import WebrtcLeg
from tests.support.waves import read_wav

SECOND_NS = 1_000_000_000
START_NS = 50 * SECOND_NS
WAV, PCAP = 0, 1
LOUD, LOUD_SAMPLE = b"\x2a", -32_256  # A-law
HERE = Path(__file__)


def where(last: int) -> bytes:
    return pack_address(ipaddress.ip_address(f"192.0.2.{last}"), 4000)


class Call:
    """Two rules that send to each other, both tapped: the first is the left side of recording 0."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.rules, self.keys, self.webrtc = (Rule * 2)(), (LegKeys * 2)(), (WebrtcLeg * 2)()
        self.tap = _datapath.Tap(2, size)
        for at, rule in enumerate(self.rules):
            rule.flags, rule.features = RuleFlag.IN_USE, Feature.TAPPED
            rule.peer, rule.bad_sequence, rule.clock_rate_hz = 1 - at, NO_SEQUENCE, 8000
            rule.rtp_remote = rule.rtp_signalled = Address.from_buffer_copy(where(1 + at))
            self.tap.point(at, 0, at)

    def open(self, path: Path, kind: int = WAV) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        assert self.tap.open(0, fd, kind, START_NS, 0) == 0

    def send(self, side: int, at_ms: float, timestamp: int, ssrc: int = 1, payload: bytes = LOUD * 160) -> None:
        head = struct.pack("!BBHII", 0x80, 8, timestamp // 160 & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
        now_ns = START_NS + round(at_ms * 1e6)
        packet = (side, False, head + payload, where(1 + side), now_ns)
        assert _datapath.inspect(self.rules, self.keys, self.webrtc, *packet, None, self.tap)[0] == 0

    def drain(self, at_ms: float) -> int:
        return self.tap.drain(self.tap.head(), START_NS + round(at_ms * 1e6))


def sounds(samples: list[int]) -> list[tuple[int, int]]:
    """Where something is heard: first and last sample, each from silence to silence."""
    found: list[tuple[int, int]] = []
    for at, sample in enumerate(samples):
        if sample:
            assert sample == LOUD_SAMPLE
            if found and found[-1][1] == at - 1:
                found[-1] = (found[-1][0], at)
            else:
                found.append((at, at))
    return found


def test_both_sides_lie_where_they_were_heard(tmp_path: Path) -> None:
    """Timestamps place packets, arrivals place sources: jitter, overtaking and gaps within one make no difference."""
    call = Call()
    call.open(tmp_path / "x.wav")
    call.send(0, 100, 5000 * 160)
    call.send(0, 155, 5002 * 160)  # late by 15 ms, and before the one between
    call.send(0, 157, 5001 * 160)
    call.send(1, 300, 7, ssrc=9)
    call.send(1, 320, 2**32 - 160, ssrc=10)  # another source, whose timestamps wrap
    call.send(1, 340, 0, ssrc=10)
    call.send(0, 1100, 5050 * 160)  # after silence: 50 packets later, as it was sent
    assert call.drain(1200) == 0
    assert call.tap.close(0)[:4] == (7, 0, 0, 0)
    left, right = read_wav(tmp_path / "x.wav")
    assert sounds(left) == [(800, 800 + 479), (8800, 8959)]
    assert sounds(right) == [(2400, 2400 + 479)]
    assert len(left) == 8960


def test_a_leap_of_timestamps_begins_anew(tmp_path: Path) -> None:
    call = Call()
    call.open(tmp_path / "x.wav")
    call.send(0, 100, 0)
    call.send(0, 120, 900_000)
    call.send(0, 140, 900_160)
    call.drain(200)
    call.tap.close(0)
    assert sounds(read_wav(tmp_path / "x.wav")[0]) == [(800, 1279)]


def test_what_comes_too_late_is_counted(tmp_path: Path) -> None:
    call = Call()
    call.open(tmp_path / "x.wav")
    call.send(0, 100, 16_000)
    call.send(0, 1100, 24_000)
    call.send(0, 1100, 20_000)  # half a second behind, just in time
    call.send(0, 1100, 19_840)  # and the one before it
    call.drain(1200)
    assert call.tap.totals(0)[:3] == (3, 0, 1)
    call.drain(3000)
    call.send(0, 3000, 38_000)
    call.send(0, 3010, 33_900)
    call.send(0, 3020, 38_160)
    call.drain(3020)
    assert call.tap.close(0)[:3] == (5, 0, 2)
    assert sounds(read_wav(tmp_path / "x.wav")[0])[-1] == (22_800, 23_119)


def test_a_source_whose_clock_stood_still_is_heard_again(tmp_path: Path) -> None:
    """Some leave timestamps as they are while they are silent."""
    call = Call()
    call.open(tmp_path / "x.wav")
    call.send(0, 100, 0)
    call.send(0, 2000, 160)
    call.send(0, 2020, 320)
    call.drain(2100)
    assert call.tap.close(0)[:3] == (3, 0, 0)
    assert sounds(read_wav(tmp_path / "x.wav")[0]) == [(800, 959), (16_000, 16_319)]


def test_padding_and_other_codecs(tmp_path: Path) -> None:
    call = Call()
    call.open(tmp_path / "x.wav")
    packet = bytearray(struct.pack("!BBHII", 0x80 | 0x20, 8, 1, 0, 1) + LOUD * 100 + bytes(59) + b"\x3c")
    source = where(1)
    sent = (0, False, bytes(packet), source, START_NS)
    _datapath.inspect(call.rules, call.keys, call.webrtc, *sent, None, call.tap)
    packet[1] = 18
    _datapath.inspect(call.rules, call.keys, call.webrtc, 0, False, bytes(packet), source, START_NS, None, call.tap)
    call.drain(1000)
    assert call.tap.close(0)[:5] == (1, 0, 0, 1, 4000)
    assert sounds(read_wav(tmp_path / "x.wav")[0]) == [(0, 99)]


def test_a_full_ring_costs_packets_and_is_counted(tmp_path: Path) -> None:
    call = Call(4096)
    call.open(tmp_path / "x.wav")
    for n in range(40):
        call.send(0, 20 * n, 160 * n)
    call.drain(800)
    packets, lost = call.tap.totals(0)[:2]
    assert packets + lost == 40
    assert 10 < packets < 20
    for n in range(40, 200):  # and there is room again, whatever place in the ring
        call.send(0, 20 * n, 160 * n)
        call.drain(20 * n)
    assert call.tap.close(0)[:2] == (packets + 160, lost)


def test_the_header_is_true_each_second(tmp_path: Path) -> None:
    """So that a WAV is left when the worker is killed."""
    call = Call()
    call.open(tmp_path / "x.wav")
    for n in range(150):
        call.send(0, 20 * n, 160 * n)
        call.drain(20 * n)
    left, _ = read_wav(tmp_path / "x.wav")
    assert len(left) >= 16_000
    assert sounds(left) == [(0, len(left) - 1)]


def test_without_packets_there_is_silence_of_that_length(tmp_path: Path) -> None:
    call = Call()
    call.open(tmp_path / "x.wav")
    call.drain(2500)
    call.tap.close(0)
    left, right = read_wav(tmp_path / "x.wav")
    assert (len(left), set(left + right)) == (16_000, {0})


@pytest.mark.parametrize("kind", [WAV, PCAP])
def test_a_fault_of_the_disk_ends_a_recording_once(kind: int) -> None:
    call = Call()
    assert call.tap.open(0, os.open("/dev/full", os.O_WRONLY), kind, START_NS, 0) == errno.ENOSPC
    if kind == WAV:
        return  # it needs a file
    reader, writer = os.pipe()
    assert call.tap.open(0, writer, kind, START_NS, 0) == 0
    os.close(reader)
    call.send(0, 20, 0)
    assert call.drain(40) == 1
    call.send(0, 40, 160)
    assert call.drain(60) == 0
    assert call.tap.close(0)[5] == errno.EPIPE
    assert call.tap.open(0, os.open(HERE, os.O_RDONLY), kind, START_NS, 0) == errno.EBADF  # the number is free again


def test_a_rule_that_is_not_tapped_any_more_is_not_recorded(tmp_path: Path) -> None:
    call = Call()
    call.open(tmp_path / "x.pcap", PCAP)
    call.send(0, 20, 0)
    call.tap.clear(0)
    call.send(0, 40, 160)
    call.rules[1].features = 0
    call.send(1, 40, 160)
    call.drain(60)
    assert call.tap.close(0)[0] == 1
