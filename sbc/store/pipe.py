"""A pipelined connection to Redis or Valkey that never blocks its caller and never raises into it.

What is sent within one turn of the event loop, or of the shell, leaves in one write; replies are matched in order to
plain callbacks. Each command has a deadline, and :mod:`sbc.store.breaker` decides what a missed one means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import hiredis

from sbc.errors import StoreError
from sbc.store.breaker import Action, Breaker, Event, State
from sbc.store.finding import Finder
from sbc.store.url import StoreAddress
from sbc.store.wire import Argument, Connection, Refusal, Reply, StoreAway, pack, told

__all__ = ["Argument", "OnReply", "Pipe", "Refusal", "Reply", "StoreAway", "pack"]

OnReply = Callable[[Reply], None]

# Refusals by a server that is no master, or not that of our keys, any more
_ELSEWHERE = ("READONLY", "MOVED", "MASTERDOWN", "CLUSTERDOWN", "LOADING")
_WATCH_S = 1.0  # how often those who know are asked whether the master is another one


def _elsewhere(replies: list[Reply]) -> str:
    """What a refusal among these says of another server that is to be asked; empty where there is none."""
    refused = (str(reply) for reply in replies if isinstance(reply, Refusal))
    return next((text for text in refused if any(word in text for word in _ELSEWHERE)), "")


class Pipe:
    """One connection; call :meth:`start` once, then :meth:`send` at any time.

    ``deadline_s`` bounds each command, ``attempt_s`` an attempt to connect, ``capacity`` what may wait for a reply.
    ``on_ready`` is called after each successful connect, before what waited is sent; ``on_change`` with every new
    state and the reason, for logs and gauges; ``count`` with counter names (STORE_CONNECTS, STORE_TIMEOUTS).

    Where the address does not name the server but those who know the master (:mod:`sbc.store.finding`), each attempt
    asks them, and so does a timer while the pipe is ready; a server that is no master is left at once. ``key`` is one
    of those that will be asked for, all in one slot of a cluster; ``strict`` as in Finder.
    """

    def __init__(
        self,
        address: StoreAddress,
        loop: asyncio.AbstractEventLoop,
        *,
        key: str = "",
        strict: bool = False,
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
        self._connection: Connection | None = None
        self._client_id = 0  # the server's number for the connection, within its run
        self._gathering = False
        self._key = key
        self.finder = (
            Finder(address, loop, key, limit_s=attempt_s / 2, strict=strict) if address.via is not None else None
        )
        self._following: asyncio.Task[None] | None = None
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
        if self.finder is not None:
            self.finder.close()

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
        """With ``on`` commands wait until :meth:`flush` and replies until :meth:`poll`, for a shell with a pace of its
        own."""
        self._gathering = on
        if self._connection is not None:
            self._connection.watch(not on)
        if not on:
            self._loop.call_soon(self.flush)

    def poll(self) -> None:
        """Take every reply that has come."""
        if self._connection is not None:
            self._connection.poll()

    def flush(self) -> bool:
        """Write every command that waits for it; whether there was any."""
        if not self._outgoing or self._connection is None:
            return False
        data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
        self._outgoing.clear()
        self._connection.write(data)
        return True

    def received(self, connection: Connection, replies: list[Reply]) -> None:
        """Replies came in; called by the connection."""
        if connection is not self._connection:
            return
        sent = self._sent
        elsewhere = "" if self.finder is None else _elsewhere(replies)
        for reply in replies:
            if not sent:
                self._step(Event.LOST, "a reply that nobody asked for")
                return
            if elsewhere and isinstance(reply, Refusal):
                reply = StoreAway(elsewhere)
            on_reply = sent.popleft()[1]
            self._answer(on_reply, reply)
            if connection is not self._connection:
                return  # the callback closed the pipe
        if elsewhere:
            self._step(Event.LOST, elsewhere)
            return
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
        if self._gathering:
            self.poll()  # a shell that was held up finds the replies of the meantime
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

    def lost(self, connection: Connection, reason: str) -> None:
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
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
        return failed

    def _backed_off(self) -> None:
        self._back_off = None
        self._step(Event.BACKED_OFF, "")

    async def _connect(self) -> None:
        """One attempt to connect and to make acquaintance. Ends with PROVED or LOST."""
        connection = Connection(self, self._loop)
        try:
            async with asyncio.timeout(self._attempt_s):
                address = self.address if self.finder is None else await self.finder.find()
                if address.path:
                    await self._loop.create_unix_connection(lambda: connection, address.path)
                else:
                    await self._loop.create_connection(lambda: connection, address.host, address.port, ssl=address.tls)
                await self._greet(connection, address)
        except asyncio.CancelledError:
            connection.abort()
            raise
        except (OSError, TimeoutError, hiredis.HiredisError, StoreError) as error:
            connection.abort()
            self._attempt = None
            self._step(Event.LOST, told(error))
            return
        self._attempt = None
        self._connection = connection
        connection.watch(not self._gathering)
        self._count("STORE_CONNECTS")
        self._step(Event.PROVED, "")
        if self.finder is not None and self._connection is connection:
            self._following = self._loop.create_task(self._follow(self.finder, address))

    async def _follow(self, finder: Finder, master: StoreAddress) -> None:
        """While we are connected: is it the master still, in the eyes of those who decide? One that was cut off from
        them would take what we write, and forget it when it is told."""
        reason = ""
        while not reason:
            await asyncio.sleep(_WATCH_S)
            try:
                found = await finder.find()
                reason = "" if found == master else f"the master is {found} now"
            except StoreAway as error:
                reason = str(error) if finder.strict else ""
        self._following = None
        self._step(Event.LOST, reason)

    async def _greet(self, connection: Connection, address: StoreAddress) -> None:
        """AUTH and SELECT, prove with PING that it answers, and end what our former connection may still hold there:
        commands that a stopped server has in its buffers must not be performed after newer ones."""
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
        if self.finder is not None:
            role, place = await connection.ask(("ROLE",), ("EXISTS", self._key))
            if isinstance(role, list) and role[0] != b"master":
                raise StoreAway(f"{address} is a replica, and not the master")
            if isinstance(place, Refusal) and _elsewhere([place]):
                raise StoreAway(str(place))
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
