"""The UDP sockets of a SIP worker: read in batches, each datagram to the worker that owns it; written once a turn."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Final

from sbc.sip.flow import Flow
from sbc.sip.shard import shard_of_datagram
from sbc.worker._datagrams import Reader, Writer
from sbc.worker.peers import HandOver
from sbc.worker.slot import SipSlot

BATCH: Final = 64  # datagrams read from a socket at a time
MORE_BATCHES: Final = 4  # in a turn, beside one of each socket
KNOWN_SOURCES: Final = 4096  # of a listener: as many peers and phones have each one flow for all their messages


class Hears(IntEnum):
    """What a worker still takes; the rest is as if it had been lost on its way."""

    ALL = 0
    NOTHING_NEW = 1  # no request that begins or ends a call, which its sender repeats
    NOTHING = 2


class DatagramSide:
    """What a worker does with datagrams; ``receive`` gets those that are its own, with the time and the wall clock."""

    def __init__(
        self,
        slot: SipSlot,
        hand_over: HandOver,
        receive: Callable[[bytes, Flow, float, float], None],
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.transports = [listen.transport for _, listen in slot.config.listeners]
        self.hears = Hears.ALL
        self.waited_s = 0.0  # in the kernel: the longest of the datagrams that a batch of the last reading began with
        self._slot, self._hand_over, self._receive, self._now, self._wall = slot, hand_over, receive, now, wall
        self._count = slot.page.count
        # by listener; None: connections, not datagrams
        self._sockets = [
            None if listen.is_stream else sock
            for (_, listen), sock in zip(slot.config.listeners, slot.sockets, strict=True)
        ]
        self._readers = {index: Reader(sock.fileno(), BATCH) for index, sock in enumerate(self._sockets) if sock}
        self._writers = {index: Writer(sock.fileno()) for index, sock in enumerate(self._sockets) if sock}
        self._flows: dict[int, dict[tuple[str, int], Flow]] = {listener: {} for listener in self._readers}
        self._out: list[list[tuple[bytes, str, int]] | None] = [None if sock is None else [] for sock in self._sockets]

    def divert(self, receive: Callable[[bytes, Flow, float, float], None]) -> None:
        """Give what is our own to this one from now on."""
        self._receive = receive

    def watch(self, loop: asyncio.AbstractEventLoop, readable: Callable[[int], None] | None) -> None:
        """Let every socket call ``readable`` with its listener when it has something; None: let none do so."""
        for listener, sock in enumerate(self._sockets):
            if sock is None:
                continue
            if readable is None:
                loop.remove_reader(sock.fileno())
            else:
                loop.add_reader(sock.fileno(), partial(readable, listener))

    def read(self, listener: int) -> int:
        """One batch of one socket, each datagram to its owner; how many there were."""
        reader = self._readers[listener]
        received = reader.read()
        self.waited_s = reader.waited_s
        if self.hears:
            spared = self.hears is Hears.NOTHING_NEW
            received = [one for one in received if spared and not one[0].startswith((b"INVITE ", b"BYE "))]
        if not received:
            return 0
        slot, seats, key = self._slot.slot, self._slot.seats, self._slot.shard_key
        seats.look()
        numbers: list[int] = seats.numbers
        count = len(numbers)
        shared = count > 1 or numbers[0] != slot
        now, wall = self._now(), self._wall()
        transport, flows = self.transports[listener], self._flows[listener]
        for data, host, port in received:
            if shared:
                shard = shard_of_datagram(data, key)
                if shard >= 0 and (owner := numbers[shard % count]) != slot:
                    taken = self._hand_over.give(owner, listener, host, port, data)
                    self._count("HANDED_OVER_OUT" if taken else "HAND_OVER_FAILED")
                    continue
            source = (host, port)
            flow = flows.get(source)
            if flow is None:
                if len(flows) == KNOWN_SOURCES:
                    flows.clear()
                flow = flows[source] = Flow(listener, transport, host, port)
            self._receive(data, flow, now, wall)
        self._count("DATAGRAMS_IN", len(received))
        return len(received)

    def read_all(self) -> int:
        """A batch of each socket, then some more of where the oldest datagrams wait: a call that was taken on brings
        several to the socket of its other side, and those must not wait behind new calls. How many there were."""
        total, longest = 0, 0.0
        waiting = [(math.inf, listener) for listener in self._readers]
        for _ in range(len(waiting) + MORE_BATCHES):
            if not waiting:
                break
            _, listener = waiting.pop()
            received = self.read(listener)
            total += received
            longest = max(longest, self.waited_s)
            if received == BATCH:
                waiting.append((self.waited_s, listener))
                waiting.sort()
        self.waited_s = longest
        return total

    def send(self, flow: Flow, data: bytes) -> bool:
        """Send at the end of the turn; False where the flow is a connection's."""
        out = self._out[flow.listener]
        if out is None:
            return False
        out.append((data, flow.host, flow.port))
        return True

    def flush(self) -> None:
        """Write what the turn has brought, each socket at once."""
        for listener, writer in self._writers.items():
            out = self._out[listener]
            if out:
                sent = writer.send(out)
                self._count("DATAGRAMS_OUT", sent)
                if sent < len(out):
                    self._count("SEND_FAILED", len(out) - sent)
                out.clear()
