"""How many new calls to refuse when there is more to do than time: early and cheaply, so that the rest go well.

A server that takes everything answers nothing in time: peers retransmit, and the load doubles. So new INVITEs are
refused at once (503 with Retry-After, no state): a share of them that follows how long what comes has to wait, and all
of them while that is too long. How busy the worker is does not count: one that is always busy and in time is well used.
"""

from __future__ import annotations

import math
from typing import Final

TARGET_S: Final = 0.05  # of work may stand in front of the worker: it never runs dry, and T1 (0.5 s) is far away
FOLLOW: Final = 0.6  # the admitted share grows e-fold in 1/FOLLOW seconds while nothing waits
STEADY: Final = 3.0  # and by a factor of e for each 1/STEADY seconds that the wait became shorter by
MOST: Final = 0.95  # something always gets through
LATE_S: Final = 0.1  # a wait that leaves time for all that a call needs before its caller retransmits
PATIENCE_S: Final = 0.2  # so long a wait may be, while it does not grow: the machine stood still, and it is worked off
KNOWN: Final = 0.1  # a share above which nobody waits for PATIENCE_S to believe it
REPEATED_S: Final = 0.5  # T1: whoever has waited for so long has sent his request again


class Overload:
    """Decides for each new call; fed with how long messages waited for the worker."""

    __slots__ = (
        "_before_s",
        "_late_since",
        "_late_wait_s",
        "_owed",
        "_shortest_s",
        "_stood_s",
        "closed",
        "late",
        "share",
    )

    def __init__(self) -> None:
        self.share = 0.0  # of new calls that are refused now, 0 to 1
        self.late = False  # all of them, until what waits is worked off
        self.closed = False  # all of them, for a reason outside: set and lifted by whoever knows it
        self._owed = 0.0
        self._shortest_s = math.inf  # of the waits since the last look: a burst passes, what stands in a queue does not
        self._before_s = 0.0
        self._stood_s = 0.0  # the wait at the first look that found it above TARGET_S
        self._late_since = 0.0
        self._late_wait_s = 0.0  # then

    def waited(self, seconds: float, now: float) -> None:
        """The oldest of the messages that were taken up just now had been waiting for so long; 0.0: there was none
        that said."""
        if seconds:
            self._shortest_s = min(self._shortest_s, seconds)
        if seconds < LATE_S:
            self.late = False
            self._late_since = 0.0
            return
        if not self._late_since:
            self._late_since, self._late_wait_s = now, seconds
        is_patience_over = now - self._late_since > PATIENCE_S and seconds >= min(self._late_wait_s, REPEATED_S)
        self.late = self.late or is_patience_over or self.share > KNOWN

    def look(self, elapsed_s: float, turn_s: float) -> None:
        """Set the share anew, ``elapsed_s`` after the last time. ``turn_s``: what the worker's own timer had to wait,
        which has to do where no message said how long it did: those of connections do not."""
        wait_s = turn_s if self._shortest_s == math.inf else self._shortest_s
        self._shortest_s = math.inf
        before_s, self._before_s = self._before_s, wait_s
        stood_s = self._stood_s
        self._stood_s = 0.0 if wait_s <= TARGET_S else stood_s or wait_s
        if not self.share and not 0 < min(stood_s, REPEATED_S) <= wait_s:
            return  # the queue of a moment, or one that becomes shorter by itself, is no overload
        step = FOLLOW * (min(wait_s / TARGET_S, 3.0) - 1.0) * elapsed_s + STEADY * (wait_s - before_s)
        self.share = min(MOST, max(0.0, 1.0 - (1.0 - self.share) * math.exp(-step)))

    def refuses(self) -> bool:
        """Whether this new call is one of those to refuse; a share of them is spread evenly, without chance."""
        if self.late or self.closed:
            return True
        if not self.share:
            return False
        self._owed += self.share
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True
