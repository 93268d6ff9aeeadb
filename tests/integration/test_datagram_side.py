"""The sockets of a worker: where the oldest datagrams wait is read first, and no socket starves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from sbc.sip.flow import Flow
from sbc.telemetry.page import Page
from sbc.worker.datagrams import BATCH, MORE_BATCHES, DatagramSide
from sbc.worker.seats import Seats

Received = list[tuple[bytes, int]]


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as near,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.bind(("127.0.0.1", 0))
        yield [near, far]


def side_of(sockets: list[socket.socket], received: Received) -> DatagramSide:
    listen = SimpleNamespace(transport="udp", is_stream=False)
    config = SimpleNamespace(listeners=[("near", listen), ("far", listen)])
    slot: Any = SimpleNamespace(config=config, sockets=sockets, page=Page(), slot=0, seats=Seats(), shard_key=b"")

    def receive(data: bytes, flow: Flow, now: float, wall: float) -> None:
        received.append((data, flow.listener))

    hand_over: Any = None  # one worker has nobody to hand anything over to
    return DatagramSide(slot, hand_over, receive, now=lambda: 0.0, wall=lambda: 0.0)


def send(sockets: list[socket.socket], listener: int, count: int) -> None:
    for number in range(count):
        sockets[listener].sendto(b"%d" % number, sockets[listener].getsockname())


def test_each_socket_is_read_and_more_of_the_one_whose_datagrams_are_older(sockets: list[socket.socket]) -> None:
    received: Received = []
    side = side_of(sockets, received)
    send(sockets, 1, BATCH * 4)  # what fits into a socket's queue as it is by default
    send(sockets, 0, BATCH * 3)
    assert side.read_all() == BATCH * (1 + MORE_BATCHES)
    of = [sum(listener == one for _, listener in received) for one in (0, 1)]
    assert of == [BATCH, BATCH * MORE_BATCHES]
    assert [data for data, listener in received if listener == 1] == [b"%d" % n for n in range(of[1])]
    assert side.waited_s > 0
    left = BATCH * 2
    while left:
        left -= side.read_all()
    assert side.read_all() == 0
    assert side.waited_s == 0


def test_what_is_sent_leaves_at_the_end_of_the_turn(sockets: list[socket.socket]) -> None:
    received: Received = []
    side = side_of(sockets, received)
    host, port = sockets[0].getsockname()
    assert side.send(Flow(1, "udp", host, port), b"hello")
    assert side.read_all() == 0
    side.flush()
    assert side.read_all() == 1
    assert received == [(b"hello", 0)]
