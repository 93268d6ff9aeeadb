"""Between the stream connections of this worker, its core, and the other workers.

A message belongs to the worker that owns its shard, a connection to the one that accepted or made it: what one has for
the other goes through the hand-over. Streams promise that nothing is lost, so a full queue makes frames wait here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.policy.admission import Admission
from sbc.sip.flow import Flow
from sbc.sip.shard import shard_of_datagram
from sbc.sip.uri import parse_uri
from sbc.telemetry import log
from sbc.transport.streams import StreamListener, Streams
from sbc.transport.tls import client_context, server_context
from sbc.worker.peers import FAILED, RECEIVED, SEND, Frame, HandOver
from sbc.worker.slot import SipSlot

AGAIN_S = 0.002  # until a full queue is tried again
WAITING = 4096  # frames for one worker; a worker that is away for longer loses the rest


class StreamSide:
    """The streams of one worker, as :class:`sbc.transport.streams.Shell` and towards the worker.

    ``receive`` feeds one message to the core; ``failed`` tells it of a flow; ``turn`` asks for a turn of the worker;
    ``serving`` is what is in force.
    """

    def __init__(
        self,
        slot: SipSlot,
        loop: asyncio.AbstractEventLoop,
        hand_over: HandOver,
        *,
        receive: Callable[[bytes, Flow], None],
        failed: Callable[[Flow], None],
        turn: Callable[[], None],
        serving: Callable[[], tuple[Config, Admission]],
    ) -> None:
        self._slot = slot.slot
        self._seats = slot.seats
        self._key = slot.shard_key
        self._loop = loop
        self._hand_over = hand_over
        self._receive = receive
        self._tell_failed = failed
        self.turn = turn
        self._serving = serving
        self.count = slot.page.count
        self._waiting: dict[int, deque[Frame]] = {}
        self.messages = 0  # received since the worker last looked
        listeners: list[StreamListener | None] = [
            StreamListener(listen.transport, listen.host, sock) if listen.is_stream else None
            for (_, listen), sock in zip(slot.config.listeners, slot.sockets, strict=True)
        ]
        self.streams = Streams(loop, slot.slot, listeners, slot.config.connections, self)
        self.flush = self.streams.flush
        self.configure(slot.config)

    def configure(self, config: Config) -> None:
        """Take limits and certificates over, for the connections from now on. Raises ConfigError, and then nothing has
        changed; the listeners stay what they are."""
        made: dict[str, tuple[ssl.SSLContext, ssl.SSLContext]] = {}
        for name, realm in config.realms.items():
            if realm.tls is not None:
                try:
                    made[name] = server_context(realm.tls), client_context(realm.tls)
                except OSError as error:
                    raise ConfigError([f"realms.{name}.tls: {error}"]) from error
        for index, (realm_name, listen) in enumerate(config.listeners):
            if listen.is_secure:
                self.streams.secure(index, *made[realm_name])
        self.streams.configure(config.connections)

    # --- towards the worker

    def send(self, flow: Flow, data: bytes) -> None:
        """Send a message along a stream flow, through the worker that has its connection."""
        owner = self.streams.owner_of(flow.connection) if flow.connection else self._slot
        if owner == self._slot or not self._seats.lives(owner):  # it has ended, in this life of the node or before
            self.streams.send(flow, data, self._slot)
        elif not self._give(owner, SEND, flow, data):
            self._tell_failed(flow)

    def take(self, frame: Frame, transports: Sequence[str]) -> None:
        """Something from another worker that concerns a stream."""
        flow = Flow(frame.listener, transports[frame.listener], frame.host, frame.port, frame.connection)
        if frame.kind == SEND:
            self.streams.send(flow, frame.data, frame.slot)
        elif frame.kind == FAILED:
            self._tell_failed(flow)
        else:
            self._receive(frame.data, flow)

    # --- what the streams tell

    def received(self, data: bytes, flow: Flow) -> None:
        """A message: ours, or the one of the worker that owns its shard."""
        self.messages += 1
        self.count("STREAM_MESSAGES_IN")
        self._seats.look()
        numbers = self._seats.numbers
        if len(numbers) > 1 or numbers[0] != self._slot:
            shard = shard_of_datagram(data, self._key)
            owner = numbers[shard % len(numbers)]
            if shard >= 0 and owner != self._slot:
                taken = self._give(owner, RECEIVED, flow, data)
                self.count("HANDED_OVER_OUT" if taken else "HAND_OVER_FAILED")
                return
        self._receive(data, flow)

    def broken(self, head: bytes, flow: Flow) -> None:
        """Answered without state, so whoever has it can."""
        self._receive(head, flow)

    def failed(self, flow: Flow, slot: int) -> None:
        """To whom it concerns."""
        if slot == self._slot:
            self._tell_failed(flow)
        else:
            self._give(slot, FAILED, flow, b"")

    def log(self, level: str, event: str, /, **fields: object) -> None:
        """A line for the log."""
        log.get().write(level, event, **fields)

    def admits(self, listener: int, host: str) -> bool:
        """A stranger gets no connection, unless strangers are to be told that they are."""
        config, admission = self._serving()
        return config.unknown_sources == "refuse" or admission.admit(listener, host) is not None

    def proved(self, listener: int, names: Sequence[str]) -> int:
        """The number of the configured name that a certificate stands for."""
        return self._serving()[1].identity_of(listener, names)

    def name_of(self, listener: int, host: str) -> str:
        """RFC 5922 §7.3: the name by which we know who is there, not one that an answer of the DNS brought."""
        config, admission = self._serving()
        source = admission.admit(listener, host)
        peer = config.peers.get(source.peer) if source is not None else None
        if peer is None or not (peer.tls_name or peer.gateway):
            return host
        return peer.tls_name or parse_uri(peer.gateway).address

    # --- inside

    def _give(self, slot: int, kind: int, flow: Flow, data: bytes) -> bool:
        """Hand a frame over, in order; one that finds the queue full waits. False: too many wait already."""
        waiting = self._waiting.get(slot)
        if waiting is None:
            if self._hand_over.give(slot, flow.listener, flow.host, flow.port, data, kind, flow.connection):
                return True
            waiting = self._waiting[slot] = deque()
            self._loop.call_later(AGAIN_S, self._give_again, slot)
        if len(waiting) >= WAITING:
            return False
        waiting.append(Frame(kind, self._slot, flow.listener, flow.host, flow.port, flow.connection, data))
        return True

    def _give_again(self, slot: int) -> None:
        waiting = self._waiting[slot]
        while waiting:
            kind, _, listener, host, port, connection, data = waiting[0]
            if not self._hand_over.give(slot, listener, host, port, data, kind, connection):
                self._loop.call_later(AGAIN_S, self._give_again, slot)
                return
            waiting.popleft()
        del self._waiting[slot]
