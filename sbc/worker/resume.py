"""Taking up the calls of a former worker: from the journal at the start, or as soon as the store answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from sbc.errors import StoreError
from sbc.store.journal import Journal
from sbc.store.nothing import NoJournal
from sbc.telemetry.log import Logger

AGAIN_S = 1.0


class Resumption:
    """The calls of ``shards``, each given to ``resume``, which returns False for a record that it cannot read, and None
    for one of a later release. That one stays in the store, for a node that can read it, and its key is in ``left``.

    ``calls`` are those that live here already; ``drain`` performs what a resumed call asks for.
    """

    def __init__(
        self,
        journal: Journal | NoJournal,
        shards: range,
        calls: Mapping[str, object],
        resume: Callable[[bytes], bool | None],
        drain: Callable[[], None],
        log: Logger,
    ) -> None:
        self._journal = journal
        self._shards = shards
        self._calls = calls
        self._resume = resume
        self._drain = drain
        self._log = log
        self.left: set[str] = set()

    async def attempt(self, timeout_s: float, *, patient: bool = False) -> bool:
        """Wait for the store, at most ``timeout_s``, and load; whether all calls have been seen. ``patient``: nobody is
        served yet, so a slow store gets more time for each answer."""
        if not await self._journal.ready(timeout_s):
            return False
        resumed, complete, left_before = 0, True, len(self.left)
        try:
            async for stored in self._journal.load(self._shards, patient=patient):
                if stored.key in self._calls or stored.key in self.left:  # made, or seen by an earlier attempt
                    continue
                found = self._resume(stored.record)
                if found is None:
                    self.left.add(stored.key)
                elif found:
                    resumed += 1
                else:
                    self._journal.quarantine(stored.key, stored.shard)
                self._drain()
        except StoreError as error:
            complete = False
            self._log.error("the store failed while calls were being resumed", reason=str(error))
        if resumed:
            self._log.warning("calls resumed from the journal", calls=resumed)
        if len(self.left) > left_before:
            self._log.error(
                "calls of a later release are left in the store: their audio goes on, requests within them are refused;"
                " install that release here, or have a node serve that has it",
                calls=len(self.left),
            )
        return complete

    async def complete(self) -> None:
        """Attempt until all calls have been seen: what nobody asked for meanwhile is saved."""
        while True:
            if await self.attempt(AGAIN_S):
                return
            await asyncio.sleep(AGAIN_S)
