"""A worker's side of look-ups: opened for its routes, and opened anew when a reload changes what they may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sbc.config.models import Config
from sbc.lookups.lookups import Lookups
from sbc.lookups.world import open_lookups
from sbc.routing.node import Node
from sbc.worker.slot import SipSlot

GRACE_S = 30.0  # how long look-ups of before a reload may still be under way


class LookupSide:
    """Gives ``node`` its look-ups. Raises ConfigError for those that cannot be opened."""

    def __init__(self, slot: SipSlot, node: Node, loop: asyncio.AbstractEventLoop) -> None:
        self._slot = slot
        self._node = node
        self._loop = loop
        self._former: set[Lookups] = set()
        self._config = slot.config.lookups
        node.lookups = self._open(slot.config)

    @contextmanager
    def taking_over(self, config: Config) -> Iterator[None]:
        """Within, and after where nothing is raised, routes ask what ``config`` names; else they go on as before."""
        if config.lookups == self._config:
            yield
            return
        former = self._node.lookups
        self._node.lookups = self._open(config)
        try:
            yield
        except BaseException:
            self._node.lookups.close()
            self._node.lookups = former
            raise
        self._config = config.lookups
        self._former.add(former)
        self._loop.call_later(GRACE_S, self._let_go, former)

    def close(self) -> None:
        """Close all."""
        for one in (self._node.lookups, *self._former):
            one.close()

    def _open(self, config: Config) -> Lookups:
        slot = self._slot
        return open_lookups(
            config.lookups, self._loop, store_url=slot.store_url, run_dir=config.run_dir, count=slot.page.count
        )

    def _let_go(self, former: Lookups) -> None:
        self._former.discard(former)
        former.close()
