"""How a SIP worker comes to serve: it stands by where its node is the passive one of a pair, then takes up the calls of
its shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sbc.b2bua import records
from sbc.b2bua.core import Core
from sbc.b2bua.records import Left
from sbc.clock import Clock
from sbc.routing.names import Names
from sbc.routing.runner import Runner
from sbc.sip.ids import SHARDS
from sbc.store.journal import Journal
from sbc.store.nothing import NoJournal
from sbc.telemetry import log
from sbc.worker.parting import Parting
from sbc.worker.resume import Resumption
from sbc.worker.slot import SipSlot
from sbc.worker.standing_by import Standing

STORE_START_S = 5.0  # how long a starting worker waits for the store before it serves without what it held
AWAITED_S = 10.0  # then, how long requests of calls that may still be there get no answer; they are repeated for 32 s


class Beginning:
    """``after_input`` performs what a resumed call asks for; ``all_here`` is told once every call of ours is."""

    def __init__(
        self,
        slot: SipSlot,
        core: Core,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        journal: Journal | NoJournal,
        runner: Runner,
        parting: Parting,
        *,
        after_input: Callable[[], None],
        all_here: Callable[[], None],
    ) -> None:
        self._slot = slot
        self._core = core
        self._loop = loop
        self._clock = clock
        self._journal = journal
        self._runner = runner
        self._parting = parting
        core.hooks = Names(runner)
        self._after_input = after_input
        self._all_here = all_here
        self._log = log.get()
        self._has_started_up = False
        self._resuming: asyncio.Task[None] | None = None
        self.left: set[str] = set()  # keys of calls that are in the store, and that this release cannot read
        self._pruning: asyncio.Task[None] | None = None

    async def stand_by(self, stopped: asyncio.Future[None]) -> bool:
        """Be ready for the moment in which this node of a pair becomes active; False where it was stopped before."""
        cell = self._slot.cell
        if cell is None:
            return True
        standing = Standing(self._slot, cell, self._loop, self._parting)
        if not cell.is_active:
            await self._runner.start_up()
            self._has_started_up = True
            self._slot.page.ready()
        return await standing.by(stopped)

    async def take_up(self) -> None:
        """The calls of our shards, and what startup routes are to do before the first new one."""
        self._journal.start()
        await self._resume()
        if not self._has_started_up:
            await self._runner.start_up()

    async def prepare(self) -> None:
        """All that can be done before the calls are here, which another worker is to hand over."""
        if self._slot.cell is not None:
            Standing(self._slot, self._slot.cell, self._loop, self._parting)  # this node may have to be silent
        self._journal.start()
        await self._journal.ready(STORE_START_S)
        await self._runner.start_up()
        self._core.incomplete = True

    def look_for_more(self) -> None:
        """What a worker that was relieved could not hand over is in the journal."""
        self._resuming = self._loop.create_task(self._resume())

    def restored(self, *, alone: bool) -> None:
        """The store has come back without some of what it held, or with what it should not have any more. ``alone``:
        nobody else has calls of our shards."""
        self._journal.republish(self._core.records(self._clock.monotonic()))
        if alone and not self._core.incomplete and (self._pruning is None or self._pruning.done()):
            self._pruning = self._loop.create_task(self._prune())

    async def _prune(self) -> None:
        mine = range(self._slot.seat, SHARDS, self._slot.count)
        removed = await self._journal.prune(mine, lambda: records.keys(self._core) | self.left)
        if removed:
            self._log.warning("the store had records of calls that have ended: they were removed", records=removed)

    def close(self) -> None:
        """Take up no more. Calls that still ring are handed on to whoever starts next; the journal writes them."""
        for task in (self._resuming, self._pruning):
            if task is not None:
                task.cancel()
        self._parting.hand_on()

    async def _resume(self) -> None:
        """Those that the store keeps to itself at the start come when it answers."""
        slot, core = self._slot, self._core
        mine = range(slot.seat, SHARDS, slot.count)
        core.incomplete = True
        resumption = Resumption(self._journal, mine, core.calls, self._resume_call, self._after_input, self._log)
        self.left = resumption.left
        if await resumption.attempt(STORE_START_S, patient=True):
            self._complete()
        else:
            core.awaits_until = self._clock.monotonic() + AWAITED_S
            self._log.error("the store does not answer: serving without the calls that it may hold")
            self._resuming = self._loop.create_task(resumption.complete())
            self._resuming.add_done_callback(lambda task: None if task.cancelled() else self._complete())

    def _resume_call(self, record: bytes) -> bool | None:
        found = self._core.resume(record, self._clock.monotonic(), self._clock.wall())
        return None if isinstance(found, Left) else found is not None

    def _complete(self) -> None:
        self._core.incomplete = False
        self._core.awaits_until = 0.0
        self._all_here()
