"""The SIP worker's side of media control: one DEALER per media node, deadlines, failover of new sessions.

Everything runs on the event loop of the worker. Requests of one loop iteration leave in one message per node.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import orjson
import zmq

from media import protocol
from sbc.b2bua.effects import MediaCommand
from sbc.config.media import LOCAL_SET, MediaHealth
from sbc.media_client.link import Curve, Link
from sbc.media_client.nodes import Address, Member, Node, Sets, choose

Done = Callable[[int, protocol.Reply], None]
Notification = dict[str, Any]  # Any: JSON values; keys "event", "session" and what the event brings

MOST_MISSED: Final = 2  # deadlines that one new session may wait for, each on another node
PROBE = protocol.ListSessions(limit=0)
PROBE_BODY = protocol.encode(PROBE)
LATE_S: Final = 0.05  # a deadline that is looked at so late says nothing of the node: it was us who were held up
DELETE_REPEATS = 8  # a delete is repeated, doubling from the deadline, so that no port stays taken for ever


def decode_notification(data: bytes) -> Notification:
    """Read a notification; raises ValueError when it is not one."""
    event = orjson.loads(data)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("not a media notification")
    return event


def _session(request: protocol.Request) -> bytes:
    """The session of an offer or engage, by which its node is chosen."""
    name: str = getattr(request, "session", "")
    return name.encode("utf-8", "surrogateescape")


class _Pending:
    """A request that waits for its reply on one node."""

    __slots__ = ("body", "done", "due", "key", "members", "missed", "node", "repeats", "request", "spared", "tried")

    def __init__(
        self,
        key: int,
        request: protocol.Request,
        body: bytes,
        done: Done | None,
        members: Sequence[Member] | None = None,
    ) -> None:
        self.key = key
        self.request = request
        self.body = body
        self.done = done
        self.members = members  # not None: opens a session, which any of them may take
        self.tried: list[Node] = []
        self.missed = 0
        self.repeats = 0
        self.due = 0.0
        self.spared = False  # it got a second deadline, because the first passed while we were held up
        self.node: Node


class MediaPool:
    """All media nodes that a SIP worker may use.

    ``nodes`` by name, in one set, or in ``sets``; ``deadline_s`` bounds each try; ``on_notification`` gets (node,
    event), ``on_state`` a node that went up or down. ``identity`` should be stable over a respawn, so that
    notifications of older sessions find the new process. ``keys`` are our CURVE public and secret key, for nodes that
    have a key. ``is_pause`` tells whether a node beside us is being replaced: its successor answers what waits.
    """

    def __init__(
        self,
        nodes: Mapping[str, Address],
        loop: asyncio.AbstractEventLoop,
        deadline_s: float = 0.25,
        on_notification: Callable[[str, Notification], None] | None = None,
        *,
        sets: Sets | None = None,
        health: MediaHealth | None = None,
        identity: bytes = b"",
        keys: tuple[bytes, bytes] | None = None,
        on_state: Callable[[Node], None] | None = None,
        is_pause: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._is_pause = is_pause
        self._deadline_s = deadline_s
        self._on_notification = on_notification
        self._on_state = on_state
        self._identity = identity
        self._keys = keys
        self._epoch = int.from_bytes(os.urandom(4), "big") or 1  # ids of an earlier life never meet ours
        self._serial = 0
        self._pending: dict[bytes, _Pending] = {}
        self._queue: deque[tuple[float, bytes]] = deque()  # one FIFO: every deadline is equally long
        self._late: dict[bytes, _Pending] = {}  # deletes that are repeated
        self._timer: asyncio.TimerHandle | None = None
        self._flush_planned = False
        self._unsent = False
        self._closed = False
        self._gathering = False
        self._context = zmq.Context()
        self._nodes: dict[str, Node] = {}
        self.counts = {"requests": 0, "timeouts": 0, "failovers": 0, "stray_replies": 0, "bad_frames": 0}
        self.configure(nodes, sets or {LOCAL_SET: dict.fromkeys(nodes, 1)}, health or MediaHealth())
        self._probing = loop.call_later(self._health.probe_interval_s, self._probe)

    def configure(self, nodes: Mapping[str, Address], sets: Sets, health: MediaHealth) -> None:
        """Take other nodes and sets over. A node that is left out gets no new sessions; the present ones go on."""
        for name, address in nodes.items():
            node = self._nodes.get(name)
            if node is not None and node.address == address:
                continue
            if node is not None:
                node.link.close()
            node = self._nodes[name] = Node(name, address)
            node.link = Link(
                self._context,
                address.endpoint,
                self._identity,
                self._loop,
                partial(self._drain, node),
                Curve(address.key, *self._keys) if address.key and self._keys else None,
            )
            node.link.watch(not self._gathering)
        self._sets = sets
        self._members: dict[str, list[Member]] = {
            name: [(self._nodes[node], weight) for node, weight in members.items()] for name, members in sets.items()
        }
        self._health = health

    # -- what the SIP worker calls

    def perform(self, effect: MediaCommand, done: Done) -> None:
        """Send the request of an effect; ``done(request_id, reply)`` is called once, never before this returns.

        A reply always comes: from the node, or minted here with code ``timeout`` or ``unreachable``. A request that
        opens a session (offer or engage without a node) goes to a node of the effect's set, and to the next when that
        one says ``elsewhere``, or is mute, until MOST_MISSED were. ``reply.worker`` names the node that answered (or
        was tried last).
        """
        request = effect.request
        try:
            body = protocol.encode(request)
        except ValueError as error:  # octets of a peer's SDP that are no text
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error), worker=effect.node)
            self._loop.call_soon(done, effect.request_id, reply)
            return
        if effect.node or not isinstance(request, (protocol.Offer, protocol.Engage)):
            pending = _Pending(effect.request_id, request, body, done)
            node, reason = self._nodes.get(effect.node), f"no media node {effect.node!r}"
        else:
            members = self._members.get(effect.media_set or LOCAL_SET, ())
            pending = _Pending(effect.request_id, request, body, done, members)
            node, reason = choose(members, _session(request)), f"no media set {effect.media_set!r}"
        if node is None:
            reply = protocol.Reply(ok=False, code="unreachable", reason=reason, worker=effect.node)
            self._loop.call_soon(done, effect.request_id, reply)
            return
        self._submit(pending, node)

    def drain(self, name: str, on: bool) -> bool:
        """Let a node take no new sessions, or take them again; False where there is none of this name."""
        node = self._nodes.get(name)
        if node is None:
            return False
        node.drained = node.draining = on
        request = protocol.Drain(on)
        self._submit(_Pending(0, request, protocol.encode(request), None), node)
        return True

    def describe(self) -> list[dict[str, Any]]:  # Any: JSON values
        """Every node, for the operator."""
        now = self._loop.time()
        return [node.describe(now, self._sets) for node in self._nodes.values()]

    @property
    def nodes(self) -> list[str]:
        """Their names."""
        return list(self._nodes)

    def gather(self, on: bool) -> None:
        """With ``on`` replies wait until :meth:`poll` and requests until :meth:`flush`, for a shell that has a pace of
        its own."""
        self._gathering = on
        if not on:
            self._plan_flush()
        for node in self._nodes.values():
            node.link.watch(not on)

    def poll(self) -> None:
        """Take every reply that has come."""
        for node in self._nodes.values():
            self._drain(node)

    def close(self) -> None:
        """Stop; requests still waiting get no reply."""
        self._closed = True
        self._probing.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for node in self._nodes.values():
            node.link.close()
        self._context.destroy(linger=0)

    # -- sending

    def _submit(self, pending: _Pending, node: Node) -> None:
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        request_id = (self._epoch << 32 | self._serial).to_bytes(8, "big")
        pending.node = node
        pending.tried.append(node)
        pending.due = self._loop.time() + self._deadline_s
        self._pending[request_id] = pending
        self._queue.append((pending.due, request_id))
        self.counts["requests"] += 1
        self._post(node, request_id, pending.body)
        if self._timer is None:
            self._timer = self._loop.call_at(pending.due, self._sweep)

    def _post(self, node: Node, request_id: bytes, body: bytes) -> None:
        node.link.send(request_id, body)
        self._unsent = True
        if not self._gathering:
            self._plan_flush()

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self.flush)

    def flush(self) -> bool:
        """Send every request that waits for it; whether there was any."""
        self._flush_planned = False
        if self._closed or not self._unsent:
            return False
        self._unsent = False
        for node in self._nodes.values():
            for request_id in node.link.flush():  # it has been away for long, or does not let us in
                pending = self._pending.pop(request_id, None)
                if pending is not None:
                    self._missed(node, self._loop.time())
                    self._failed(pending, "unreachable")
        return True

    # -- receiving

    def _drain(self, node: Node) -> None:
        for frames in node.link.receive():
            try:
                replies = protocol.items(frames)
            except ValueError:
                self.counts["bad_frames"] += 1
                if frames and frames[0] != protocol.VERSION:
                    theirs, ours = frames[0][:8].decode("ascii", "replace"), protocol.VERSION.decode()
                    node.trouble = f"it speaks version {theirs!r} of media control, we {ours!r}: run one release"
                continue
            for request_id, body in replies:
                if self._closed:
                    return
                if request_id == protocol.NOTIFICATION:
                    self._notified(node, body)
                else:
                    self._replied(node, request_id, body)

    def _notified(self, node: Node, body: bytes) -> None:
        try:
            event = decode_notification(body)
        except ValueError:
            self.counts["bad_frames"] += 1
            return
        if self._on_notification is not None:
            self._on_notification(node.name, event)

    def _replied(self, node: Node, request_id: bytes, body: bytes) -> None:
        pending = self._pending.pop(request_id, None)
        if pending is None:
            if self._late.pop(request_id, None) is None:
                self.counts["stray_replies"] += 1
            return
        if (node.missed or node.down_since is not None) and node.answer(self._loop.time(), self._health):
            self._changed(node)
        try:
            reply = protocol.decode_reply(body)
        except ValueError as error:
            self.counts["bad_frames"] += 1
            reply = protocol.Reply(ok=False, code="malformed", reason=str(error))
        reply.worker = node.name
        if pending.members is not None:
            node.opened += reply.ok
            node.refused = "" if reply.ok else reply.code
            if reply.code == "draining":
                node.draining = True
            if not reply.ok and reply.elsewhere and self._try_elsewhere(pending):
                return
        if pending.done is not None:
            pending.done(pending.key, reply)

    # -- deadlines

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        queue = self._queue
        if queue and queue[0][0] <= now:
            self.poll()  # a worker that was held up itself finds the replies of the meantime
            if self._is_pause is not None and self._is_pause():
                self._spare(now, self._deadline_s)
            elif now > queue[0][0] + LATE_S:
                self._spare(now)
        while queue and (queue[0][1] not in self._pending or queue[0][0] <= now):
            _, request_id = queue.popleft()
            pending = self._pending.pop(request_id, None)
            if pending is None:
                continue
            self._missed(pending.node, pending.due - self._deadline_s)
            self.counts["timeouts"] += 1
            if isinstance(pending.request, protocol.Delete):
                self._repeat_later(request_id, pending)
            self._failed(pending, "timeout")
        if queue and not self._closed:
            self._rearm(max(queue[0][0], now))

    def _spare(self, now: float, longer_s: float = 0.0) -> None:
        """We were held up, so that what waits may not even have been sent, and a node beside us had no time either:
        half a deadline more, once; or ``longer_s``, again and again."""
        self.flush()
        limit = now + (longer_s or self._deadline_s / 2)
        for at, (due, request_id) in enumerate(self._queue):
            if due >= limit:
                break
            pending = self._pending.get(request_id)
            if pending is not None and not pending.spared:
                pending.spared, pending.due = not longer_s, limit
                self._queue[at] = (limit, request_id)
                if longer_s:  # the one that has ended may have had it; who gets it twice answers twice
                    self._post(pending.node, request_id, pending.body)

    def _rearm(self, when: float) -> None:
        if self._timer is not None:  # of what was sent in this sweep, which is due later
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._sweep)

    def _failed(self, pending: _Pending, code: str) -> None:
        name = pending.node.name
        if pending.members is not None:
            # The offer may still arrive there: let a delete follow it on the same ordered pipe.
            request = protocol.Delete(getattr(pending.request, "session", ""))
            orphan, failed = _Pending(0, request, protocol.encode(request), None), pending.node
            pending.missed += 1
            moved = self._try_elsewhere(pending)
            self._submit_quietly(orphan, failed)
            if moved:
                return
        if pending.done is not None:
            done, pending.done = pending.done, None
            reason = f"media node {name} did not answer within {self._deadline_s:.3f} s"
            elsewhere = pending.members is not None
            done(pending.key, protocol.Reply(ok=False, code=code, reason=reason, elsewhere=elsewhere, worker=name))

    def _try_elsewhere(self, pending: _Pending) -> bool:
        if pending.members is None or pending.missed >= MOST_MISSED:
            return False
        node = choose(pending.members, _session(pending.request), pending.tried)
        if node is None:
            return False
        self.counts["failovers"] += 1
        self._submit(pending, node)
        return True

    def _submit_quietly(self, pending: _Pending, node: Node) -> None:
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

    # -- health

    def _probe(self) -> None:
        """Ask every node how it is, whether it has calls of ours or not: a mute one is found before a call is."""
        self._probing = self._loop.call_later(self._health.probe_interval_s, self._probe)
        for node in self._nodes.values():
            self._submit(_Pending(0, PROBE, PROBE_BODY, partial(self._probed, node)), node)

    def _probed(self, node: Node, _: int, reply: protocol.Reply) -> None:
        if reply.ok:
            node.draining = reply.draining
            node.sessions = reply.total

    def _missed(self, node: Node, sent_at: float) -> None:
        node.trouble = node.link.trouble() or node.trouble
        if node.miss(sent_at, self._loop.time(), self._health):
            self._changed(node)

    def _changed(self, node: Node) -> None:
        if self._on_state is not None:
            self._on_state(node)
