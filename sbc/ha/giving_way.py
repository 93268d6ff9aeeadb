"""What an active node does by order before it gives up its addresses: calls do not notice, but that new ones wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sbc.ha.media import MediaState
from sbc.ha.replication import Replication
from sbc.ha.silence import Speaking
from sbc.ha.slot import HaSlot
from sbc.telemetry.counters import Counter
from sbc.telemetry.role import Role

DRAIN_S = 0.6  # for calls in setup that cannot ring on at the other node yet, and those that end
LEAVE_S = 0.6  # how long workers may take to write what waits for the store, and calls that ring; media go on
COPIED_S = 0.05
ENDED_S = 0.1
LOOK_S = 0.003


async def until(holds: Callable[[], bool], limit_s: float) -> bool:
    """Whether it holds, looking again and again for so long at most."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(LOOK_S)
    return True


async def give_way(slot: HaSlot, token: int, media: MediaState, replication: Replication | None) -> None:
    """Calls in setup come up, those that end are over, what waits for the store is written, and whoever is not needed
    for media has ended; the other node knows nearly all of media. Nothing here takes longer than its limit."""
    pages = [page for name, page in slot.pages.items() if name.startswith("sip") and not page.is_spare]
    signalling = Speaking(pages)
    others = Speaking(page for name, page in slot.pages.items() if not name.startswith(("sip", "media")))
    try:
        slot.cell.set(Role.DRAINING, token)
        await until(lambda: all(page.get(Counter.HA_DRAINED) for page in pages), DRAIN_S)
        slot.cell.set(Role.LEAVING, token)
        await signalling.ended(LEAVE_S)
        if replication is not None:
            await replication.copied(COPIED_S)
        others.kill()
        await others.ended(ENDED_S)
        await media.tell_all()
    finally:
        signalling.close()
        others.close()
