"""Payload types, G.711 and digits: the compiled datapath and the reference leave the same packets and memory behind."""

from __future__ import annotations

import random
import struct

import pytest

from media import _datapath, reference_datapath, reference_processing
from media.counters import Handled, Reason
from media.processing import NOWHERE, PROCESS_BYTES, Codec, Format, Process
from media.reference_processing import Heard
from media.rules import NO_SEQUENCE, Address, Feature, Rule, RuleFlag
from media.srtp import LegKeys, Suite
from media.webrtc import WebrtcLeg
from tests.parity.test_datapath import SOURCES
from tests.support.secure import master

MS = 1_000_000
EVENT = 101


def entry(number: int, to: int, codec: Codec = Codec.OTHER, to_codec: Codec | None = None, **clocks: int) -> Format:
    clock = clocks.get("clock", 8000)
    return Format(number, to, codec, codec if to_codec is None else to_codec, clock, clocks.get("to_clock", clock))


def rtp(sequence: int, timestamp: int, kind: int = 0, payload: bytes = b"\x21" * 160, ssrc: int = 7) -> bytes:
    return struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def press(sequence: int, timestamp: int, digit: int, ticks: int, *, end: bool = False, marker: bool = False) -> bytes:
    payload = struct.pack("!BBH", digit, 0x80 * end | 10, ticks)
    return rtp(sequence, timestamp, EVENT | 0x80 * marker, payload)


class Twin:
    """Two rules, twice; payloads that come by rule 0 are changed on the way to the leg of rule 1."""

    def __init__(self, *formats: Format, suite: Suite | None = None, **fields: int) -> None:
        self.rules, self.keys, self.processes = ((Rule * 2)(), (Rule * 2)()), ((LegKeys * 2)(), (LegKeys * 2)()), []
        self.webrtc = (WebrtcLeg * 2)()
        self.heard: list[Heard] = []
        _datapath.forget(1)
        _datapath.heard()
        for rules, keys in zip(self.rules, self.keys, strict=True):
            processes = (Process * 2)()
            for at, rule in enumerate(rules):
                rule.flags, rule.peer, rule.bad_sequence, rule.clock_rate_hz = (
                    RuleFlag.IN_USE,
                    1 - at,
                    NO_SEQUENCE,
                    8000,
                )
                for name in ("rtp_signalled", "rtp_remote", "rtcp_signalled", "rtcp_remote"):
                    setattr(rule, name, Address.from_buffer_copy(SOURCES[0]))
            rules[1].features = Feature.PROCESSED
            process = processes[1]
            process.count = len(formats)
            for at, one in enumerate(formats):
                process.formats[at] = one
            process.tell, process.event_number, process.event_clock_hz = 1, EVENT, 8000
            process.duration_ms, process.pause_ms = 100, 60
            for name, value in fields.items():
                setattr(process, name, value)
            self.processes.append(processes)
            if suite is not None:
                rules[1].flags |= RuleFlag.SRTP
                _datapath.install(keys[1].sending, suite, master(suite, 1))

    def _same(self) -> None:
        for one, other in (self.rules, self.keys, self.processes):
            assert bytes(one) == bytes(other)

    def feed(self, data: bytes, now_ns: int, index: int = 0, *, rtcp: bool = False) -> bytes:
        """What leaves, b"" for nothing."""
        got = _datapath.inspect(
            self.rules[0], self.keys[0], self.webrtc, index, rtcp, data, SOURCES[0], now_ns, processes=self.processes[0]
        )
        heard: list[Heard] = []
        expected = reference_datapath.inspect(
            self.rules[1],
            self.keys[1],
            self.webrtc,
            index,
            rtcp,
            data,
            SOURCES[0],
            now_ns,
            processes=self.processes[1],
            heard=heard,
        )
        assert got[0] == expected.reason
        if expected.reason is Reason.FORWARD:
            assert got[5] == expected.data
        self._same()
        assert _datapath.heard() == heard
        self.heard += heard
        return expected.data

    def due(self, now_ns: int) -> bytes:
        """What time asks for on the way to the leg of rule 1."""
        got = _datapath.further(self.rules[0], self.keys[0], self.webrtc, 1, self.processes[0], now_ns)
        heard: list[Heard] = []
        data = reference_processing.process_due(self.processes[1][1], self.rules[1][1], now_ns, heard)
        assert (got or b"") == data
        if data:
            self.rules[1][1].packets_out += 1
            self.rules[1][1].bytes_out += len(data)
        self._same()
        assert _datapath.heard() == heard
        self.heard += heard
        return data

    def send(self, digits: bytes, now_ns: int) -> None:
        for processes in self.processes:
            processes[1].digits[: len(digits)] = list(digits)
            processes[1].digit_count = len(digits)
            processes[1].next_ns = now_ns


