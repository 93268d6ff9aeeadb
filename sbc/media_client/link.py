"""One connection to a media worker: connects by itself again and again, gathers what is to be sent, reads what came."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from media import zmtp

READ_BYTES = 64 * 1024  # into a buffer that is kept: to allocate as much for each read costs more than the read
MAX_REPLY_BYTES = 16 * 1024 * 1024  # a list of sessions
HIGH_WATER = 20_000  # messages that wait for a worker which is away
RECONNECT_S, RECONNECT_MAX_S = 0.01, 0.2


class Link:
    """DEALER at ``endpoint`` (``ipc://`` or ``tcp://``).

    ``on_readable`` is called when something came, unless ``watch(False)``; :meth:`receive` takes it. What was handed to
    a connection that breaks is lost; what still waited goes over the next one.
    """

    __slots__ = (
        "_address",
        "_buffer",
        "_delay_s",
        "_family",
        "_identity",
        "_incoming",
        "_loop",
        "_on_readable",
        "_outbox",
        "_retry",
        "_sock",
        "_unsent",
        "_waits_to_write",
        "_watched",
    )

    def __init__(
        self, endpoint: str, identity: bytes, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]
    ) -> None:
        self._family, self._address = zmtp.parse_endpoint(endpoint)
        self._identity = identity
        self._loop = loop
        self._on_readable = on_readable
        self._outbox: list[bytes] = []
        self._unsent = b""
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._incoming = zmtp.Incoming(b"DEALER", MAX_REPLY_BYTES)
        self._sock: socket.socket | None = None
        self._watched = True
        self._waits_to_write = False
        self._delay_s = RECONNECT_S
        self._retry: asyncio.TimerHandle | None = None
        self._connect()

    def send(self, message: bytes) -> bool:
        """Keep an encoded message for the next :meth:`flush`; False when too many wait already."""
        if len(self._outbox) >= HIGH_WATER:
            return False
        self._outbox.append(message)
        return True

    def flush(self) -> None:
        """Hand everything that waits to the kernel, in one write; what it does not take follows when it can."""
        sock = self._sock
        if sock is None or self._waits_to_write:
            return
        data = self._unsent
        if self._outbox and self._incoming.ready:
            data += b"".join(self._outbox)
            self._outbox.clear()
        if not data:
            return
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._lost()
            return
        self._unsent = data[sent:]
        if self._unsent:
            self._waits_to_write = True
            self._loop.add_writer(sock.fileno(), self._writable)

    def receive(self) -> list[list[bytes]]:
        """The messages that have come since; never waits."""
        sock = self._sock
        if sock is None:
            return []
        try:
            size = sock.recv_into(self._buffer)
            if not size:
                self._lost()
                return []
            was_ready = self._incoming.ready
            messages = self._incoming.feed(bytes(self._buffer[:size]))
        except (BlockingIOError, InterruptedError):
            return []
        except (OSError, zmtp.ZmtpError):
            self._lost()
            return []
        if self._incoming.ready and not was_ready:
            self._delay_s = RECONNECT_S
            self.flush()
        if self._incoming.answer:
            self._unsent += self._incoming.answer
            self._incoming.answer = b""
            self.flush()
        return messages

    def watch(self, on: bool) -> None:
        """Whether ``on_readable`` is called."""
        if on == self._watched:
            return
        self._watched = on
        if self._sock is not None and on:
            self._loop.add_reader(self._sock.fileno(), self._on_readable)
        elif self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """End the connection for good."""
        self._drop()
        if self._retry is not None:
            self._retry.cancel()

    # -- the connection

    def _connect(self) -> None:
        self._retry = None
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._incoming = zmtp.Incoming(b"DEALER", MAX_REPLY_BYTES)
        self._unsent = zmtp.opening(b"DEALER", self._identity)
        self._sock = sock
        try:
            if self._family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(self._address)
        except BlockingIOError:
            if self._family == socket.AF_UNIX:  # too many connect at once: there is nothing to wait for but time
                self._lost()
                return
        except OSError:
            self._lost()
            return
        if self._watched:
            self._loop.add_reader(sock.fileno(), self._on_readable)
        self._waits_to_write = True  # writable is connected
        self._loop.add_writer(sock.fileno(), self._writable)

    def _writable(self) -> None:
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._waits_to_write = False
            self.flush()

    def _drop(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._waits_to_write = False

    def _lost(self) -> None:
        self._drop()
        self._retry = self._loop.call_later(self._delay_s, self._connect)
        self._delay_s = min(2 * self._delay_s, RECONNECT_MAX_S)
