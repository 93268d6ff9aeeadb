"""The control socket of a media worker: requests in, cached replies out, notifications to whoever owns a session."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import types
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson

from media import protocol, zmtp
from media.counters import REFUSED, MediaCounter

CACHE_S = 10.0  # longer than any client waits and repeats
CACHE_REPLIES = 4096
MAX_REQUEST_BYTES = 256 * 1024
MAX_UNSENT_BYTES = 8 * 1024 * 1024  # replies that a client may leave unread
MAX_CLIENTS = 256
READ_BYTES = 64 * 1024  # into a buffer that is kept: to allocate as much for each read costs more than the read


def decode_request(data: bytes) -> protocol.Request:
    """Read a request; raises ValueError when it does not fit the protocol (unknown names and keys, wrong types)."""
    raw = orjson.loads(data)
    if not isinstance(raw, dict):
        raise ValueError("a request is a JSON object")
    kind = _KINDS.get(str(raw.pop("do", "")))
    if kind is None:
        raise ValueError("'do' names no request")
    streams = raw.get("streams")
    request: protocol.Request = _build(kind, raw)
    if type(streams) is list and isinstance(request, protocol.Offer | protocol.Answer):
        request.streams = [_build(_STREAM, stream) for stream in streams]
    elif isinstance(request, protocol.ListSessions) and (request.offset < 0 or request.limit < 0):
        raise ValueError("offset and limit may not be negative")
    return request


class _Kind:
    """A class of the protocol, and what JSON must bring for it: types by field name, and allowed texts of some."""

    def __init__(self, made: type) -> None:
        self.made = made
        self.types: dict[str, type] = {}
        self.allowed: dict[str, frozenset[str]] = {}
        for name, hint in get_type_hints(made).items():
            origin = get_origin(hint)
            if origin in (Union, types.UnionType):
                raise TypeError(f"{made.__name__}.{name}: a request has no unions")
            if origin is Literal:
                self.allowed[name] = frozenset(get_args(hint))
            self.types[name] = str if origin is Literal else origin or hint


_STREAM = _Kind(protocol.Stream)
_KINDS = {name: _Kind(made) for name, made in protocol.REQUESTS.items()}


def _build(kind: _Kind, raw: Any) -> Any:  # Any: JSON in, an object of the protocol out
    if type(raw) is not dict:
        raise ValueError("an object expected")
    expected = kind.types
    for name, value in raw.items():
        if expected.get(name) is not type(value):
            raise ValueError(f"{name}: unknown or of a wrong type")
    for name, allowed in kind.allowed.items():
        if name in raw and raw[name] not in allowed:
            raise ValueError(f"{name}: {raw[name]!r} is not allowed")
    try:
        return kind.made(**raw)
    except TypeError as error:  # something is missing
        raise ValueError(str(error)) from None


class _Client:
    """One connection of a SIP worker or another client."""

    __slots__ = ("identity", "incoming", "outbox", "sock", "unsent_bytes", "waits_to_write")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming = zmtp.Incoming(b"ROUTER", MAX_REQUEST_BYTES)
        self.identity = b""
        self.outbox: list[bytes] = [zmtp.opening(b"ROUTER")]
        self.unsent_bytes = 0
        self.waits_to_write = False


class Control:
    """ROUTER at ``endpoint``. ``handle(request, owner, now_ns)`` answers; nothing here blocks.

    ``fd`` is readable while something waits: call ``drain`` then, and after ``notify``. What one call of ``drain``
    has to say to a client leaves in one write.
    """

    def __init__(
        self,
        endpoint: str,
        handle: Callable[[protocol.Request, bytes, int], protocol.Reply],
        count: Callable[[MediaCounter, int], None],
    ) -> None:
        self._handle = handle
        self._count = count
        self._cache: dict[tuple[bytes, bytes], bytes] = {}
        self._ages: deque[tuple[int, tuple[bytes, bytes]]] = deque()
        self._clients: dict[int, _Client] = {}  # by descriptor
        self._by_identity: dict[bytes, _Client] = {}  # those that said READY
        self._serial = 0
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._talked: list[_Client] = []  # have something to send
        self._poll = select.epoll()
        self._listener = _listen(endpoint)
        self._poll.register(self._listener, select.EPOLLIN)
        self.fd = self._poll.fileno()

    def close(self) -> None:
        """Close all sockets; what was not sent yet is given up."""
        for client in list(self._clients.values()):
            self._leave(client)
        self._listener.close()
        self._poll.close()

    def drain(self, now_ns: int) -> int:
        """Answer everything that has arrived; returns how many requests that was."""
        done = 0
        for fd, events in self._poll.poll(0):
            client = self._clients.get(fd)
            if client is None:
                if fd == self._listener.fileno():
                    self._accept()
                continue
            if events & select.EPOLLOUT:
                self._flush(client)
            if events & ~select.EPOLLOUT:
                done += self._read(client, now_ns)
        if self._talked:
            talked, self._talked = self._talked, []
            for client in talked:
                if not client.waits_to_write:
                    self._flush(client)
        limit = now_ns - int(CACHE_S * 1e9)
        while self._ages and (self._ages[0][0] < limit or len(self._ages) > CACHE_REPLIES):
            del self._cache[self._ages.popleft()[1]]
        return done

    def notify(self, owner: bytes, event: dict[str, Any]) -> None:  # Any: JSON values
        """Tell the owner of a session, or every client when the owner is gone. Call ``drain`` afterwards."""
        message = zmtp.encode((protocol.VERSION, protocol.NOTIFICATION, orjson.dumps(event)))
        self._count(MediaCounter.NOTIFICATIONS, 1)
        client = self._by_identity.get(owner)
        if client is not None and self._send(client, message):
            return
        for other in self._by_identity.values():
            if other is not client:
                self._send(other, message)

    # -- connections

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it went away again, or we have no descriptor left
            return
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._clients[sock.fileno()] = _Client(sock)
        self._poll.register(sock, select.EPOLLIN)
        self._talked.append(client)

    def _leave(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self._poll.unregister(client.sock)
            client.sock.close()
        if self._by_identity.get(client.identity) is client:
            del self._by_identity[client.identity]

    def _welcome(self, client: _Client) -> None:
        """It said READY: from now on it is reached by its identity, or by one that we make up."""
        self._serial += 1
        name = client.incoming.identity
        client.identity = b"\0" + self._serial.to_bytes(4, "big") if name[:1] in (b"", b"\0") else name
        older = self._by_identity.get(client.identity)
        if older is not None:  # a respawned client comes back under its own name
            self._leave(older)
        self._by_identity[client.identity] = client

    def _read(self, client: _Client, now_ns: int) -> int:
        incoming = client.incoming
        try:
            size = client.sock.recv_into(self._buffer)
            if not size:
                self._leave(client)
                return 0
            messages = incoming.feed(bytes(self._buffer[:size]))
        except (BlockingIOError, InterruptedError):
            return 0
        except (OSError, zmtp.ZmtpError):
            self._leave(client)
            return 0
        if incoming.ready and not client.identity:
            self._welcome(client)
        if incoming.answer:
            self._send(client, incoming.answer)
            incoming.answer = b""
        if messages:
            self._count(MediaCounter.CONTROL_REQUESTS, len(messages))
        for frames in messages:
            self._one(client, frames, now_ns)
        return len(messages)

    def _send(self, client: _Client, message: bytes) -> bool:
        if client.unsent_bytes > MAX_UNSENT_BYTES:  # it reads nothing any more
            return False
        client.unsent_bytes += len(message)
        if not client.outbox:
            self._talked.append(client)
        client.outbox.append(message)
        return True

    def _flush(self, client: _Client) -> None:
        if not client.outbox or client.sock.fileno() not in self._clients:
            return
        data = b"".join(client.outbox) if len(client.outbox) > 1 else client.outbox[0]
        try:
            sent = client.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._count(MediaCounter.REPLIES_UNDELIVERED, 1)
            self._leave(client)
            return
        client.outbox = [data[sent:]] if sent < len(data) else []
        client.unsent_bytes = len(data) - sent
        if client.waits_to_write != bool(client.outbox):
            client.waits_to_write = bool(client.outbox)
            wanted = select.EPOLLIN | (select.EPOLLOUT if client.waits_to_write else 0)
            self._poll.modify(client.sock, wanted)

    # -- requests

    def _one(self, client: _Client, frames: list[bytes], now_ns: int) -> None:
        if (
            len(frames) != 3
            or frames[0] != protocol.VERSION
            or len(frames[1]) != 8
            or frames[1] == protocol.NOTIFICATION
        ):
            self._count(MediaCounter.REFUSED_MALFORMED, 1)  # no id to answer under, or another protocol version
            return
        _, request_id, body = frames
        key = (client.identity, request_id)
        reply = self._cache.get(key)
        if reply is None:
            reply = zmtp.encode((protocol.VERSION, request_id, self._answer(body, client.identity, now_ns)))
            self._cache[key] = reply
            self._ages.append((now_ns, key))
        else:
            self._count(MediaCounter.CONTROL_REPEATED, 1)
        if not self._send(client, reply):
            self._count(MediaCounter.REPLIES_UNDELIVERED, 1)

    def _answer(self, body: bytes, owner: bytes, now_ns: int) -> bytes:
        try:
            reply = self._handle(decode_request(body), owner, now_ns)
        except ValueError as error:
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error))
        if not reply.ok:
            self._count(REFUSED[reply.code], 1)
        return protocol.encode_reply(reply)


def _listen(endpoint: str) -> socket.socket:
    family, address = zmtp.parse_endpoint(endpoint)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_UNIX:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(address))  # of a predecessor
            old_mask = os.umask(0o117)  # owner and group only
            try:
                sock.bind(address)
            finally:
                os.umask(old_mask)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        sock.listen(MAX_CLIENTS)
    except OSError:
        sock.close()
        raise
    return sock
