"""CDRs from the stream to the table and the CSV file: each exactly once, with the writer killed at random points."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from sbc.database.cdr import CdrTable, Row
from sbc.database.engine import open_engine
from sbc.database.tables import CDR
from sbc.management import cdr_writer
from sbc.management.cdr_writer import CdrWriter
from sbc.store.keys import Keys
from tests.support.store import StoreServer

NODE = "test-node"
KEYS = Keys(NODE)


@pytest.fixture
def look(store: StoreServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=store.path, socket_timeout=5)


def writer_for(store: StoreServer, folder: Path, counts: dict[str, int] | None = None) -> CdrWriter:
    counted = counts if counts is not None else {}

    def count(name: str, amount: int) -> None:
        counted[name] = counted.get(name, 0) + amount

    def note(_level: str, event: str, _fields: dict[str, Any]) -> None:  # Any: log fields
        counted[event] = counted.get(event, 0) + 1

    return CdrWriter(
        store.address,
        NODE,
        CdrTable(open_engine(f"sqlite:///{folder / 'sbc.db'}")),
        str(folder / "cdr.csv"),
        count=count,
        gauge=lambda name, value: counted.update({name: value}),
        note=note,
    )


def put(look: redis.Redis, identity: str, **fields: Any) -> None:  # Any: JSON values
    cdr = {"id": identity, "node": NODE, "status": 200, "start": 1.7e9, "from": "sip:+4930123@host", **fields}
    look.xadd(KEYS.cdr_stream, {"cdr": json.dumps(cdr)})


def table_ids(folder: Path) -> list[str]:
    with open_engine(f"sqlite:///{folder / 'sbc.db'}").connect() as connection:
        return [found for (found,) in connection.execute(select(CDR.c.id).order_by(CDR.c.sequence))]


def csv_ids(folder: Path) -> list[str]:
    with open(folder / "cdr.csv", newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def run_until(writer: CdrWriter, condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that"
            assert thread.is_alive()
            time.sleep(0.01)
    finally:
        writer.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_what_came_since_the_last_batch_is_written_before_the_writer_ends(
    store: StoreServer, look: redis.Redis, tmp_path: Path
) -> None:
    put(look, "first")
    writer = writer_for(store, tmp_path)

    def one_is_written_and_more_came() -> bool:
        if not (tmp_path / "sbc.db").exists() or look.xlen(KEYS.cdr_stream) or not table_ids(tmp_path):
            return False
        for number in range(3):
            put(look, f"late{number}")
        return True

    run_until(writer, one_is_written_and_more_came)
    assert table_ids(tmp_path) == csv_ids(tmp_path) == ["first", "late0", "late1", "late2"]
    assert look.xlen(KEYS.cdr_stream) == 0


def test_each_cdr_is_written_once_though_the_writer_is_killed_again_and_again(
    store: StoreServer, look: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdr_writer, "BATCH", 5)
    monkeypatch.setattr(cdr_writer, "GATHER_S", 0.0)
    chance = random.Random(7)
    total = 0
    for _ in range(20):
        for _ in range(40):
            put(look, f"id{total}")
            total += 1
        pid = os.fork()
        if pid == 0:
            _write_until_killed(writer_for(store, tmp_path), chance)
        threading.Timer(1.5, lambda pid=pid: _kill(pid)).start()
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        chance.random()  # the child drew from its own copy
    counts: dict[str, int] = {}
    last = writer_for(store, tmp_path, counts)
    run_until(last, lambda: int(look.xlen(KEYS.cdr_stream)) == 0)
    expected = [f"id{number}" for number in range(total)]
    assert sorted(table_ids(tmp_path)) == sorted(expected)
    assert csv_ids(tmp_path) == table_ids(tmp_path)
    assert look.xpending(KEYS.cdr_stream, "writers")["pending"] == 0


def _write_until_killed(writer: CdrWriter, chance: random.Random) -> None:
    """In a child: die between two steps of the writer, or at a random moment within one of them."""
    point = chance.choice(["_acknowledge", "_feed_csv", "_read", "time"])
    if point == "time":
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.01, 0.12))
    else:
        left = chance.randrange(1, 8)
        step = getattr(CdrWriter, point)

        def dying(self: CdrWriter, *arguments: Any) -> Any:  # Any: of three methods
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *arguments)

        setattr(CdrWriter, point, dying)
    writer.run()
    os._exit(1)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_cdr_sent_twice_is_one_row(store: StoreServer, look: redis.Redis, tmp_path: Path) -> None:
    for _ in range(3):
        put(look, "same")
    counts: dict[str, int] = {}
    run_until(writer_for(store, tmp_path, counts), lambda: int(look.xlen(KEYS.cdr_stream)) == 0 and bool(counts))
    assert table_ids(tmp_path) == ["same"]
    assert counts["CDR_WRITTEN"] == 1
    assert counts["CDR_DUPLICATE"] == 2


def test_what_is_no_cdr_is_set_aside_and_stops_nothing(store: StoreServer, look: redis.Redis, tmp_path: Path) -> None:
    look.xadd(KEYS.cdr_stream, {"cdr": b"\xff{"})
    look.xadd(KEYS.cdr_stream, {"other": b"x"})
    look.xadd(KEYS.cdr_stream, {"cdr": b"[1]"})
    look.xadd(KEYS.cdr_stream, {"cdr": b'{"status": 200}'})
    put(look, "good", status=2**70, cause="no number", a_peer="=cmd|' /C calc'!A0", b_peer="a\r\nb\0", end="soon")
    counts: dict[str, int] = {}
    run_until(writer_for(store, tmp_path, counts), lambda: csv_exists(tmp_path) and csv_ids(tmp_path) == ["good"])
    assert counts["a CDR that cannot be written was set aside"] == 4
    assert look.xlen(KEYS.bad("cdr")) == 4
    with open(tmp_path / "cdr.csv", newline="") as file:
        text = file.read()
    [row] = csv.DictReader(text.splitlines())
    assert row["a_peer"] == "'=cmd|' /C calc'!A0"
    assert row["from_user"] == "'+4930123"
    assert row["b_peer"] == "a\\r\\nb"
    assert row["start_time"] == "2023-11-14T22:13:20.000Z"
    assert row["status"] == row["cause"] == row["end_time"] == ""
    assert text.count("\r\n") == 2
    assert text.count("\n") == 2


def csv_exists(folder: Path) -> bool:
    return (folder / "cdr.csv").exists()


def test_a_database_that_is_away_loses_nothing(
    store: StoreServer, look: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdr_writer, "BACK_OFF_S", (0.01,))
    failures = [5]
    add = CdrTable.add

    def failing(self: CdrTable, rows: list[Row]) -> int:
        failures[0] -= 1
        if failures[0] >= 0:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return add(self, rows)

    monkeypatch.setattr(CdrTable, "add", failing)
    for number in range(10):
        put(look, f"id{number}")
    counts: dict[str, int] = {}
    writer = writer_for(store, tmp_path, counts)
    run_until(writer, lambda: csv_exists(tmp_path) and len(csv_ids(tmp_path)) == 10)
    assert table_ids(tmp_path) == [f"id{number}" for number in range(10)]
    assert counts["CDR_FAILED"] == 5
    assert counts["the database does not take CDRs: they wait in the store"] == 1
    assert writer.database_error == ""


def test_a_store_that_dies_and_returns_is_read_again(store: StoreServer, look: redis.Redis, tmp_path: Path) -> None:
    put(look, "before")
    writer = writer_for(store, tmp_path)
    deaths: list[float] = []

    def after_a_death() -> bool:
        if not deaths and table_is(tmp_path, ["before"]):
            deaths.append(time.monotonic())
            store.kill()
            time.sleep(0.1)
            store.start()
            look.connection_pool.disconnect()
            put(look, "after")
        return table_is(tmp_path, ["before", "after"])

    run_until(writer, after_a_death)
    assert csv_ids(tmp_path) == ["before", "after"]


def test_a_store_that_died_just_before_the_end_is_read_once_more(
    store: StoreServer, look: redis.Redis, tmp_path: Path
) -> None:
    put(look, "before")

    def dies_and_the_node_stops() -> bool:
        if not table_is(tmp_path, ["before"]):
            return False
        store.kill()
        store.start()
        look.connection_pool.disconnect()
        put(look, "after")
        return True

    run_until(writer_for(store, tmp_path), dies_and_the_node_stops)
    assert csv_ids(tmp_path) == ["before", "after"]


def table_is(folder: Path, ids: list[str]) -> bool:
    try:
        return table_ids(folder) == ids
    except OperationalError:
        return False
