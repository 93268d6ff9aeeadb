"""A worker's side of media control: the pool of media nodes, and what they have to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from media.protocol import Delete, Reply
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


class MediaSide:
    """``silent`` takes a call without media, the leg and its silence in seconds; ``mine`` tells whether the call of a
    session belongs to this worker."""

    def __init__(
        self,
        slot: SipSlot,
        core: Core,
        loop: asyncio.AbstractEventLoop,
        *,
        silent: Callable[[Call, str, float], None],
        mine: Callable[[str], bool],
        count: Callable[..., None],
    ) -> None:
        self._slot = slot
        self._core = core
        self._loop = loop
        self._silent = silent
        self._mine = mine
        self._count = count
        self._log = log.get()
        config = slot.config
        nodes, sets = layout(config.media_sets, slot.media_endpoints)
        self.pool = MediaPool(
            nodes,
            loop,
            config.timers.media_timeout_ms / 1000,
            self._notified,
            sets=sets,
            health=config.media_health,
            identity=f"{config.node}/sip-{slot.slot}".encode(),
            keys=slot.media_keys,
            on_state=self._changed,
        )

    def configure(self, config: Config) -> None:
        """Take other sets over."""
        self.pool.configure(*layout(config.media_sets, self._slot.media_endpoints), config.media_health)

    def end_orphans(self, calls: Collection[str]) -> None:
        """End what calls that died with a worker left on any node."""
        owner = f"{self._slot.config.node}/"
        orphans = Orphans(self.pool, self._loop, self._mine, calls, self._ended_orphans, owner)
        orphans.end(self.pool.nodes)

    def methods(self) -> dict[str, rpc.Method]:
        """What the control worker may ask."""
        return {"media": lambda _: self.pool.describe(), "media_drain": self._drain}

    def _drain(self, params: rpc.Params) -> bool:
        """``{node, on}``; False where there is no such media node."""
        name, on = str(params.get("node", "")), params.get("on") is not False
        known = self.pool.drain(name, on)
        if known:
            self._log.info("media node drains" if on else "media node takes new calls again", node=name)
        return known

    def _notified(self, node: str, event: Notification) -> None:
        """A media worker has something to tell: no media means the end of the call, unless a route says otherwise."""
        if event["event"] != "timeout":
            return
        session = str(event.get("session", ""))
        call = self._core.calls.get(session)
        if call is not None:
            self._count("MEDIA_SILENT")
            self._silent(call, str(event.get("leg", "")), float(event.get("silent_s", 0.0)))
        elif self._mine(session):  # otherwise the owner was away, so everyone was told; it will be told again
            # its call ended while that media worker was away
            self.pool.perform(MediaCommand(0, Delete(session), node), _nothing)

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
