"""The compiled datapath and the Python reference give the same verdicts and leave the same rule memory behind."""

from __future__ import annotations

import ctypes
import ipaddress
import random
import struct
from collections.abc import Iterator

import pytest

from media import _datapath, reference_datapath
from media.counters import Reason
from media.rules import NO_RULE, NO_SEQUENCE, RULE_BYTES, Address, Rule, RuleFlag, pack_address
from tests.support.shared import shared_data

SOURCES = [
    pack_address(ipaddress.ip_address(host), port)
    for host in ("192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1")
    for port in (4000, 4001, 40001)
]


class Twin:
    """The same two rules twice; every packet goes through both datapaths."""

    def __init__(self, flags: int = 0, peer: int = 1) -> None:
        self.compiled, self.reference = (Rule * 2)(), (Rule * 2)()
        for rules in (self.compiled, self.reference):
            for at, rule in enumerate(rules):
                rule.flags = RuleFlag.IN_USE | flags
                rule.peer = (1 - at) if peer == 1 else NO_RULE
                rule.bad_sequence = NO_SEQUENCE
                rule.clock_rate_hz = 8000
                for field, packed in zip(
                    ("rtp_signalled", "rtp_remote", "rtcp_signalled", "rtcp_remote"),
                    (SOURCES[0], SOURCES[0], SOURCES[1], SOURCES[1]),
                    strict=True,
                ):
                    setattr(rule, field, Address.from_buffer_copy(packed))
                rule.signalling = Address.from_buffer_copy(SOURCES[3])

    def feed(self, data: bytes, source: bytes, now_ns: int, *, index: int = 0, rtcp_port: bool = False) -> Reason:
        """Both must agree in verdict and in every octet of both rules."""
        got = _datapath.inspect(self.compiled, index, rtcp_port, data, source, now_ns)
        expected = reference_datapath.inspect(self.reference, index, rtcp_port, data, source, now_ns)
        assert (got[0], got[4]) == (expected.reason, expected.latched)
        if expected.reason is Reason.FORWARD:
            assert got[1:4] == expected[1:4]
        assert bytes(self.compiled) == bytes(self.reference)
        return expected.reason


def rtp(sequence: int, timestamp: int, ssrc: int = 1, first: int = 0x80, kind: int = 8) -> bytes:
    return struct.pack("!BBHII", first, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + b"\x55" * 160


def corpus(kind: str) -> Iterator[bytes]:
    folder = shared_data() / "corpus" / kind
    for path in sorted(folder.iterdir()):
        yield path.read_bytes()


def test_the_layouts_agree() -> None:
    assert _datapath.RULE_BYTES == RULE_BYTES == ctypes.sizeof(Rule)


@pytest.mark.parametrize("flags", [0, RuleFlag.BEHIND_NAT, RuleFlag.RTCP_MUX, RuleFlag.SECURE])
@pytest.mark.parametrize("peer", [0, 1])
def test_random_streams(flags: int, peer: int) -> None:
    draw = random.Random(f"{flags}-{peer}")
    reasons: set[Reason] = set()
    for _ in range(30):
        twin = Twin(flags, peer)
        sequence, timestamp, now_ns, ssrc = draw.randrange(65536), draw.randrange(2**32), draw.randrange(2**50), 1
        for _ in range(150):
            now_ns += draw.choice((20_000_000, 19_000_000, 45_000_000, 0, 7_000_000_000))
            sequence += draw.choice((1, 1, 1, 1, 1, 2, 0, -1, -3, -70, 5000, 40000))
            timestamp += draw.choice((160, 160, 160, 0, -160, 10_000_000))
            ssrc = draw.choice((ssrc,) * 20 + (draw.randrange(2**32),))
            data = rtp(sequence, timestamp, ssrc, draw.choice((0x80,) * 30 + (0x90, 0x8F, 0x40)))
            if draw.random() < 0.1:
                data = draw.randbytes(draw.randrange(40))
            if draw.random() < 0.15:
                kind, words = draw.choice((200, 201, 203, 210)), draw.choice((3, 3, 1, 9))
                data = struct.pack("!BBHIII", 0x80, kind, words, 1, 2, 3)
            source = draw.choice([SOURCES[0]] * 12 + SOURCES)
            reasons.add(
                twin.feed(data, source, now_ns, index=draw.choice((0, 0, 0, 1)), rtcp_port=draw.random() < 0.15)
            )
    expected = {Reason.SHORT, Reason.BAD_VERSION, Reason.WRONG_SOURCE}
    expected.add(Reason.FORWARD if peer else Reason.NO_PEER)
    assert expected <= reasons


@pytest.mark.parametrize("kind", ["rtp", "rtcp", "stun"])
def test_corpus(kind: str) -> None:
    seen = 0
    for flags in (0, RuleFlag.BEHIND_NAT, RuleFlag.SECURE):
        for rtcp_port in (False, True):
            twin = Twin(flags)
            for data in corpus(kind):
                for cut in (len(data), len(data) // 2, 3):
                    twin.feed(data[:cut], SOURCES[0], 20_000_000 * seen, rtcp_port=rtcp_port)
                    seen += 1
    assert seen > 0


def test_mutated_corpus() -> None:
    draw = random.Random(7)
    seeds = [*corpus("rtp"), *corpus("rtcp")]
    twin = Twin(RuleFlag.BEHIND_NAT)
    for turn in range(5000):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(1, 6)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        twin.feed(bytes(data), draw.choice(SOURCES), turn * 1_000_000, rtcp_port=draw.random() < 0.3)
