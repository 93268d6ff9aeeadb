"""How many new calls to refuse when there is more to do than time: early and cheaply, so that the rest go well.

A server that takes everything answers nothing in time: peers retransmit, and the load doubles. So the share of new
INVITEs that are refused at once (503 with Retry-After, no state) follows the share of time that the worker was busy.
"""

from __future__ import annotations

TARGET_BUSY = 0.97  # above this the queue in front of the worker grows faster than it shrinks
SETTLE_S = 0.4  # a burst shorter than this is worked off, not refused
RISE = 1.0  # how fast the refused share follows too much work, per second of full overload
FALL = 0.6  # and how fast it goes when there is room
MOST = 0.95  # something always gets through, or the controller could not see that the load is gone


class Overload:
    """Decides for each new call; fed with how busy the worker was."""

    __slots__ = ("_busy", "_owed", "share")

    def __init__(self) -> None:
        self.share = 0.0  # of new calls that are refused now, 0 to 1
        self._owed = 0.0
        self._busy = 0.0  # smoothed

    def measure(self, busy_s: float, elapsed_s: float) -> None:
        """Over the last ``elapsed_s`` seconds the worker was at work for ``busy_s`` of them."""
        if elapsed_s <= 0:
            return
        self._busy += (min(1.0, busy_s / elapsed_s) - self._busy) * min(1.0, elapsed_s / SETTLE_S)
        excess = self._busy - TARGET_BUSY
        step = RISE * excess / (1 - TARGET_BUSY) if excess > 0 else FALL * excess / TARGET_BUSY
        self.share = min(MOST, max(0.0, self.share + step * elapsed_s))

    def refuses(self) -> bool:
        """Whether this new call is one of those to refuse; spread evenly, without chance."""
        if not self.share:
            return False
        self._owed += self.share
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True
