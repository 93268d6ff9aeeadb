"""One DEALER to a media worker: gathers what is to be sent, reads what came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from media import protocol

HIGH_WATER = 20_000  # messages that wait for a worker which is away
MAX_REPLY_BYTES = 16 * 1024 * 1024  # a list of sessions
RECONNECT_MS, RECONNECT_MAX_MS = 10, 200
# As plain numbers: to combine members of an IntFlag costs more than to send a frame.
NOBLOCK, SNDMORE, EVENTS, POLLIN = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.EVENTS), int(zmq.POLLIN)


_TROUBLES: dict[int, str] = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "it refuses our key: is it among the clients of that node?",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "no handshake: is the key that we have of it the right one?",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "no handshake: is the key that we have of it the right one?",
}


class Curve(NamedTuple):
    """Keys of an encrypted connection, in Z85: the public one of the worker, and both of ours."""

    server: bytes
    public: bytes
    secret: bytes


class Link:
    """DEALER at ``endpoint`` (``ipc://`` or ``tcp://``), connected again and again by ZeroMQ; encrypted with ``curve``.

    ``on_readable`` is called when something may have come, unless ``watch(False)``; it must then :meth:`receive`. What
    was under way on a connection that breaks is lost; what still waited goes over the next one.
    """

    __slots__ = ("_endpoint", "_fd", "_loop", "_monitor", "_on_readable", "_outbox", "_socket", "_watched")

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        identity: bytes,
        loop: asyncio.AbstractEventLoop,
        on_readable: Callable[[], None],
        curve: Curve | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._loop = loop
        self._on_readable = on_readable
        self._outbox: list[protocol.Item] = []
        self._socket = context.socket(zmq.DEALER)
        if identity:
            self._socket.setsockopt(zmq.IDENTITY, identity)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, HIGH_WATER),
            (zmq.RCVHWM, HIGH_WATER),
            (zmq.MAXMSGSIZE, MAX_REPLY_BYTES),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
            (zmq.PROBE_ROUTER, 1),  # the worker knows us before we ask it for something
            (zmq.IPV6, 1),
        ):
            self._socket.setsockopt(option, value)
        self._monitor: zmq.Socket[bytes] | None = None
        if curve is not None:
            self._monitor = self._socket.get_monitor_socket(sum(_TROUBLES))
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
        self._socket.connect(endpoint)
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._watched = True
        loop.add_reader(self._fd, on_readable)

    def send(self, request_id: bytes, body: bytes) -> None:
        """Keep a request for the next :meth:`flush`."""
        self._outbox.append((request_id, body))

    def flush(self) -> list[bytes]:
        """Send what is kept, in as few messages as possible; returns the ids of requests for which there is no room."""
        if not self._outbox:
            return []
        outbox, self._outbox = self._outbox, []
        refused: list[bytes] = []
        send = self._socket.send
        for version, ids, bodies in protocol.messages(outbox):
            try:
                send(version, SNDMORE)
                send(ids, SNDMORE)
                send(bodies, NOBLOCK)
            except zmq.ZMQError:  # EAGAIN: the queue to a worker that is away is full
                refused += [ids[at : at + protocol.ID_BYTES] for at in range(0, len(ids), protocol.ID_BYTES)]
        if self._watched:
            self._on_readable()  # the descriptor is edge-triggered: a send may have swallowed what announced a reply
        return refused

    def receive(self) -> list[list[bytes]]:
        """The frames of each message that has come since; never waits."""
        found: list[list[bytes]] = []
        receive = self._socket.recv
        if self._socket.closed:
            return found
        events = cast("Callable[[int], int]", self._socket.get)  # this option is a number
        while events(EVENTS) & POLLIN:
            frames = []
            more = True
            while more:
                frame = receive(NOBLOCK, copy=False)
                frames.append(frame.bytes)
                more = frame.more
            found.append(frames)
        return found

    def trouble(self) -> str:
        """Why the last handshake failed, since this was last asked; '' where none did. After one ZeroMQ does not come
        back by itself: the connection is begun anew."""
        found = ""
        while self._monitor is not None and self._monitor.poll(0):
            found = _TROUBLES.get(recv_monitor_message(self._monitor)["event"], found)
        if found:
            with contextlib.suppress(zmq.ZMQError):  # it may be gone already
                self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
        return found

    def watch(self, on: bool) -> None:
        """Whether ``on_readable`` is called."""
        if on == self._watched:
            return
        self._watched = on
        if on:
            self._loop.add_reader(self._fd, self._on_readable)
            self._loop.call_soon(self._on_readable)  # the edge may have passed meanwhile
        else:
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """End the connection; what was not sent yet is given up."""
        if self._watched:
            self._loop.remove_reader(self._fd)
        self._watched = False
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor = None
        self._socket.close(linger=0)
