"""The connection on which the active node tells its standby of its media sessions, and both ends of it.

The active node connects, over the first path that works, and tells all; then what changes, ten times a second. The
standby listens on every path. A connection that fails for whatever reason is made again a moment later, and begins with
everything. What the standby does not take in time is no reason to keep more than a bound of it here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from media.replication.channel import Channel, ChannelError
from media.replication.frames import FrameError, unpack
from media.replication.receiver import Receiver
from media.replication.sender import Sender
from media.replication.takeover import Takeover

POLL_S = 0.1
FLUSH_S = 0.05
FINISH_S = 0.1
AGAIN_S = 0.5
FIRST_S = 0.3  # after a take-over others have more to do, and the other node is not idle yet
CONNECT_S = 1.0
HELLO_S = 2.0
SILENT_S = 3.0  # there is a frame five times a second
BACKLOG_BYTES = 8 << 20
READ_BYTES = 256 * 1024
GREETINGS = 16  # at a time
FINISHED = b"all"
Path = tuple[tuple[str, int], tuple[str, int]]  # our end, theirs


class Terms(msgspec.Struct):
    """The first message of the active node: what has to be the same on both."""

    workers: int
    capacity: int


class Link:
    """One node's end. ``states`` are the descriptors of its media workers' states, ``say`` takes a level, a sentence.

    It leads or follows; before ``lead`` or ``follow`` it does neither.
    """

    def __init__(
        self, key: bytes, paths: Sequence[Path], states: Sequence[int], capacity: int, say: Callable[[str, str], None]
    ) -> None:
        self._key = key
        self._paths = paths
        self._states = states
        self._capacity = capacity
        self._say = say
        self._said = ""
        self._servers: list[asyncio.Server] = []
        self._task: asyncio.Task[None] | None = None  # while it leads
        self._receivers: list[Receiver] = []  # while it follows
        self._writer: asyncio.StreamWriter | None = None  # of the connection that is in use
        self._hosts = {far[0] for _, far in paths}
        self._greetings = 0
        self._flush: Callable[[], Awaitable[None]] | None = None
        self._finished = asyncio.Event()  # by an answer of the standby
        self._is_finishing = False
        self.is_synced = False  # the standby has everything

    async def start(self) -> None:
        """Listen on every path, as far as its address is there."""
        for (host, port), _ in self._paths:
            try:
                self._servers.append(await asyncio.start_server(self._accepted, host, port, limit=READ_BYTES))
            except OSError as error:
                self._tell("error", f"media state cannot be taken on {host} port {port}: {error.strerror or error}")

    async def close(self) -> None:
        """End everything."""
        self._stop()
        for server in self._servers:
            server.close()

    def lead(self) -> None:
        """This node is the active one: tell the other."""
        self._stop()
        self._task = asyncio.get_running_loop().create_task(self._lead())

    def follow(self) -> None:
        """This node is the passive one: its media workers are idle."""
        self._stop()
        self._receivers = [Receiver(fd, slot, self._capacity) for slot, fd in enumerate(self._states)]

    def take_over(self, token: int) -> list[Takeover]:
        """This node becomes the active one, under this token: the states are made safe to go on with, worker by worker.
        These are to be told afterwards (SIGUSR1), and then ``lead`` follows."""
        now_ns = time.monotonic_ns()
        found = [receiver.activate(now_ns, token) for receiver in self._receivers]
        self._stop()
        return found

    async def flush(self) -> None:
        """Tell the standby all there is to tell, before it takes over by order; not for long."""
        if self._flush is not None:
            with suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._flush()

    async def finish(self) -> bool:
        """The workers have ended: tell the standby the rest, and that it is all, so that it need not guess which
        indices were used. Whether it has that, within a moment; nothing more is told on this connection."""
        self._is_finishing = True
        await self.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._finished.wait()
        return self._finished.is_set()

    def describe(self) -> dict[str, object]:
        """For whoever asks: ``role``, ``connected``, ``synced``; a standby's ``sessions``, ``age_s`` of its keys."""
        follows = bool(self._receivers)
        covered_ns = min((receiver.covered_ns for receiver in self._receivers), default=0)
        return {
            "role": "follows" if follows else "leads" if self._task is not None else "neither",
            "connected": self._writer is not None,
            "synced": all(receiver.synced for receiver in self._receivers) if follows else self.is_synced,
            "sessions": sum(receiver.sessions for receiver in self._receivers),
            "age_s": round((time.monotonic_ns() - covered_ns) / 1e9, 1) if covered_ns else None,
        }

    # -- parts

    def _tell(self, level: str, text: str) -> None:
        """Once, until there is something else to say."""
        if text != self._said:
            self._said = text
            self._say(level, text)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._receivers = []
        self._drop()

    def _drop(self) -> None:
        self.is_synced = False
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    # -- the active node

    async def _lead(self) -> None:
        senders = [Sender(fd, slot, self._capacity) for slot, fd in enumerate(self._states)]
        turn = 0
        try:
            await asyncio.sleep(FIRST_S)
            while True:
                (host, _), far = self._paths[turn % len(self._paths)]
                turn += 1
                try:
                    async with asyncio.timeout(CONNECT_S):
                        reader, writer = await asyncio.open_connection(*far, local_addr=(host, 0))
                    self._writer = writer
                    await self._push(reader, writer, senders)
                except (OSError, TimeoutError, EOFError) as error:
                    self._tell(
                        "warning", f"the other node is told of no media sessions: {error or 'no answer in time'}"
                    )
                except ChannelError as error:
                    self._tell("error", f"the other node is told of no media sessions: {error}")
                self._drop()
                await asyncio.sleep(AGAIN_S)
        finally:
            for sender in senders:
                sender.close()

    async def _push(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, senders: Sequence[Sender]
    ) -> None:
        """Until the connection fails, with the error that it failed by."""
        channel = await self._greet(reader, writer, opened=True)
        writer.write(channel.seal(msgspec.json.encode(Terms(len(senders), self._capacity))))
        async with asyncio.timeout(HELLO_S):
            answer: list[bytes] = []
            while not answer:
                answer = channel.receive(await _some(reader))
        if answer[0]:
            raise ChannelError(answer[0].decode(errors="replace"))
        for sender in senders:
            sender.full_sync()

        async def flush() -> None:
            self._send(writer, channel, senders, whole=True)
            await writer.drain()

        self._flush = flush
        self._finished.clear()
        self._is_finishing = False
        ended = asyncio.ensure_future(self._hear(reader, channel))
        try:
            while not ended.done():
                if not self._is_finishing:
                    self._send(writer, channel, senders)
                await asyncio.wait([ended], timeout=POLL_S)
            await ended
        finally:
            self._flush = None
            ended.cancel()

    async def _hear(self, reader: asyncio.StreamReader, channel: Channel) -> None:
        """The only thing that a standby says is that it has all; ends by the error that ends the connection."""
        while True:
            if channel.receive(await _some(reader)):
                self._finished.set()

    def _send(
        self, writer: asyncio.StreamWriter, channel: Channel, senders: Sequence[Sender], *, whole: bool = False
    ) -> None:
        if writer.transport.get_write_buffer_size() > BACKLOG_BYTES:
            raise EOFError("the other node does not take what it is told in time")
        now_ns = time.monotonic_ns()
        for sender in senders:
            for frame in sender.finish(now_ns) if self._is_finishing else sender.poll(now_ns, whole=whole):
                writer.write(channel.seal(frame))
        synced = all(sender.is_synced for sender in senders)
        if synced and not self.is_synced:
            self._tell("info", "the other node is told of all media sessions")
        self.is_synced = synced

    # -- the passive node

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receivers = self._receivers
        try:
            known = writer.get_extra_info("peername")[0] in self._hosts
            if not receivers or not known or self._greetings >= GREETINGS:  # without receivers this node leads
                return
            self._greetings += 1
            try:
                channel = await self._greet(reader, writer, opened=False)
                waiting: list[bytes] = []
                async with asyncio.timeout(HELLO_S):
                    while not waiting:
                        waiting = channel.receive(await _some(reader))
            finally:
                self._greetings -= 1
            if receivers is not self._receivers:
                return
            refusal = self._refusal(waiting.pop(0))
            writer.write(channel.seal(refusal.encode()))
            if refusal:
                self._tell("error", refusal)
                return
            self._drop()  # a former connection of the same node
            self._writer = writer
            await self._pull(reader, writer, channel, waiting, receivers)
        except asyncio.CancelledError:
            pass  # the node ends
        except (OSError, TimeoutError, EOFError) as error:
            self._tell("warning", f"media state of the other node is not heard: {str(error) or 'it is silent'}")
        except (ChannelError, FrameError) as error:
            self._tell("error", f"media state of the other node cannot be taken: {error}")
        finally:
            if self._writer is writer:
                self._writer = None
            with suppress(OSError):
                writer.close()

    def _refusal(self, octets: bytes) -> str:
        try:
            terms = msgspec.json.decode(octets, type=Terms)
        except msgspec.MsgspecError:
            raise ChannelError("the other node does not speak as this one does") from None
        if terms.workers != len(self._states) or terms.capacity != self._capacity:
            return (
                f"one node has {terms.workers} media workers and the other {len(self._states)}:"
                " media are kept ready only where workers.media is the same on both"
            )
        return ""

    async def _pull(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        channel: Channel,
        waiting: list[bytes],
        receivers: Sequence[Receiver],
    ) -> None:
        while receivers is self._receivers:
            for frame in waiting:
                worker = unpack(frame).worker
                if worker >= len(receivers):
                    raise FrameError(f"a frame for media worker {worker}, which there is not")
                receivers[worker].feed(frame, time.monotonic_ns())
            if all(receiver.synced for receiver in receivers):
                self._tell("info", "media sessions of the other node are kept ready")
            if all(receiver.is_final for receiver in receivers):
                writer.write(channel.seal(FINISHED))
            async with asyncio.timeout(SILENT_S):
                waiting = channel.receive(await _some(reader))

    # -- both

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, opened: bool) -> Channel:
        channel = Channel(self._key, os.urandom(32), opened=opened)
        writer.write(channel.hello)
        async with asyncio.timeout(HELLO_S):
            while not channel.is_ready:
                if channel.receive(await reader.readexactly(1)):
                    raise ChannelError("a message before its time")
        return channel


async def _some(reader: asyncio.StreamReader) -> bytes:
    """What has come. Raises EOFError at the end."""
    octets = await reader.read(READ_BYTES)
    if not octets:
        raise EOFError("the other node has closed the connection")
    return octets
