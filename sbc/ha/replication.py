"""The embedded stores of a pair: that of the passive node follows that of the active one.

What is so is compared with what should be, several times a second, and put right: so a store that has started anew, a
path that is gone or a peer that changed its role need no case of their own. A node begins passive, and so never as a
primary that others would copy nothing from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from sbc.errors import StoreError
from sbc.store.breaker import Breaker
from sbc.store.pipe import Pipe, Refusal
from sbc.store.url import StoreAddress

DEADLINE_S = 0.2
LOST_S = 1.5  # a link that is down for so long is tried by another path


class Replication:
    """``port`` is the peer's; ``turn`` is to be awaited again and again, ``promote`` once at a take-over."""

    def __init__(self, address: StoreAddress, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.reason = "it was not looked at yet"  # why it is no copy of the active one, empty where it is
        self.follows = ""  # whom it follows
        self._port = port
        self._loop = loop
        self._down_since_s: float | None = None
        self._pipe = Pipe(
            address, loop, deadline_s=DEADLINE_S, attempt_s=0.3, breaker=Breaker(first_s=0.05, longest_s=0.25)
        )

    def start(self) -> None:
        """Begin to connect."""
        self._pipe.start()

    def close(self) -> None:
        self._pipe.close()

    def describe(self) -> str:
        """For the operator."""
        if not self.follows:
            return "the store here follows nobody" + (f", and {self.reason}" if self.reason else "")
        return f"the store here follows {self.follows}, and {self.reason or 'has all that is there'}"

    async def promote(self) -> None:
        """It follows nobody from now on, and takes what is written. Nothing is raised: ``turn`` tries again."""
        try:
            await self._pipe.call("REPLICAOF", "NO", "ONE")
            self.reason, self.follows, self._down_since_s = "", "", None
        except (Refusal, StoreError) as error:
            self.reason = str(error)

    async def copied(self, timeout_s: float) -> None:
        """Wait until the peer's store has what this one has, so long at most."""
        with suppress(Refusal, StoreError):
            await self._pipe.call("WAIT", 1, round(timeout_s * 1000))

    async def turn(self, *, active: bool, hosts: Sequence[str]) -> None:
        """Look, and put right. ``hosts``: where the active peer's store is reached, the best first; empty: unknown."""
        try:
            told = await self._pipe.call("INFO", "replication")
            said = dict(line.split(":", 1) for line in told.decode("utf-8", "replace").split("\r\n") if ":" in line)
            if active:
                await self._lead(said)
            else:
                await self._follow(said, hosts)
        except (Refusal, StoreError) as error:
            self.reason = f"it does not answer: {error}"

    async def _lead(self, said: dict[str, str]) -> None:
        self.follows = ""
        self.reason = ""
        if said.get("role") != "master":
            await self._pipe.call("REPLICAOF", "NO", "ONE")

    async def _follow(self, said: dict[str, str], hosts: Sequence[str]) -> None:
        is_replica, host = said.get("role") == "slave", said.get("master_host", "")
        up = is_replica and said.get("master_link_status") == "up" and said.get("master_sync_in_progress") == "0"
        self.follows = host if is_replica else ""
        now = self._loop.time()
        if up and (not hosts or host in hosts):
            self.reason, self._down_since_s = "", None
            return
        if self._down_since_s is None:
            self._down_since_s = now
        if not hosts:
            self.reason = "no active node is heard to be followed"
            return
        late = now - self._down_since_s > LOST_S and said.get("master_sync_in_progress") != "1"
        if not is_replica or host not in hosts or late:
            others = [one for one in hosts if one != host] or list(hosts)
            self._down_since_s = now
            target = others[0] if is_replica and host in hosts else hosts[0]
            await self._pipe.call("REPLICAOF", target, self._port)
            self.follows = target
        self.reason = f"it does not yet have all that {self.follows} has"
