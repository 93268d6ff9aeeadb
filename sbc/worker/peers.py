"""Handing a datagram to the worker that owns its shard, over AF_UNIX datagram sockets made before the fork.

One frame is ``!BHB``: listener, remote port, length of the remote host; then the host and the datagram as it came.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_HEAD = struct.Struct("!BHB")
MAX_FRAME_BYTES = 65_535 + _HEAD.size + 64
BATCH = 64  # frames read in one go, so that one busy neighbour cannot starve the own sockets


def pack(listener: int, host: str, port: int, data: bytes) -> bytes:
    """One frame for the owner's socket."""
    name = host.encode("ascii")
    return _HEAD.pack(listener, port, len(name)) + name + data


def unpack(frame: bytes) -> tuple[int, str, int, bytes]:
    """(listener, host, port, datagram); raises ValueError on a frame that no worker of ours wrote."""
    try:
        listener, port, length = _HEAD.unpack_from(frame)
    except struct.error as error:
        raise ValueError(f"a frame of {len(frame)} octets has no head") from error
    start = _HEAD.size + length
    return listener, frame[_HEAD.size : start].decode("ascii"), port, frame[start:]


class HandOver:
    """The sockets to every other worker, and the one on which others hand us theirs."""

    def __init__(self, own: socket.socket, outbound: list[socket.socket]) -> None:
        self._own = own
        self._outbound = outbound
        own.setblocking(False)
        for sock in outbound:
            sock.setblocking(False)

    def fileno(self) -> int:
        """What the event loop watches."""
        return self._own.fileno()

    def give(self, slot: int, listener: int, host: str, port: int, data: bytes) -> bool:
        """Pass a datagram to worker ``slot``; False when its queue is full, as a network would lose it too."""
        try:
            self._outbound[slot].send(pack(listener, host, port, data))
        except (BlockingIOError, OSError):
            return False
        return True

    def take(self) -> Iterator[tuple[int, str, int, bytes]]:
        """What others handed over, at most BATCH frames."""
        for _ in range(BATCH):
            try:
                frame = self._own.recv(MAX_FRAME_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            yield unpack(frame)
