"""What ``sbc status`` asks the pages for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from media.counters import MediaCounter
from sbc.management.api import Api
from sbc.management.slot import ControlSlot
from sbc.telemetry.counters import WORD_KIND, Kind
from sbc.telemetry.page import Page


def test_levels_of_media_workers_are_told_together() -> None:
    pages = {name: Page() for name in ("media 0", "media 1", "control")}
    for number, (name, page) in enumerate(pages.items()):
        page.words[WORD_KIND] = Kind.MEDIA if name.startswith("media") else Kind.CONTROL
        page.words[MediaCounter.PORTS_BOUND] = 10 + number
    config = SimpleNamespace(node="n", state_dir="")
    slot = cast(ControlSlot, SimpleNamespace(pages=pages, cell=None, config=config))
    api = Api(slot, dict, dict, list)
    told = asyncio.run(api.status({}))
    assert told["media"] == {"sessions_active": 0, "ports_free": 0, "ports_quarantined": 0, "ports_bound": 21}
