"""The virtual addresses that this node has, or gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sbc.ha import addresses
from sbc.ha.addresses import AddressError, Virtual
from sbc.telemetry import log

ANNOUNCE_S = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)  # after the take-over: any one announcement may be lost
LOOK_S = 0.25
LATE_S = 0.3  # whoever stood still for so long may have been replaced, and is to call nobody here


class Held:
    """``faults``: why one could not be taken, by address. ``without_carrier``: interfaces whose cable leads nowhere."""

    def __init__(self, virtual: Sequence[Virtual], loop: asyncio.AbstractEventLoop) -> None:
        self.virtual = virtual
        self.faults: dict[str, str] = {}
        self.without_carrier: list[str] = []
        self._loop = loop
        self._log = log.get()
        self._looked_s = float("-inf")
        self._announcing: asyncio.Task[None] | None = None

    def take(self) -> None:
        """All of them from now on, and let the neighbours know."""
        self._keep()
        self.announce()

    def announce(self) -> None:
        """Let the neighbours know again: somebody may have told them otherwise."""
        self._hush()
        self._announcing = self._loop.create_task(self._announce())

    def drop(self) -> None:
        """None of them. What cannot be given up is in the log."""
        self._hush()
        self.faults.clear()
        for virtual in self.virtual:
            try:
                addresses.remove(virtual)
            except AddressError as error:
                self._log.error("a virtual address cannot be given up", reason=str(error))

    def looked(self, now: float, *, active: bool) -> bool:
        """Look at the interfaces, at most every LOOK_S; whether an active node serves nobody, having found one without
        a carrier twice in a row."""
        if now < self._looked_s + LOOK_S:
            return False
        self._looked_s = now
        before = self.without_carrier
        interfaces = {virtual.interface for virtual in self.virtual}
        self.without_carrier = sorted(name for name in interfaces if not addresses.has_carrier(name))
        if active:
            self._keep()
        return active and bool(before and self.without_carrier)

    def _keep(self) -> None:
        """What is not there is put there: an interface that was down for a while has lost some."""
        fresh = []
        for virtual in self.virtual:
            try:
                is_new = addresses.add(virtual)
            except AddressError as error:
                if str(virtual) not in self.faults:
                    self._log.error("a virtual address cannot be taken", reason=str(error))
                self.faults[str(virtual)] = str(error)
                continue
            self.faults.pop(str(virtual), None)
            if is_new:
                fresh.append(virtual)
        addresses.announce(*fresh)

    async def _announce(self) -> None:
        began = self._loop.time()
        for at in ANNOUNCE_S:
            await asyncio.sleep(max(0.0, began + at - self._loop.time()))
            if self._loop.time() - began - at > LATE_S:
                return
            addresses.announce(*self.virtual)

    def _hush(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None
