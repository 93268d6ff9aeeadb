"""The compiled datapath and the Python reference give the same verdicts and leave the same rule memory behind."""

from __future__ import annotations

import ctypes
import ipaddress
import random
import struct
from collections.abc import Iterator

import pytest

from media import _datapath, reference_datapath
from media.counters import Handled, Reason
from media.player import Player
from media.rules import NO_RULE, NO_SEQUENCE, RULE_BYTES, Address, Rule, RuleFlag, pack_address
from media.srtp import LegKeys, Suite
from media.webrtc import WEBRTC_BYTES, WebrtcLeg
from tests.support.secure import SUITES, TwinKeys, master
from tests.support.shared import shared_data

SOURCES = [
    pack_address(ipaddress.ip_address(host), port)
    for host in ("192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1")
    for port in (4000, 4001, 40001)
]


class Twin:
    """The same two rules twice; every packet goes through both datapaths."""

    def __init__(self, flags: int = 0, peer: int = 1, suites: dict[int, Suite] | None = None) -> None:
        self.compiled, self.reference = (Rule * 2)(), (Rule * 2)()
        self.compiled_keys, self.reference_keys = (LegKeys * 2)(), (LegKeys * 2)()
        self.compiled_webrtc, self.reference_webrtc = (WebrtcLeg * 2)(), (WebrtcLeg * 2)()
        self.answer = b""  # of the last packet that was answered
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
        for index, suite in (suites or {}).items():
            for rules, keys in ((self.compiled, self.compiled_keys), (self.reference, self.reference_keys)):
                rules[index].flags |= RuleFlag.SRTP
                _datapath.install(keys[index].receiving, suite, master(suite, index))
                _datapath.install(keys[index].sending, suite, master(suite, 10 + index))

    def feed(
        self,
        data: bytes,
        source: bytes,
        now_ns: int,
        *,
        index: int = 0,
        rtcp_port: bool = False,
        players: ctypes.Array[Player] | None = None,
    ) -> Reason | Handled:
        """Both must agree in verdict and in every octet of both rules."""
        packet = (index, rtcp_port, data, source, now_ns, players)
        got = _datapath.inspect(self.compiled, self.compiled_keys, self.compiled_webrtc, *packet)
        expected = reference_datapath.inspect(self.reference, self.reference_keys, self.reference_webrtc, *packet)
        assert (got[0], got[4]) == (expected.reason, expected.latched)
        if expected.reason is Reason.FORWARD:
            assert got[1:4] == expected[1:4]
            assert got[5] == expected.data
        if expected.reason is Handled.ANSWERED:
            assert got[5] == expected.data
            self.answer = expected.data
        assert bytes(self.compiled) == bytes(self.reference)
        assert bytes(self.compiled_keys) == bytes(self.reference_keys)
        assert bytes(self.compiled_webrtc) == bytes(self.reference_webrtc)
        return expected.reason


def rtp(sequence: int, timestamp: int, ssrc: int = 1, first: int = 0x80, kind: int = 8) -> bytes:
    return struct.pack("!BBHII", first, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + b"\x55" * 160


def corpus(kind: str) -> Iterator[bytes]:
    folder = shared_data() / "corpus" / kind
    for path in sorted(folder.iterdir()):
        yield path.read_bytes()


def test_the_layouts_agree() -> None:
    assert _datapath.RULE_BYTES == RULE_BYTES == ctypes.sizeof(Rule)
    assert _datapath.WEBRTC_BYTES == WEBRTC_BYTES == ctypes.sizeof(WebrtcLeg)


@pytest.mark.parametrize("flags", [0, RuleFlag.BEHIND_NAT, RuleFlag.RTCP_MUX, RuleFlag.SECURE])
@pytest.mark.parametrize("peer", [0, 1])
def test_random_streams(flags: int, peer: int) -> None:
    draw = random.Random(f"{flags}-{peer}")
    reasons: set[Reason | Handled] = set()
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


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("flags", [0, RuleFlag.BEHIND_NAT, RuleFlag.RTCP_MUX])
@pytest.mark.parametrize("legs", [(0,), (1,), (0, 1)])
def test_random_streams_with_srtp(suite: Suite, flags: int, legs: tuple[int, ...]) -> None:
    """Plain to secure, secure to plain, and from one key to another."""
    draw = random.Random(f"{suite}-{flags}-{legs}")
    twin = Twin(flags, 1, dict.fromkeys(legs, suite))
    ends = [TwinKeys(suite, master(suite, leg)) for leg in (0, 1)]
    sequence, reasons = [0, 65_000], set()
    for turn in range(400):
        leg = draw.randrange(2)
        sequence[leg] += draw.choice((1,) * 10 + (0, -1, 3))
        is_rtcp = draw.random() < 0.1
        data = rtp(sequence[leg], turn, leg)
        if is_rtcp:
            data = struct.pack("!BBHIII", 0x80, 200, 3, leg, 2, 3)[: draw.choice((16, 16, 16, 12))]
        if leg in legs and draw.random() < 0.95:
            data = ends[leg].protect(data, is_rtcp=is_rtcp)[1]
        if draw.random() < 0.05:
            data = data[:-1] + bytes((data[-1] ^ 1,))
        source = draw.choice([SOURCES[0]] * 12 + (SOURCES if turn > 20 else []))
        if is_rtcp and draw.random() < 0.5:
            source = SOURCES[1]
        reasons.add(twin.feed(data, source, turn * 20_000_000, index=leg, rtcp_port=is_rtcp and source == SOURCES[1]))
    assert {Reason.FORWARD, Reason.AUTH_FAILED, Reason.WRONG_SOURCE} - {
        Reason.WRONG_SOURCE if flags else None
    } <= reasons


def test_srtp_without_a_key_forwards_nothing() -> None:
    twin = Twin()
    for rules in (twin.compiled, twin.reference):
        rules[0].flags |= RuleFlag.SRTP
    assert twin.feed(rtp(1, 0), SOURCES[0], 1) is Reason.NO_KEY
    assert twin.feed(rtp(1, 0), SOURCES[0], 1, index=1) is Reason.NO_KEY


def test_a_foreign_source_is_learned_only_from_an_authentic_packet() -> None:
    suite = Suite.AES_CM_128_HMAC_SHA1_80
    twin, phone = Twin(RuleFlag.BEHIND_NAT, 1, {0: suite}), TwinKeys(suite, master(suite, 0))
    for attempt in range(20):
        assert twin.feed(rtp(attempt, 0), SOURCES[6], attempt) is Reason.AUTH_FAILED
    assert not twin.compiled[0].rtp_latched
    assert twin.feed(phone.protect(rtp(1, 0))[1], SOURCES[7], 100) is Reason.FORWARD
    assert bytes(twin.compiled[0].rtp_remote) == SOURCES[7]
    assert twin.feed(rtp(2, 0), SOURCES[6], 101) is Reason.AUTH_FAILED
    moved = phone.protect(rtp(2, 0))[1]
    assert twin.feed(moved, SOURCES[8], 102) is Reason.FORWARD
    assert bytes(twin.compiled[0].rtp_remote) == SOURCES[8]
    assert twin.feed(moved, SOURCES[6], 103) is Reason.REPLAYED
    assert bytes(twin.compiled[0].rtp_remote) == SOURCES[8]


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
