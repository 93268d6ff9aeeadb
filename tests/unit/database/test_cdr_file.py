"""The table and the CSV file, on SQLite in a folder of the test."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sbc.database.cdr import CdrTable, _insert_checked, row_of
from sbc.database.csv_file import CsvFile
from sbc.database.engine import open_engine
from sbc.errors import ConfigError

NODE = "n1"


@pytest.fixture
def table(tmp_path: Path) -> CdrTable:
    made = CdrTable(open_engine(f"sqlite:///{tmp_path / 'state' / 'sbc.db'}"))
    made.create()
    return made


def add(table: CdrTable, *ids: str, node: str = NODE) -> int:
    return table.add([row_of({"id": identity, "node": node}, "{}") for identity in ids])


def ids_in(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_the_same_id_is_one_row_in_one_batch_and_across_batches(table: CdrTable) -> None:
    assert add(table, "a", "b", "a") == 2
    assert add(table, "b", "c") == 1


def test_databases_without_an_insert_or_ignore_do_the_same(table: CdrTable) -> None:
    rows = [row_of({"id": identity, "node": NODE}, "{}") for identity in ("a", "b", "a")]
    with table.engine.begin() as connection:
        assert _insert_checked(connection, rows) == 2
        assert _insert_checked(connection, rows) == 0


def test_sqlite_is_opened_safely(table: CdrTable) -> None:
    with table.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.parametrize("url", ["nonsense", "no_such_dialect://x/y"])
def test_a_url_that_is_none_is_a_configuration_fault(url: str) -> None:
    with pytest.raises(ConfigError):
        open_engine(url)


def test_a_row_takes_what_fits() -> None:
    row = row_of(
        {
            "id": "x",
            "start": 1.5,
            "answer": None,
            "end": float("inf"),
            "duration_s": 2.0004,
            "status": True,
            "cause": 2**40,
            "from": "sip:+49;isub=1:pw@h;x=1",
            "to": "tel:+4930;phone-context=x",
            "ruri": "sip:host",
            "note": "n" * 1000,
            "direction": 5,
        },
        "{}",
    )
    assert (row["start_time"], row["answer_time"], row["end_time"], row["duration_ms"]) == (1.5, None, None, 2000)
    assert (row["from_user"], row["to_user"], row["ruri_user"]) == ("+49", "+4930", "")
    assert row["cause"] is None
    assert len(str(row["note"])) == 256
    assert row["direction"] == "5"


@pytest.mark.parametrize("identity", [None, "", 7, "a\nb", "x" * 129])
def test_a_cdr_without_a_usable_id_is_refused(identity: object) -> None:
    with pytest.raises(ValueError, match="id"):
        row_of({"id": identity}, "{}")


def test_the_file_goes_on_after_its_last_complete_line(table: CdrTable, tmp_path: Path) -> None:
    path = tmp_path / "out" / "cdr.csv"
    add(table, "a", "b", "c")
    add(table, "other", node="n2")
    assert CsvFile(str(path), table, NODE).feed() == 3
    data = path.read_bytes()
    for cut in range(data.index(b"\n") + 1, len(data) + 1):  # a crash after any number of octets
        path.write_bytes(data[:cut])
        fresh = tmp_path / f"{cut}.csv"
        path.rename(fresh)
        CsvFile(str(fresh), table, NODE).feed()
        if cut > len(data[: data.index(b"\n") + 1]) and data[:cut].count(b"\n") >= 2:
            assert fresh.read_bytes() == data
        else:
            assert ids_in(fresh) == ["a", "b", "c"]
    add(table, "d")
    path.write_bytes(data)
    assert CsvFile(str(path), table, NODE).feed() == 1
    assert ids_in(path) == ["a", "b", "c", "d"]


def test_a_rotated_file_is_followed_by_a_new_one_without_repetition(table: CdrTable, tmp_path: Path) -> None:
    path = tmp_path / "cdr.csv"
    writer = CsvFile(str(path), table, NODE)
    add(table, "a", "b")
    writer.feed()
    path.rename(tmp_path / "cdr.csv.1")
    add(table, "c")
    writer.feed()
    assert ids_in(path) == ["c"]
    path.rename(tmp_path / "cdr.csv.2")
    add(table, "d")
    CsvFile(str(path), table, NODE).feed()
    assert ids_in(path) == ["d"], "after a restart too"
    path.write_bytes(b"")  # truncated in place
    add(table, "e")
    CsvFile(str(path), table, NODE).feed()
    assert ids_in(path) == ["e"]
