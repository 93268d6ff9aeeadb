"""Both ends of media control over real ZeroMQ sockets: batches, names, hostile, mute and absent peers."""

from __future__ import annotations

import asyncio
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq

from media import protocol
from media.control import HIGH_WATER, MAX_REQUEST_BYTES, REQUESTS_PER_DRAIN, Control
from media.counters import MediaCounter
from sbc.media_client import link as link_module
from sbc.media_client.link import Link


class Served:
    """A Control that answers everything with ``reply``, or raises ``fault``; driven by hand."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.reply = protocol.Reply()
        self.faults: dict[str, Exception] = {}  # by session
        self.owners: list[bytes] = []
        self.counts: dict[MediaCounter, int] = {}
        self.control = Control(endpoint, self.handle, self.count)
        self.context = zmq.Context()

    def handle(self, request: protocol.Request, owner: bytes, now_ns: int) -> protocol.Reply:
        self.owners.append(owner)
        fault = self.faults.get(getattr(request, "session", ""))
        if fault is not None:
            raise fault
        return self.reply

    def count(self, counter: MediaCounter, amount: int) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + amount

    def drain(self, times: int = 5) -> None:
        for _ in range(times):
            self.control.drain(time.monotonic_ns())
            time.sleep(0.005)

    def client(self, identity: bytes = b"") -> zmq.Socket[bytes]:
        """One that the control knows by the time this returns."""
        sock = self.context.socket(zmq.DEALER)
        sock.setsockopt(zmq.RCVTIMEO, 1000)
        sock.setsockopt(zmq.PROBE_ROUTER, 1)
        if identity:
            sock.setsockopt(zmq.IDENTITY, identity)
        sock.connect(self.endpoint)
        self.drain()
        return sock

    def close(self) -> None:
        self.control.close()
        self.context.destroy(linger=0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(f"ipc://{tmp_path}/media.sock")
    yield found
    found.close()


def query(number: int, session: str = "s") -> protocol.Item:
    return number.to_bytes(8, "big"), protocol.encode(protocol.Query(session))


def numbers(items: list[protocol.Item]) -> list[int]:
    return [int.from_bytes(item_id, "big") for item_id, _ in items]


def says(sock: zmq.Socket[bytes], *items: protocol.Item) -> None:
    for message in protocol.messages(items):
        sock.send_multipart(message)


def codes(sock: zmq.Socket[bytes]) -> dict[int, str]:
    return {
        int.from_bytes(item_id, "big"): protocol.decode_reply(body).code
        for item_id, body in protocol.items(sock.recv_multipart())
    }


# -- the worker's side


def test_many_requests_of_one_message_get_their_replies_in_one_message(served: Served) -> None:
    client = served.client()
    says(client, *map(query, range(1, 51)))
    served.drain()
    assert numbers(protocol.items(client.recv_multipart())) == list(range(1, 51))
    assert served.counts[MediaCounter.CONTROL_REQUESTS] == 50


def test_requests_that_came_apart_are_answered_together_but_no_more_than_fit(served: Served) -> None:
    one, other = served.client(b"sip-0"), served.client(b"sip-1")
    for number in range(1, 101):
        says(one, query(number))
    says(other, query(7))
    time.sleep(0.05)
    served.control.drain(time.monotonic_ns())
    assert numbers(protocol.items(one.recv_multipart())) == list(range(1, 65))
    assert numbers(protocol.items(one.recv_multipart())) == list(range(65, 101))
    assert numbers(protocol.items(other.recv_multipart())) == [7]


def test_each_request_of_a_batch_stands_for_itself(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    client = served.client()
    served.faults = {"odd": KeyError("leg"), "odder": RecursionError(), "wrong": ValueError("no")}
    broken = (2).to_bytes(8, "big"), b"{"
    says(client, query(1), broken, query(3, "odd"), query(4), query(5, "odder"), query(6, "wrong"), query(7))
    served.drain()
    expected = {1: "", 2: "malformed", 3: "internal", 4: "", 5: "internal", 6: "malformed", 7: ""}
    assert codes(client) == expected
    assert served.counts[MediaCounter.REFUSED_INTERNAL] == 2
    assert served.counts[MediaCounter.REFUSED_MALFORMED] == 2
    assert capfd.readouterr().err.count("Traceback") == 1, "one fault a second is told in full"


def test_an_id_that_comes_again_is_answered_from_memory(served: Served) -> None:
    client = served.client()
    says(client, query(1), query(2))
    says(client, query(2), query(1), query(3))
    served.drain()
    found = protocol.items(client.recv_multipart())
    assert numbers(found) == [1, 2, 2, 1, 3]
    assert len(served.owners) == 3
    assert served.counts[MediaCounter.CONTROL_REPEATED] == 2


def test_a_flood_is_taken_in_portions(served: Served) -> None:
    clients = [served.client() for _ in range(4)]
    for client in clients:
        for first in range(1, 641, 64):
            says(client, *map(query, range(first, first + 64)))
    time.sleep(0.1)
    taken = [served.control.drain(time.monotonic_ns()) for _ in range(12)]
    assert sum(taken) == 4 * 640
    assert max(taken) < REQUESTS_PER_DRAIN + protocol.MAX_BATCH
    for client in clients:
        assert sum(len(protocol.items(client.recv_multipart())) for _ in range(10)) == 640


@pytest.mark.parametrize(
    "frames",
    [
        [protocol.VERSION],
        [protocol.VERSION, b"A" * 9, b"{}"],
        [protocol.VERSION, b"A" * 16, b"{}"],
        [protocol.VERSION, protocol.NOTIFICATION, b"{}"],
        [b"x"] * 500,
    ],
)
def test_a_message_that_does_not_fit_is_counted_and_the_next_is_served(served: Served, frames: list[bytes]) -> None:
    client = served.client()
    client.send_multipart(frames)
    says(client, query(1))
    served.drain()
    assert numbers(protocol.items(client.recv_multipart())) == [1]
    assert served.counts[MediaCounter.REFUSED_MALFORMED] == 1


def test_noise_and_excess_end_only_their_own_connection(served: Served) -> None:
    good, long = served.client(b"good"), served.client(b"long")
    with socket.socket(socket.AF_UNIX) as bad:
        bad.connect(served.endpoint.removeprefix("ipc://"))
        bad.sendall(b"\xffnoise" * 100)
        long.send_multipart([protocol.VERSION, b"A" * 8, b"x" * (MAX_REQUEST_BYTES + 1)])
        served.drain()
        bad.settimeout(1)
        try:
            while bad.recv(4096):
                pass
        except ConnectionResetError:
            pass
    says(good, query(1))
    served.drain()
    assert served.owners == [b"good"]


def test_the_socket_is_for_owner_and_group_only(served: Served) -> None:
    assert stat.S_IMODE(Path(served.endpoint.removeprefix("ipc://")).stat().st_mode) == 0o660


def test_who_comes_back_under_its_name_takes_the_place_of_its_predecessor(served: Served) -> None:
    first = served.client(b"sip-0")
    second = served.client(b"sip-0")
    served.control.notify(b"sip-0", {"event": "timeout"})
    served.drain()
    assert protocol.items(second.recv_multipart()) == [(protocol.NOTIFICATION, b'{"event":"timeout"}')]
    assert not first.poll(50)


def test_notifications_go_to_the_owner_with_the_replies(served: Served) -> None:
    owner, other = served.client(b"sip-0"), served.client()
    says(owner, query(1))
    time.sleep(0.02)
    served.control.notify(b"sip-0", {"event": "timeout", "session": "s"})
    served.drain()
    assert numbers(protocol.items(owner.recv_multipart())) == [0, 1]
    assert not other.poll(50)
    assert served.counts[MediaCounter.NOTIFICATIONS] == 1


def test_notifications_without_their_owner_go_to_everyone(served: Served) -> None:
    clients = [served.client(b"sip-0"), served.client()]
    for number in range(100):
        served.control.notify(b"sip-9", {"event": "timeout", "session": str(number)})
    served.drain()
    for client in clients:
        got = [*protocol.items(client.recv_multipart()), *protocol.items(client.recv_multipart())]
        assert numbers(got) == [0] * 100
    assert MediaCounter.REPLIES_UNDELIVERED not in served.counts
    gone = clients.pop(0)
    gone.close(linger=0)
    served.drain()
    served.control.notify(b"sip-0", {"event": "timeout"})
    served.drain()
    assert numbers(protocol.items(clients[0].recv_multipart())) == [0]


def test_a_client_that_reads_nothing_is_bounded_and_gets_what_was_kept(served: Served) -> None:
    served.reply = protocol.Reply(sessions=["s" * 100] * 50)
    other = served.client(b"other")
    mute = served.context.socket(zmq.DEALER)
    mute.setsockopt(zmq.RCVHWM, 1)
    mute.connect(served.endpoint)
    asked = HIGH_WATER + 600
    for number in range(1, asked + 1):  # each alone: what fills the queue is the number of messages
        says(mute, query(number))
        while len(served.owners) < number:
            served.control.drain(time.monotonic_ns())
    lost = served.counts[MediaCounter.REPLIES_UNDELIVERED]
    assert 0 < lost <= asked - HIGH_WATER
    says(other, query(1))
    served.drain()
    assert numbers(protocol.items(other.recv_multipart())) == [1], "nobody else is kept waiting"
    kept: list[int] = []
    while mute.poll(200):
        kept += numbers(protocol.items(mute.recv_multipart()))
        served.control.drain(time.monotonic_ns())
    assert len(kept) == asked - lost
    assert kept == sorted(kept)


# -- the client's side


class Linked:
    """A Link under test, and what came over it."""

    def __init__(self, endpoint: str, identity: bytes = b"") -> None:
        self.context = zmq.Context()
        self.got: list[list[bytes]] = []
        self.link = Link(self.context, endpoint, identity, asyncio.get_running_loop(), self.receive)

    def receive(self) -> None:
        self.got += self.link.receive()

    async def until(self, true: Callable[[], object], also: Callable[[], object] = lambda: None) -> None:
        for _ in range(400):
            also()
            if true():
                return
            await asyncio.sleep(0.005)
        pytest.fail("it never came")

    def close(self) -> None:
        self.link.close()
        self.context.destroy(linger=0)


@pytest.fixture
async def linked(tmp_path: Path) -> AsyncIterator[Linked]:
    """To where nobody may be yet: the ``served`` of the same test, or what the test puts there."""
    found = Linked(f"ipc://{tmp_path}/media.sock", b"sip-0")
    yield found
    found.close()


async def test_a_turn_leaves_in_one_message(linked: Linked, tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.bind(f"ipc://{tmp_path}/media.sock")
        await linked.until(partial(router.poll, 0))
        assert router.recv_multipart() == [b"sip-0", b""], "it says who it is before it asks"
        for number in (1, 2, 3):
            linked.link.send(*query(number))
        assert linked.link.flush() == []
        assert linked.link.flush() == []
        await linked.until(partial(router.poll, 0))
        client, *frames = router.recv_multipart()
        assert protocol.items(frames) == [query(1), query(2), query(3)]
        assert not router.poll(20)
        big = b"x" * 1_000_000
        router.send_multipart([client, protocol.VERSION, b"\0" * 7 + b"\1", big])
        await linked.until(lambda: linked.got)
        assert linked.got[0][2] == big


async def test_a_worker_that_comes_back_is_found_again(linked: Linked, tmp_path: Path) -> None:
    def ask(served: Served) -> None:  # again and again: what goes into a connection that breaks is lost
        linked.link.send(*query(1))
        linked.link.flush()
        served.drain(1)

    for _ in range(3):
        linked.got.clear()
        served = Served(f"ipc://{tmp_path}/media.sock")
        try:
            await linked.until(partial(len, served.owners), partial(ask, served))
            assert served.owners[0] == b"sip-0"
            await linked.until(lambda: linked.got)
        finally:
            served.close()


async def test_what_comes_while_nobody_watches_is_taken_afterwards(linked: Linked, served: Served) -> None:
    linked.link.watch(False)
    linked.link.send(*query(1))
    linked.link.flush()
    await linked.until(lambda: served.owners, served.drain)
    served.drain()
    await asyncio.sleep(0.05)
    assert linked.got == []
    linked.link.watch(True)
    await linked.until(lambda: linked.got)
    assert linked.got[0][1] == query(1)[0]
    linked.link.close()
    assert linked.link.receive() == []


async def test_no_edge_is_lost_however_messages_fall(linked: Linked, served: Served) -> None:
    """Answers arrive while the next requests are being sent: each is heard without a timer that looks again."""
    asked = 0
    for size in [1, 2, 5, 70, 1, 64, 65, 3] * 25:
        for _ in range(size):
            asked += 1
            linked.link.send(*query(asked))
        linked.link.flush()
        served.control.drain(time.monotonic_ns())
        await asyncio.sleep(0)

    def answered() -> int:
        return sum(len(protocol.items(frames)) for frames in linked.got)

    await linked.until(lambda: answered() == asked, lambda: served.control.drain(time.monotonic_ns()))


async def test_a_link_over_tcp(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(f"tcp://127.0.0.1:{port}")
    linked = Linked(served.endpoint)
    try:
        linked.link.send(*query(5))
        linked.link.flush()
        await linked.until(lambda: linked.got, lambda: served.control.drain(time.monotonic_ns()))
        assert numbers(protocol.items(linked.got[0])) == [5]
        assert served.owners[0][:1] == b"\0", "a name was made up for it"
    finally:
        linked.close()
        served.close()


async def test_what_waits_for_an_absent_worker_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "HIGH_WATER", 100)
    linked = Linked(f"ipc://{tmp_path}/nobody.sock")
    refused = []
    for number in range(1, 151):
        linked.link.send(*query(number))
        refused += [int.from_bytes(found, "big") for found in linked.link.flush()]
    linked.link.send(*query(151))
    linked.link.send(*query(152))
    refused += [int.from_bytes(found, "big") for found in linked.link.flush()]
    linked.close()
    assert refused == list(range(100, 153)), "one place holds the message that says who we are"
