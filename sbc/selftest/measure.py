"""What a row has measured, and what that says about the promise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limit:
    """What is allowed, in seconds; None: anything."""

    p99_s: float | None = None
    max_s: float | None = None
    p50_s: float | None = None

    def __str__(self) -> str:
        shares = (("p50", self.p50_s), ("p99", self.p99_s), ("max", self.max_s))
        said = [f"{name} {text(value)}" for name, value in shares if value is not None]
        return ", ".join(said)


@dataclass(slots=True)
class Metric:
    """Times of one kind over all runs of a row, in seconds."""

    name: str
    limit: Limit = field(default_factory=Limit)
    values: list[float] = field(default_factory=list)

    def at(self, share: float) -> float:
        """The value that so large a share of all does not exceed; 1.0 is the largest."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def excess(self) -> str:
        """A sentence when it took longer than allowed, else nothing."""
        limit = self.limit
        for name, share, allowed in (("max", 1.0, limit.max_s), ("p99", 0.99, limit.p99_s), ("p50", 0.5, limit.p50_s)):
            if allowed is not None and self.values and self.at(share) > allowed:
                return f"{self.name}: {name} {text(self.at(share))}, at most {text(allowed)} is promised"
        return ""


class Failed(Exception):
    """A run cannot go on, or what it waited for has not come; the text is a plain sentence."""


class NotTried(Exception):
    """This machine lacks what the row needs; the text says what."""


class Measures:
    """Everything that the runs of one row have to tell."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.runs = 0

    def add(
        self,
        name: str,
        seconds: Iterable[float],
        *,
        max_s: float | None = None,
        p99_s: float | None = None,
        p50_s: float | None = None,
    ) -> None:
        """Times that belong to the metric ``name``; the limits are those of the first call."""
        metric = self.metrics.setdefault(name, Metric(name, Limit(p99_s, max_s, p50_s)))
        metric.values += seconds

    def expect(self, holds: bool, otherwise: str) -> None:
        """A promise that is kept or not; ``otherwise`` is the sentence for when it is not."""
        if not holds:
            self.failures.append(f"run {self.runs}: {otherwise}")

    def note(self, sentence: str) -> None:
        """Something worth knowing, said once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def reasons(self) -> list[str]:
        """Why the row fails, in sentences; empty when it does not."""
        return [*self.failures, *(said for metric in self.metrics.values() if (said := metric.excess()))]


def text(seconds: float) -> str:
    """``3 ms``, ``850 ms``, ``2.4 s``."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
