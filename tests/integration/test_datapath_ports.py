"""Port pairs of the compiled datapath, with real sockets: what arrives between two calls reaches neither."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from collections.abc import Iterator

import pytest

from media._datapath import EVENTS, Datapath
from media.counters import MediaCounter
from media.rules import Feature, pack_address
from media.state import Arena

HERE = "127.0.0.1"
SLOW_RING = 64  # ext/c/batch.h
PACKET = bytes([0x80, 8]) + bytes(170)


def packed(port: int) -> bytes:
    return pack_address(ipaddress.ip_address(HERE), port)


class Bench:
    """A datapath, a sender and a receiver; rule 0 sends to the receiver by rule 1."""

    def __init__(self) -> None:
        self.arena = Arena(-1, 4)
        self.page = memoryview(bytearray(8 * 512)).cast("Q")
        self.datapath = Datapath(self.arena.rules, self.arena.keys, self.arena.webrtc, self.page)
        self.sender, self.receiver = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        for end in (self.sender, self.receiver):
            end.bind((HERE, 0))
        self.receiver.setblocking(False)
        self.port, self.pair = self.open()
        assert self.datapath.attach(self.open()[1], 1) == 0
        self.point()

    def open(self) -> tuple[int, int]:
        """A pair on free ports."""
        for port in range(31900, 31990, 2):
            pair = self.datapath.open(packed(port))
            if pair >= 0:
                return port, pair
        pytest.fail("no free ports")

    def point(self) -> None:
        """As an answer does: rule 0 comes from the sender and goes to the receiver."""
        rules = self.arena.rules
        rules[0].peer, rules[1].peer = 1, 0
        for rule, end in ((rules[0], self.sender), (rules[1], self.receiver)):
            address = packed(end.getsockname()[1])
            for name in ("rtp_remote", "rtp_signalled"):
                setattr(rule, name, type(rule.rtp_remote).from_buffer_copy(address))

    def send(self, count: int = 1, port: int = 0) -> None:
        for _ in range(count):
            self.sender.sendto(PACKET, (HERE, port or self.port))

    def relayed(self) -> int:
        """How many packets the receiver gets of what has been sent so far."""
        for _ in range(3):
            self.datapath.run(5)
        count = 0
        while True:
            try:
                self.receiver.recv(2048)
            except BlockingIOError:
                return count
            count += 1

    def dropped(self) -> int:
        return int(self.page[MediaCounter.DROP_UNUSED_PORT])

    def close(self) -> None:
        self.datapath.close()
        self.sender.close()
        self.receiver.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_what_waits_at_a_pair_is_dropped_before_a_call_gets_it(bench: Bench) -> None:
    bench.send(5)
    bench.send(3, bench.port + 1)
    assert bench.datapath.attach(bench.pair, 0) == 0
    assert bench.dropped() == 8
    assert bench.relayed() == 0
    bench.send(2)
    assert bench.relayed() == 2


def test_an_ended_call_relays_nothing_and_its_port_stays_open(bench: Bench) -> None:
    assert bench.datapath.attach(bench.pair, 0) == 0
    bench.send(2)
    assert bench.relayed() == 2
    bench.send(4)  # on their way when the call ends
    assert bench.datapath.detach(0) == bench.pair
    bench.send(3)
    assert bench.relayed() == 0
    assert bench.dropped() == 7
    assert bench.datapath.open(packed(bench.port)) == -errno.EADDRINUSE
    assert bench.datapath.shut(bench.pair) == bench.port
    pair = bench.datapath.open(packed(bench.port))
    assert pair >= 0


def test_a_pair_under_a_flood_is_left_alone(bench: Bench) -> None:
    small = b"x"
    held = 0
    for _ in range(1000):  # as many as the receive queue holds
        bench.sender.sendto(small, (HERE, bench.port))
        held += 1
    assert bench.datapath.attach(bench.pair, 0) == errno.EBUSY
    assert bench.datapath.detach(0) < 0
    assert 0 < bench.dropped() < held
    bench.relayed()
    while bench.datapath.attach(bench.pair, 0):
        pass  # each try drops some more of a queue that nobody fills
    bench.send()
    assert bench.relayed() == 1


def test_wrong_numbers_are_refused(bench: Bench) -> None:
    assert bench.datapath.attach(bench.pair, 0) == 0
    assert bench.datapath.attach(bench.pair, 2) == errno.EBADF, "lent already"
    assert bench.datapath.attach(999_999, 2) == errno.EBADF
    assert bench.datapath.attach(-1, 2) == errno.EBADF
    assert bench.datapath.detach(3) < 0
    with pytest.raises(ValueError, match="no such pair"):
        bench.datapath.shut(-5)
    with pytest.raises(IndexError):
        bench.datapath.attach(bench.pair, 10_000)


def test_nothing_is_left_open_by_many_lendings_nor_by_closing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    bench = Bench()
    held = len(os.listdir("/proc/self/fd"))
    start = time.process_time()
    for _ in range(20_000):
        assert bench.datapath.attach(bench.pair, 0) == 0
        assert bench.datapath.detach(0) == bench.pair
    print(f"a pair is lent and returned in {(time.process_time() - start) / 20_000 * 1e6:.2f} us")
    assert len(os.listdir("/proc/self/fd")) == held
    for _ in range(100):
        pair = bench.datapath.open(packed(31996))
        assert pair >= 0
        assert bench.datapath.shut(pair) == 31996
    assert len(os.listdir("/proc/self/fd")) == held
    bench.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_dtls_waits_in_a_bounded_ring_and_is_answered_from_the_port(bench: Bench) -> None:
    assert bench.datapath.attach(bench.pair, 0) == 0
    bench.arena.rules[0].features = Feature.DTLS
    record = b"\x16\xfe\xfd" + bytes(40)
    for number in range(SLOW_RING + 6):
        bench.sender.sendto(record + bytes((number,)), (HERE, bench.port))
    for _ in range(20):
        assert bench.datapath.run(5) & EVENTS
    first = bench.datapath.take(4)
    assert first == [(0, packed(bench.sender.getsockname()[1]), record + bytes((number,))) for number in range(4)]
    assert bench.datapath.run(5) & EVENTS  # the others wait
    assert len(bench.datapath.take(1000)) == SLOW_RING - 4
    assert bench.page[MediaCounter.DTLS_RECEIVED] == SLOW_RING
    assert bench.page[MediaCounter.DROP_SLOW_PATH_FULL] == 6
    assert not bench.datapath.run(5) & EVENTS
    assert bench.datapath.send(0, first[0][1], b"\x16answer") == 0
    bench.sender.settimeout(2)
    assert bench.sender.recvfrom(2048) == (b"\x16answer", (HERE, bench.port))
    bench.datapath.detach(0)
    assert bench.datapath.send(0, first[0][1], b"late") == errno.ENOTCONN
