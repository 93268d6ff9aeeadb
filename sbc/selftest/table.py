"""All rows, and what came of them as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sbc.selftest import (
    clocks,
    descriptors,
    failovers,
    frozen,
    kamailio,
    mix,
    pair_failovers,
    pairs,
    processes,
    reconnects,
    resources,
    rotation,
    rtpengine,
    settings,
    stores,
    upgrades,
)
from sbc.selftest.measure import Measures, text
from sbc.selftest.row import Row


def beside(rows: Sequence[Row], peers: Sequence[Row]) -> Iterator[Row]:
    """``P3-other`` comes after ``P3``."""
    for row in rows:
        yield row
        yield from (peer for peer in peers if peer.id.partition("-")[0] == row.id)


ROWS: tuple[Row, ...] = (
    *beside(processes.ROWS, (*kamailio.ROWS, *rtpengine.ROWS)),
    *pairs.ROWS,
    *reconnects.ROWS,
    *frozen.ROWS,
    *upgrades.ROWS,
    *stores.ROWS,
    *failovers.ROWS,
    *pair_failovers.ROWS,
    *resources.ROWS,
    *descriptors.ROWS,
    *settings.ROWS,
    *rotation.ROWS,
    *clocks.ROWS,
    *mix.ROWS,
)
WIDTH = 110


@dataclass(slots=True)
class Outcome:
    """A row and what came of it. ``not_tried`` says what this machine lacks."""

    row: Row
    measures: Measures = field(default_factory=Measures)
    not_tried: str = ""
    took_s: float = 0.0

    @property
    def verdict(self) -> str:
        if self.not_tried:
            return "not tried"
        if self.row.is_beside:
            return "beside us"
        return "FAIL" if self.measures.reasons() else "pass"

    @property
    def has_failed(self) -> bool:
        return self.verdict == "FAIL"


def choose(rows: Sequence[Row], only: str) -> list[Row]:
    """Those that ``P1,R3`` names, in the order of the table; all but the long mix for an empty text. ValueError names
    what is unknown."""
    wanted = [name.strip().upper() for name in only.split(",") if name.strip()]
    unknown = set(wanted) - {row.id.upper() for row in rows}
    if unknown:
        raise ValueError(f"no row {', '.join(sorted(unknown))}: sbc selftest faults --list shows them")
    return [row for row in rows if not wanted or row.id.upper() in wanted]


def listed(rows: Sequence[Row]) -> Iterator[str]:
    """The rows without results."""
    for row in rows:
        yield f"{row.id:4} {row.fault}"
        yield from textwrap.wrap(row.expected, WIDTH, initial_indent="     ", subsequent_indent="     ")


def shown(outcome: Outcome) -> Iterator[str]:
    """One row with its results, as lines."""
    row, measures = outcome.row, outcome.measures
    yield f"{f'{row.id:4} {row.fault}':{WIDTH - 15}.{WIDTH - 15}} {outcome.verdict}"
    yield from textwrap.wrap(row.expected, WIDTH, initial_indent="     expected: ", subsequent_indent="     ")
    if outcome.not_tried:
        yield f"     {outcome.not_tried}"
        return
    for metric in measures.metrics.values():
        if metric.values:
            p50, p99, worst = (text(metric.at(share)) for share in (0.5, 0.99, 1.0))
            allowed = f"  allowed: {metric.limit}" if str(metric.limit) else ""
            times = f"p50 {p50:>8}  p99 {p99:>8}  max {worst:>8}"
            yield f"     {metric.name:<36} {times}  ({len(metric.values)}){allowed}"
    for note in folded(measures.notes):
        yield from textwrap.wrap(note, WIDTH, initial_indent="     ", subsequent_indent="       ")
    label = "not measured" if row.is_beside else "FAIL"
    for reason in measures.reasons():
        yield from textwrap.wrap(reason, WIDTH, initial_indent=f"     {label}: ", subsequent_indent="       ")


def folded(notes: Sequence[str]) -> Iterator[str]:
    """What was the same in several runs once, with their numbers: runs 1-29: no packet lost."""
    runs: dict[str, list[int]] = {}
    for note in notes:
        which, _, said = note.removeprefix("run ").partition(": ")
        if note.startswith("run ") and which.isdigit():
            runs.setdefault(said, []).append(int(which))
        else:
            runs.setdefault(note, [])
    for said, numbers in runs.items():
        spans: list[list[int]] = []
        for number in numbers:
            if spans and number <= spans[-1][1] + 1:
                spans[-1][1] = number
            else:
                spans.append([number, number])
        told = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
        yield f"run{'s' * (len(numbers) > 1)} {told}: {said}" if numbers else said


def summary(outcomes: Sequence[Outcome]) -> str:
    """The last line."""
    count = {verdict: sum(one.verdict == verdict for one in outcomes) for verdict in ("pass", "FAIL", "not tried")}
    failed = f" ({', '.join(one.row.id for one in outcomes if one.has_failed)})" if count["FAIL"] else ""
    others = sum(one.verdict == "beside us" for one in outcomes)
    peers = f", {others} of other products" if others else ""
    return f"{count['pass']} rows passed, {count['FAIL']} failed{failed}, {count['not tried']} not tried{peers}"


def as_json(outcome: Outcome) -> dict[str, Any]:  # Any: JSON values
    """One row with its results; times in milliseconds."""
    measures = outcome.measures
    return {
        "id": outcome.row.id,
        "fault": outcome.row.fault,
        "expected": outcome.row.expected,
        "verdict": outcome.verdict.lower(),
        "reasons": [outcome.not_tried] if outcome.not_tried else measures.reasons(),
        "notes": measures.notes,
        "runs": measures.runs,
        "took_s": round(outcome.took_s, 1),
        "measured": [
            {
                "name": metric.name,
                "count": len(metric.values),
                **{name: round(metric.at(share) * 1000, 2) for name, share in _SHARES},
                "allowed_p50_ms": None if metric.limit.p50_s is None else metric.limit.p50_s * 1000,
                "allowed_p99_ms": None if metric.limit.p99_s is None else metric.limit.p99_s * 1000,
                "allowed_max_ms": None if metric.limit.max_s is None else metric.limit.max_s * 1000,
            }
            for metric in measures.metrics.values()
            if metric.values
        ],
    }


_SHARES = (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
