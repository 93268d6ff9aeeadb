"""From the end of a call to its row, with the worker and the store killed at random moments: exactly one row each."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import select

from sbc.b2bua.effects import FinishCall
from sbc.database.cdr import CdrTable
from sbc.database.engine import open_engine
from sbc.database.tables import CDR
from sbc.management import cdr_writer
from sbc.management.cdr_writer import CdrWriter
from sbc.store.journal import Journal
from sbc.store.spool import HEADER, Spool
from tests.support.store import StoreServer

NODE = "test-node"
POINTS = int(os.environ.get("SBC_KILL_POINTS", "20"))
RATE = 400  # calls that end in a second


def quiet(*_: Any) -> None:  # Any: whatever is counted or logged
    """Nobody looks."""


def journal_of(store: StoreServer, folder: Path) -> Journal:
    return Journal(
        store.address, NODE, asyncio.get_running_loop(), spool=Spool(folder / "spool" / "sip-0", quiet), note=quiet
    )


async def end_calls(store: StoreServer, folder: Path, life: int, report: int) -> None:
    """End calls, and tell of each that is on the disk."""
    journal = journal_of(store, folder)
    journal.start()
    spool = journal._spool
    assert spool is not None
    number, told, begun = 0, 0, time.monotonic()
    while True:
        while number < (time.monotonic() - begun) * RATE:
            number += 1
            key = f"life{life}call{number}"
            journal.finish(FinishCall(key, number % 1024, {"id": key, "node": NODE, "status": 200}, number % 2 == 0))
        kept = max((segment.last for segment in spool._segments), default=0) - spool.next_number + 1
        if kept > told:
            os.write(report, b"".join(b"life%dcall%d\n" % (life, n) for n in range(told + 1, kept + 1)))
            told = kept
        await asyncio.sleep(0.003)


def child(store: StoreServer, folder: Path, life: int, report: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(end_calls(store, folder, life, report))
        finally:
            os._exit(1)
    return pid


@contextmanager
def writing(store: StoreServer, folder: Path) -> Iterator[CdrWriter]:
    writer = CdrWriter(
        store.address,
        NODE,
        CdrTable(open_engine(f"sqlite:///{folder / 'sbc.db'}")),
        "",
        count=quiet,
        gauge=quiet,
        note=quiet,
    )
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join(10)


def write_for_ever(store: StoreServer, folder: Path) -> NoReturn:
    with writing(store, folder):
        signal.pause()
    os._exit(0)


def rows(folder: Path) -> Counter[str]:
    with open_engine(f"sqlite:///{folder / 'sbc.db'}").connect() as connection:
        return Counter(found for (found,) in connection.execute(select(CDR.c.id)))


async def last_of_all(store: StoreServer, folder: Path, expected: set[str]) -> None:
    """A successor that has no calls of its own, until all that there was is in the database and the spool empty."""
    journal = journal_of(store, folder)
    journal.start()
    deadline = time.monotonic() + 30
    while expected - rows(folder).keys() or any(
        path.read_bytes() != HEADER for path in (folder / "spool" / "sip-0").glob("*.cdr")
    ):
        assert time.monotonic() < deadline, sorted(expected - rows(folder).keys())[:5]
        await asyncio.sleep(0.05)
    await journal.close()


def test_exactly_one_row_though_worker_and_store_are_killed_at_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second time the store, which has no disk, dies within moments of the worker: what was on the worker's disk
    by then has its row all the same. The writer is killed now and then, too. ``SBC_KILL_POINTS`` bounds it."""
    monkeypatch.setattr(cdr_writer, "GATHER_S", 0.05)
    chance = random.Random(11)
    store = StoreServer(tmp_path)
    store.start()
    reading, report = os.pipe()
    os.set_blocking(reading, False)
    told: set[str] = set()
    writer = 0
    try:
        for life in range(POINTS):
            if not writer:
                writer = os.fork()
                if writer == 0:
                    write_for_ever(store, tmp_path)
            pid = child(store, tmp_path, life, report)
            time.sleep(chance.uniform(0.02, 0.35))
            both = life % 2 == 1
            if both and chance.random() < 0.5:
                store.kill()
                time.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if life % 5 == 4:
                os.kill(writer, signal.SIGKILL)
                os.waitpid(writer, 0)
                writer = 0
            if both:
                store.kill()
                store.start()
            while data := read(reading):
                told.update(data.decode().split())
        if writer:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            writer = 0
        with writing(store, tmp_path):
            asyncio.run(last_of_all(store, tmp_path, told))
        found = rows(tmp_path)
        print(f"{POINTS} deaths, {len(told)} CDRs known to be on disk, {len(found)} rows")
        assert len(told) > 3 * POINTS
        assert set(found.values()) == {1}
        assert told <= found.keys()
    finally:
        if writer:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        store.kill()
        os.close(reading)
        os.close(report)


def read(fd: int) -> bytes:
    """What is in a pipe, up to the last whole line."""
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""
