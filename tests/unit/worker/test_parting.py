"""A SIP worker of a node that hands over by order: calls in setup come up, new ones are left to the other node."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from sbc.b2bua.tables import CallState
from sbc.telemetry.counters import Counter, Kind
from sbc.telemetry.page import Page
from sbc.worker.datagrams import Hears
from sbc.worker.parting import Parting


def test_it_waits_for_calls_in_setup_and_then_writes() -> None:
    async def scenario() -> None:
        page = Page()
        page.open(Kind.SIP, 1)
        waited: list[float] = []

        async def close(limit_s: float) -> int:
            assert side.hears is Hears.NOTHING
            waited.append(limit_s)
            return 0

        side: Any = SimpleNamespace(hears=Hears.ALL)  # Any: of each part, what is looked at
        call: Any = SimpleNamespace(state=CallState.RINGING)
        journal: Any = SimpleNamespace(close=close)
        up: Any = SimpleNamespace(state=CallState.UP)
        ending: Any = SimpleNamespace(state=CallState.ENDING)
        parting = Parting(page, {"1": up, "2": call, "3": ending}, side, journal, asyncio.get_running_loop())
        parting.drain()
        await asyncio.sleep(0.03)
        assert side.hears is Hears.NOTHING_NEW
        assert not page.get(Counter.HA_DRAINED)
        call.state = CallState.ANSWERED
        await asyncio.sleep(0.03)
        assert not page.get(Counter.HA_DRAINED)
        ending.state = CallState.UP
        until = time.monotonic() + 5
        while not page.get(Counter.HA_DRAINED):
            assert time.monotonic() < until
            await asyncio.sleep(0.005)
        await parting.leave(0.1)
        assert waited == [0.1]

    asyncio.run(scenario())
