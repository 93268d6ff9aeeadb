"""How many new calls to refuse when there is more to do than time: early and cheaply, so that the rest go well.

A server that takes everything answers nothing in time: peers retransmit, and the load doubles. So new INVITEs are
refused at once (503 with Retry-After, no state): a share of them that follows the share of time that the worker was
busy; and all of them while what comes has to wait too long, which is what tells of a load before its share is known.
"""

from __future__ import annotations

from typing import Final

TARGET_BUSY: Final = 0.97  # above this the queue in front of the worker grows faster than it shrinks
SETTLE_S: Final = 0.4  # a burst shorter than this is worked off, not refused
RISE: Final = 1.0  # how fast the refused share follows too much work, per second of full overload
FALL: Final = 0.6  # and how fast it goes when there is room
MOST: Final = 0.95  # something always gets through, or the controller could not see that the load is gone
LATE_S: Final = 0.1  # a wait that leaves time for all that a call needs before its caller retransmits (T1 is 0.5 s)
PATIENCE_S: Final = 0.2  # the queue after a moment in which the whole machine stood still is worked off within this


class Overload:
    """Decides for each new call; fed with how busy the worker was, and with how long messages waited for it."""

    __slots__ = ("_busy", "_late_since", "_owed", "late", "share")

    def __init__(self) -> None:
        self.share = 0.0  # of new calls that are refused now, 0 to 1
        self.late = False  # all of them
        self._owed = 0.0
        self._busy = 0.0  # smoothed
        self._late_since = 0.0

    def measure(self, busy_s: float, elapsed_s: float) -> None:
        """Over the last ``elapsed_s`` seconds the worker was at work for ``busy_s`` of them."""
        if elapsed_s <= 0:
            return
        self._busy += (min(1.0, busy_s / elapsed_s) - self._busy) * min(1.0, elapsed_s / SETTLE_S)
        excess = self._busy - TARGET_BUSY
        step = RISE * excess / (1 - TARGET_BUSY) if excess > 0 else FALL * excess / TARGET_BUSY
        self.share = min(MOST, max(0.0, self.share + step * elapsed_s))

    def waited(self, seconds: float, now: float) -> None:
        """What was taken up last, a message or a reply of the media plane, had been waiting for so long."""
        if seconds < LATE_S:
            self.late = False
            self._late_since = 0.0
        elif not self._late_since:
            self._late_since = now
            self.late = self.share > 0  # the load is known already
        elif now - self._late_since > PATIENCE_S:
            self.late = True

    def refuses(self) -> bool:
        """Whether this new call is one of those to refuse; a share of them is spread evenly, without chance."""
        if self.late:
            return True
        if not self.share:
            return False
        self._owed += self.share
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True
