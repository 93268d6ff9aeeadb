"""The media sessions of the pair: the active node tells of them, the passive one keeps them ready in idle workers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from media.counters import MediaCounter
from media.replication.link import Link
from sbc.ha.beat import key_of
from sbc.ha.slot import HaSlot
from sbc.telemetry import log


class MediaState:
    """``is_kept``: the passive node has everything, seen from either side."""

    def __init__(self, slot: HaSlot) -> None:
        assert slot.config.ha is not None
        self._slot = slot
        self._log = log.get()
        paths = [(path.local, path.peer) for path in slot.config.ha.paths]
        key = key_of(slot.key, f"media {slot.config.node}")
        self._link = Link(key, paths, slot.media_states, slot.media_sessions, self._log.write)

    async def start(self, *, active: bool) -> None:
        """Begin in a role."""
        await self._link.start()
        if active:
            self._link.lead()
        else:
            self._link.follow()

    async def close(self) -> None:
        """End the connection."""
        await self._link.close()

    def prepare(self, token: int) -> int:
        """This node is about to be the active one, under this token; before, no worker may go on with what is kept. How
        many sessions that are."""
        found = self._link.take_over(token)
        sessions = sum(one.sessions for one in found)
        if sessions:
            furthest = max(one.furthest for one in found)
            given_up = sum(one.given_up for one in found)
            self._log.warning("media taken over", sessions=sessions, given_up=given_up, packets_skipped=furthest)
        return sessions

    def go_on(self) -> None:
        """It is: the idle workers take the sessions over, and the other node is told from now on."""
        for name, page in self._slot.pages.items():
            if name.startswith("media") and page.pid:
                with suppress(ProcessLookupError):
                    os.kill(page.pid, signal.SIGUSR1)
        self._link.lead()

    def taken_up(self) -> int:
        """How many sessions the workers of this node have."""
        pages = (page for name, page in self._slot.pages.items() if name.startswith("media"))
        return sum(page.get(MediaCounter.SESSIONS_ACTIVE) for page in pages)

    async def tell_all(self) -> None:
        """What there is, so that little is left to tell in the end."""
        await self._link.flush()

    async def finish(self) -> None:
        """No worker of this node has anything to say any more: the last of it, before the other node takes over."""
        if not await self._link.finish():
            self._log.warning("the other node may not have heard all of media: its SRTP leaps ahead")

    def stand_by(self) -> None:
        """This node is the passive one."""
        self._link.follow()

    @property
    def is_kept(self) -> bool:
        return bool(self._link.describe()["synced"])

    def describe(self) -> dict[str, object]:
        """For ``sbc ha status``."""
        return self._link.describe()
