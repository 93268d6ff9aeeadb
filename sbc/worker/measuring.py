"""How much a SIP worker has to do, ten times a second: its core refuses calls before they are late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sbc.b2bua.core import Core
from sbc.config.models import Config
from sbc.store.journal import Journal
from sbc.store.nothing import NoJournal
from sbc.worker.garbage import Garbage
from sbc.worker.load import BusyMeter

LOAD_S = 0.1  # from one look to the next


class LoadSide:
    """``config`` gives the one in force."""

    def __init__(
        self,
        core: Core,
        journal: Journal | NoJournal,
        garbage: Garbage,
        loop: asyncio.AbstractEventLoop,
        config: Callable[[], Config],
        now: Callable[[], float],
    ) -> None:
        self._core = core
        self._journal = journal
        self._garbage = garbage
        self._loop = loop
        self._config = config
        self._now = now
        self._meter = BusyMeter()
        self._busy_s = 0.0
        self._measured_at = 0.0

    def begin(self) -> None:
        """Starting up was no load."""
        self._garbage.start()
        self._busy_s, self._measured_at = self._meter.read(), self._now()
        self._measure()

    def close(self) -> None:
        self._meter.close()

    def _measure(self) -> None:
        now, busy_s = self._now(), self._meter.read()
        elapsed_s = now - self._measured_at
        core, journal, config = self._core, self._journal, self._config()
        core.unprotected = config.unprotected == "refuse" and journal.is_unprotected
        # CDRs that nobody takes: no new calls that would make more of them.
        core.overload.closed = journal.is_full and config.cdr.when_full == "refuse"
        core.overload.look(elapsed_s, max(0.0, elapsed_s - LOAD_S))
        if self._garbage.measured((busy_s - self._busy_s) / max(elapsed_s, 1e-3), now):
            now, busy_s = self._now(), self._meter.read()  # that was no load
        self._busy_s, self._measured_at = busy_s, now
        self._loop.call_later(LOAD_S, self._measure)
