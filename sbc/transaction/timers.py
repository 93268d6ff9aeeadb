"""Timers of the core: started, cancelled and fired in constant time, by a `now` that is always an argument.

A SIP node starts a timer for nearly every datagram and cancels most of them, with few distinct durations (T1, 64*T1,
T4 ...). So there is one FIFO per duration: `now` never runs backwards, hence each is in order of its deadlines by
construction. A small heap holds the FIFOs that are not empty, by the deadline at their head.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import Final

_COMPACT_FROM: Final = 64  # cancelled timers that a FIFO may carry whatever its length
_KEEP_FIFOS: Final = 256  # empty FIFOs are kept for their next timer up to this many


@dataclass(frozen=True, slots=True)
class Settings:
    """Base timers in seconds (RFC 3261 §17.1.1.1, §17.1.2.2) and Timer C (§16.6 step 11)."""

    t1_s: float = 0.5
    t2_s: float = 4.0
    t4_s: float = 5.0
    timer_c_s: float = 180.0


class Timer:
    """One started timer; `deadline` is monotonic seconds."""

    __slots__ = ("_callback", "_fifo", "deadline")

    def __init__(self, deadline: float, callback: Callable[[float], None], fifo: _Fifo) -> None:
        self.deadline = deadline
        self._callback: Callable[[float], None] | None = callback
        self._fifo = fifo

    @property
    def active(self) -> bool:
        """True until the timer has fired or was cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never fire. What the callback holds is released at once; after firing this does nothing."""
        if self._callback is None:
            return
        self._callback = None
        fifo = self._fifo
        fifo.dead += 1
        if fifo.dead > _COMPACT_FROM and fifo.dead * 2 > len(fifo.entries):
            fifo.entries = deque([timer for timer in fifo.entries if timer.active])
            fifo.dead = 0


class _Fifo:
    """Timers of one duration, the earliest at the head; `dead` of them are cancelled."""

    __slots__ = ("dead", "delay_s", "entries", "in_heap")

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.entries: deque[Timer] = deque()
        self.dead = 0
        self.in_heap = False


class TimerQueue:
    """All timers of one core.

    Durations are rounded up to whole milliseconds (at least one), above 60 s to whole seconds, which bounds the number
    of FIFOs. A `now` that lies before an earlier one is taken for that earlier one.
    """

    __slots__ = ("_fifos", "_heap", "_serial", "now")

    def __init__(self) -> None:
        self.now = -math.inf  # the latest time that was seen
        self._fifos: dict[float, _Fifo] = {}
        self._heap: list[tuple[float, int, _Fifo]] = []
        self._serial = 0

    def __len__(self) -> int:
        """Timers that will fire."""
        return sum(len(fifo.entries) - fifo.dead for fifo in self._fifos.values())

    def start(self, delay_s: float, callback: Callable[[float], None], now: float) -> Timer:
        """Call `callback(now)` from the first `fire` at or after `now + delay_s`."""
        if now < self.now:
            now = self.now
        else:
            self.now = now
        fifo = self._fifos.get(delay_s)  # the usual durations are whole already
        if fifo is None:
            fifo = self._fifo(_whole(delay_s))
        timer = Timer(now + fifo.delay_s, callback, fifo)
        fifo.entries.append(timer)
        if not fifo.in_heap:
            fifo.in_heap = True
            self._push(timer.deadline, fifo)
        return timer

    def next_deadline(self) -> float | None:
        """When `fire` has something to do, or None."""
        heap = self._heap
        while heap:
            deadline, _, fifo = heap[0]
            head = _head(fifo)
            if head is not None and head.deadline == deadline:
                return deadline
            self._settle(head, fifo)
        return None

    def fire(self, now: float) -> None:
        """Call back every timer that is due, by deadline. An exception of a callback leaves the others in place."""
        if now < self.now:
            now = self.now
        else:
            self.now = now
        heap = self._heap
        while heap and heap[0][0] <= now:
            deadline, _, fifo = heap[0]
            head = _head(fifo)
            if head is None or head.deadline != deadline:
                self._settle(head, fifo)
                continue
            fifo.entries.popleft()
            self._settle(_head(fifo), fifo)
            callback = head._callback
            head._callback = None
            if callback is not None:
                callback(now)

    def _fifo(self, delay_s: float) -> _Fifo:
        fifo = self._fifos.get(delay_s)
        if fifo is None:
            fifo = self._fifos[delay_s] = _Fifo(delay_s)
        return fifo

    def _settle(self, head: Timer | None, fifo: _Fifo) -> None:
        """`fifo`, at the top of the heap, now begins with `head`: move it to where it belongs, or out."""
        if head is not None:
            self._serial += 1
            heapreplace(self._heap, (head.deadline, self._serial, fifo))
            return
        heappop(self._heap)
        fifo.in_heap = False
        if len(self._fifos) > _KEEP_FIFOS:
            del self._fifos[fifo.delay_s]

    def _push(self, deadline: float, fifo: _Fifo) -> None:
        self._serial += 1  # keeps the heap from comparing FIFOs
        heappush(self._heap, (deadline, self._serial, fifo))


def _head(fifo: _Fifo) -> Timer | None:
    """The earliest timer that is not cancelled; the cancelled before it are dropped."""
    entries = fifo.entries
    while entries:
        timer = entries[0]
        if timer._callback is not None:
            return timer
        entries.popleft()
        fifo.dead -= 1
    return None


def _whole(delay_s: float) -> float:
    """Rounded up to milliseconds (at least 1: a timer may not fire in the `fire` that started it), above 60 s to s."""
    if delay_s > 60.0:
        return float(math.ceil(delay_s))
    # 1e-6 ms forgives the binary fraction: 0.7 * 1000 is a little more than 700
    return max(1, math.ceil(delay_s * 1000 - 1e-6)) / 1000
