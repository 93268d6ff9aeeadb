"""The control socket of a media worker: requests in, cached replies out, notifications to whoever owns a session."""

from __future__ import annotations

import os
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin, get_type_hints

import orjson
import zmq

from media import protocol
from media.counters import REFUSED, MediaCounter

CACHE_S = 10.0  # longer than any client waits and repeats
CACHE_REPLIES = 4096
HIGH_WATER = 20_000
MAX_REQUEST_BYTES = 256 * 1024


def decode_request(data: bytes) -> protocol.Request:
    """Read a request; raises ValueError when it does not fit the protocol (unknown names and keys, wrong types)."""
    raw = orjson.loads(data)
    if not isinstance(raw, dict):
        raise ValueError("a request is a JSON object")
    kind = protocol.REQUESTS.get(str(raw.pop("do", "")))
    if kind is None:
        raise ValueError("'do' names no request")
    try:
        if isinstance(raw.get("streams"), list):
            raw["streams"] = [_checked(protocol.Stream(**stream)) for stream in raw["streams"]]
        request: protocol.Request = _checked(kind(**raw))
    except TypeError as error:
        raise ValueError(str(error)) from None
    if isinstance(request, protocol.ListSessions) and (request.offset < 0 or request.limit < 0):
        raise ValueError("offset and limit may not be negative")
    return request


def _shape(kind: type) -> list[tuple[str, type, frozenset[str]]]:
    """Field names of a protocol class, with the type that JSON must bring and the texts allowed (empty: any)."""
    found = []
    for name, hint in get_type_hints(kind).items():
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            raise TypeError(f"{kind.__name__}.{name}: a request has no unions")
        literal = frozenset(get_args(hint)) if origin is not None and origin is not list else frozenset()
        found.append((name, str if literal else (origin or hint), literal))
    return found


_SHAPES = {kind: _shape(kind) for kind in (protocol.Stream, *protocol.REQUESTS.values())}


def _checked(value: Any) -> Any:  # Any: one of the protocol's dataclasses, returned as it came
    for name, expected, allowed in _SHAPES[type(value)]:
        found = getattr(value, name)
        if type(found) is not expected or (allowed and found not in allowed):
            raise TypeError(f"{name}: {expected.__name__} expected")
    return value


class Control:
    """ROUTER at ``endpoint``. ``handle(request, owner, now_ns)`` answers; nothing here blocks.

    The descriptor ``fd`` is edge-triggered (ZMQ_FD): call ``drain`` whenever it became readable, and after ``notify``.
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
        self._seen: OrderedDict[bytes, None] = OrderedDict()  # clients, latest last
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a respawned client comes back under its own name
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
        old_mask = os.umask(0o117)  # ipc: owner and group only
        try:
            self._socket.bind(endpoint)
        finally:
            os.umask(old_mask)
        self.fd = int(self._socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Close the socket; what was not sent yet is given up."""
        self._context.destroy(linger=0)

    def drain(self, now_ns: int) -> int:
        """Answer everything that has arrived; returns how many requests that was."""
        done = 0
        receive = self._socket.recv_multipart
        while True:
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._one(frames, now_ns)
            done += 1
        limit = now_ns - int(CACHE_S * 1e9)
        while self._ages and (self._ages[0][0] < limit or len(self._ages) > CACHE_REPLIES):
            del self._cache[self._ages.popleft()[1]]
        return done

    def _one(self, frames: list[bytes], now_ns: int) -> None:
        self._count(MediaCounter.CONTROL_REQUESTS, 1)
        if (
            len(frames) != 4
            or frames[1] != protocol.VERSION
            or len(frames[2]) != 8
            or frames[2] == protocol.NOTIFICATION
        ):
            self._count(MediaCounter.REFUSED_MALFORMED, 1)  # no id to answer under, or another protocol version
            return
        owner, _, request_id, body = frames
        key = (owner, request_id)
        reply = self._cache.get(key)
        if reply is None:
            reply = self._answer(body, owner, now_ns)
            self._cache[key] = reply
            self._ages.append((now_ns, key))
        else:
            self._count(MediaCounter.CONTROL_REPEATED, 1)
        if owner not in self._seen:
            self._seen[owner] = None
            if len(self._seen) > 256:
                self._seen.popitem(last=False)
        self._send(owner, request_id, reply)

    def _answer(self, body: bytes, owner: bytes, now_ns: int) -> bytes:
        try:
            reply = self._handle(decode_request(body), owner, now_ns)
        except ValueError as error:
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error))
        if not reply.ok:
            self._count(REFUSED[reply.code], 1)
        return protocol.encode_reply(reply)

    def _send(self, to: bytes, request_id: bytes, body: bytes) -> bool:
        try:
            self._socket.send_multipart((to, protocol.VERSION, request_id, body), zmq.NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH: the client is gone; EAGAIN: it reads nothing any more
            self._count(MediaCounter.REPLIES_UNDELIVERED, 1)
            return False
        return True

    def notify(self, owner: bytes, event: dict[str, Any]) -> None:  # Any: JSON values
        """Tell the owner of a session, or every client when the owner is gone. Call ``drain`` afterwards."""
        body = orjson.dumps(event)
        self._count(MediaCounter.NOTIFICATIONS, 1)
        if owner and self._send(owner, protocol.NOTIFICATION, body):
            return
        for client in [name for name in self._seen if name != owner]:
            if not self._send(client, protocol.NOTIFICATION, body):
                del self._seen[client]
