"""A connection that speaks RESP, and who owns it."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, Protocol

import hiredis

from sbc.errors import StoreError

# Any: a RESP value is None, int, bytes or a list of them; a failure comes as an exception in its place
Reply = Any
Argument = str | bytes | int | float

# What the store said no to (OOM, READONLY, WRONGTYPE, NOSCRIPT ...); it comes as the reply of that command alone.
Refusal = hiredis.ReplyError

READ_BYTES = 65_536

_NOT_YET = object()


def pack(*command: Argument) -> bytes:
    """One command as octets of RESP."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
    return packed


class StoreAway(StoreError):
    """There is no reply and there will be none: the store is away, late, or too much waits for it already.

    The command may or may not have been performed.
    """


def told(error: BaseException) -> str:
    """Why an attempt to connect or to ask failed, in words."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "no answer in time"
    if isinstance(error, OSError) and error.errno and error.strerror and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


class Owner(Protocol):
    """Who hears of what :meth:`Connection.ask` did not ask for."""

    def received(self, connection: Connection, replies: list[Reply]) -> None: ...

    def lost(self, connection: Connection, reason: str) -> None: ...


class Connection(asyncio.Protocol):
    """The socket and its RESP parser. Replies settle :meth:`ask` while that waits, else they go to the owner."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._fd = -1  # of a connection without TLS
        self._watched = True
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

    def watch(self, on: bool) -> None:
        """Whether what comes wakes the loop, or waits for :meth:`poll`. With TLS it always does the first."""
        if self._transport is None or self._fd < 0 or on == self._watched:
            return
        self._watched = on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def poll(self) -> None:
        """Take what has come meanwhile."""
        while not self._watched and self._transport is not None:
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.watch(True)  # the transport sees the end of the connection, too, and tells of it
                return
            self.data_received(data)
            if len(data) < READ_BYTES:
                return

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not derive from asyncio's
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()

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
            self._owner.received(self, replies)
            return
        self._answers += replies
        if len(self._answers) >= self._expected and not self._asked.done():
            self._asked.set_result(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(told(exc) if exc is not None else "the store closed the connection")

    def _fail(self, reason: str) -> None:
        self._reason = reason
        if self._asked is None:
            self._owner.lost(self, reason)
        elif not self._asked.done():
            self._asked.set_exception(StoreAway(reason))