def fields(data: bytes) -> tuple[int, int, int, int]:
    """Marker, payload type, sequence number, timestamp."""
    _, kind, sequence, timestamp = struct.unpack_from("!BBHI", data)
    return kind >> 7, kind & 127, sequence, timestamp


def test_the_layouts_agree() -> None:
    assert _datapath.PROCESS_BYTES == PROCESS_BYTES


def test_g711_is_exact() -> None:
    """All values both ways, against the formulas and decision values of the recommendation."""
    assert _datapath.g711_tables() == (reference_processing.ALAW_OF_ULAW, reference_processing.ULAW_OF_ALAW)
    for codec, value, encode in (
        (Codec.PCMU, reference_processing.ulaw_value, reference_processing.ulaw_octet),
        (Codec.PCMA, reference_processing.alaw_value, reference_processing.alaw_octet),
    ):
        values = [value(octet) for octet in range(256)]
        for octet in range(256):
            assert _datapath.g711_value(codec, octet) == values[octet]
            assert _datapath.g711_octet(codec, values[octet]) == encode(values[octet])
            assert values[encode(values[octet])] == values[octet]
        for sample in range(-32767, 32768, 13):
            assert _datapath.g711_octet(codec, sample) == encode(sample)


def test_law_and_payload_type_change() -> None:
    twin = Twin(entry(0, 8, Codec.PCMU, Codec.PCMA), entry(97, 98))
    for turn in range(5):
        out = twin.feed(rtp(65533 + turn, 1000 + 160 * turn, payload=bytes(range(256))), turn * 20 * MS)
        assert fields(out)[1:] == (8, (65533 + turn) & 0xFFFF, 1000 + 160 * turn)
        assert out[12:] == reference_processing.ALAW_OF_ULAW
    assert fields(twin.feed(rtp(9, 4000, 97), 200 * MS))[1] == 98
    twin.feed(rtp(10, 4160, 55), 220 * MS)  # agreed by nobody
    assert (twin.rules[0][0].refused, twin.rules[0][1].packets_out) == (0, 6)


