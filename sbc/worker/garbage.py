"""When the garbage collector may run: it stops the worker for about a microsecond for each object that it looks at.

Calls leave no cycles behind, so nothing of a call waits for the collector. What does (a connection, an exception with
its traceback, a route of somebody's own) is little, and can wait until hardly anybody is kept waiting by it. Left to
itself the collector would look at everything just when most is going on: half a second at a thousand calls a second.
"""

from __future__ import annotations

import gc

YOUNG = 50_000  # more objects than there were: only those are looked at, once, at once
NEVER = 1_000_000_000
QUIET = 0.25  # of this worker's time is work: a pause hurts little
LOOKS = 30  # at the load, over which it is averaged
REST_S = 600.0  # from one look at everything to the next
LONGEST_S = 6 * 3600.0  # a worker that is never quiet has to do it as well


class Garbage:
    """Looks at everything when :meth:`measured` finds the time fit for it. Times are those of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._looked_at = now
        self._busy = 1.0  # on average, of late

    def start(self) -> None:
        """From now on only what is young is collected by itself; what lives now lives long, and is never looked at."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, NEVER, NEVER)

    def measured(self, busy: float, now: float) -> bool:
        """The worker was busy for this share of the time just past; True when everything was looked at."""
        self._busy += (busy - self._busy) / LOOKS
        age_s = now - self._looked_at
        if age_s < REST_S or (self._busy > QUIET and age_s < LONGEST_S):
            return False
        self._looked_at = now
        gc.collect()
        return True
