"""Messages out of a stream, however it is cut."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.errors import SipSyntaxError
from sbc.sip.framing import MAX_MESSAGE_BYTES, Framer, Limits
from sbc.sip.message import Message
from tests.support.shared import shared_data


def message(body: bytes = b"", length: str = "Content-Length: %d", name: str = "OPTIONS") -> bytes:
    head = f"{name} sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx\r\n"
    return head.encode() + (length % len(body) if "%" in length else length).encode() + b"\r\n\r\n" + body


Seen = tuple[list[bytes], int, str, bytes, bool]


def outcome(pieces: list[bytes]) -> Seen:
    framer = Framer()
    found: list[bytes] = []
    for piece in pieces:
        found += framer.feed(piece)
    fault = framer.fault
    return found, framer.pings, fault.reason if fault else "", fault.head if fault else b"", framer.unfinished


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


SOUND = [message(), message(b"x" * 300), message(b"\r\n\r\n", "l : %d"), message(b"a", "CONTENT-LENGTH:\r\n  %d")]
BETWEEN = [b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n", b"\n", b"\r\r\n", b"\r\n\n\r\n\r\n"]
BROKEN = [
    (message(b"", "X: 1"), "no Content-Length on a stream"),
    (message(b"", "Content-Length: 0\r\nl: 0"), "more than one Content-Length"),
    (message(b"", "Content-Length: -1"), "Content-Length is no number"),
    (message(b"", "Content-Length: 1 2"), "Content-Length is no number"),
    (message(b"", "Content-Length: 9223372036854775808"), "Content-Length is no number"),
    (message(b"", "Content-Length:"), "Content-Length is no number"),
    (message(b"", "Content-Length: 65536"), "the message is too long"),
    (b"A" * (MAX_MESSAGE_BYTES + 5), "the headers are too long"),
    (b"A" * MAX_MESSAGE_BYTES + b"\r\n\r\n", "the headers are too long"),
]


def test_three_messages_in_one_segment_and_the_pings_between() -> None:
    stream = b"\r\n" + SOUND[0] + b"\r\n\r\n" + SOUND[1] + SOUND[2] + b"\r\n\r\n\r\n\r\n" + SOUND[3]
    assert outcome([stream]) == (SOUND, 3, "", b"", False)
    assert outcome(octets(stream)) == (SOUND, 3, "", b"", False)


@given(
    parts=st.lists(st.tuples(st.sampled_from(BETWEEN), st.sampled_from(SOUND)), max_size=5),
    tail=st.one_of(st.just(b""), st.sampled_from([broken for broken, _ in BROKEN[:7]]), st.just(SOUND[1][:90])),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_no_cut_shows(parts: list[tuple[bytes, bytes]], tail: bytes, places: list[int]) -> None:
    stream = b"".join(between + sound for between, sound in parts) + tail
    whole = outcome([stream])
    assert whole[0] == [sound for _, sound in parts]
    assert outcome(cut(stream, places)) == whole
    assert outcome(octets(stream)) == whole


@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=8))
def test_no_cut_shows_in_noise(data: bytes, places: list[int]) -> None:
    noisy = data.replace(b"\x00", b"\r\n").replace(b"\x01", b"\r\n\r\n").replace(b"\x02", b"\nl:1")
    assert outcome(cut(noisy, places)) == outcome([noisy]) == outcome(octets(noisy))


@pytest.mark.parametrize(("broken", "reason"), BROKEN)
def test_a_head_that_does_not_say_its_length_ends_the_stream(broken: bytes, reason: str) -> None:
    stream = SOUND[0] + broken + SOUND[1]
    found, _, said, head, unfinished = outcome([stream])
    assert (found, said, unfinished) == ([SOUND[0]], reason, False)
    assert broken.startswith(head)
    assert outcome(cut(stream, [len(SOUND[0]) + 40, len(SOUND[0]) + 7, len(stream) // 2])) == outcome([stream])
    if len(broken) < 1000:  # enough for an answer
        request = Message.parse_lenient(head)
        assert request is not None
        assert request.method == "OPTIONS"


def test_the_largest_message_passes() -> None:
    room = MAX_MESSAGE_BYTES - len(message(b"")) - 4
    largest = message(b"x" * room)
    assert len(largest) == MAX_MESSAGE_BYTES
    assert outcome([largest[:1000], largest[1000:]])[0] == [largest]


def test_one_octet_at_a_time_is_linear() -> None:
    def seconds(size: int) -> float:
        stream = octets(message(b"", f"X: {'y' * size}\r\nContent-Length: 0") + message(b"z" * size))
        framer = Framer()
        start = time.perf_counter()
        for octet in stream:
            framer.feed(octet)
        return time.perf_counter() - start

    small, large = min(seconds(6_000) for _ in range(3)), min(seconds(60_000) for _ in range(3))
    assert large < 30 * small  # quadratic would be 100 times


def test_real_messages_cut_anywhere() -> None:
    """Everything of the torture data that says its length is found whole, whatever the cut."""
    paths = [path for path in sorted(shared_data("sip").rglob("*")) if path.suffix in (".dat", ".sip", ".txt", ".bin")]
    assert paths
    for path in paths:
        data = path.read_bytes()[:70_000]
        whole = outcome([data])
        assert outcome(octets(data)) == whole
        assert outcome(cut(data, [len(data) // 3, len(data) // 2, len(data) - 1])) == whole


FILLER = "X: y\r\n" * 30
LIMITED = Limits(message_bytes=600, head_bytes=300, header_lines=20)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (message(b"x" * 550), "the message is too long"),
        (message(b"", f"X: {'y' * 300}\r\nContent-Length: 0"), "the headers are too long"),
        (message(b"", f"{FILLER}Content-Length: 0"), "too many headers"),
    ],
)
def test_limits(broken: bytes, reason: str) -> None:
    """What is beyond one ends the stream, however it is cut; what is handed on of it can be answered, not served."""
    stream = SOUND[0] + broken + SOUND[0]
    for pieces in ([stream], octets(stream), cut(stream, [100, 200, 300, 400])):
        framer = Framer(LIMITED)
        found = [sound for piece in pieces for sound in framer.feed(piece)]
        assert found == [SOUND[0]]
        assert framer.fault is not None
        assert (framer.fault.reason, framer.fault.too_much) == (reason, True)
        assert broken.startswith(framer.fault.head)
        with pytest.raises(SipSyntaxError):
            Message.parse(framer.fault.head, stream=True)


def test_what_is_within_the_limits_passes() -> None:
    fitting = [message(b"x" * 400), message(b"", "X: y\r\n" * 17 + "Content-Length: 0")]
    framer = Framer(LIMITED)
    assert framer.feed(b"".join(fitting)) == fitting
