"""The control socket of a media worker: requests in, cached replies out, notifications to whoever owns a session."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, cast

import orjson
import zmq

from media import protocol
from media.config import Curve, Say, say
from media.counters import REFUSED, MediaCounter
from media.gate import Gate

CACHE_S: Final = 10.0  # longer than any client waits and repeats
CACHE_REPLIES: Final = 4096
MAX_REQUEST_BYTES: Final = 256 * 1024  # a frame; who sends more is disconnected
MAX_CLIENTS: Final = 256
REQUESTS_PER_DRAIN: Final = 250  # whoever floods us may not keep the worker from its packets and its heartbeat
HIGH_WATER: Final = 1000  # messages each way and client: more than any client asks before its deadlines have passed
FAULT_LOG_NS: Final = 1_000_000_000  # one fault in so long is told in full
VERSION_LOG_NS: Final = 10_000_000_000  # a client of another version is told of once in so long
PROBE: Final = [b""]  # what ZMQ_PROBE_ROUTER of a client sends on each connection
# As plain numbers: to combine members of an IntFlag costs more than to send a frame.
NOBLOCK: Final = int(zmq.NOBLOCK)
SNDMORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS: Final = int(zmq.EVENTS)
POLLIN: Final = int(zmq.POLLIN)


def _node_of(client: bytes) -> bytes:
    """The node of a client whose identity is node/worker."""
    return client.rpartition(b"/")[0]


class Control:
    """ROUTER at ``endpoint``. ``handle(request, owner, now_ns)`` answers; nothing here blocks.

    The descriptors ``fds`` are edge-triggered (ZMQ_FD): call ``drain`` whenever one became readable, and after
    ``notify``. With ``curve`` clients must have one of its keys.
    What one call of ``drain`` has to say to a client leaves in one message, unless it is too much for one. A client
    that reads nothing costs HIGH_WATER messages at most; what is beyond is dropped and counted.
    """

    def __init__(
        self,
        endpoint: str,
        handle: Callable[[protocol.Request, bytes, int], protocol.Reply],
        count: Callable[[MediaCounter, int], None],
        curve: Curve | None = None,
        name: str = "media",
        say: Say = say,
    ) -> None:
        self._name = name
        self._say = say
        self._handle = handle
        self._count = count
        self._cache: dict[tuple[bytes, bytes], bytes] = {}
        self._ages: deque[tuple[int, tuple[bytes, bytes]]] = deque()
        self._outbox: dict[bytes, list[protocol.Item]] = {}  # by client
        self._clients: OrderedDict[bytes, None] = OrderedDict()  # known by name, latest last
        self._told_ns = -FAULT_LOG_NS
        self._versions_told_ns = -VERSION_LOG_NS
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.ROUTER_HANDOVER, 1),  # a respawned client comes back under its own name
            (zmq.LINGER, 0),
            (zmq.SNDHWM, HIGH_WATER),
            (zmq.RCVHWM, HIGH_WATER),
            (zmq.MAXMSGSIZE, MAX_REQUEST_BYTES),
            (zmq.IPV6, 1),
        ):
            self._socket.setsockopt(option, value)
        self._gate: Gate | None = None
        if curve is not None:
            self._gate = Gate(self._context, curve, name, say)  # first: nobody passes while there is none
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
            self._socket.setsockopt(zmq.ZAP_DOMAIN, b"media")
        old_mask = os.umask(0o117)  # ipc: owner and group only
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._context.destroy(linger=0)
            raise
        finally:
            os.umask(old_mask)
        self.fd = int(self._socket.getsockopt(zmq.FD))
        self.fds = [self.fd] if self._gate is None else [self.fd, self._gate.fd]

    def close(self) -> None:
        """Close the socket; what was not sent yet is given up."""
        self._context.destroy(linger=0)

    def drain(self, now_ns: int) -> int:
        """Answer what has arrived; returns how many requests that was.

        After REQUESTS_PER_DRAIN the rest is left to the next call, without an edge that says so: call again soon.
        """
        if self._gate is not None:
            self._gate.answer()
        done = 0
        events = cast("Callable[[int], int]", self._socket.get)  # this option is a number
        while True:
            while done < REQUESTS_PER_DRAIN and events(EVENTS) & POLLIN:
                done += self._message(now_ns)
            if not self._outbox:
                break
            self._flush()  # may swallow the edge that announces the next request: look again
        limit = now_ns - int(CACHE_S * 1e9)
        while self._ages and (self._ages[0][0] < limit or len(self._ages) > CACHE_REPLIES):
            del self._cache[self._ages.popleft()[1]]
        return done

    def notify(self, owner: bytes, event: dict[str, Any]) -> None:  # Any: JSON values
        """Tell the owner of a session, or every client of its node when it is gone. Call ``drain`` afterwards."""
        self._count(MediaCounter.NOTIFICATIONS, 1)
        self._outbox.setdefault(owner, []).append((protocol.NOTIFICATION, orjson.dumps(event)))

    # -- requests

    def _message(self, now_ns: int) -> int:
        """Take one message and answer what it carries; returns how many requests that was, 1 for none."""
        receive = self._socket.recv
        client = receive(NOBLOCK)
        frames = []
        more = True
        while more:
            frame = receive(NOBLOCK, copy=False)
            frames.append(frame.bytes)
            more = frame.more
        if client not in self._clients:
            self._clients[client] = None
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        if frames == PROBE:
            return 1
        try:
            requests = protocol.items(frames)
        except ValueError:
            self._count(MediaCounter.CONTROL_REQUESTS, 1)
            self._count(MediaCounter.REFUSED_MALFORMED, 1)  # no id to answer under, or another protocol version
            if len(frames) == 3 and frames[0] != protocol.VERSION:
                self._tell_version(client, frames[0])
            return 1
        self._count(MediaCounter.CONTROL_REQUESTS, len(requests))
        outbox = self._outbox.setdefault(client, [])
        for request_id, body in requests:
            if request_id == protocol.NOTIFICATION:
                self._count(MediaCounter.REFUSED_MALFORMED, 1)
                continue
            key = (client, request_id)
            reply = self._cache.get(key)
            if reply is None:
                reply = self._cache[key] = self._answer(body, client, now_ns)
                self._ages.append((now_ns, key))
            else:
                self._count(MediaCounter.CONTROL_REPEATED, 1)
            outbox.append((request_id, reply))
        return len(requests)

    def _tell_version(self, client: bytes, version: bytes) -> None:
        """Both sides are to know why nothing works: it cannot read us either, but for the version of this frame."""
        self._outbox.setdefault(client, []).append((protocol.NOTIFICATION, b'{"event":"version"}'))
        now_ns = time.monotonic_ns()
        if now_ns - self._versions_told_ns >= VERSION_LOG_NS:
            self._versions_told_ns = now_ns
            theirs, ours, who = version[:8].decode("ascii", "replace"), protocol.VERSION.decode(), client[:80]
            text = f"speaks version {theirs!r} of media control, this worker {ours!r}: run one release on both sides"
            self._say("warning", f"{self._name}: {who.decode('ascii', 'replace')!r} {text}")

    def _answer(self, body: bytes, owner: bytes, now_ns: int) -> bytes:
        """The reply to one request, whatever happens: nothing that one request does may end the worker."""
        try:
            reply = self._handle(protocol.decode_request(body), owner, now_ns)
            encoded = protocol.encode_reply(reply)
        except ValueError as error:
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error))
            encoded = protocol.encode_reply(reply)
        except Exception as error:
            reply = protocol.Reply(ok=False, code="internal", reason=type(error).__name__)
            encoded = protocol.encode_reply(reply)
            if now_ns - self._told_ns >= FAULT_LOG_NS:
                self._told_ns = now_ns
                with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                    traceback.print_exc()
        if not reply.ok:
            self._count(REFUSED.get(reply.code, MediaCounter.REFUSED_INTERNAL), 1)
        return encoded

    # -- replies and notifications

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        homeless: list[tuple[bytes, protocol.Item]] = []  # notifications, with the owner that was not to be reached
        for client, items in outbox.items():
            for message in protocol.messages(items):
                if self._send(client, message):
                    continue
                unsent = protocol.items(message)
                told = [(client, item) for item in unsent if item[0] == protocol.NOTIFICATION]
                homeless += told
                if len(told) < len(unsent):
                    self._count(MediaCounter.REPLIES_UNDELIVERED, len(unsent) - len(told))
        for other in list(self._clients) if homeless else ():
            items = [item for owner, item in homeless if owner != other and _node_of(owner) == _node_of(other)]
            if not all(self._send(other, message) for message in protocol.messages(items)):
                del self._clients[other]

    def _send(self, client: bytes, message: tuple[bytes, bytes, bytes]) -> bool:
        send = self._socket.send
        version, ids, bodies = message
        try:
            send(client, SNDMORE)
            send(version, SNDMORE)
            send(ids, SNDMORE)
            send(bodies, NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH: the client is gone; EAGAIN: it reads nothing any more
            return False
        return True
