"""Many short calls leave nothing behind in a media worker, and a held one takes little.

``SBC_SOAK_CALLS=100000 ./dev test tests/integration/test_media_soak.py`` is the long form; without it, it is short.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zmq

from media import protocol
from media.counters import MediaCounter
from media.protocol import Answer, Delete, ListSessions, Offer, Reply, Stream
from tests.support.media_process import MediaProcess
from tests.support.sbc import eventually

CALLS = int(os.environ.get("SBC_SOAK_CALLS", "4000"))
WARM_CALLS = 2000  # the worker keeps its last 4,096 replies, three for a call
AT_ONCE = 20
PAIRS = 1000  # of each realm
QUARANTINE_S = 0.1
PACKET = bytes([0x80, 8, 0, 1]) + bytes(168)
REALMS: dict[str, dict[str, object]] = {
    "core": {"address": "127.0.0.1", "ports": [32000, 32000 + 2 * PAIRS - 1]},
    "outside": {"address": "127.0.0.2", "ports": [32000, 32000 + 2 * PAIRS - 1]},
}


class Batches:
    """A control client that asks for many things in one message."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, 5000)
        self._socket.connect(endpoint)
        self._serial = 0

    def ask(self, requests: Sequence[protocol.Request]) -> list[Reply]:
        """The replies, in the order of the requests; each of them must be good."""
        items = []
        for request in requests:
            self._serial += 1
            items.append((self._serial.to_bytes(8, "big"), protocol.encode(request)))
        for message in protocol.messages(items):
            self._socket.send_multipart(message)
        replies: dict[bytes, Reply] = {}
        while len(replies) < len(items):
            for number, body in protocol.items(self._socket.recv_multipart()):
                if number != protocol.NOTIFICATION:
                    replies[number] = protocol.decode_reply(body)
        found = [replies[number] for number, _ in items]
        assert all(reply.ok for reply in found), [reply.reason for reply in found if not reply.ok][:1]
        return found

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)


class Site:
    """A worker, and a phone on each side that all calls share."""

    def __init__(self, directory: Path, capacity: int) -> None:
        self.worker = MediaProcess(
            f"ipc://{directory}/media.sock", REALMS, capacity=capacity, quarantine_s=QUARANTINE_S
        )
        self.worker.start()
        self.control = Batches(self.worker.endpoint)
        self.control.ask([ListSessions()])
        self.descriptors_unused = self.descriptors()
        self.phones = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
        for phone in self.phones:
            phone.bind(("127.0.0.1", 0))
        self.streams = [Stream("127.0.0.1", phone.getsockname()[1]) for phone in self.phones]

    def begin(self, names: Sequence[str]) -> None:
        """Calls with one packet from each side, towards the other."""
        a, b = self.streams
        offered = self.control.ask([Offer(name, "a", "b1", "outside", "core", [a]) for name in names])
        answered = self.control.ask([Answer(name, "b1", "a", [b]) for name in names])
        for facing_b, facing_a in zip(offered, answered, strict=True):
            self.phones[0].sendto(PACKET, ("127.0.0.2", facing_a.endpoints[0].port))
            self.phones[1].sendto(PACKET, ("127.0.0.1", facing_b.endpoints[0].port))

    def end(self, names: Sequence[str]) -> None:
        self.control.ask([Delete(name) for name in names])

    def short_calls(self, count: int) -> None:
        for first in range(0, count, AT_ONCE):
            names = [f"call-{number}" for number in range(first, first + AT_ONCE)]
            self.begin(names)
            self.end(names)
            for phone in self.phones:
                while self._drop(phone):
                    pass
            if first % (PAIRS // 2) == 0:
                time.sleep(QUARANTINE_S)

    @staticmethod
    def _drop(phone: socket.socket) -> bool:
        try:
            return bool(phone.recv(2048, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def settle(self) -> None:
        """Wait until no port is in quarantine any more."""
        quiet = (MediaCounter.SESSIONS_ACTIVE, MediaCounter.PORTS_QUARANTINED)
        time.sleep(QUARANTINE_S)
        eventually(lambda: not any(map(self.worker.count, quiet)), 5, "all ports at rest")

    def memory_bytes(self) -> int:
        """Resident, the shared state included."""
        for line in Path(f"/proc/{self.worker.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.worker.pid}/fd"))

    def close(self) -> None:
        self.control.close()
        self.worker.close()
        for phone in self.phones:
            phone.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, capacity=256)
    yield made
    made.close()


@pytest.mark.timeout(60 + CALLS // 100)
def test_many_short_calls_leave_no_port_descriptor_or_memory_behind(site: Site) -> None:
    site.short_calls(WARM_CALLS)
    site.settle()
    memory = site.memory_bytes()
    start = time.monotonic()
    site.short_calls(CALLS)
    spent_s = time.monotonic() - start
    site.settle()
    grown = site.memory_bytes() - memory
    bound = site.worker.count(MediaCounter.PORTS_BOUND)
    print(f"{CALLS} calls in {spent_s:.1f} s: memory {grown / 1024:+.0f} kB, {bound} pairs bound")
    assert site.worker.count(MediaCounter.PORTS_FREE) == 2 * PAIRS
    assert bound <= 2 * PAIRS
    assert site.descriptors() == site.descriptors_unused + 2 * bound
    assert grown < 512 * 1024 + CALLS  # an octet for each call, and what an allocator varies by
    assert site.worker.count(MediaCounter.SESSIONS_OPENED) == WARM_CALLS + CALLS


def test_a_held_call_takes_less_than_ten_kilobytes(tmp_path: Path) -> None:
    site = Site(tmp_path, capacity=1024)
    try:
        site.short_calls(WARM_CALLS)
        site.settle()
        before = site.memory_bytes()
        held = [f"held-{number}" for number in range(500)]
        for first in range(0, len(held), AT_ONCE):
            site.begin(held[first : first + AT_ONCE])
        each = (site.memory_bytes() - before) / len(held)
        print(f"{each:.0f} bytes for each of {len(held)} held calls")
        assert each < 10_000
        for first in range(0, len(held), AT_ONCE):
            site.end(held[first : first + AT_ONCE])
    finally:
        site.close()
