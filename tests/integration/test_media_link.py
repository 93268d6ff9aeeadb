"""Both ends of media control against libzmq and against hostile or slow peers, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from media import protocol, zmtp
from media.control import MAX_UNSENT_BYTES, Control
from media.counters import MediaCounter
from sbc.media_client.link import Link

MESSAGE = zmtp.encode((protocol.VERSION, b"\0" * 7 + b"\1", b"{}"))


class Served:
    """A Control that answers everything with ``reply``, driven by hand."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.reply = protocol.Reply()
        self.owners: list[bytes] = []
        self.counts: dict[MediaCounter, int] = {}
        self.control = Control(endpoint, self.handle, self.count)

    def handle(self, request: protocol.Request, owner: bytes, now_ns: int) -> protocol.Reply:
        self.owners.append(owner)
        return self.reply

    def count(self, counter: MediaCounter, amount: int) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + amount

    def drain(self, times: int = 5) -> None:
        for _ in range(times):
            self.control.drain(time.monotonic_ns())
            time.sleep(0.005)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(f"ipc://{tmp_path}/media.sock")
    yield found
    found.control.close()


def raw(served: Served, identity: bytes = b"") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(1)
    sock.connect(served.endpoint.removeprefix("ipc://"))
    sock.sendall(zmtp.opening(b"DEALER", identity))
    return sock


def query(number: int) -> bytes:
    return zmtp.encode((protocol.VERSION, number.to_bytes(8, "big"), protocol.encode(protocol.Query("s"))))


def test_many_requests_of_one_write_get_their_replies_in_one_write(served: Served) -> None:
    with raw(served) as sock:
        sock.sendall(b"".join(map(query, range(1, 51))))
        served.drain()
        incoming = zmtp.Incoming(b"DEALER", 1 << 20)
        ids = [int.from_bytes(frames[1], "big") for frames in incoming.feed(sock.recv(1 << 20))]
    assert ids == list(range(1, 51))


def test_noise_ends_only_its_own_connection(served: Served) -> None:
    with raw(served, b"good") as good, socket.socket(socket.AF_UNIX) as bad:
        bad.connect(served.endpoint.removeprefix("ipc://"))
        bad.sendall(b"\xffnoise" * 100)
        served.drain()
        bad.settimeout(1)
        try:
            while bad.recv(4096):
                pass
        except ConnectionResetError:
            pass
        good.sendall(query(1))
        served.drain()
    assert served.owners == [b"good"]


def test_who_comes_back_under_its_name_takes_the_place_of_its_predecessor(served: Served) -> None:
    with raw(served, b"sip-0") as first:
        served.drain()
        with raw(served, b"sip-0") as second:
            served.drain()
            served.control.notify(b"sip-0", {"event": "timeout"})
            served.drain()
            assert b"timeout" in second.recv(4096)
            got = b""
            while data := first.recv(4096):
                got += data
            assert b"timeout" not in got


def test_a_notification_without_its_owner_goes_to_everyone(served: Served) -> None:
    with raw(served, b"sip-0") as one, raw(served) as other:
        served.drain()
        served.control.notify(b"sip-9", {"event": "timeout"})
        served.drain()
        assert b"timeout" in one.recv(4096)
        assert b"timeout" in other.recv(4096)


def test_a_client_that_reads_nothing_is_bounded_and_gets_what_was_kept(served: Served) -> None:
    served.reply = protocol.Reply(sessions=["s" * 200] * 5000)
    with raw(served) as sock:
        for number in range(1, 21):
            sock.sendall(query(number))
            served.drain(1)
        lost = served.counts[MediaCounter.REPLIES_UNDELIVERED]
        assert 20 * 1_000_000 - MAX_UNSENT_BYTES > lost * 1_000_000 > 0
        incoming = zmtp.Incoming(b"DEALER", 1 << 24)
        kept = 0
        while kept < 20 - lost:
            kept += len(incoming.feed(sock.recv(1 << 20)))
            served.drain(1)
        assert kept == 20 - lost
    assert len(served.owners) == 20


async def test_a_link_talks_to_a_router_of_libzmq_and_finds_it_again(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/router.sock"
    came = asyncio.Event()
    link = Link(endpoint, b"sip-0", asyncio.get_running_loop(), came.set)
    with zmq.Context() as context:
        for turn in range(2):
            with context.socket(zmq.ROUTER) as router:
                router.setsockopt(zmq.LINGER, 0)
                router.bind(endpoint)
                frames = None
                for _ in range(200):
                    came.clear()
                    link.receive()
                    link.send(MESSAGE)  # what goes into a connection that breaks is lost
                    link.flush()
                    await asyncio.sleep(0.005)
                    if router.poll(0):
                        frames = router.recv_multipart()
                        break
                assert frames == [b"sip-0", b"1", b"\0" * 7 + b"\1", b"{}"], turn
                big = b"x" * 1_000_000
                router.send_multipart([b"sip-0", b"1", b"\0" * 7 + b"\1", big])
                replies: list[list[bytes]] = []
                while not replies:
                    came.clear()
                    await asyncio.wait_for(came.wait(), 2)
                    replies = link.receive()
                assert replies[0][2] == big
    link.close()


async def test_a_link_over_tcp_speaks_with_a_control(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(f"tcp://127.0.0.1:{port}")
    came = asyncio.Event()
    link = Link(served.endpoint, b"", asyncio.get_running_loop(), came.set)
    try:
        link.send(query(5))
        replies: list[list[bytes]] = []
        for _ in range(100):
            served.control.drain(time.monotonic_ns())
            link.flush()
            await asyncio.sleep(0.005)
            replies += link.receive()
            if replies:
                break
        assert replies[0][:2] == [b"1", (5).to_bytes(8, "big")]
        assert served.owners[0][:1] == b"\0", "a name was made up for it"
    finally:
        link.close()
        served.control.close()


async def test_what_waits_for_an_absent_worker_is_bounded(tmp_path: Path) -> None:
    link = Link(f"ipc://{tmp_path}/nobody.sock", b"", asyncio.get_running_loop(), lambda: None)
    taken = 0
    while link.send(MESSAGE):
        taken += 1
        assert taken <= 100_000
    assert taken == 20_000
    link.close()
