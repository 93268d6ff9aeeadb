"""The SIP worker's side of media control: one DEALER per media node, deadlines, failover of new sessions.

Everything runs on the event loop of the worker. Requests of one loop iteration leave in one message per node.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import orjson
import zmq

from media import protocol
from sbc.b2bua.effects import MediaCommand
from sbc.media_client.link import Link

Done = Callable[[int, protocol.Reply], None]
Notification = dict[str, Any]  # Any: JSON values; keys "event", "session" and what the event brings

AVOID_AFTER = 2  # deadlines missed in a row
AVOID_S = 5.0  # then new sessions go elsewhere for so long, and a probe is sent
DELETE_REPEATS = 8  # a delete is repeated, doubling from the deadline, so that no port stays taken for ever


def decode_notification(data: bytes) -> Notification:
    """Read a notification; raises ValueError when it is not one."""
    event = orjson.loads(data)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("not a media notification")
    return event


class _Pending:
    """A request that waits for its reply on one node."""

    __slots__ = ("body", "done", "due", "key", "new", "node", "repeats", "request", "tried")

    def __init__(self, key: int, request: protocol.Request, body: bytes, done: Done | None, new: bool) -> None:
        self.key = key
        self.request = request
        self.body = body
        self.done = done
        self.new = new  # opens a session: another node may take it
        self.tried = 0
        self.repeats = 0
        self.due = 0.0
        self.node: _Node


class _Node:
    """One media worker: the link to it and what we know of its health."""

    __slots__ = ("avoid_until", "link", "missed", "name", "opened", "probe", "salt")

    link: Link

    def __init__(self, name: str) -> None:
        self.name = name
        self.missed = 0
        self.avoid_until = 0.0
        self.probe: bytes = b""
        self.opened = 0
        self.salt = name.encode()


class MediaPool:
    """All media nodes that a SIP worker may use.

    ``nodes`` maps name to ZeroMQ endpoint; ``deadline_s`` bounds each try; ``on_notification`` gets (node, event).
    ``identity`` should be stable over a respawn, so that notifications of older sessions find the new process.
    """

    def __init__(
        self,
        nodes: dict[str, str],
        loop: asyncio.AbstractEventLoop,
        deadline_s: float = 0.25,
        on_notification: Callable[[str, Notification], None] | None = None,
        *,
        identity: bytes = b"",
    ) -> None:
        self._loop = loop
        self._deadline_s = deadline_s
        self._on_notification = on_notification
        self._epoch = int.from_bytes(os.urandom(4), "big") or 1  # ids of an earlier life never meet ours
        self._serial = 0
        self._pending: dict[bytes, _Pending] = {}
        self._queue: deque[tuple[float, bytes]] = deque()  # one FIFO: every deadline is equally long
        self._late: dict[bytes, _Pending] = {}  # deletes that are repeated
        self._timer: asyncio.TimerHandle | None = None
        self._flush_planned = False
        self._closed = False
        self._context = zmq.Context()
        self._nodes: dict[str, _Node] = {}
        self.counts = {"requests": 0, "timeouts": 0, "failovers": 0, "stray_replies": 0, "bad_frames": 0}
        for name, endpoint in nodes.items():
            node = self._nodes[name] = _Node(name)
            node.link = Link(self._context, endpoint, identity, loop, partial(self._drain, node))

    # -- what the SIP worker calls

    def perform(self, effect: MediaCommand, done: Done) -> None:
        """Send the request of an effect; ``done(request_id, reply)`` is called once, never before this returns.

        A reply always comes: from the node, or minted here with code ``timeout`` or ``unreachable``. A request that
        opens a session (offer or engage without a node) is tried once more on the next node when the first one is mute
        or says ``elsewhere``. ``reply.worker`` names the node that answered (or was tried last).
        """
        request = effect.request
        new = not effect.node and isinstance(request, (protocol.Offer, protocol.Engage))
        try:
            body = protocol.encode(request)
        except ValueError as error:  # octets of a peer's SDP that are no text
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error), worker=effect.node)
            self._loop.call_soon(done, effect.request_id, reply)
            return
        pending = _Pending(effect.request_id, request, body, done, new)
        node = self._nodes.get(effect.node) if effect.node else self._choose(request, None)
        if node is None:
            reply = protocol.Reply(
                ok=False, code="unreachable", reason=f"no media node {effect.node!r}", worker=effect.node
            )
            self._loop.call_soon(done, effect.request_id, reply)
            return
        self._submit(pending, node)

    def gather(self, on: bool) -> None:
        """With ``on`` replies wait until :meth:`poll`, for a shell that takes everything at its own pace."""
        for node in self._nodes.values():
            node.link.watch(not on)

    def poll(self) -> None:
        """Take every reply that has come."""
        for node in self._nodes.values():
            self._drain(node)

    def close(self) -> None:
        """Stop; requests still waiting get no reply."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for node in self._nodes.values():
            node.link.close()
        self._context.destroy(linger=0)

    def health(self) -> dict[str, dict[str, float | int]]:
        """By node: deadlines missed in a row, seconds for which it is still avoided, sessions opened there."""
        now = time.monotonic()
        return {
            node.name: {"missed": node.missed, "avoided_s": max(0.0, node.avoid_until - now), "opened": node.opened}
            for node in self._nodes.values()
        }

    # -- choice of a node

    def _choose(self, request: protocol.Request, but: _Node | None) -> _Node | None:
        """Rendezvous hash of the session over the healthy nodes; over all of them when none is healthy."""
        now = time.monotonic()
        candidates = [node for node in self._nodes.values() if node is not but]
        healthy = [node for node in candidates if node.avoid_until <= now]
        key = getattr(request, "session", "").encode("utf-8", "surrogateescape")
        return max(
            healthy or candidates,
            key=lambda node: blake2b(key, digest_size=8, key=node.salt[:64]).digest(),
            default=None,
        )

    # -- sending

    def _submit(self, pending: _Pending, node: _Node) -> None:
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        request_id = (self._epoch << 32 | self._serial).to_bytes(8, "big")
        pending.node = node
        pending.tried += 1
        pending.due = self._loop.time() + self._deadline_s
        self._pending[request_id] = pending
        self._queue.append((pending.due, request_id))
        self.counts["requests"] += 1
        self._post(node, request_id, pending.body)
        if self._timer is None:
            self._timer = self._loop.call_at(pending.due, self._sweep)

    def _post(self, node: _Node, request_id: bytes, body: bytes) -> None:
        node.link.send(request_id, body)
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        if self._closed:
            return
        for node in self._nodes.values():
            for request_id in node.link.flush():  # it has been away for long
                pending = self._pending.pop(request_id, None)
                if pending is not None:
                    self._failed(pending, "unreachable")

    # -- receiving

    def _drain(self, node: _Node) -> None:
        for frames in node.link.receive():
            try:
                replies = protocol.items(frames)
            except ValueError:
                self.counts["bad_frames"] += 1
                continue
            for request_id, body in replies:
                if self._closed:
                    return
                if request_id == protocol.NOTIFICATION:
                    self._notified(node, body)
                else:
                    self._replied(node, request_id, body)

    def _notified(self, node: _Node, body: bytes) -> None:
        try:
            event = decode_notification(body)
        except ValueError:
            self.counts["bad_frames"] += 1
            return
        if self._on_notification is not None:
            self._on_notification(node.name, event)

    def _replied(self, node: _Node, request_id: bytes, body: bytes) -> None:
        node.missed = 0
        node.avoid_until = 0.0
        pending = self._pending.pop(request_id, None)
        if pending is None:
            if self._late.pop(request_id, None) is None and request_id != node.probe:
                self.counts["stray_replies"] += 1
            return
        try:
            reply = protocol.decode_reply(body)
        except ValueError as error:
            self.counts["bad_frames"] += 1
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error))
        reply.worker = node.name
        if pending.new:
            if not reply.ok and reply.elsewhere and self._try_elsewhere(pending):
                return
            node.opened += reply.ok
        if pending.done is not None:
            pending.done(pending.key, reply)

    # -- deadlines

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        queue = self._queue
        while queue and (queue[0][1] not in self._pending or queue[0][0] <= now):
            _, request_id = queue.popleft()
            pending = self._pending.pop(request_id, None)
            if pending is None:
                continue
            self._missed(pending.node)
            self.counts["timeouts"] += 1
            if isinstance(pending.request, protocol.Delete):
                self._repeat_later(request_id, pending)
            self._failed(pending, "timeout")
        if queue and not self._closed:
            self._timer = self._loop.call_at(max(queue[0][0], now), self._sweep)

    def _failed(self, pending: _Pending, code: str) -> None:
        name = pending.node.name
        if pending.new:
            # The offer may still arrive there: let a delete follow it on the same ordered pipe.
            session = getattr(pending.request, "session", "")
            orphan = _Pending(0, protocol.Delete(session), protocol.encode(protocol.Delete(session)), None, False)
            failed = pending.node
            moved = self._try_elsewhere(pending)
            self._submit_quietly(orphan, failed)
            if moved:
                return
        if pending.done is not None:
            done, pending.done = pending.done, None
            reason = f"media node {name} did not answer within {self._deadline_s:.3f} s"
            done(pending.key, protocol.Reply(ok=False, code=code, reason=reason, elsewhere=pending.new, worker=name))

    def _try_elsewhere(self, pending: _Pending) -> bool:
        if pending.tried > 1:
            return False
        node = self._choose(pending.request, pending.node)
        if node is None:
            return False
        self.counts["failovers"] += 1
        self._submit(pending, node)
        return True

    def _submit_quietly(self, pending: _Pending, node: _Node) -> None:
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        request_id = (self._epoch << 32 | self._serial).to_bytes(8, "big")
        pending.node = node
        self._post(node, request_id, pending.body)
        self._repeat_later(request_id, pending)

    def _repeat_later(self, request_id: bytes, pending: _Pending) -> None:
        """The same id again and again, each wait twice the last, until an answer came: it is idempotent."""
        self._late[request_id] = pending
        delay = self._deadline_s * 2**pending.repeats
        pending.repeats += 1
        self._loop.call_later(delay, self._repeat, request_id)

    def _repeat(self, request_id: bytes) -> None:
        pending = self._late.get(request_id)
        if pending is None or self._closed:
            return
        if pending.repeats > DELETE_REPEATS:
            del self._late[request_id]
            return
        self._post(pending.node, request_id, pending.body)
        self._repeat_later(request_id, pending)

    def _missed(self, node: _Node) -> None:
        node.missed += 1
        if node.missed >= AVOID_AFTER and node.avoid_until <= time.monotonic():
            node.avoid_until = time.monotonic() + AVOID_S
            self._serial = (self._serial + 1) & 0xFFFFFFFF
            node.probe = (self._epoch << 32 | self._serial).to_bytes(8, "big")
            self._post(node, node.probe, protocol.encode(protocol.ListSessions(limit=0)))
