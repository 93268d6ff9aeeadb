"""How a SIP worker makes room for another one by order: that of the other node of a pair, or of the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sbc.b2bua import ringing
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.tables import CallState
from sbc.store.journal import Journal
from sbc.store.nothing import NoJournal
from sbc.telemetry import log
from sbc.telemetry.counters import Counter
from sbc.telemetry.page import Page
from sbc.worker.datagrams import DatagramSide, Hears

LOOK_S = 0.01
YOUNG_S = 0.3  # a machine answers within that time: its caller should not wait for a repetition of the answer


class Parting:
    """``drain`` first, which no caller notices but by a delay; then ``leave``, after which nothing more is said.

    An INVITE or a BYE that comes in between is not read: its sender repeats it after half a second, to the other node.
    What we had begun to do about it would be lost with us. Calls that ring on are the other node's with ``leave``;
    ``after_input`` has the core's notes about the others written.
    """

    def __init__(
        self,
        page: Page,
        core: Core,
        datagrams: DatagramSide,
        journal: Journal | NoJournal,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        after_input: Callable[[], None],
    ) -> None:
        self._page = page
        self._core = core
        self._datagrams = datagrams
        self._journal = journal
        self._loop = loop
        self._now = now
        self._after_input = after_input

    def drain(self) -> None:
        """No call begins or ends any more; once none is about to, the gauge HA_DRAINED says so."""
        self._datagrams.hears = Hears.NOTHING_NEW
        self._look()

    def _look(self) -> None:
        now = self._now()
        if any(self._is_awaited(call, now) for call in self._core.calls.values()):
            self._loop.call_later(LOOK_S, self._look)
        else:
            self._page.set(Counter.HA_DRAINED, 1)

    def _is_awaited(self, call: Call, now: float) -> bool:
        """Whether a call is soon up or over, or cannot go on at the other node as it is now."""
        if call.state is CallState.RINGING:
            return now - call.started_at < YOUNG_S or bool(ringing.obstacle(self._core, call))
        return call.state not in (CallState.ANSWERED, CallState.UP)

    async def leave(self, limit_s: float) -> None:
        """Write what waits for the store, within this time; nothing that comes meanwhile is answered, since its record
        might come too late."""
        self._datagrams.hears = Hears.NOTHING
        self.hand_on()
        await self._journal.close(limit_s)

    def hand_on(self) -> None:
        """Write the calls that ring for whoever has them next; they are not ours any more."""
        handed = 0
        for effect in self._core.hand_on(self._now()):
            self._journal.save(effect)
            handed += 1
        self._after_input()
        if handed:
            log.get().info("calls that ring are handed on", calls=handed)
