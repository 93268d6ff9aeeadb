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
        call: Any = SimpleNamespace(state=CallState.SETUP)
        saved: list[object] = []
        journal: Any = SimpleNamespace(close=close, save=saved.append)
        up: Any = SimpleNamespace(state=CallState.UP)
        ending: Any = SimpleNamespace(state=CallState.ENDING)
        calls = {"1": up, "2": call, "3": ending}
        core: Any = SimpleNamespace(calls=calls, hand_on=lambda now: iter([f"record at {now}"]))
        turns: list[float] = []
        loop = asyncio.get_running_loop()
        parting = Parting(page, core, side, journal, loop, lambda: 7.0, lambda: turns.append(7.0))
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
        assert saved == ["record at 7.0"]
        assert turns

    asyncio.run(scenario())
