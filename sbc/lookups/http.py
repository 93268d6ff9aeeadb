"""HTTP/1.1 look-ups over kept connections (RFC 9112): h11 reads and writes, asyncio carries.

A host (scheme, name and port) has a few connections, a circuit, and a queue of look-ups that wait for a connection. An
answer that a kept connection does not begin is asked for once more on a new one, where asking twice is harmless
(RFC 9110 §9.2.2): the server had closed it meanwhile.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import h11

from sbc.config.lookups import HttpLookups
from sbc.lookups.asking import HttpAnswer, HttpRequest
from sbc.lookups.circuit import Circuit
from sbc.lookups.errors import LookupFailed, LookupTimeout, ServerAway

HEAD_MAX_BYTES: Final = 65_536
READ_BYTES: Final = 65_536
HOSTS_MAX: Final = 1024
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443}


class _Stale(Exception):
    """The server had closed a kept connection."""


class _Host:
    __slots__ = ("circuit", "idle", "name", "slots", "users")

    def __init__(self, name: str, config: HttpLookups) -> None:
        self.name = name
        self.circuit = Circuit(config.circuit.failures, config.circuit.retry_s)
        self.slots = asyncio.Semaphore(config.connections_per_host)
        self.idle: list[_Connection] = []  # the one that was used last is taken first
        self.users = 0


class HttpClient:
    """``changed(server, is away)`` is told when a circuit opens or closes. Raises OSError for a ``ca`` that cannot be
    read."""

    def __init__(
        self, config: HttpLookups, loop: asyncio.AbstractEventLoop, changed: Callable[[str, bool], None]
    ) -> None:
        self._config = config
        self._loop = loop
        self._changed = changed
        self._tls = ssl.create_default_context(cafile=config.ca or None)
        self._hosts: dict[tuple[str, str, int], _Host] = {}
        self._closed = False

    async def ask(self, request: HttpRequest) -> HttpAnswer:
        """The answer, whatever its status. Raises LookupFailed."""
        parts = urlsplit(request.url)
        host = self._host(parts)
        if self._closed or not host.circuit.admits(self._loop.time()):
            raise ServerAway(request.name, f"{host.name} has not answered for some time")
        timeout_s = request.timeout_s or self._config.timeout_s
        host.users += 1
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._in_turn(request, parts, host)
        except TimeoutError:
            self._failed(host)
            raise LookupTimeout(request.name, f"no answer within {timeout_s:g} s") from None
        except (OSError, EOFError, h11.RemoteProtocolError, _Stale) as error:
            self._failed(host)
            raise LookupFailed(request.name, _why(error)) from error
        finally:
            host.users -= 1
        if host.circuit.succeeded():
            self._changed(host.name, False)
        return answer

    def close(self) -> None:
        """Close what is kept; what is under way ends by itself."""
        self._closed = True
        for host in self._hosts.values():
            while host.idle:
                host.idle.pop().close()

    def _host(self, parts: SplitResult) -> _Host:
        port = parts.port or _PORTS[parts.scheme]
        key = parts.scheme, parts.hostname or "", port
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= HOSTS_MAX:
                self._forget_some()
            host = self._hosts[key] = _Host(f"{parts.scheme}://{parts.hostname}:{port}", self._config)
        return host

    def _forget_some(self) -> None:
        """Routes that take hosts from calls must not fill the memory with them."""
        for key in [key for key, host in self._hosts.items() if not host.users]:
            for connection in self._hosts.pop(key).idle:
                connection.close()

    def _failed(self, host: _Host) -> None:
        if host.circuit.failed(self._loop.time()):
            self._changed(host.name, True)

    async def _in_turn(self, request: HttpRequest, parts: SplitResult, host: _Host) -> HttpAnswer:
        async with host.slots:
            kept = self._kept(host)
            if kept is not None:
                try:
                    return await self._exchange(kept, request, parts, host)
                except _Stale:
                    if request.method not in _IDEMPOTENT:
                        raise
            return await self._exchange(await self._connect(parts), request, parts, host)

    def _kept(self, host: _Host) -> _Connection | None:
        """A connection that still is one."""
        now = self._loop.time()
        while host.idle:
            connection = host.idle.pop()
            if connection.is_good(now):
                return connection
            connection.close()
        return None

    async def _connect(self, parts: SplitResult) -> _Connection:
        tls = self._tls if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port or _PORTS[parts.scheme], ssl=tls, limit=READ_BYTES
        )
        return _Connection(reader, writer)

    async def _exchange(
        self, connection: _Connection, request: HttpRequest, parts: SplitResult, host: _Host
    ) -> HttpAnswer:
        try:
            answer = await connection.exchange(request, parts, self._config.answer_max_bytes)
        except BaseException:  # also when the look-up is cancelled: half an answer is of no use to the next one
            connection.close()
            raise
        if connection.may_serve_again and self._config.idle_s and not self._closed:
            connection.use_until = self._loop.time() + self._config.idle_s
            host.idle.append(connection)
        else:
            connection.close()
        return answer


class _Connection:
    """One connection, one exchange at a time."""

    __slots__ = ("_h11", "_reader", "_used", "_writer", "use_until")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
        self._used = False
        self.use_until = 0.0

    def is_good(self, now: float) -> bool:
        """Whether it may serve: in time, and the server has neither closed it nor said anything unasked."""
        return now < self.use_until and not self._reader.at_eof() and not self._writer.is_closing()

    @property
    def may_serve_again(self) -> bool:
        """Whether both sides are ready for the next exchange."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._used = True
        return True

    def close(self) -> None:
        """At once; nothing waits for the other side."""
        self._writer.transport.abort()

    async def exchange(self, request: HttpRequest, parts: SplitResult, most: int) -> HttpAnswer:
        """The answer. Raises _Stale, OSError, EOFError, h11.RemoteProtocolError, LookupFailed."""
        head = h11.Request(method=request.method, target=_target(parts), headers=_headers(request, parts))
        data = self._h11.send(head) or b""
        if request.body:
            data += self._h11.send(h11.Data(data=request.body)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        try:
            self._writer.write(data)
            await self._writer.drain()
            response = await self._head()
        except (OSError, EOFError) as error:
            if self._used:
                raise _Stale from error
            raise
        headers: dict[str, str] = {}
        for raw_name, raw_value in response.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length = headers.get("content-length", "0")
        if request.method != "HEAD" and length.isdigit() and int(length) > most:
            raise LookupFailed(request.name, f"the answer is longer than answer_max_bytes, which is {most}")
        body = bytearray()
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > most:
                    raise LookupFailed(request.name, f"the answer is longer than answer_max_bytes, which is {most}")
        return HttpAnswer(request.name, response.status_code, headers, bytes(body))

    async def _head(self) -> h11.Response:
        """The final response; those before it (1xx) tell a client without expectations nothing."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise EOFError("the server closed the connection")

    async def _next(self) -> h11.Event:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(READ_BYTES)
                if not data and self._h11.their_state is h11.SEND_RESPONSE:
                    raise EOFError("the server closed the connection")
                self._h11.receive_data(data)
            elif isinstance(event, h11.Event):
                return event
            else:  # PAUSED: the server speaks on when all is said
                raise EOFError("the server sent more than an answer")


def _target(parts: SplitResult) -> str:
    return urlunsplit(("", "", parts.path or "/", parts.query, ""))


def _headers(request: HttpRequest, parts: SplitResult) -> list[tuple[str, str]]:
    given = {name.lower() for name, _ in request.headers}
    headers = [("Host", parts.netloc.rpartition("@")[2])]
    defaults = [("User-Agent", "Portcullis"), ("Accept", "*/*")]
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        defaults.append(("Authorization", f"Basic {b64encode(secret).decode()}"))
    headers += [item for item in defaults if item[0].lower() not in given]
    headers += [item for item in request.headers if item[0].lower() not in _OURS]
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(request.body))))
    return headers


_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def _why(error: BaseException) -> str:
    if isinstance(error, _Stale):
        return "the server closed the connection, and it is not known whether it has taken the request"
    if isinstance(error, h11.RemoteProtocolError):
        return f"the answer is no HTTP: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
