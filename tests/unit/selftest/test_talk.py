"""What one end of an audio stream says of gaps, losses, and packets that are not for it."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator

import pytest

from sbc.selftest.talk import Stream, Talk


@pytest.fixture
def ends() -> Iterator[tuple[Stream, Stream]]:
    made = []
    for side in (0, 1):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        made.append(Stream(sock, side, side, b"call0001"))
    made[0].far = ("127.0.0.1", made[1].port)
    yield made[0], made[1]
    for stream in made:
        stream.socket.close()


def passed(ends: tuple[Stream, Stream]) -> bytes:
    """A packet of the one, as the other receives it."""
    ends[0].send()
    return ends[1].socket.recv(2048)


def test_a_gap_is_the_longest_time_between_arrivals_or_the_edges(ends: tuple[Stream, Stream]) -> None:
    for at in (0.0, 0.02, 0.04, 0.29, 0.31):
        ends[1].hear(passed(ends), 100 + at)
    assert ends[1].gap(100, 100.31) == pytest.approx(0.25)
    assert ends[1].gap(100, 100.7) == pytest.approx(0.39)
    assert ends[1].gap(100.05, 100.2) == pytest.approx(0.15)


def test_what_is_lost_and_what_comes_twice_is_counted(ends: tuple[Stream, Stream]) -> None:
    packets = [passed(ends) for _ in range(10)]
    for number in (0, 1, 1, 4, 5, 9):
        ends[1].hear(packets[number], 100 + number)
    assert ends[1].losses(100, 109) == (5, 1)
    assert ends[1].losses(200, 300) == (0, 0)


def test_packets_of_another_call_or_of_the_own_side_are_foreign(ends: tuple[Stream, Stream]) -> None:
    data = passed(ends)
    ends[1].call = b"call0002"
    ends[1].hear(data, 100)
    ends[0].hear(data, 100)
    assert (ends[0].foreign, ends[1].foreign, ends[1].heard) == (1, 1, [])


def test_two_ends_talk_until_the_block_ends() -> None:
    with Talk("127.0.0.1", 0) as near, Talk("127.0.0.1", 1) as far:
        a, b = near.stream(near.open()), far.stream(far.open())
        a.far, b.far = ("127.0.0.1", b.port), ("127.0.0.1", a.port)
        deadline = time.monotonic() + 10
        while not (len(a.heard) > 5 and len(b.heard) > 5):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert b.losses(0, time.time())[1] == 0
        assert abs(b.heard[-1][0] - time.time()) < 5
        near.close_streams([a.port])
        assert a.socket.fileno() < 0


def test_srtp_that_was_made_before_or_is_of_an_old_call_is_authentic_and_a_copy_is_not(
    ends: tuple[Stream, Stream],
) -> None:
    pytest.importorskip("pylibsrtp")
    keys = [base64.b64encode(bytes([n]) * 30).decode() for n in (1, 2)]
    ends[0].secure(*keys)
    ends[1].secure(*reversed(keys))
    ends[0].prepare(3)
    packets = [passed(ends) for _ in range(4)]
    for _ in range(5):
        ends[0].age()
        packets.append(ends[1].socket.recv(2048))
    for data in [*packets, packets[-1]]:
        ends[1].hear(data, 100)
    assert [number for _, number in ends[1].heard] == [0, 1, 2, 3, *range(30_004, 200_000, 30_001)][:9]
    assert (ends[1].forged, ends[1].foreign) == (1, 0)
    assert ends[0].sent > 2 << 16


def test_audio_counts_as_heard_before_anybody_looks_into_it(ends: tuple[Stream, Stream]) -> None:
    for at in (1.0, 2.0, 3.0):
        ends[1].hear(passed(ends), at)
    assert (ends[1].heard_since(0.5, 3), ends[1].heard_since(1.0, 3), ends[1].heard_since(0.5, 4)) == (
        True,
        False,
        False,
    )
    assert len(ends[1].heard) == 3
    ends[1].hear(passed(ends), 4.0)
    assert (ends[1].heard_since(1.5, 3), ends[1].heard_since(2.5, 3)) == (True, False)
