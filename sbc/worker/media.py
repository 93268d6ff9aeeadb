"""A worker's side of media control: the pool of media nodes, and what they have to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from media import protocol
from media.protocol import Delete, Play, Query, Record, Reply, Stop
from sbc.b2bua import accompany, one_way
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.effects import MediaCommand
from sbc.config.models import Config
from sbc.management import rpc
from sbc.media_client.client import MediaPool, Notification
from sbc.media_client.nodes import Node, State, layout
from sbc.telemetry import log
from sbc.worker.orphans import Orphans
from sbc.worker.slot import SipSlot

MOVE_WAIT_S = 0.7  # less than the control worker waits; who is slower is seen in the list of calls


class MediaSide:
    """``silent`` takes a call without media, the leg and its silence in seconds; ``pressed`` a call, the leg, a digit
    that was pressed there, and for how many milliseconds; ``mine`` tells whether the call of a session belongs to this
    worker, ``relay_profile`` under which profile media of a peer are relayed. ``wake`` performs what the core wants
    after a call into it."""

    def __init__(
        self,
        slot: SipSlot,
        core: Core,
        loop: asyncio.AbstractEventLoop,
        *,
        silent: Callable[[Call, str, float], None],
        pressed: Callable[[Call, str, str, int], None],
        mine: Callable[[str], bool],
        count: Callable[..., None],
        now: Callable[[], float],
        wake: Callable[[], None],
        relay_profile: Callable[[str], str],
    ) -> None:
        self._slot = slot
        self._core = core
        self._loop = loop
        self._silent = silent
        self._pressed = pressed
        self._mine = mine
        self._count = count
        self._now = now
        self._wake = wake
        self._relay_profile = relay_profile
        self._log = log.get()
        self._heir: Callable[[str, str, Notification], None] | None = None
        config = slot.config
        nodes, sets = layout(config.media_sets, slot.media_endpoints)
        self.pool = MediaPool(
            nodes,
            loop,
            config.timers.media_timeout_ms / 1000,
            self.notified,
            sets=sets,
            health=config.media_health,
            identity=f"{config.node}/sip-{slot.slot}".encode(),
            keys=slot.media_keys,
            on_state=self._changed,
            is_pause=slot.seats.is_media_pause,
        )

    def configure(self, config: Config) -> None:
        """Take other sets over."""
        self.pool.configure(*layout(config.media_sets, self._slot.media_endpoints), config.media_health)

    def leave(self, heir: Callable[[str, str, Notification], None]) -> None:
        """Calls that are not here (any more) are another worker's: ``heir`` is told what comes for them."""
        self._heir = heir

    def end_orphans(self, calls: Collection[str], left: Collection[str]) -> None:
        """End what calls that died with a worker left on any node; ``left`` are calls that are not here, and live."""
        owner = f"{self._slot.config.node}/"

        def mine(name: str) -> bool:
            return name not in left and self._mine(name)

        orphans = Orphans(self.pool, self._loop, mine, calls, self._ended_orphans, owner)
        orphans.end(self.pool.nodes)

    def methods(self) -> dict[str, rpc.Method]:
        """What the control worker may ask."""
        return {
            "media": self._describe,
            "media_drain": self._drain,
            "record": self._record,
            "play": self._play,
            "quality": self._quality,
            "media_move": self._move,
        }

    def _describe(self, _: rpc.Params) -> list[rpc.Params]:
        return self.pool.describe()

    async def _record(self, params: rpc.Params) -> rpc.Params | None:
        """``{key, on, format}`` -> ``{file}``, or ``{refused}`` with a sentence; None: the call is not ours."""
        call = self._core.calls.get(str(params["key"]))
        if call is None:
            return None
        request = Record(call.key, on=False)
        if params.get("on") is not False:
            request = accompany.request_for(call, "pcap" if params.get("format") == "pcap" else "wav")
        reply = await self._ask(call, request)
        if not reply.ok:
            return {"refused": reply.reason or reply.code}
        if reply.file:
            call.recording = reply.file
            self._core.touch(call)
        return {"file": call.recording}

    async def _play(self, params: rpc.Params) -> rpc.Params | None:
        """``{key, leg, file}`` -> ``{}``, or ``{refused}`` with a sentence; None: the call is not ours. Without
        a file what the leg hears ends."""
        call = self._core.calls.get(str(params["key"]))
        if call is None:
            return None
        name, file = str(params.get("leg", "")), str(params.get("file", ""))
        leg = call.a if name == "a" else call.b if name == "b" else None
        leg = leg or next((one for one in call.legs() if one.name == name), None)
        if leg is None:
            return {"refused": f"the call has no leg {name!r}: a called, b was called"}
        request: protocol.Request = Stop(call.key, leg.name)
        if file:
            request = Play(call.key, leg.name, file, formats=accompany.formats_for(leg))
        reply = await self._ask(call, request)
        if reply.ok:
            leg.prompt = file
        return {} if reply.ok else {"refused": reply.reason or reply.code}

    async def _ask(self, call: Call, request: protocol.Request) -> Reply:
        """Ask the node that has the media of a call."""
        if not call.has_media or not call.media_node:
            return Reply(ok=False, code="unknown_session", reason="the media of this call do not pass here")
        done: asyncio.Future[Reply] = self._loop.create_future()

        def replied(_: int, reply: Reply) -> None:
            if not done.done():
                done.set_result(reply)

        self.pool.perform(MediaCommand(0, request, call.media_node, call.media_set), replied)
        return await done

    async def _quality(self, params: rpc.Params) -> dict[str, Any] | None:  # Any: JSON values
        """``{key, samples}`` -> a call and the statistics of its streams by leg, with what was sampled in the last
        seconds; None where the call is not ours."""
        call = self._find(str(params.get("key", "")))
        if call is None:
            return None
        found: dict[str, Any] = {"call": call.describe(), "media": {}}  # Any: JSON values
        if not call.has_media:
            return found
        reply = await self._ask(call, Query(call.key, samples=int(params.get("samples", 0))))
        if not reply.ok:
            raise rpc.RpcError(rpc.UNAVAILABLE, f"the media node did not tell: {reply.reason}")
        found["media"] = {leg: msgspec.to_builtins(streams) for leg, streams in reply.stats.items()}
        return found

    def _find(self, key: str) -> Call | None:
        """The call of this key or Call-ID, or the only one whose key begins so."""
        calls = self._core.calls
        if key in calls or not key:
            return calls.get(key)
        found = [call for call in calls.values() if call.key.startswith(key)]
        for call in calls.values():
            if key in (leg.dialog.call_id for leg in call.legs()):
                found = [call]
        return found[0] if len(found) == 1 else None

    def _drain(self, params: rpc.Params) -> bool:
        """``{node, on}``; False where there is no such media node."""
        name, on = str(params.get("node", "")), params.get("on") is not False
        known = self.pool.drain(name, on)
        if known:
            self._log.info("media node drains" if on else "media node takes new calls again", node=name)
        return known

    async def _move(self, params: rpc.Params) -> dict[str, str] | None:
        """``{key, direct}`` -> ``{state, reason}``; the state is ``done``, ``refused``, or ``asked`` where that takes
        longer. None where the call is not ours."""
        call = self._core.calls.get(str(params.get("key", "")))
        if call is None:
            return None
        ended: asyncio.Future[str] = self._loop.create_future()

        def end(reason: str, now: float) -> None:
            if not ended.done():
                ended.set_result(reason)

        profile = None if params.get("direct") is True else self._relay_profile(call.a.peer)
        reason = self._core.move_media(call, profile, end, self._now())
        self._wake()
        if not reason:
            try:
                reason = await asyncio.wait_for(ended, MOVE_WAIT_S)
            except TimeoutError:
                return {"state": "asked", "reason": ""}
        return {"state": "refused" if reason else "done", "reason": reason}

    def notified(self, node: str, event: Notification) -> None:
        """A media worker has something to tell: no media means the end of the call, unless a route says otherwise."""
        kind = event["event"]
        if self._heir is not None and (name := str(event.get("session", ""))) not in self._core.calls:
            self._heir(name, node, event)
            return
        if kind == "played":
            self._played(event)
        elif kind in ("recorded", "recording_lost"):
            self._recorded(node, event)
        elif kind == "one_way":
            self._one_way(event)
        elif kind == "dtmf":
            self._dtmf(event)
        if kind != "timeout":
            return
        session = str(event.get("session", ""))
        call = self._core.calls.get(session)
        if call is not None:
            self._count("MEDIA_SILENT")
            self._silent(call, str(event.get("leg", "")), float(event.get("silent_s", 0.0)))
        elif self._mine(session):  # otherwise the owner was away, so everyone was told; it will be told again
            # its call ended while that media worker was away
            self.pool.perform(MediaCommand(0, Delete(session), node), _nothing)

    def _dtmf(self, event: Notification) -> None:
        call = self._core.calls.get(str(event.get("session", "")))
        if call is not None:
            leg, digit = str(event.get("leg", "")), str(event.get("digit", ""))
            self._pressed(call, leg, digit, int(event.get("duration_ms", 0)))

    def _played(self, event: Notification) -> None:
        """What a leg was played is over: what waited for it goes on."""
        call = self._core.calls.get(str(event.get("session", "")))
        if event.get("reason") == "failed":
            self._log.warning("a prompt cannot be played", call=str(event.get("session")), reason=event.get("text"))
        if call is not None and event.get("reason") != "replaced":
            for leg in call.legs():
                if leg.name == event.get("leg"):
                    leg.prompt = ""
        if call is not None and call.announcing is not None:
            call.announcing.played(int(event.get("number", 0)), self._now())
            self._wake()

    def _recorded(self, node: str, event: Notification) -> None:
        """A recording is over, or lacks its first packets. Who records wants to know of what is missing."""
        said = {
            "call": str(event.get("session", "")),
            "node": node,
            "file": event.get("file"),
            "lost": event.get("lost"),
        }
        if event["event"] == "recording_lost":
            self._log.warning("a recording lacks packets: the disk is too slow for what is recorded", **said)
        elif event.get("reason") == "failed":
            self._log.error("a recording has ended early, its call goes on", **said, reason=event.get("text"))
        else:
            counts = {name: event[name] for name in ("packets", "late", "unreadable", "seconds") if name in event}
            self._log.info("a recording is complete", **said, **counts)

    def _one_way(self, event: Notification) -> None:
        """Only one side of a call sends: it goes on, and the log says why that may be."""
        call, leg = self._core.calls.get(str(event.get("session", ""))), str(event.get("leg", ""))
        side = one_way.note(self._core, call, leg) if call is not None else ""
        if call is None or not side:
            return
        self._count("MEDIA_ONE_WAY")
        self._log.warning(
            "one-way audio",
            call=call.key,
            leg=leg,
            reason=one_way.why(side, event),
            silent_s=event.get("silent_s"),
            described=event.get("described"),
            remote=event.get("remote"),
            refused=event.get("refused"),
        )

    def _changed(self, node: Node) -> None:
        """A media node went up or down."""
        if node.state is State.DOWN:
            self._count("MEDIA_NODE_DOWN")
            self._log.error("media node gets no new calls", node=node.name, reason=node.reason)
        else:
            self._log.info("media node serves again", node=node.name)

    def _ended_orphans(self, node: str, keys: list[str]) -> None:
        self._count("MEDIA_ORPHANS", len(keys))
        self._log.warning("calls were lost with the former worker before they were answered", node=node, calls=keys)


def _nothing(_: int, __: Reply) -> None:
    """The pool repeats a delete until it is answered."""
