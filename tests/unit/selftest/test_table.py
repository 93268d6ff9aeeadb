"""What the table says of many runs is short."""

from __future__ import annotations

from sbc.selftest.table import folded


def test_what_was_the_same_in_several_runs_is_said_once() -> None:
    notes = [
        *(f"run {number}: packets lost 0" for number in (1, 2, 3)),
        "run 4: packets lost 2",
        "run 5: packets lost 0",
        "the worker waited for a processor",
        "run 5: another: with a colon",
    ]
    assert list(folded(notes)) == [
        "runs 1-3, 5: packets lost 0",
        "run 4: packets lost 2",
        "the worker waited for a processor",
        "run 5: another: with a colon",
    ]


def test_one_run_is_told_as_it_is() -> None:
    assert list(folded(["run 1: packets lost 0, twice 0, of 40 streams"])) == [
        "run 1: packets lost 0, twice 0, of 40 streams"
    ]
