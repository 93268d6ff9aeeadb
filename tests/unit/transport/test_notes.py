"""Lines for the log about connections, and how many of them."""

from __future__ import annotations

from sbc.transport.notes import LINES, LINES_MAX, WINDOW_S, Notes


def test_the_first_of_a_kind_and_then_a_number() -> None:
    notes = Notes()
    assert [notes.wanted("refused", "192.0.2.1", 100.0 + i) for i in range(10)] == [0] * LINES + [-1] * (10 - LINES)
    assert notes.wanted("refused", "192.0.2.2", 120.0) == 0
    assert notes.wanted("slow", "192.0.2.1", 120.0) == 0
    assert notes.wanted("refused", "192.0.2.1", 100.0 + WINDOW_S) == 10 - LINES
    assert notes.wanted("refused", "192.0.2.2", 100.0 + WINDOW_S) == 0


def test_many_sources_have_no_more_lines_than_fit() -> None:
    notes = Notes()
    lines = [notes.wanted("refused", f"10.0.{i // 256}.{i % 256}", 100.0) for i in range(20_000)]
    assert lines.count(0) == LINES_MAX
    assert len(notes._seen) <= 4096
