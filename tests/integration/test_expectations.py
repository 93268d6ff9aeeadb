"""Torture, attack and captured messages (RFC 4475, RFC 5118, advisories) against a real SBC over UDP.

Each comes from a configured peer, and must have the outcome that ``expectations.csv`` of the test data says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.expectations import (
    ALSO,
    DATA,
    DROP,
    FOLDERS,
    PATIENCE_S,
    READ_AS,
    SILENCE_S,
    Bench,
    Row,
    benched,
    case,
    judge,
    rows,
)
from tests.support.loopback import CALLER, OUTSIDE
from tests.support.raw import Raw
from tests.support.sbc import eventually


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with benched(tmp_path_factory.mktemp("expectations") / "sbc") as made:
        yield made


@pytest.mark.parametrize("row", [case(row) for row in rows()])
def test_outcome(row: Row, bench: Bench) -> None:
    seen = bench.play((DATA / row.file).read_bytes(), SILENCE_S if DROP in row.allowed else PATIENCE_S)
    if row.kind == "valid":
        assert seen.what not in (400, 500), f"a valid message got {seen.what}:\n{seen.answer!r}"
    with Raw(CALLER) as caller:
        assert caller.best_ping((OUTSIDE, bench.net.port)) < 0.1
    assert bench.sbc.pids() == bench.pids
    judge(row, seen, row.allowed)


def test_the_table_covers_every_file_and_every_name_here_is_one(bench: Bench) -> None:
    files = {path.name for folder in FOLDERS for path in (DATA / folder).iterdir()}
    assert {row.file.rpartition("/")[2] for row in rows()} == files
    assert files >= READ_AS.keys() | ALSO.keys()


def test_nothing_smuggled_is_in_a_record(bench: Bench) -> None:
    """After all messages: a CDR for each call, none of which holds what was smuggled, or raw control characters."""
    started = bench.sbc.total("CALLS_STARTED")
    assert started > 0
    eventually(lambda: len(bench.sbc.cdrs()) == started, 10, f"{started} CDRs")
    text = repr(bench.sbc.cdrs())
    assert not re.search("15551230000|X-Billing|X-Trusted", text)
    assert text.isprintable()
