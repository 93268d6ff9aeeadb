"""What is remembered of a function of the routes that was ended because it blocked."""

from __future__ import annotations

from types import CodeType
from typing import Final

REFILL: Final = 0.005  # of the time: what a doubtful function may block
ALLOWANCE_STEPS: Final = 3  # budgets of a step until it is used up


class Doubt:
    """A function that was ended: at which lines, and what is left of its allowance."""

    __slots__ = ("at_s", "code", "full_s", "left_s", "lines")

    def __init__(self, code: CodeType, full_s: float, now: float) -> None:
        self.code = code
        self.lines: set[int] = set()
        self.full_s = full_s
        self.left_s = full_s
        self.at_s = now

    def refill(self, now: float) -> float:
        """What is left at ``now``, in seconds."""
        self.left_s = min(self.full_s, self.left_s + (now - self.at_s) * REFILL)
        self.at_s = now
        return self.left_s

    def charge(self, line: int, took_s: float, now: float) -> None:
        """It blocked for so long; what is owed is forgiven after a minute."""
        self.lines.add(line)
        self.left_s = max(self.refill(now) - took_s, -self.full_s)
