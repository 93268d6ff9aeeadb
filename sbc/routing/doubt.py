"""What is remembered of a function of the routes that was ended because it blocked."""

from __future__ import annotations

from types import CodeType
from typing import Final

REFILL: Final = 0.005  # of the time: what a doubtful function may block
ALLOWANCE_STEPS: Final = 2  # budgets of a step until it is used up: what was blocked at first, and as much again
LEASH: Final = 0.05  # of a step's budget: what a doubtful line may take at once, so that hardly anybody notices
FORGIVEN_S: Final = 60.0  # without blocking, and it is trusted again
SHORTEST_S: Final = 0.001  # less is no time to try again with


class Doubt:
    """A function that was ended: at which lines, and what is left of its allowance."""

    __slots__ = ("at_s", "charged_s", "code", "full_s", "left_s", "lines")

    def __init__(self, code: CodeType, full_s: float, now: float) -> None:
        self.code = code
        self.lines: set[int] = set()
        self.full_s = full_s
        self.left_s = full_s
        self.at_s = now
        self.charged_s = now  # when it blocked last

    def refill(self, now: float) -> float:
        """What is left at ``now``, in seconds."""
        self.left_s = min(self.full_s, self.left_s + (now - self.at_s) * REFILL)
        self.at_s = now
        return self.left_s

    def leash(self, step_s: float, now: float) -> float:
        """How long it may run now, in seconds; 0.0 where too little is left to try."""
        left_s = self.refill(now)
        return 0.0 if left_s < SHORTEST_S else min(left_s, max(SHORTEST_S, LEASH * step_s))

    def charge(self, line: int, took_s: float, now: float) -> None:
        """It blocked for so long; what is owed is forgiven after a minute."""
        self.lines.add(line)
        self.charged_s = now
        self.left_s = max(self.refill(now) - took_s, -self.full_s)
