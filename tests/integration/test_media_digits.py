"""A real media worker that changes payloads: codecs, digits both ways, and a kill -9 in the middle."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from media import protocol
from media.protocol import Answer, Conversion, Dtmf, Endpoint, Offer, Processing, Way
from tests.integration.test_media_worker import Phone
from tests.support.media_process import MediaControl, MediaProcess

REALMS: dict[str, dict[str, object]] = {"core": {"address": "127.0.0.1", "ports": [29600, 29699]}}
TO_A = Way([Conversion(0, 8, "PCMU", "PCMA"), Conversion(97, -1, "telephone-event")], tell=True)
TO_B = Way([Conversion(8, 0, "PCMA", "PCMU")], digits=97)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[MediaProcess]:
    process = MediaProcess(f"ipc://{tmp_path}/media.sock", REALMS)
    process.start()
    yield process
    process.close()


@pytest.fixture
def phones() -> Iterator[tuple[Phone, Phone]]:
    a, b = Phone(0xA), Phone(0xB)
    yield a, b
    a.close()
    b.close()


def connect(control: MediaControl, a: Phone, b: Phone) -> tuple[Endpoint, Endpoint]:
    """Leg a speaks A-law, leg b µ-law and telephone-event 97."""
    offered = control.ask(Offer("call", "a", "b1", "core", "core", [a.stream()]))
    answered = control.ask(Answer("call", "b1", "a", [b.stream()], processing=[Processing(TO_B, TO_A)]))
    assert offered.ok
    assert answered.ok, answered
    return answered.endpoints[0], offered.endpoints[0]


def receive(phone: Phone) -> tuple[int, int, int, int, bytes]:
    """Marker, payload type, sequence number, timestamp, payload."""
    data = phone.rtp.recv(2048)
    _, kind, sequence, timestamp = struct.unpack_from("!BBHI", data)
    return kind >> 7, kind & 127, sequence, timestamp, data[12:]


def press(b: Phone, to: Endpoint, digit: int) -> None:
    for turn in range(4):
        payload = struct.pack("!BBH", digit, 0x80 if turn > 1 else 0, 160 * min(turn + 1, 3))
        head = struct.pack("!BBHII", 0x80, 97 | (0x80 if not turn else 0), b.sequence & 0xFFFF, 0, b.ssrc)
        b.sequence += 1
        b.rtp.sendto(head + payload, ("127.0.0.1", to.port))


def test_digits_out_of_a_stream_and_into_one(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    for_a, for_b = connect(control, a, b)
    press(b, for_b, 7)
    event = control.wait_notification(2)
    assert event == {"event": "dtmf", "session": "call", "leg": "b1", "digit": "7", "duration_ms": 60}
    a.send(for_a)
    assert receive(b)[1:3] == (0, 65530)
    assert control.ask(Dtmf("call", "b1", "5#", 80, 60)).ok
    got = [receive(b) for _ in range(12)]  # each: 20, 40, 60, 80 ms and the end twice more
    assert {kind for _, kind, *_ in got} == {97}
    assert [payload[0] for *_, payload in got] == [5] * 6 + [11] * 6
    assert [marker for marker, *_ in got] == ([1] + [0] * 5) * 2
    assert all((later - earlier) & 0xFFFF == 1 for (_, _, earlier, *_), (_, _, later, *_) in pairwise(got))
    a.send(for_a)
    assert receive(b)[1:3] == (0, (got[-1][2] + 1) & 0xFFFF)
    assert control.ask(Dtmf("call", "a", "1")).code == "unsupported"
    assert control.ask(Dtmf("call", "nobody", "1")).code == "unknown_leg"


def test_a_kill_in_the_middle_of_digits(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    """The successor goes on with the digit, and with the numbers of the stream."""
    a, b = phones
    for_a, _ = connect(control, a, b)
    a.send(for_a)
    last = receive(b)[2]
    assert control.ask(Dtmf("call", "b1", "9", 400)).ok
    numbers = [receive(b)[2] for _ in range(3)]
    worker.kill()
    worker.start()
    deadline = time.monotonic() + 20
    payloads: list[bytes] = []
    while sum(payload[1] >> 7 for payload in payloads) < 3:
        assert time.monotonic() < deadline
        _, _, sequence, _, payload = receive(b)
        numbers.append(sequence)
        payloads.append(payload)
    assert struct.unpack("!H", payloads[-1][2:])[0] == 3200
    a.send(for_a)
    numbers.append(receive(b)[2])
    assert numbers == [(last + 1 + n) & 0xFFFF for n in range(len(numbers))]


def test_a_codec_that_is_not_known_is_refused(control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    a, b = phones
    assert control.ask(Offer("call", "a", "b1", "core", "core", [a.stream()])).ok
    way = Way([Conversion(18, 8, "G729", "PCMA")])
    reply = control.ask(Answer("call", "b1", "a", [b.stream()], processing=[Processing(None, way)]))
    assert (reply.ok, reply.code) == (False, "unsupported")
    assert "G729" in reply.reason
    assert control.ask(protocol.Query("call")).ok
