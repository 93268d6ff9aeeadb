"""What one end of an audio stream says of gaps, losses, and packets that are not for it."""

from __future__ import annotations

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
