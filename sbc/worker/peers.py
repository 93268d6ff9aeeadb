"""Handing a message to the worker that owns its shard, over AF_UNIX datagram sockets made before the fork; and what is
to leave by a connection, to the worker that has it.

One frame is ``!BBBHQB``: kind, slot of the sender, listener, remote port, connection, length of the remote host; then
the host and the message as it came or is to leave.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = struct.Struct("!BBBHQB")
MAX_FRAME_BYTES = 65_535 + _HEAD.size + 64
BATCH = 64  # frames read in one go, so that one busy neighbour cannot starve the own sockets

# kinds
RECEIVED = 0  # this came for you
SEND = 1  # send this on a connection of yours, or in its stead
FAILED = 2  # what you gave me to send cannot be sent
TRUNK = 3  # what calls must know of a registration of mine
LODGING = 5  # about a call that one of us is to have from the other
TRUNKS_WANTED = 4  # I have just begun: tell me of yours
BINDING = 6  # a phone is lost, or is there again
HANDING = 7  # one of us relieves the other: see sbc.worker.relief


class Frame(NamedTuple):
    """What one worker tells another; ``host``, ``port`` and ``connection`` are the remote side of the message."""

    kind: int
    slot: int
    listener: int
    host: str
    port: int
    connection: int
    data: bytes


def pack(kind: int, slot: int, listener: int, host: str, port: int, connection: int, data: bytes) -> bytes:
    """One frame for the owner's socket."""
    name = host.encode("ascii")
    return _HEAD.pack(kind, slot, listener, port, connection, len(name)) + name + data


def unpack(frame: bytes) -> Frame:
    """Raises ValueError on a frame that no worker of ours wrote."""
    try:
        kind, slot, listener, port, connection, length = _HEAD.unpack_from(frame)
    except struct.error as error:
        raise ValueError(f"a frame of {len(frame)} octets has no head") from error
    start = _HEAD.size + length
    return Frame(kind, slot, listener, frame[_HEAD.size : start].decode("ascii"), port, connection, frame[start:])


class HandOver:
    """The sockets to every other worker, and the one on which others hand us theirs."""

    def __init__(self, slot: int, own: socket.socket, outbound: list[socket.socket]) -> None:
        self._slot = slot
        self._own = own
        self._outbound = outbound
        self._alone = len(outbound) == 1 and slot == 0  # until it hands something over to itself
        own.setblocking(False)
        for sock in outbound:
            sock.setblocking(False)

    def fileno(self) -> int:
        """What the event loop watches."""
        return self._own.fileno()

    def give(
        self, slot: int, listener: int, host: str, port: int, data: bytes, kind: int = RECEIVED, connection: int = 0
    ) -> bool:
        """Pass a message to worker ``slot``; False when its queue is full, as a network would lose a datagram too."""
        self._alone = False
        try:
            self._outbound[slot].send(pack(kind, self._slot, listener, host, port, connection, data))
        except (BlockingIOError, OSError):
            return False
        return True

    def take(self) -> Iterator[Frame]:
        """What others handed over, at most BATCH frames."""
        for _ in range(0 if self._alone else BATCH):
            try:
                frame = self._own.recv(MAX_FRAME_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            yield unpack(frame)