def test_a_digit_is_told_once_whatever_is_lost() -> None:
    packets = [press(10 + n, 1600, 5, 160 * (n + 1), marker=n == 0) for n in range(5)]
    packets += [press(15 + n, 1600, 5, 960, end=True) for n in range(3)]
    for kept in (packets, packets[-1:], packets[:1] + packets[-2:], packets + packets):
        twin = Twin(entry(EVENT, 97, Codec.EVENT), entry(0, 0, Codec.PCMU))
        for turn, data in enumerate(kept):
            assert fields(twin.feed(data, turn * 20 * MS))[1] == 97
        assert twin.heard == [(0, 5, 120)]
    for alone in packets[:5]:  # its end was lost: time tells
        twin = Twin(entry(EVENT, 97, Codec.EVENT))
        twin.feed(alone, 20 * MS)
        twin.due(200 * MS)
        assert twin.heard == []
        twin.due(400 * MS)
        twin.due(800 * MS)
        assert [(event, ms) for _, event, ms in twin.heard] == [(5, struct.unpack("!H", alone[14:16])[0] // 8)]


def test_the_next_digit_ends_the_one_before() -> None:
    twin = Twin(entry(EVENT, 97, Codec.EVENT))
    for turn, digit in enumerate((1, 1, 2)):
        twin.feed(press(turn, 1000 * turn, digit, 400, marker=True), turn * 125 * MS)
    twin.due(2000 * MS)
    assert [digit for _, digit, _ in twin.heard] == [1, 1, 2]


def test_a_long_digit_is_one() -> None:
    """RFC 4733 §2.5.1.3: its duration does not fit the field, so it goes on at a later timestamp."""
    twin = Twin(entry(EVENT, 97, Codec.EVENT))
    twin.feed(press(1, 0, 3, 0xFFFF, marker=True), 0)
    twin.feed(press(2, 0xFFFF, 3, 800), 20 * MS)
    twin.feed(press(3, 0xFFFF, 3, 800, end=True), 40 * MS)
    assert twin.heard == [(0, 3, (0xFFFF + 800) // 8)]


def test_digits_that_are_kept_back_leave_no_gap() -> None:
    twin = Twin(entry(0, 0, Codec.PCMU), entry(EVENT, NOWHERE, Codec.EVENT))
    left = []
    for sequence in range(20):
        data = rtp(sequence, 160 * sequence)
        if 5 <= sequence < 12:
            data = press(sequence, 800, 4, 160 * (sequence - 4), end=sequence > 8)
        out = twin.feed(data, sequence * 20 * MS)
        if not 5 <= sequence < 12:
            left.append(fields(out)[2:])
    assert left == [(n, 160 * (n if n < 5 else n + 7)) for n in range(13)]
    assert [digit for _, digit, _ in twin.heard] == [4]


@pytest.mark.parametrize("suite", [None, Suite.AEAD_AES_128_GCM])
def test_digits_are_put_in(suite: Suite | None) -> None:
    """RFC 4733 §2.5.1, in the numbers of the stream; audio goes on behind them, and nothing is sent twice."""
    twin = Twin(entry(0, 8, Codec.PCMU, Codec.PCMA))
    secure = Twin(entry(0, 8, Codec.PCMU, Codec.PCMA), suite=suite) if suite else None
    sent: list[bytes] = []
    events: list[bytes] = []
    for turn in range(60):
        now_ns = turn * 20 * MS + MS
        if turn == 10:
            for one in (twin, secure):
                if one:
                    one.send(b"\x01\x0b", now_ns)
        data = rtp(500 + turn, 160 * turn)
        count = twin.processes[0][1].digit_count
        out = twin.feed(data, now_ns)
        if not count:
            sent.append(out)
        if secure:
            inspected = _datapath.inspect(
                secure.rules[0],
                secure.keys[0],
                secure.webrtc,
                0,
                False,
                data,
                SOURCES[0],
                now_ns,
                processes=secure.processes[0],
            )
            assert inspected[0] == (Handled.NOT_CARRIED if count else Reason.FORWARD)
        event = twin.due(now_ns + 2 * MS)
        if event:
            events.append(event)
            sent.append(event)
        if secure:
            made = _datapath.further(
                secure.rules[0], secure.keys[0], secure.webrtc, 1, secure.processes[0], now_ns + 2 * MS
            )
            assert (made is not None) == bool(event)
            assert made is None or made[:12] == event[:12]
    numbers = [fields(data)[2] for data in sent]
    assert numbers == list(range(500, 500 + len(sent)))
    stamps = [fields(data)[3] for data in sent]
    assert stamps == sorted(stamps)
    assert len(events) == 14  # of 100 ms each: five that grow, two of them the end again
    first, second = events[:7], events[7:]
    for digit, packets in ((1, first), (11, second)):
        assert {data[12] for data in packets} == {digit}
        assert [fields(data)[0] for data in packets] == [1] + [0] * 6
        assert [struct.unpack("!H", data[14:16])[0] for data in packets] == [160, 320, 480, 640, 800, 800, 800]
        assert [data[13] for data in packets] == [10] * 4 + [0x8A] * 3
        assert len({fields(data)[3] for data in packets}) == 1


def test_digits_without_audio() -> None:
    """Nobody has spoken yet: numbers and source of our own."""
    twin = Twin(entry(0, 0, Codec.PCMU), ssrc=99, last_out=40, ts_out=1000)
    twin.send(b"\x09", MS)
    packets = [data for turn in range(20) if (data := twin.due(MS + turn * 20 * MS))]
    assert [fields(data)[2] for data in packets] == list(range(41, 48))
    assert {struct.unpack_from("!I", data, 8)[0] for data in packets} == {99}


def test_rtcp_tells_what_its_receiver_knows() -> None:
    twin = Twin(entry(0, 0, Codec.PCMU, clock=8000, to_clock=48000), entry(EVENT, NOWHERE, Codec.EVENT))
    twin.feed(rtp(10, 8000), 0)
    twin.feed(press(11, 8160, 1, 160, end=True), 20 * MS)
    twin.feed(rtp(12, 8320), 40 * MS)
    report = struct.pack("!BBHIQIII", 0x80, 200, 6, 7, 1, 8480, 3, 480)
    assert struct.unpack_from("!I", twin.feed(report, 50 * MS, rtcp=True), 16)[0] == 8000 + 480 * 6
    back = struct.pack("!BBHIIIIIII", 0x81, 201, 7, 8, 7, 0, 0x10000 + 11, 960, 0, 0)
    ssrc, _, highest, jitter = struct.unpack_from("!IIII", twin.feed(back, 60 * MS, index=1, rtcp=True), 8)
    assert (ssrc, highest, jitter) == (7, 0x10000 + 12, 160)


def test_random_streams() -> None:
    draw = random.Random(4)
    for _ in range(40):
        twin = Twin(
            entry(0, 8, Codec.PCMU, Codec.PCMA),
            entry(8, 8, Codec.PCMA),
            entry(97, 98, clock=8000, to_clock=48000),
            entry(EVENT, draw.choice((NOWHERE, 97)), Codec.EVENT, to_clock=draw.choice((8000, 48000))),
            ssrc=5,
        )
        sequence, timestamp, now_ns = draw.randrange(65536), draw.randrange(2**32), 10**9
        for _ in range(200):
            now_ns += draw.choice((20, 20, 20, 0, 400)) * MS
            sequence += draw.choice((1,) * 10 + (0, -1, -3, 2, -200, 4000))
            timestamp += draw.choice((160, 160, 160, 0, -160, 5000))
            kind = draw.choice((0, 0, 0, 8, 97, EVENT, EVENT | 128, 13))
            payload = draw.randbytes(draw.choice((160, 160, 4, 2, 0)))
            if kind & 127 == EVENT:
                payload = struct.pack("!BBH", draw.randrange(18), draw.choice((0, 128)), draw.randrange(2000))
            data = bytearray(rtp(sequence, timestamp, kind, payload, draw.choice((7,) * 30 + (8,))))
            if draw.random() < 0.1:
                data[0] |= draw.choice((0x20, 0x10, 0x01))
            twin.feed(bytes(data), now_ns)
            if draw.random() < 0.03:
                twin.send(bytes(draw.randrange(16) for _ in range(2)), now_ns)
            twin.due(now_ns + draw.choice((0, 10)) * MS)
            if draw.random() < 0.1:
                twin.feed(
                    struct.pack("!BBHIQIII", 0x80, 200, 6, 7, 1, timestamp & 0xFFFFFFFF, 3, 480), now_ns, rtcp=True
                )
