"""Who is told where the addresses are, and when nobody is."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_interface

import pytest

from sbc.ha import addresses, held
from sbc.ha.addresses import Virtual
from sbc.ha.held import Held


@pytest.mark.parametrize(("stands_still_s", "told"), [(0.0, 3), (0.3, 1)])
def test_who_stood_still_announces_nothing_late(
    monkeypatch: pytest.MonkeyPatch, stands_still_s: float, told: int
) -> None:
    """The other node may have the addresses by then; announced again they are all the same where they are ours."""
    said: list[Virtual] = []
    monkeypatch.setattr(addresses, "announce", said.append)
    monkeypatch.setattr(held, "ANNOUNCE_S", (0.0, 0.02, 0.04))
    monkeypatch.setattr(held, "LATE_S", 0.2)

    async def scenario() -> None:
        virtual = Virtual(ip_interface("192.0.2.10/24"), "lo")
        made = Held([virtual], asyncio.get_running_loop())
        made.announce()
        await asyncio.sleep(0.001)
        assert said
        time.sleep(stands_still_s)  # noqa: ASYNC251  # as all of it stops
        await asyncio.sleep(0.1)
        assert len(said) == told
        made.announce()
        await asyncio.sleep(0.1)
        assert len(said) == told + 3

    asyncio.run(scenario())
