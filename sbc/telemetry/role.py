"""Which role this node has in its pair: words of shared memory that one process writes, and a nudge for the others.

Made before the first fork, so whoever starts later sees the same. Only the process ``ha`` writes it.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import IntEnum

_ROLE, _TOKEN, _SINCE, _SILENCED = range(4)
_WORDS = 128
SIZE = _WORDS * 8
_SURE = 4
STOOD_STILL = 0.7  # of what the other node takes for a death: who stood still for longer asks before it says anything
_CLEAN = 16  # and on: by media slot, which silence its memory was last emptied after


class Role(IntEnum):
    """What a worker does."""

    PASSIVE = 0  # is there, and says nothing
    ACTIVE = 1
    LEAVING = 2  # is about to be passive by order: what waits for the store is written first
    DRAINING = 3  # before that: no call begins or ends any more, but those that are about to


class RoleCell:
    """``names`` are the workers that are to be nudged; ``memory`` of :data:`SIZE` octets and ``bells`` (descriptors by
    name) are those of a cell that there is already."""

    def __init__(
        self, names: Iterable[str], memory: memoryview | None = None, bells: Mapping[str, int] | None = None
    ) -> None:
        self._memory = memory if memory is not None else memoryview(mmap.mmap(-1, SIZE))
        self._words = self._memory.cast("Q")
        if bells is None:
            self._words[_SILENCED] = 1  # what a former run of the node held is not gone on with either
        former = bells or {}
        self.bells = {
            name: former[name] if name in former else os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for name in names
        }

        self.now: Callable[[], float] = time.monotonic

    @property
    def role(self) -> Role:
        return Role(self._words[_ROLE])

    @property
    def is_active(self) -> bool:
        return self._words[_ROLE] == Role.ACTIVE

    @property
    def token(self) -> int:
        """The fencing token: that of this node while it is active, else the latest that it had or gave up."""
        return self._words[_TOKEN]

    @property
    def since_ns(self) -> int:
        """Monotonic nanoseconds of the last change."""
        return self._words[_SINCE]

    @property
    def silenced(self) -> int:
        """How often this node fell silent."""
        return self._words[_SILENCED]

    def set(self, role: Role, token: int, *, nudge: bool = True) -> None:
        """Change it and nudge everybody, or leave that to :meth:`nudge`."""
        words = self._words
        if role is Role.PASSIVE and words[_ROLE] != Role.PASSIVE:
            words[_SILENCED] += 1
        words[_TOKEN] = token
        words[_ROLE] = role
        words[_SINCE] = time.monotonic_ns()
        self.sure()
        if nudge:
            self.nudge()

    def nudge(self) -> None:
        """Everybody is to look at the role."""
        for bell in self.bells.values():
            os.eventfd_write(bell, 1)

    def sure(self) -> None:
        """This node knows now that its role is its own; said again and again while it is active."""
        self._words[_SURE] = int(self.now() * 1e9)

    @property
    def sure_s(self) -> float:
        """Monotonic seconds of when that was last."""
        return self._words[_SURE] / 1e9

    def bell(self, name: str) -> int:
        """A descriptor that is readable once the role has changed; :meth:`heard` before looking at the role."""
        return self.bells[name]

    def heard(self, name: str) -> None:
        """The nudge was noticed."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.bells[name])

    def must_empty(self, slot: int) -> bool:
        """Whether a media worker that starts finds what it held before the node fell silent; asked once per silence."""
        words = self._words
        if words[_CLEAN + slot % 64] == words[_SILENCED]:
            return False
        words[_CLEAN + slot % 64] = words[_SILENCED]
        return True

    def close(self) -> None:
        for bell in self.bells.values():
            os.close(bell)
        self._words.release()
        self._memory.release()
