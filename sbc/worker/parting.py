"""How the SIP worker of a pair's active node makes room for the other node by order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sbc.b2bua.call import Call
from sbc.b2bua.tables import CallState
from sbc.store.journal import Journal
from sbc.store.nothing import NoJournal
from sbc.telemetry.counters import Counter
from sbc.telemetry.page import Page
from sbc.worker.datagrams import DatagramSide, Hears

LOOK_S = 0.01


class Parting:
    """``drain`` first, which no caller notices but by a delay; then ``leave``, after which nothing more is said.

    An INVITE or a BYE that comes in between is not read: its sender repeats it after half a second, to the other node.
    What we had begun to do about it would be lost with us.
    """

    def __init__(
        self,
        page: Page,
        calls: Mapping[str, Call],
        datagrams: DatagramSide,
        journal: Journal | NoJournal,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._page = page
        self._calls = calls
        self._datagrams = datagrams
        self._journal = journal
        self._loop = loop

    def drain(self) -> None:
        """No call begins or ends any more; once none is about to, the gauge HA_DRAINED says so."""
        self._datagrams.hears = Hears.NOTHING_NEW
        self._look()

    def _look(self) -> None:
        if any(call.state < CallState.ANSWERED or call.state > CallState.UP for call in self._calls.values()):
            self._loop.call_later(LOOK_S, self._look)
        else:
            self._page.set(Counter.HA_DRAINED, 1)

    async def leave(self, limit_s: float) -> None:
        """Write what waits for the store, within this time; nothing that comes meanwhile is answered, since its record
        might come too late."""
        self._datagrams.hears = Hears.NOTHING
        await self._journal.close(limit_s)
