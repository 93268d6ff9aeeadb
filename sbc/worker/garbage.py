"""When the garbage collector may run: it stops the worker for about a microsecond for each object that it looks at.

Calls leave no cycles behind, so nothing of a call waits for the collector. What does (a connection, an exception with
its traceback, a route of somebody's own) is little, and can wait until hardly anybody is kept waiting by it. Left to
itself the collector would look at everything just when most is going on: half a second at a thousand calls a second.

What is young is looked at as a sample: after a look that finds nothing the next few would hardly find more, and those
objects are set aside unseen until everything is looked at. Where a look does find something, all that is young is
looked at until nothing is found again.

In quiet moments the C library also gives back what a busy hour took: left to itself it keeps all that lies below the
last block in use.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

YOUNG = 50_000  # more objects than there were: only those are looked at, once, or none of them
SPARED = 15  # so many times none, after a look that found hardly any garbage
HARDLY = YOUNG // 1000
NEVER = 1_000_000_000
QUIET = 0.25  # of this worker's time is work: a pause hurts little
LOOKS = 30  # at the load, over which it is averaged
REST_S = 600.0  # from one look at everything to the next
LONGEST_S = 6 * 3600.0  # a worker that is never quiet has to do it as well
GIVE_BACK_S = 20.0  # from one time that memory is given back to the next


def _give_back() -> None:
    """Free pages of the heap go to the system; some milliseconds where there are many. Only glibc has this."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Garbage:
    """Looks at everything when :meth:`measured` finds the time fit for it. Times are those of a monotonic clock."""

    def __init__(self, now: float, give_back: Callable[[], None] = _give_back) -> None:
        self._looked_at = self._gave_back_at = now
        self._give_back = give_back
        self._busy = 1.0  # on average, of late
        self._spared = 0  # times that the young are not looked at any more before they are

    def start(self) -> None:
        """From now on nothing is collected by itself."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(NEVER, NEVER, NEVER)

    def measured(self, busy: float, now: float) -> bool:
        """The worker was busy for this share of the time just past; True when that has taken some of its time."""
        self._busy += (busy - self._busy) / LOOKS
        quiet = self._busy <= QUIET
        age_s = now - self._looked_at
        looks = age_s >= REST_S and (quiet or age_s >= LONGEST_S)
        if looks:
            self._looked_at = now
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        elif gc.get_count()[0] >= YOUNG:
            looks = self._look_at_the_young()
        gives = quiet and now - self._gave_back_at >= GIVE_BACK_S
        if gives:
            self._gave_back_at = now
            self._give_back()
        return looks or gives

    def _look_at_the_young(self) -> bool:
        """Or set them aside, which takes no time; True for a look."""
        if self._spared:
            self._spared -= 1
            gc.freeze()
            return False
        if gc.collect(0) <= HARDLY:
            self._spared = SPARED
        return True
