"""A page of counters in shared memory: one process writes it, others read it while it lives and after."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Final

from sbc.telemetry.counters import (
    GAUGES,
    MAGIC,
    VERSION_BYTES,
    WORD_BEAT,
    WORD_KIND,
    WORD_MAGIC,
    WORD_PID,
    WORD_READY,
    WORD_RESTARTS,
    WORD_SPARE,
    WORD_START,
    WORD_VERSION,
    WORDS,
    Counter,
    Kind,
)

LEAVING: Final = 2  # in WORD_SPARE: its process ends as soon as its calls are with another one
_WORD: Final[dict[str, int]] = {name: int(member) for name, member in Counter.__members__.items()}
_OTHER: Final = int(Counter.OTHER)


class Page:
    """The counters of one process.

    ``words`` is the page as 512 unsigned 64-bit words; a hot path may write it directly. ``on_unknown`` is called
    once for each name that :meth:`count` does not know, so that the process can log it.
    """

    __slots__ = ("_memory", "_unknown", "on_unknown", "words")

    def __init__(self, memory: memoryview | None = None) -> None:
        # Anonymous and shared where none is given: a fork inherits the same memory.
        self._memory = memory if memory is not None else memoryview(mmap.mmap(-1, WORDS * 8))
        self.words = self._memory.cast("Q")
        self.on_unknown: Callable[[str], None] | None = None
        self._unknown: set[str] = set()

    def open(
        self, kind: Kind, pid: int, *, version: str = "", now_ns: int | None = None, wall_ns: int | None = None
    ) -> None:
        """Begin a life: write the header, reset the gauges, keep the counters. A page opened before is a respawn."""
        words = self.words
        if words[WORD_MAGIC] == MAGIC:
            words[WORD_RESTARTS] += 1
        if kind is not Kind.MEDIA:
            for gauge in GAUGES:
                words[gauge] = 0
        words[WORD_READY] = 0
        words[WORD_PID] = pid
        words[WORD_KIND] = kind
        words[WORD_BEAT] = time.monotonic_ns() if now_ns is None else now_ns
        words[WORD_START] = time.time_ns() if wall_ns is None else wall_ns
        words[WORD_SPARE] = 0
        self.tell_version(version)
        words[WORD_MAGIC] = MAGIC

    def tell_version(self, version: str) -> None:
        """Which release the process runs."""
        text = version.encode("ascii", "replace")[: VERSION_BYTES - 1].ljust(VERSION_BYTES, b"\0")
        for word in range(VERSION_BYTES // 8):
            self.words[WORD_VERSION + word] = int.from_bytes(text[8 * word : 8 * word + 8], "little")

    def retire(self) -> None:
        """Its process has ended in order and has no successor here: counters stay, levels are 0."""
        words = self.words
        for gauge in GAUGES:
            words[gauge] = 0
        words[WORD_READY] = words[WORD_PID] = 0
        words[WORD_SPARE] = 1

    def add(self, counter: int, amount: int = 1) -> None:
        """Add to a word; a gauge may fall, but not below 0."""
        value = self.words[counter] + amount
        self.words[counter] = value if value > 0 else 0

    def count(self, name: str, n: int = 1) -> None:
        """Add to the counter of this name; an unknown name counts as OTHER and never raises."""
        word = _WORD.get(name)
        if word is None:
            word = _OTHER
            if name not in self._unknown and len(self._unknown) < 100:
                self._unknown.add(name)
                if self.on_unknown is not None:
                    self.on_unknown(name)
        value = self.words[word] + n
        self.words[word] = value if value > 0 else 0

    def set(self, counter: int, value: int) -> None:
        """Set a gauge (0 or more)."""
        self.words[counter] = value

    def get(self, counter: int) -> int:
        """Read one word."""
        return self.words[counter]

    def beat(self) -> None:
        """Say that the process is alive: at least once a second, or the watchdog ends it after three."""
        self.words[WORD_BEAT] = time.monotonic_ns()

    def ready(self) -> None:
        """Say that the process serves; until then its death at boot halts the whole node."""
        self.beat()
        self.words[WORD_READY] = 1

    @property
    def is_ready(self) -> bool:
        return self.words[WORD_READY] == 1

    @property
    def is_spare(self) -> bool:
        """Whether no process is meant to be here now."""
        return self.words[WORD_SPARE] == 1

    @property
    def is_leaving(self) -> bool:
        """Whether another process has relieved this one."""
        return self.words[WORD_SPARE] == LEAVING

    @property
    def version(self) -> str:
        """The release that the present process runs, as far as it is known."""
        words = range(WORD_VERSION, WORD_VERSION + VERSION_BYTES // 8)
        text = b"".join([self.words[word].to_bytes(8, "little") for word in words])
        return text.rstrip(b"\0").decode("ascii")

    @property
    def pid(self) -> int:
        return self.words[WORD_PID]

    @property
    def beat_ns(self) -> int:
        """Monotonic nanoseconds of the last beat."""
        return self.words[WORD_BEAT]

    @property
    def start_s(self) -> float:
        """Wall-clock seconds at which the present process began."""
        return self.words[WORD_START] / 1e9

    @property
    def restarts(self) -> int:
        """How many times a process took over this page."""
        return self.words[WORD_RESTARTS]

    def close(self) -> None:
        """Let go of the memory, in a process that has no business with this page."""
        self.words.release()
        self._memory.release()

    def values(self) -> dict[Counter, int]:
        """Every counter and gauge."""
        return {counter: self.words[counter] for counter in Counter}
