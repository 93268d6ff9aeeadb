"""One stream connection: octets in, messages out, and what a peer must not do with it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol, cast

from sbc.sip.flow import Flow
from sbc.sip.framing import Framer, Limits

SEND_QUEUE_BYTES = 262_144  # a peer that does not read is let go beyond this
ANSWER_S = 0.05  # from a broken head to the end of what we say
LINGER_S = 1.0  # from there to the close: what still comes is read, or the kernel's reset would destroy our answer
PONG = b"\r\n"  # RFC 5626 §4.4.1
# A peer that vanishes is noticed by the kernel: probes after 30 s of silence, and data that nobody acknowledges.
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES = 30, 10, 3
UNACKNOWLEDGED_MS = 30_000


class Owner(Protocol):
    """The keeper of all connections, as a connection sees it."""

    def received(self, data: bytes, flow: Flow) -> None:
        """A whole message."""

    def broken(self, head: bytes, flow: Flow) -> None:
        """The head of something that ends the stream: to be answered, if it can be."""

    def turn(self) -> None:
        """This input is done."""

    @property
    def framing(self) -> Limits:
        """What one message may be."""

    def began(self, connection: Connection, *, handshake: bool = False) -> None:
        """A message, or a handshake, has begun: it must be whole in time."""

    def ended(self, connection: Connection) -> None:
        """No message is unfinished."""

    def wrote(self, connection: Connection) -> None:
        """There is something to flush."""

    def opened(self, connection: Connection) -> None:
        """It can be used."""

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """It is gone."""

    def forget(self, connection: Connection) -> None:
        """It will be gone: give it nothing more."""

    def count(self, name: str, amount: int = 1) -> None: ...

    def note(self, level: str, event: str, flow: Flow, reason: str = "") -> None: ...

    def later(self, delay_s: float, connection: Connection, action: str) -> None:
        """Call the method ``action`` of the connection, unless it is gone by then."""

    def time(self) -> float: ...


class Connection(asyncio.Protocol):
    """A TCP connection, or one with TLS under it. ``flow`` is its path, with its number in ``flow.connection``."""

    __slots__ = (
        "_framer",
        "_out",
        "_over",
        "_owner",
        "_queued",
        "_transport",
        "flow",
        "gone",
        "heard_at",
        "outbound",
        "sent",
    )

    def __init__(self, owner: Owner, flow: Flow, *, outbound: bool) -> None:
        self.flow = flow
        self.outbound = outbound
        self.gone = False
        self.heard_at = owner.time()
        self.sent: list[tuple[Flow, int]] = []  # until it is open: for whom, and on behalf of which slot
        self._owner = owner
        self._framer = Framer(owner.framing)
        self._out: list[bytes] = []
        self._queued = 0
        self._over = False
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can carry messages now."""
        return self._transport is not None

    @property
    def certificate(self) -> dict[str, Any] | None:  # Any: as the ssl module has it
        """The certificate that the other side has shown and that was verified; None or empty for none."""
        return self._transport.get_extra_info("peercert") if self._transport is not None else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is open, its TLS handshake done."""
        self._transport = cast(asyncio.Transport, transport)
        self.heard_at = self._owner.time()
        self._begin()

    def _begin(self) -> None:
        self._owner.opened(self)
        if self._out:
            self.flush()

    def data_received(self, data: bytes) -> None:
        """asyncio: some octets."""
        if self._over:
            return
        self.heard_at = self._owner.time()
        self._take(data)
        self._owner.turn()

    def _take(self, data: bytes) -> None:
        owner, framer = self._owner, self._framer
        messages = framer.feed(data)
        for message in messages:
            owner.received(message, self.flow)
        if framer.pings:
            owner.count("KEEPALIVE", framer.pings)
            self._put(PONG * framer.pings)
            framer.pings = 0
        if framer.fault is not None:
            if framer.fault.too_much:
                owner.count("STREAM_OVERSIZE")
            self.refuse(framer.fault.head, framer.fault.reason)
        elif not framer.unfinished:
            owner.ended(self)
        else:
            if messages:  # the time of the former message is not that of the next
                owner.ended(self)
            owner.began(self)

    def refuse(self, head: bytes, reason: str) -> None:
        """The stream cannot be read on: answer what can be answered, then close."""
        self._over = True
        owner = self._owner
        owner.ended(self)
        owner.count("STREAM_BROKEN")
        owner.note("info", "connection closed: the stream cannot be read", self.flow, reason)
        owner.broken(head, self.flow)
        owner.later(ANSWER_S, self, "half_close")

    def half_close(self) -> None:
        """Say that nothing more follows; what still comes is read and thrown away for a moment."""
        self._owner.forget(self)
        self.flush()
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            self._owner.later(LINGER_S, self, "close")
        else:
            self.close()

    def too_slow(self) -> None:
        """A message has been unfinished for too long (RFC 3261 names no limit; an attacker would)."""
        self._owner.count("STREAM_TIMEOUTS")
        self._owner.note("info", "connection closed: a message was not finished in time", self.flow)
        self.abort()

    def send(self, data: bytes) -> None:
        """Queue one message for the next flush."""
        self._put(data)

    def _put(self, data: bytes) -> None:
        if not self._out:
            self._owner.wrote(self)
        self._out.append(data)
        self._queued += len(data)

    def flush(self) -> None:
        """Write what is queued, as one piece; a queue that nobody empties ends the connection."""
        queued = self._queued
        if self._transport is not None:
            ended = self._transport.is_closing()
            if self._out and not ended:
                self._transport.write(b"".join(self._out))
            self._out.clear()
            self._queued = 0
            if ended:  # what is answered after the end counts no second time
                return
            queued = self._transport.get_write_buffer_size()
        if queued > SEND_QUEUE_BYTES:
            self._owner.count("STREAM_QUEUE_FULL")
            self._owner.note("warning", "connection closed: the peer does not read", self.flow)
            self.abort()

    def close(self) -> None:
        """End it once everything is written."""
        self._over = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it now."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        """asyncio: the peer will send nothing more, so nothing can be answered either; close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: it is gone."""
        self._over = True
        self._transport = None
        self._out.clear()
        self._owner.lost(self, error)


def tune(sock: socket.socket) -> None:
    """Send small messages at once, and have the kernel find out that a peer is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
