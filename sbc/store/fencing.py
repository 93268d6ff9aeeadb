"""What may go away: records, indexes and foreign content, never what a later owner has.

An owner that was stopped for a while does not know that it has a successor. So nothing is removed by a plain command:
scripts look first whose it is. All of it is rare, and sent once; what fails is met again by whatever comes next.
"""

from __future__ import annotations

from sbc.store.keys import QUARANTINE_TTL_S, Keys
from sbc.store.pipe import Pipe, Reply
from sbc.store.script import Script


class Fencing:
    """Over one pipe, for one node's keys. ``ceiling``: an owner above it is later than us; ``token``: that of our node
    in its pair, 0 where it has none."""

    def __init__(self, pipe: Pipe, keys: Keys) -> None:
        self._pipe = pipe
        self._keys = keys
        self._drop = Script("drop")
        self._mend = Script("mend")
        self._incarnate = Script("incarnation")

    def drop(self, member: str, shard: int, ceiling: int, token: int, *, aside_s: int = 0) -> None:
        """Remove a record and its place in the index; with ``aside_s`` it is kept aside for so long."""
        keys = self._keys
        names = [keys.call(member), keys.shard(shard), keys.bad(member)]
        arguments: list[str | int] = [member, ceiling, aside_s]
        if token:
            names.append(keys.token)
            arguments.append(token)
        self._drop.send_source(self._pipe, _ignore, len(names), *names, *arguments)

    def quarantine(self, member: str, shard: int, ceiling: int, token: int) -> None:
        """Set a record aside that nobody could read."""
        self.drop(member, shard, ceiling, token, aside_s=QUARANTINE_TTL_S)

    def mend(self, key: str, kind: str, aside: str = "") -> None:
        """Remove what is of another type than ``kind`` there, or rename it."""
        names = [key, aside] if aside else [key]
        self._mend.send_source(self._pipe, _ignore, len(names), *names, kind)

    def counted(self, incarnation: int) -> None:
        """Have the store count on from there, if it has lost count: the next worker must be above us."""
        self._incarnate.send_source(self._pipe, _ignore, 1, self._keys.incarnation, incarnation, 1)


def _ignore(_: Reply) -> None:
    """Whether it was done, or was somebody else's."""
