"""What a benchmark yields: a figure with its unit, its median and its spread, or the reason why there is none."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


class NotMeasuredError(Exception):
    """A figure that cannot be taken here and now; the text says why and is printed instead of a number."""


class NothingRelayedError(NotMeasuredError):
    """Not a packet came through: at a high rate this is a relay's own way of ending."""


class SpoiledError(NotMeasuredError):
    """The measurement failed in a way that another try may cure: a disturbed machine, a generator that fell behind."""


@dataclass(slots=True)
class Samples:
    """Every value taken for one figure, and what has to be said about them."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    def add(self, value: float, note: str = "") -> None:
        self.values.append(value)
        self.note(note)

    def note(self, note: str) -> None:
        if note and note not in self.notes:
            self.notes.append(note)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: ``value`` is the median of ``runs`` values, ``spread`` the greatest minus the least."""

    name: str
    value: float | None
    unit: str
    runs: int
    spread: float | None
    note: str

    @classmethod
    def of(cls, samples: Samples) -> Figure:
        """The median and spread of the samples; without any value the reason stands in the note."""
        values = samples.values
        if not values:
            return cls(samples.name, None, samples.unit, 0, None, samples.reason or "no run gave a value")
        notes = [*samples.notes, *([f"incomplete: {samples.reason}"] if samples.reason else [])]
        return cls(
            samples.name,
            _rounded(statistics.median(values)),
            samples.unit,
            len(values),
            _rounded(max(values) - min(values)),
            "; ".join(notes),
        )


def _rounded(value: float) -> float:
    """Three or more significant digits: nothing here is known better."""
    if abs(value) >= 1000:
        return float(round(value))
    return round(value, 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3)


def selected(name: str, patterns: Sequence[str]) -> bool:
    """Whether ``name`` is picked: a pattern is a glob or a leading part of the name; no patterns pick everything."""
    return not patterns or any(fnmatchcase(name, p) or name.startswith(p) for p in patterns)


def table(figures: Iterable[Figure]) -> str:
    """The report as aligned text, one figure a line."""
    rows = [("figure", "median", "unit", "runs", "spread", "")]
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:,g}"
        spread = "" if figure.spread is None else f"{figure.spread:,g}"
        rows.append((figure.name, value, figure.unit, str(figure.runs or ""), spread, figure.note))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        name, value, unit, runs, spread, note = row
        cells = (
            name.ljust(widths[0]),
            value.rjust(widths[1]),
            unit.ljust(widths[2]),
            runs.rjust(widths[3]),
            spread.rjust(widths[4]),
            note,
        )
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines[:1]))
    return "\n".join(lines)
