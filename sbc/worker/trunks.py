"""Trunk registrations of one worker: which are ours, the names of their registrars, and what all workers must know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from sbc.b2bua.core import Core
from sbc.b2bua.effects import LocateRegistrar, TrunkChanged
from sbc.b2bua.trunk import UNREGISTERED, Trunk
from sbc.config.models import Config
from sbc.routing.node import Node
from sbc.services.trunk_registration import Registrations, call_id_of
from sbc.sip.flow import Flow
from sbc.sip.shard import shard_of
from sbc.worker.peers import TRUNK, TRUNKS_WANTED, Frame, HandOver
from sbc.worker.settings import trunk_settings
from sbc.worker.slot import SipSlot

AGAIN_S: Final = 0.2  # until a worker whose queue was full is told again


class TrunkSide:
    """``wake`` asks for a turn of the worker, in which the core's effects are performed."""

    def __init__(
        self,
        slot: SipSlot,
        core: Core,
        node: Node,
        hand_over: HandOver,
        loop: asyncio.AbstractEventLoop,
        *,
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._slot = slot
        self._core = core
        self._node = node
        self._hand_over = hand_over
        self._loop = loop
        self._now = now
        self._wake = wake
        self._registrations = Registrations(core)
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, config: Config) -> None:
        """Register as this configuration says: where it is ours to do."""
        wanted = trunk_settings(config)
        trunks = self._core.trunks
        self._core.trunks = {one.peer: trunks.get(one.peer, UNREGISTERED) for one in wanted}
        self._registrations.configure([one for one in wanted if self._owns(one.peer)], self._now())
        if wanted:  # what the others told of a peer before we knew that we register there was lost on us
            for slot in self._others():
                self._give(slot, TRUNKS_WANTED, b"")
        self._wake()

    def leave(self) -> None:
        """Unregister, for this node is to stop."""
        self._registrations.leave(self._now())

    @property
    def left(self) -> bool:
        """Whether all is unregistered, as far as that is possible."""
        return self._registrations.left

    def close(self) -> None:
        """Stop looking up names."""
        for task in self._tasks:
            task.cancel()

    def describe(self, _params: object) -> list[dict[str, Any]]:  # Any: JSON values
        """For operators."""
        return self._registrations.describe(self._now())

    def take(self, frame: Frame) -> None:
        """Another worker tells of a trunk, or asks for ours."""
        if frame.kind == TRUNK:
            peer, registered, flow, routes = orjson.loads(frame.data)
            self._know(peer, Trunk(registered, Flow(*flow) if flow else None, tuple(routes)))
        else:
            for peer, trunk in self._registrations.trunks().items():
                self._give(frame.slot, TRUNK, _packed(peer, trunk))

    # effects

    def locate(self, effect: LocateRegistrar) -> None:
        """Ask the resolver."""
        task = self._loop.create_task(self._locate(effect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _locate(self, effect: LocateRegistrar) -> None:
        located = await self._node.served(effect.target)
        self._registrations.located(effect.peer, located.servers, self._now())
        self._wake()

    def changed(self, effect: TrunkChanged) -> None:
        """Everyone must know."""
        self._know(effect.peer, effect.trunk)
        for slot in self._others():
            self._tell(slot, effect.peer, effect.trunk)

    # inside

    def _owns(self, peer: str) -> bool:
        key = self._slot.shard_key
        return shard_of(call_id_of(peer, key), key) % self._slot.count == self._slot.seat

    def _know(self, peer: str, trunk: Trunk) -> None:
        if peer in self._core.trunks:  # else it is no longer registered at
            self._core.trunks[peer] = trunk

    def _others(self) -> Iterator[int]:
        self._slot.seats.look()
        return (slot for slot in self._slot.seats.numbers if slot != self._slot.slot)

    def _tell(self, slot: int, peer: str, trunk: Trunk) -> None:
        if self._core.trunks.get(peer) == trunk and not self._give(slot, TRUNK, _packed(peer, trunk)):
            self._loop.call_later(AGAIN_S, self._tell, slot, peer, trunk)

    def _give(self, slot: int, kind: int, data: bytes) -> bool:
        return self._hand_over.give(slot, 0, "", 0, data, kind)


def _packed(peer: str, trunk: Trunk) -> bytes:
    flow = None if trunk.flow is None else list(trunk.flow)
    return orjson.dumps([peer, trunk.registered, flow, trunk.routes])
