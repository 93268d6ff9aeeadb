"""Which children live: a page that all supervisors of a node share, so that a new one finds what the last one had.

A row belongs to one child slot for good. The child writes its pid there before it does anything else; whoever is to
reap it (the supervisor that forked it, after that one's death the keeper) notes its end there before the pid can become
another's. So a row without an end names a process of ours.
"""

from __future__ import annotations

import mmap
import os

ROW_WORDS = 4
_PID, _ENDED, _STARTED, _NOTE = range(ROW_WORDS)


def size_of(rows: int) -> int:
    """Octets of the memory of so many rows."""
    return rows * ROW_WORDS * 8


class Roll:
    """``rows`` rows in memory that every fork of this process shares."""

    __slots__ = ("_memory", "_words", "rows")

    def __init__(self, rows: int, memory: memoryview | None = None) -> None:
        self.rows = rows
        self._memory = memory if memory is not None else memoryview(mmap.mmap(-1, size_of(rows)))
        self._words = self._memory.cast("Q")

    def begin(self, row: int, pid: int, started_ns: int, note: int = 0) -> None:
        """A child lives there from ``started_ns`` (monotonic) on."""
        at = row * ROW_WORDS
        self._words[at + _PID] = 0
        self._words[at + _ENDED] = 0
        self._words[at + _STARTED] = started_ns
        self._words[at + _NOTE] = note
        self._words[at + _PID] = pid

    def clear(self, row: int) -> None:
        """Nobody lives there, and that is known."""
        self._words[row * ROW_WORDS + _PID] = 0

    def pid(self, row: int) -> int:
        """Who lives there, or has ended without anybody's having taken it in; 0: nobody."""
        return self._words[row * ROW_WORDS + _PID]

    def started_s(self, row: int) -> float:
        """When it began, monotonic."""
        return self._words[row * ROW_WORDS + _STARTED] / 1e9

    def note(self, row: int) -> int:
        """Whatever the supervisor wants its successor to know."""
        return self._words[row * ROW_WORDS + _NOTE]

    def set_note(self, row: int, note: int) -> None:
        """See :meth:`note`."""
        self._words[row * ROW_WORDS + _NOTE] = note

    def ended(self, row: int) -> int | None:
        """The wait status with which it ended, None while it lives."""
        ended = self._words[row * ROW_WORDS + _ENDED]
        return ended - 1 if ended else None

    def end(self, pid: int, status: int) -> None:
        """This child has ended; of one that is in no row nothing is noted."""
        for row in range(self.rows):
            if self.pid(row) == pid:
                self._words[row * ROW_WORDS + _ENDED] = status + 1

    def living(self) -> list[int]:
        """The pids of all rows without an end."""
        return [self.pid(row) for row in range(self.rows) if self.pid(row) and self.ended(row) is None]

    def close(self) -> None:
        """In a worker, which has no business with the pids of others."""
        self._words.release()
        self._memory.release()


def reap(roll: Roll) -> list[tuple[int, int]]:
    """Take in every child of this process that has ended; pid and wait status of each."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return found
        if seen is None:
            return found
        status = seen.si_status << 8 if seen.si_code == os.CLD_EXITED else seen.si_status
        roll.end(seen.si_pid, status)  # first: its pid is nobody else's yet
        os.waitpid(seen.si_pid, 0)
        found.append((seen.si_pid, status))
