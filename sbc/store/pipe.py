"""A pipelined connection to Redis or Valkey that never blocks its caller and never raises into it.

What is sent within one turn of the event loop, or of the shell, leaves in one write; replies are matched in order to
plain callbacks. Each command has a deadline, and :mod:`sbc.store.breaker` decides what a missed one means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from sbc.errors import StoreError
from sbc.store.breaker import Action, Breaker, Event, State
from sbc.store.url import StoreAddress

# Any: a RESP value is None, int, bytes or a list of them; a failure comes as an exception in its place
Reply = Any
OnReply = Callable[[Reply], None]
Argument = str | bytes | int | float

# What the store said no to (OOM, READONLY, WRONGTYPE, NOSCRIPT ...); it comes as the reply of that command alone.
Refusal = hiredis.ReplyError

_NOT_YET = object()


def pack(*command: Argument) -> bytes:
    """One command as octets of RESP."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
    return packed


class StoreAway(StoreError):
    """There is no reply and there will be none: the store is away, late, or too much waits for it already.

    The command may or may not have been performed.
    """


class Pipe:
    """One connection; call :meth:`start` once, then :meth:`send` at any time.

    ``deadline_s`` bounds each command, ``attempt_s`` an attempt to connect, ``capacity`` what may wait for a reply.
    ``on_ready`` is called after each successful connect, before what waited is sent; ``on_change`` with every new
    state and the reason, for logs and gauges; ``count`` with counter names (STORE_CONNECTS, STORE_TIMEOUTS).
    """

    def __init__(
        self,
        address: StoreAddress,
        loop: asyncio.AbstractEventLoop,
        *,
        deadline_s: float = 0.05,
        attempt_s: float = 1.0,
        capacity: int = 20_000,
        breaker: Breaker | None = None,
        on_ready: Callable[[], None] | None = None,
        on_change: Callable[[State, str], None] | None = None,
        count: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self.deadline_s = deadline_s
        self.on_ready = on_ready
        self.on_change = on_change
        self._loop = loop
        self._attempt_s = attempt_s
        self._capacity = capacity
        self._breaker = breaker or Breaker()
        self._count = count or (lambda _: None)
        self._sent: deque[tuple[float, OnReply]] = deque()  # (deadline, callback) in the order of the wire
        self._outgoing: list[bytes] = []  # of this turn of the loop; their callbacks are in _sent already
        self._waiting: deque[tuple[float, OnReply, bytes]] = deque()  # for a connection
        self._connection: _Connection | None = None
        self._client_id = 0  # the server's number for the connection, within its run
        self._gathering = False
        self.run_id = ""  # which run of which server: another one may hold other data
        self._attempt: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._back_off: asyncio.TimerHandle | None = None

    @property
    def state(self) -> State:
        """Where the connection is."""
        return self._breaker.state

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: commands are refused at once."""
        return self._breaker.is_open

    def start(self) -> None:
        """Begin to connect."""
        self._step(Event.START, "")

    def close(self) -> None:
        """End the connection; what still waits is failed."""
        self._step(Event.STOP, "closed")

    def send(self, on_reply: OnReply, *command: Argument) -> None:
        """Issue one command; ``on_reply`` gets its reply, a Refusal or StoreAway, once, within ``deadline_s``.

        It may be called before this returns, when the command is refused at once.
        """
        self.send_packed(on_reply, pack(*command))

    def send_packed(self, on_reply: OnReply, command: bytes) -> None:
        """As :meth:`send`, for a command that is octets of RESP already."""
        state = self._breaker.state
        if state is State.READY:
            if len(self._sent) < self._capacity:
                if not self._outgoing:
                    if not self._gathering:
                        self._loop.call_soon(self.flush)
                    if self._sweeper is None:
                        self._sweeper = self._loop.call_later(self.deadline_s, self._sweep)
                self._outgoing.append(command)
                self._sent.append((self._loop.time() + self.deadline_s, on_reply))
                return
        elif state is State.CONNECTING and len(self._waiting) < self._capacity:
            self._waiting.append((self._loop.time() + self.deadline_s, on_reply, command))
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(self.deadline_s, self._sweep)
            return
        self._answer(on_reply, StoreAway("too much waits for the store" if not self.is_open else "the store is away"))

    def call(self, *command: Argument) -> asyncio.Future[Reply]:
        """Issue one command off the hot path; raises Refusal or StoreAway when awaited."""
        future: asyncio.Future[Reply] = self._loop.create_future()

        def settle(reply: Reply) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.send(settle, *command)
        return future

    # -- replies and deadlines

    def gather(self, on: bool) -> None:
        """With ``on`` commands wait until :meth:`flush`, for a shell that does everything at its own pace."""
        self._gathering = on
        if not on:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write every command that waits for it."""
        if self._outgoing and self._connection is not None:
            data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
            self._outgoing.clear()
            self._connection.write(data)

    def received(self, connection: _Connection, replies: list[Reply]) -> None:
        """Replies came in; called by the connection."""
        if connection is not self._connection:
            return
        sent = self._sent
        for reply in replies:
            if not sent:
                self._step(Event.LOST, "a reply that nobody asked for")
                return
            on_reply = sent.popleft()[1]
            self._answer(on_reply, reply)
            if connection is not self._connection:
                return  # the callback closed the pipe
        self._breaker.succeeded()

    def _answer(self, on_reply: OnReply, reply: Reply) -> None:
        try:
            on_reply(reply)
        except Exception as error:
            # one callback's fault must not cost the others their replies
            self._loop.call_exception_handler({"message": "a store callback raised", "exception": error})

    def _sweep(self) -> None:
        """The one timer: looks at the heads of both queues, whose deadlines rise from head to tail."""
        self._sweeper = None
        now = self._loop.time() + 0.0005  # half a millisecond early beats a second wake-up
        expired: list[OnReply] = []
        while self._waiting and self._waiting[0][0] <= now:
            expired.append(self._waiting.popleft()[1])
        missed = bool(self._sent and self._sent[0][0] <= now)
        if missed or expired:
            self._count("STORE_TIMEOUTS")
            self._step(Event.MISSED, "no reply in time")
        for on_reply in expired:
            self._answer(on_reply, StoreAway("the store did not come in time"))
        heads = [queue[0][0] for queue in (self._sent, self._waiting) if queue]
        if heads and self._sweeper is None:
            self._sweeper = self._loop.call_at(min(heads), self._sweep)

    # -- the life of the connection

    def lost(self, connection: _Connection, reason: str) -> None:
        """The connection ended; called by the connection."""
        if connection is self._connection:
            self._step(Event.LOST, reason)

    def _step(self, event: Event, reason: str) -> None:
        before = self._breaker.state
        actions = self._breaker.step(event)
        failed: list[OnReply] = []
        for action in actions:
            match action:
                case Action.DROP:
                    failed += self._drop()
                case Action.REFUSE:
                    failed += [on_reply for _, on_reply, _ in self._waiting]
                    self._waiting.clear()
                case Action.CONNECT:
                    self._attempt = self._loop.create_task(self._connect())
                case Action.FLUSH:
                    self._release_waiting()
                case Action.BACK_OFF:
                    self._back_off = self._loop.call_later(self._breaker.next_back_off(), self._backed_off)
        if self.on_change is not None and self._breaker.state is not before:
            self.on_change(self._breaker.state, reason)
        if failed:
            away = StoreAway(reason)
            for on_reply in failed:
                self._answer(on_reply, away)

    def _drop(self) -> list[OnReply]:
        """Forget the connection and any attempt; returns the callbacks that will get no reply."""
        failed = [on_reply for _, on_reply in self._sent]
        self._sent.clear()
        self._outgoing.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        if self._back_off is not None:
            self._back_off.cancel()
            self._back_off = None
        return failed

    def _backed_off(self) -> None:
        self._back_off = None
        self._step(Event.BACKED_OFF, "")

    async def _connect(self) -> None:
        """One attempt to connect and to make acquaintance. Ends with PROVED or LOST."""
        connection = _Connection(self, self._loop)
        try:
            async with asyncio.timeout(self._attempt_s):
                address = self.address
                if address.path:
                    await self._loop.create_unix_connection(lambda: connection, address.path)
                else:
                    await self._loop.create_connection(lambda: connection, address.host, address.port, ssl=address.tls)
                await self._greet(connection)
        except asyncio.CancelledError:
            connection.abort()
            raise
        except (OSError, TimeoutError, hiredis.HiredisError, StoreError) as error:
            connection.abort()
            self._attempt = None
            self._step(Event.LOST, str(error) or type(error).__name__)
            return
        self._attempt = None
        self._connection = connection
        self._count("STORE_CONNECTS")
        self._step(Event.PROVED, "")

    async def _greet(self, connection: _Connection) -> None:
        """AUTH and SELECT, prove with PING that it answers, and end what our former connection may still hold there:
        commands that a stopped server has in its buffers must not be performed after newer ones."""
        address = self.address
        greeting: list[tuple[Argument, ...]] = []
        if address.password:
            greeting.append(("AUTH", *([address.username] if address.username else []), address.password))
        if address.database:
            greeting.append(("SELECT", address.database))
        greeting.append(("PING",))
        for reply in await connection.ask(*greeting):
            if isinstance(reply, Exception):  # a wrong password, LOADING, too many clients
                raise reply
        # Either of these may be forbidden to us; then we know less, and serve.
        client_id, server = await connection.ask(("CLIENT", "ID"), ("INFO", "server"))
        rows = server.decode("utf-8", "replace").splitlines() if isinstance(server, bytes) else []
        run_id = next((row[7:] for row in rows if row.startswith("run_id:")), "")
        if run_id and run_id == self.run_id and self._client_id:
            await connection.ask(("CLIENT", "KILL", "ID", self._client_id))
        self.run_id = run_id
        self._client_id = client_id if isinstance(client_id, int) else 0
        if not connection.is_alive:
            raise StoreAway("the store closed the connection")

    def _release_waiting(self) -> None:
        """Connected: first what ``on_ready`` has to say, then what waited, in order and with its own deadlines."""
        waiting, self._waiting = self._waiting, deque()
        if self.on_ready is not None:
            self.on_ready()
        if waiting:  # deadlines must rise along the queue, and what waited is due first
            due = waiting[0][0]
            self._sent = deque((min(deadline, due), on_reply) for deadline, on_reply in self._sent)
        for deadline, on_reply, command in waiting:
            self._outgoing.append(command)
            self._sent.append((deadline, on_reply))
        self.flush()
        if self._sent and self._sweeper is None:
            self._sweeper = self._loop.call_later(self.deadline_s, self._sweep)


class _Connection(asyncio.Protocol):
    """The socket and its RESP parser. Replies settle :meth:`ask` while the pipe makes acquaintance, then go to it."""

    def __init__(self, pipe: Pipe, loop: asyncio.AbstractEventLoop) -> None:
        self._pipe = pipe
        self._loop = loop
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._asked: asyncio.Future[list[Reply]] | None = None
        self._expected = 0
        self._answers: list[Reply] = []
        self._reason = ""

    @property
    def is_alive(self) -> bool:
        return self._transport is not None

    async def ask(self, *commands: tuple[Argument, ...]) -> list[Reply]:
        """The replies to these commands, refusals among them; raises StoreAway when the connection ends."""
        if self._transport is None:
            raise StoreAway(self._reason or "the store closed the connection")
        self._expected, self._answers = len(commands), []
        self._asked = self._loop.create_future()
        try:
            self.write(b"".join(pack(*command) for command in commands))
            return await self._asked
        finally:
            self._asked = None

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not derive from asyncio's

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies: list[Reply] = []
        try:
            while (reply := self._reader.gets()) is not _NOT_YET:
                replies.append(reply)
        except hiredis.ProtocolError as error:
            self._fail(f"not RESP: {error}")
            return
        if self._asked is None:
            self._pipe.received(self, replies)
            return
        self._answers += replies
        if len(self._answers) >= self._expected and not self._asked.done():
            self._asked.set_result(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(str(exc) if exc is not None else "the store closed the connection")

    def _fail(self, reason: str) -> None:
        self._reason = reason
        if self._asked is None:
            self._pipe.lost(self, reason)
        elif not self._asked.done():
            self._asked.set_exception(StoreAway(reason))
