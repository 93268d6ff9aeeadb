"""All stream connections of one worker: those it accepted, those it made, and what becomes of a message for each.

A connection has a number that no other in the node has, now or soon: its slot and a serial number, and above them which
configured name the certificate of the other side bears (:mod:`sbc.sip.flow`), so that whoever gets the flow of a
message knows who is there. A flow with a number means that connection while it lives; when it is gone, and for a flow
without a number, the flow's address is where to connect to, and one connection serves all that goes there (RFC 3261
§18.1.1, §18.2.2).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sbc.config.models import Connections
from sbc.dialog.dialog import DEFAULT_PORTS
from sbc.errors import SipSyntaxError
from sbc.sip.flow import IDENTITY_SHIFT, SERIAL_BITS, SLOT_BITS, Flow
from sbc.sip.framing import Limits
from sbc.sip.message import Message
from sbc.transport.notes import Notes
from sbc.transport.tcp import Connection, tune
from sbc.transport.tls import names_of
from sbc.transport.websocket import WebSocket

ACCEPTS = 64  # at a time: whoever connects must not keep those waiting who speak
NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
NO_FILES_S = 0.2  # accept again after so long when the process has no descriptor left
IDLE_LOOKS = 10  # per idle timeout
SWEEP_S = 0.1  # between two looks at unfinished messages, however many there are
_SERIALS = (1 << SERIAL_BITS) - 1
WEBSOCKETS = frozenset({"ws", "wss"})
_RESPONSE = b"SIP/2.0 "


@dataclass(slots=True)
class StreamListener:
    """A listening socket, and with which contexts connections by it are secured (None: they are not)."""

    transport: str
    host: str
    sock: socket.socket
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None


class Shell(Protocol):
    """What the worker does for the streams."""

    def received(self, data: bytes, flow: Flow) -> None:
        """A message, for whoever owns its call."""

    def broken(self, head: bytes, flow: Flow) -> None:
        """See :meth:`sbc.transport.tcp.Owner.broken`."""

    def failed(self, flow: Flow, slot: int) -> None:
        """Nothing can be sent along this flow; ``slot`` wanted to."""

    def turn(self) -> None:
        """Input is done: look what comes of it."""

    def admits(self, listener: int, host: str) -> bool:
        """Whether a source may connect."""

    def name_of(self, listener: int, host: str) -> str:
        """The name that the certificate at this address must bear: a host name or the address itself."""

    def proved(self, listener: int, names: Sequence[str]) -> int:
        """The number of the configured name that a certificate with these names stands for; 0 for none."""

    def count(self, name: str, amount: int = 1) -> None: ...

    def log(self, level: str, event: str, /, **fields: object) -> None: ...


def _spare() -> int:
    """A descriptor that does nothing, -1 where there is none."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class Streams:
    """The connections of worker ``slot``. ``listeners`` by ``Flow.listener``, None for a datagram socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slot: int,
        listeners: Sequence[StreamListener | None],
        limits: Connections,
        shell: Shell,
    ) -> None:
        self.configure(limits)
        self._loop = loop
        self._slot = slot
        self._listeners = listeners
        self._shell = shell
        self._serial = int.from_bytes(os.urandom(5), "big")  # a respawned worker must not begin where it began before
        self._connections: dict[int, Connection] = {}
        self._outbound: dict[tuple[int, str, int], Connection] = {}  # by listener and remote address
        self._accepted: dict[str, int] = {}  # connections by source, handshakes included
        self._accepted_total = 0
        self._dirty: list[Connection] = []
        self._unfinished: dict[Connection, float] = {}  # when their message must be whole
        self._sweep: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._spare = -1  # a descriptor for those who are turned away for want of one
        self._notes = Notes()
        self.time = loop.time
        self.received = shell.received
        self.broken = shell.broken
        self.turn = shell.turn
        self.count = shell.count

    # --- life

    def configure(self, limits: Connections) -> None:
        """Limits for the connections from now on."""
        self.limits = limits
        self.framing = Limits(limits.message_max_bytes, limits.head_max_bytes, limits.header_lines_max)

    def start(self) -> None:
        """Accept, and look after silent connections."""
        for index, listener in enumerate(self._listeners):
            if listener is not None:
                self._loop.add_reader(listener.sock.fileno(), self._accept, index)
        if any(self._listeners):
            self._spare = _spare()
            self._look_idle()

    def stop_accepting(self) -> None:
        """Others accept from now on."""
        for listener in self._listeners:
            if listener is not None:
                self._loop.remove_reader(listener.sock.fileno())

    def close_listeners(self) -> None:
        """Nobody accepts here any more, after what has connected by now."""
        for index, listener in enumerate(self._listeners):
            if listener is not None:
                self._accept(index)
                self._loop.remove_reader(listener.sock.fileno())
                listener.sock.close()

    def close(self) -> None:
        """End every connection, with what is still to be written."""
        self._closing = True
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        for listener in self._listeners:
            if listener is not None and listener.sock.fileno() >= 0:
                self._loop.remove_reader(listener.sock.fileno())
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections.values()):
            connection.close()

    def secure(self, index: int, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        """Use these contexts for the connections of a listener from now on."""
        listener = self._listeners[index]
        assert listener is not None
        listener.server_tls, listener.client_tls = server, client

    def __len__(self) -> int:
        return len(self._connections)

    # --- out

    def owner_of(self, connection: int) -> int:
        """The slot whose worker has, or had, this connection."""
        return connection >> SERIAL_BITS & (1 << SLOT_BITS) - 1

    def send(self, flow: Flow, data: bytes, slot: int) -> None:
        """Queue a message for the next :meth:`flush`; ``slot`` is told when it cannot be sent."""
        connection = self._connections.get(flow.connection) if flow.connection else None
        if connection is None:
            connection = self._connection_to(flow, data)
            if connection is None:
                self.count("SEND_FAILED")
                self._shell.failed(flow, slot)
                return
        if not connection.is_open:
            connection.sent.append((flow, slot))
        connection.send(data)
        self.count("STREAM_MESSAGES_OUT")

    def flush(self) -> None:
        """Write what was queued: one write per connection."""
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for connection in dirty:
                connection.flush()

    def _connection_to(self, flow: Flow, data: bytes) -> Connection | None:
        """The connection by which a message leaves whose own is gone, or that never had one."""
        try:
            host, port = (flow.host, flow.port) if not flow.connection else _without_connection(flow, data)
        except SipSyntaxError:
            return None
        if flow.transport in WEBSOCKETS or self._listeners[flow.listener] is None or self._closing:
            return None  # nobody can connect to a browser (RFC 7118 §5)
        connection = self._outbound.get((flow.listener, host, port))
        if connection is None:
            connection = self._new(flow._replace(host=host, port=port), outbound=True)
            self._outbound[flow.listener, host, port] = connection
            self._run(self._connect(connection))
        return connection

    async def _connect(self, connection: Connection) -> None:
        flow = connection.flow
        listener = self._listeners[flow.listener]
        assert listener is not None
        local = None if listener.host in ("0.0.0.0", "::") else (listener.host, 0)
        tls = listener.client_tls
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                transport, _ = await self._loop.create_connection(
                    lambda: connection,
                    flow.host,
                    flow.port,
                    local_addr=local,
                    ssl=tls,
                    server_hostname=self._shell.name_of(flow.listener, flow.host) if tls is not None else None,
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self.count("CONNECT_FAILED")
            self.note("warning", "cannot connect", flow, reason_of(error, self.limits.connect_timeout_s))
            self._gone(connection)
            for waiting, slot in dict.fromkeys(connection.sent):
                self._shell.failed(waiting, slot)
            self.turn()
            return
        tune(transport.get_extra_info("socket"))

    # --- in

    def _accept(self, index: int) -> None:
        listener = self._listeners[index]
        assert listener is not None
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors, no memory
                self._shell.log("error", "cannot accept connections", reason=reason_of(error))
                if error.errno in NO_FILES:
                    self._turn_away(listener.sock)
                self._loop.remove_reader(listener.sock.fileno())
                self._loop.call_later(NO_FILES_S, self._accept_again, index)
                return
            host, port = address[:2]
            if self._refused(index, host, port):
                sock.close()
                continue
            sock.setblocking(False)
            flow = Flow(index, listener.transport, host, port)
            self._accepted[host] = self._accepted.get(host, 0) + 1
            self._accepted_total += 1
            self.count("CONNECTIONS_ACCEPTED")
            self._run(self._open(self._new(flow, outbound=False), listener, sock))

    def _turn_away(self, sock: socket.socket) -> None:
        """Close those who wait, instead of leaving them without an answer: one descriptor is kept for that."""
        for _ in range(ACCEPTS):
            if self._spare < 0:
                return
            os.close(self._spare)
            try:
                sock.accept()[0].close()
                self.count("CONNECTIONS_REFUSED")
            except OSError:  # nobody waits
                return
            finally:
                self._spare = _spare()

    def _accept_again(self, index: int) -> None:
        listener = self._listeners[index]
        if listener is not None and not self._closing and listener.sock.fileno() >= 0:
            if self._spare < 0:
                self._spare = _spare()
            self._loop.add_reader(listener.sock.fileno(), self._accept, index)

    def _refused(self, index: int, host: str, port: int) -> bool:
        if not self._shell.admits(index, host):
            self.count("UNKNOWN_SOURCE_DROPPED")
            return True
        if self._accepted.get(host, 0) >= self.limits.per_source or self._accepted_total >= self.limits.total:
            self.count("CONNECTIONS_REFUSED")
            listener = self._listeners[index]
            transport = listener.transport if listener is not None else ""
            self.note("warning", "connection refused: too many", Flow(index, transport, host, port))
            return True
        return False

    async def _open(self, connection: Connection, listener: StreamListener, sock: socket.socket) -> None:
        tls, limit_s = listener.server_tls, self.limits.handshake_timeout_s
        try:
            tune(sock)
            await self._loop.connect_accepted_socket(
                lambda: connection, sock, ssl=tls, ssl_handshake_timeout=limit_s if tls is not None else None
            )
        except OSError as error:
            self.count("HANDSHAKES_FAILED")
            self.note(
                "warning", "connection refused: the TLS handshake failed", connection.flow, reason_of(error, limit_s)
            )
            self._gone(connection)

    # --- what connections tell (sbc.transport.tcp.Owner)

    def opened(self, connection: Connection) -> None:
        """It can be used; what waited for it leaves."""
        connection.sent.clear()
        certificate = connection.certificate
        if certificate is not None:
            number = self._shell.proved(connection.flow.listener, names_of(certificate))
            if number:
                flow = connection.flow
                known = self._connections.pop(flow.connection, None)
                connection.flow = flow._replace(connection=flow.connection | number << IDENTITY_SHIFT)
                if known is not None:
                    self._connections[connection.flow.connection] = connection

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """What waits for answers on a connection of ours waits in vain. By one that a peer made, it may still connect
        to us again."""
        known = self._gone(connection)
        if connection.outbound and known and not self._closing:
            self._shell.failed(connection.flow._replace(connection=0), self._slot)
            self.turn()

    def forget(self, connection: Connection) -> None:
        """Nothing more may be sent on it."""
        flow = connection.flow
        self._connections.pop(flow.connection, None)
        if self._outbound.get((flow.listener, flow.host, flow.port)) is connection:
            del self._outbound[flow.listener, flow.host, flow.port]

    def began(self, connection: Connection, *, handshake: bool = False) -> None:
        """Its message, or handshake, must be whole in time."""
        if connection not in self._unfinished:
            limit_s = self.limits.handshake_timeout_s if handshake else self.limits.message_timeout_s
            at = self._unfinished[connection] = self.time() + limit_s
            self._sweep_at(at)

    def ended(self, connection: Connection) -> None:
        """It is."""
        self._unfinished.pop(connection, None)

    def wrote(self, connection: Connection) -> None:
        """To be flushed."""
        self._dirty.append(connection)

    def later(self, delay_s: float, connection: Connection, action: str) -> None:
        """See :class:`sbc.transport.tcp.Owner`."""
        self._loop.call_later(delay_s, self._act, connection, action)

    def _act(self, connection: Connection, action: str) -> None:
        if connection.is_open:
            getattr(connection, action)()

    def note(self, level: str, event: str, flow: Flow, reason: str = "") -> None:
        """A line for the log, unless there were too many of its kind and source."""
        unsaid = self._notes.wanted(event, flow.host, self.time())
        if unsaid >= 0:
            fields: dict[str, object] = {"reason": reason} if reason else {}
            if unsaid:
                fields["more_before"] = unsaid
            self._shell.log(level, event, source=f"{flow.host}:{flow.port}", transport=flow.transport, **fields)

    # --- inside

    def _new(self, flow: Flow, *, outbound: bool) -> Connection:
        self._serial = self._serial % _SERIALS + 1
        flow = flow._replace(connection=self._slot << SERIAL_BITS | self._serial)
        kind = WebSocket if flow.transport in WEBSOCKETS else Connection
        connection = kind(self, flow, outbound=outbound)
        self._connections[flow.connection] = connection
        return connection

    def _gone(self, connection: Connection) -> bool:
        """Forget a connection; False: it was forgotten before."""
        if connection.gone:
            return False
        connection.gone = True
        flow = connection.flow
        known = self._connections.get(flow.connection) is connection
        self.forget(connection)
        self._unfinished.pop(connection, None)
        if not connection.outbound:
            left = self._accepted[flow.host] - 1
            if left:
                self._accepted[flow.host] = left
            else:
                del self._accepted[flow.host]
            self._accepted_total -= 1
        return known

    def _run(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep_at(self, at: float) -> None:
        if self._sweep is not None:
            if self._sweep.when() <= at:
                return
            self._sweep.cancel()
        self._sweep = self._loop.call_at(at, self._look_unfinished)

    def _look_unfinished(self) -> None:
        self._sweep = None
        now = self.time()
        for connection in [it for it, deadline in self._unfinished.items() if deadline <= now]:
            del self._unfinished[connection]
            connection.too_slow()
        if self._unfinished:
            self._sweep_at(max(now + SWEEP_S, min(self._unfinished.values())))

    def _look_idle(self) -> None:
        if self._closing:
            return
        timeout_s = self.limits.idle_timeout_s
        limit = self.time() - timeout_s
        for connection in list(self._connections.values()):
            if connection.heard_at < limit and connection.is_open:
                self.count("CONNECTIONS_IDLE")
                self.note("info", "connection closed: nothing came by it for too long", connection.flow)
                self.forget(connection)
                connection.close()
        self._loop.call_later(timeout_s / IDLE_LOOKS, self._look_idle)


def reason_of(error: BaseException, limit_s: float = 0.0) -> str:
    """Why a connection could not be made in ``limit_s``, as a plain phrase."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer in {limit_s:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _without_connection(flow: Flow, data: bytes) -> tuple[str, int]:
    """Where to connect to when the connection of a flow is gone: a response goes to the address that its request came
    from and the port of the Via (RFC 3261 §18.2.2), a request to the flow's own address. Raises SipSyntaxError."""
    if not data.startswith(_RESPONSE):
        return flow.host, flow.port
    via = Message.parse(data).top_via
    return via.received or flow.host, via.port or DEFAULT_PORTS[flow.transport]
