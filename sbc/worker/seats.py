"""Which SIP worker has which shards: words in memory that all processes of a node share.

A worker has a number of its own for its whole life; calls belong to seats, ``shard % seats``. Usually worker 0 sits on
seat 0, and so on. A worker that is relieved by another one gives its seat up to it, and where the number of seats
changes all are relieved at once. There are two arrangements: the one in force, and the one that is prepared beside it.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from typing import Final

MOST: Final = 240  # workers; the numbers of stream connections have room for 256
SIZE: Final = 8192
_VERSION: Final = 0
_MEDIA_PAUSE: Final = 1  # until when, in monotonic ns
_SIDE: Final = 8, 8 + 1 + MOST  # count and numbers of either arrangement
_STATE: Final = 512  # and on: by number of a worker
NOBODY, SERVES, RELIEVES = range(3)  # the last: those that have the seats now, or have not ended yet


class Seats:
    """Made by the keeper with ``count`` seats; ``memory`` of :data:`SIZE` octets, None: of this process and its forks.

    ``numbers`` is a copy by seat that a worker has for its hot path, as of ``version``: :meth:`look` brings it up to
    date.
    """

    __slots__ = ("_memory", "numbers", "version", "words")

    def __init__(self, count: int = 1, memory: memoryview | None = None, *, former: bool = False) -> None:
        self._memory = memory if memory is not None else memoryview(mmap.mmap(-1, SIZE))
        self.words = self._memory.cast("Q")
        if not former:
            self.prepare(range(count))
            self.words[_VERSION] = 1
            for number in range(count):
                self.mark(number, SERVES)
        self.version = 0
        self.numbers: list[int] = []
        self.look()

    def look(self) -> bool:
        """Bring ``numbers`` up to date; whether that changed something."""
        version = self.words[_VERSION]
        if version == self.version:
            return False
        self.version, self.numbers = version, self._read(version)
        return True

    def owner(self, shard: int) -> int:
        """The worker that has a shard now."""
        self.look()
        return self.numbers[shard % len(self.numbers)]

    def prepare(self, numbers: Sequence[int]) -> None:
        """Write the arrangement that is to follow; ValueError for too many."""
        if not 1 <= len(numbers) <= MOST:
            raise ValueError(f"{len(numbers)} SIP workers are not within 1 to {MOST}")
        at = _SIDE[(self.words[_VERSION] + 1) % 2]
        self.words[at] = len(numbers)
        for seat, number in enumerate(numbers):
            self.words[at + 1 + seat] = number

    @property
    def prepared(self) -> list[int]:
        """The numbers by seat that :meth:`prepare` was given last."""
        return self._read(self.words[_VERSION] + 1)

    def turn(self, former: int) -> None:
        """What was prepared beside arrangement ``former`` is in force; without effect where it is already."""
        if self.words[_VERSION] == former:
            self.words[_VERSION] = former + 1

    def mark(self, number: int, state: int) -> None:
        """What this worker does, as the supervisor knows: :data:`NOBODY`, :data:`SERVES` or :data:`RELIEVES`."""
        self.words[_STATE + number] = state

    def lives(self, number: int) -> bool:
        """Whether there is such a worker, be it that it has just died and starts again."""
        return number < MOST and self.words[_STATE + number] != NOBODY

    def relieves(self, number: int) -> bool:
        """Whether this one is about to relieve others, or does so."""
        return self.words[_STATE + number] == RELIEVES

    def pause_media(self, seconds: float) -> None:
        """A media worker is being replaced: for so long nobody is to take it for dead."""
        self.words[_MEDIA_PAUSE] = time.monotonic_ns() + int(seconds * 1e9)

    def is_media_pause(self) -> bool:
        """See :meth:`pause_media`."""
        return time.monotonic_ns() < self.words[_MEDIA_PAUSE]

    def _read(self, version: int) -> list[int]:
        at = _SIDE[version % 2]
        return [self.words[at + 1 + seat] for seat in range(self.words[at])]

    def close(self) -> None:
        """Let go of the memory."""
        self.words.release()
        self._memory.release()
