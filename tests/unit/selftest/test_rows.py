"""What becomes of rows that hold, that do not, that cannot be tried, and that do not end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sbc.selftest import faults, table
from sbc.selftest.faults import Options, run_row, run_rows
from sbc.selftest.measure import Failed, Limit, Measures, Metric, NotTried, text
from sbc.selftest.row import Row
from sbc.selftest.site import Setup


class NoSite:
    """A site without a node."""

    calls = minutes = seed = run = 0


@pytest.fixture(autouse=True)
def _no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nowhere(_folder: Path, _setup: Setup, *, is_apart: bool) -> Iterator[NoSite]:
        yield NoSite()

    monkeypatch.setattr(faults, "site", nowhere)


def outcome_of(run: Any, **options: Any) -> table.Outcome:  # Any: what a row does, and fields of one
    return run_row(Row("T1", "something", "nothing happens", run, **options), Options(runs=2), Path("/nowhere"))


def quick(_: Any, measures: Measures) -> None:  # Any: no site
    measures.add("answer", [0.01, 0.02], max_s=0.05, p99_s=0.03)


def slow(_: Any, measures: Measures) -> None:  # Any: no site
    measures.add("answer", [0.01, 0.2], max_s=0.05)


def broken(_: Any, measures: Measures) -> None:  # Any: no site
    measures.expect(measures.runs < 2, "3 calls are lost")


def stuck(_: Any, __: Measures) -> None:  # Any: no site
    raise Failed("not within 5 s: a successor of sip 0")


def mistaken(_: Any, __: Measures) -> None:  # Any: no site
    raise KeyError("sip 7")


def endless(_: Any, __: Measures) -> None:  # Any: no site
    while True:
        time.sleep(0.01)


def test_a_row_passes_when_all_that_it_promised_holds() -> None:
    outcome = outcome_of(quick)
    assert outcome.verdict == "pass"
    assert outcome.measures.runs == 2
    told = table.as_json(outcome)
    assert told["reasons"] == []
    assert told["measured"] == [
        {
            "name": "answer",
            "count": 4,
            "p50_ms": 10.0,
            "p99_ms": 20.0,
            "max_ms": 20.0,
            "allowed_p50_ms": None,
            "allowed_p99_ms": 30.0,
            "allowed_max_ms": 50.0,
        }
    ]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (slow, "answer: max 200 ms, at most 50 ms is promised"),
        (broken, "run 2: 3 calls are lost"),
        (stuck, "run 1: not within 5 s: a successor of sip 0"),
        (mistaken, "run 1: the row itself failed: KeyError: 'sip 7'"),
    ],
)
def test_a_row_fails_in_words(run: Any, reason: str) -> None:  # Any: what a row does
    outcome = outcome_of(run)
    assert outcome.has_failed
    assert outcome.measures.reasons() == [reason]
    lines = list(table.shown(outcome))
    assert lines[0].endswith(" FAIL")
    assert f"FAIL: {reason}" in " ".join(line.strip() for line in lines)
    assert json.loads(json.dumps(table.as_json(outcome)))["verdict"] == "fail"


def test_a_row_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "START_S", 0.05)
    outcome = outcome_of(endless, limit_s=0.05)
    assert outcome.has_failed
    assert outcome.took_s < 10
    assert "it took longer than" in outcome.measures.reasons()[0]


def test_what_this_machine_lacks_is_no_failure() -> None:
    def lacking() -> None:
        raise NotTried("kamailio is not installed: apt-get install kamailio")

    outcome = outcome_of(quick, check=lacking)
    assert (outcome.verdict, outcome.has_failed) == ("not tried", False)
    assert any("apt-get install" in line for line in table.shown(outcome))
    assert table.as_json(outcome)["reasons"] == ["kamailio is not installed: apt-get install kamailio"]


def test_rows_run_in_turn_and_the_summary_names_those_that_failed() -> None:
    rows = [Row(name, "x", "y", run) for name, run in (("A1", quick), ("A2", slow), ("A3", quick))]
    seen: list[str] = []
    outcomes = run_rows(rows, Options(runs=1), lambda outcome: seen.append(outcome.row.id))
    assert seen == ["A1", "A2", "A3"]
    assert table.summary(outcomes) == "2 rows passed, 1 failed (A2), 0 not tried"


def test_an_interrupt_ends_all() -> None:
    def interrupted(_: Any, __: Measures) -> None:  # Any: no site
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rows([Row("A1", "x", "y", interrupted)], Options(), lambda _: None)


def test_rows_are_chosen_by_name() -> None:
    assert [row.id for row in table.choose(table.ROWS, "r3, P1")] == ["P1", "R3"]
    assert table.choose(table.ROWS, "") == list(table.ROWS)
    with pytest.raises(ValueError, match="no row Q9"):
        table.choose(table.ROWS, "P1,Q9")


def test_each_row_has_a_name_of_its_own_and_says_what_it_does() -> None:
    assert len({row.id for row in table.ROWS}) == len(table.ROWS)
    listing = list(table.listed(table.ROWS))
    for row in table.ROWS:
        assert any(line.startswith(f"{row.id} ") and row.fault in line for line in listing)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0031, "3.1 ms"), (0.0501, "50 ms"), (0.9994, "999 ms"), (2.345, "2.35 s")]
)
def test_times_are_told_for_people(seconds: float, said: str) -> None:
    assert text(seconds) == said


def test_percentiles_are_values_that_were_measured() -> None:
    metric = Metric("x", Limit(p99_s=0.05), [n / 1000 for n in range(1, 101)])
    assert (metric.at(0.5), metric.at(0.99), metric.at(1.0)) == (0.05, 0.099, 0.1)
    assert metric.excess() == "x: p99 99 ms, at most 50 ms is promised"
    assert Metric("x", Limit(max_s=1.0)).excess() == ""
