"""How many calls each peer with a limit has in all SIP workers of a node, and when its rate lets it begin another one.

Words in memory that all processes of a node share. Every peer has a column; the supervisor claims columns, before the
workers that are to know them, and none is ever given to another peer. A column has a word for each worker, which only
that one writes: so there is no lock, and who dies leaves its calls counted for its successor. A worker that opens a
call counts it first and looks at the sum then, so two that do so at once never exceed a limit (they may both refuse).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable
from typing import Final

COLUMNS: Final = 16_384  # peers that ever had a limit in the life of a node; of more, each worker has its share
_DUE: Final = COLUMNS  # and on: by column, when the rate is used up to, in monotonic ns
_ENROLLED: Final = 2 * COLUMNS  # and on: by number of a worker
_ROWS: Final = _ENROLLED + 256


def size_of(workers: int) -> int:
    """Octets for so many workers at once."""
    return (_ROWS + workers * COLUMNS) * 8


class CallTally:
    """``memory`` of :func:`size_of` octets, zeros at first; None: for one worker, of this process alone."""

    __slots__ = ("_base", "_lives", "_words", "_workers")

    def __init__(self, workers: int = 1, memory: memoryview | None = None) -> None:
        self._words = (memory if memory is not None else memoryview(mmap.mmap(-1, size_of(workers)))).cast("Q")
        self._workers = workers
        self._lives: Callable[[int], bool] = lambda number: True
        self._base = _ROWS
        if memory is None:
            self._words[_ENROLLED] = 1

    def claim(self, peers: Iterable[str]) -> None:
        """Have a column for each of these, as far as there are any. For one process at a time."""
        for peer in peers:
            at, is_there = self._place(peer)
            if at >= 0 and not is_there:
                self._words[at] = _key(peer)

    def find(self, peer: str) -> int:
        """The column of a peer, -1 where it has none."""
        at, is_there = self._place(peer)
        return at if is_there else -1

    def enrol(self, number: int, lives: Callable[[int], bool], *, goes_on: bool) -> None:
        """This process is the worker of that number. ``lives`` says of a number whether its word counts. ``goes_on``:
        it is to take up the calls of a former life, which count until then (:meth:`mine`)."""
        self._base = _ROWS + number * COLUMNS
        self._lives = lives
        if not goes_on:
            for at in range(self._base, self._base + COLUMNS):
                self._words[at] = 0
        self._words[_ENROLLED + number] = 1

    def mine(self, column: int) -> int:
        """The calls of this worker."""
        return self._words[self._base + column]

    def tell(self, column: int, calls: int) -> None:
        """This worker has so many calls."""
        self._words[self._base + column] = calls

    def total(self, column: int) -> int:
        """The calls of all workers; -1 where one does not count, being of a release that did not."""
        total = 0
        for number in range(self._workers):
            if self._lives(number):
                if not self._words[_ENROLLED + number]:
                    return -1
                total += self._words[_ROWS + number * COLUMNS + column]
        return total

    def take(self, column: int, rate_per_s: float, now: float) -> bool:
        """Whether a rate lets one more call begin, see :func:`due_after`. Of two workers in the same microsecond, the
        call of one may go uncounted."""
        at = _DUE + column
        due = due_after(self._words[at] / 1e9, rate_per_s, now)
        if due is None:
            return False
        self._words[at] = int(due * 1e9)
        return True

    def _place(self, peer: str) -> tuple[int, bool]:
        """Where the key of a peer is, or could be; -1: there is no room."""
        key, words = _key(peer), self._words
        for step in range(COLUMNS):
            at = ((key >> 1) + step) % COLUMNS
            if words[at] in (0, key):
                return at, words[at] == key
        return -1, False


def due_after(due: float, rate_per_s: float, now: float) -> float | None:
    """Until when a rate is used up with one more call, where it was until ``due``; None where it lets none begin now:
    on average ``rate_per_s`` do, and one second's worth at once (at least one call)."""
    gap_s = 1.0 / rate_per_s
    after = max(due, now) + gap_s
    return after if after - now <= max(1.0, gap_s) + 1e-6 else None


def _key(peer: str) -> int:
    return int.from_bytes(hashlib.blake2b(peer.encode(), digest_size=8).digest(), "little") | 1
