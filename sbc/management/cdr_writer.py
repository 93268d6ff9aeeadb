"""Carries CDRs from the outbox stream into the database and the CSV file: each once, none lost.

A thread of its own, in which everything may block. An entry leaves the stream only after its row is committed; what was
read and not acknowledged before a death is read again first, and its ``id`` tells whether the row is there already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import redis
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from sbc.database.cdr import CdrTable, Row, row_of
from sbc.database.csv_file import CsvFile
from sbc.errors import StoreError
from sbc.management.store_client import StoreClient
from sbc.store.keys import CDR_FIELD, CDR_GROUP, Keys
from sbc.store.url import StoreAddress

CONSUMER = "control"  # a node has one; its successor takes over what it left unacknowledged
BATCH = 500
GATHER_S = 1.0  # between two reads: CDRs are written in batches, each with one commit
BLOCK_MS = 1000
LAST_S = 3.0  # for what is left in the stream when the node stops
LAST_TRIES = 5  # then, at a store that does not answer
LAST_AGAIN_S = 0.1
BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
REJECTED_KEPT = 1000

Entry = tuple[bytes, dict[bytes, bytes] | None]  # None: deleted from the stream, only its acknowledgement is missing
Note = Callable[[str, str, dict[str, Any]], None]  # level, event, fields; Any: log fields are free


class CdrWriter:
    """``run`` is the thread's body. The attributes below may be read from other threads.

    ``observe`` is shown every CDR that is read. ``store_error`` and ``database_error`` say what is wrong now, empty
    when nothing is.
    """

    def __init__(
        self,
        address: StoreAddress,
        node: str,
        table: CdrTable,
        csv_path: str,
        *,
        count: Callable[[str, int], None],
        gauge: Callable[[str, int], None],
        note: Note,
        observe: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.store_error = ""
        self.database_error = ""
        self.csv_error = ""
        self.waiting = 0
        self._keys = Keys(node)
        self._node = node
        self._table = table
        self._csv = CsvFile(csv_path, table, node) if csv_path else None
        self._wanted_csv = csv_path
        self._count = count
        self._gauge = gauge
        self._note = note
        self._observe = observe
        self._stopping = threading.Event()
        self._store = StoreClient(address, self._keys.marker)
        self._recovering = True  # look at what was read and not acknowledged, before anything new
        self._known_group = False
        self._failures = 0

    def stop(self) -> None:
        """Write what is in the stream, as far as LAST_S lasts, and end the thread."""
        self._stopping.set()

    def set_csv(self, path: str) -> None:
        """Write the CSV file there from the next batch on; empty: none."""
        self._wanted_csv = path

    def run(self) -> None:
        """Until :meth:`stop`."""
        if self._make_tables():
            self._feed_csv()
            while not self._stopping.is_set():
                self._turn(BLOCK_MS)
            self._write_last()
        self._store.close()
        if self._csv is not None:
            self._csv.close()

    def _write_last(self) -> None:
        """The SIP workers have ended before us, so the stream holds all that there will be; an embedded store forgets
        it with its own end, which comes next."""
        deadline, failed = time.monotonic() + LAST_S, 0
        while time.monotonic() < deadline and failed < LAST_TRIES and not self.database_error:
            recovering = self._recovering  # this read is of what was delivered before; the new comes after it
            if self._turn(None):
                failed = 0
            elif self.store_error:  # it may have been started anew a moment ago
                failed += 1
                time.sleep(LAST_AGAIN_S)
            elif not recovering:
                return

    def _turn(self, block_ms: int | None) -> bool:
        """One batch; whether there was one and it is written. ``block_ms`` is how long to wait for it, None: not."""
        try:
            entries = self._read(block_ms)
            self.store_error = ""
        except (redis.RedisError, StoreError, OSError) as error:
            self._store_failed(error)
            return False
        if not entries:
            self._recovering = False
            if self.csv_error or self._csv_moved():
                self._feed_csv()
            return False
        rows, rejected = self._parse(entries)
        if not self._insert(rows, rejected):
            return False  # told to stop while the database was away: the entries stay for our successor
        try:
            self._acknowledge(entries, rejected)
        except (redis.RedisError, StoreError, OSError) as error:
            self._store_failed(error)
            return False
        self._failures = 0
        self._feed_csv()
        if len(entries) < BATCH:
            self._stopping.wait(GATHER_S)
        return True

    @property
    def store_doubts(self) -> tuple[str, ...]:
        """What would keep the store from outliving a death of its own; none where it is one server."""
        return self._store.doubts

    # -- the stream

    def _read(self, block_ms: int | None) -> list[Entry]:
        stream, client = self._keys.cdr_stream, self._store.client()
        if not self._known_group:
            try:
                client.xgroup_create(stream, CDR_GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            self._known_group = True
        start = "0" if self._recovering else ">"
        # Any: redis-py types replies as unions over all protocol versions
        found: Any = client.xreadgroup(CDR_GROUP, CONSUMER, {stream: start}, count=BATCH, block=block_ms)
        self.waiting = int(client.xlen(stream))
        self._gauge("CDR_WAITING", self.waiting)
        return [(identity, fields) for _, entries in found or () for identity, fields in entries]

    def _acknowledge(self, entries: list[Entry], rejected: dict[bytes, bytes]) -> None:
        identities = [identity for identity, _ in entries]
        with self._store.client().pipeline(transaction=True) as pipe:
            for raw in rejected.values():
                pipe.xadd(self._keys.bad("cdr"), {CDR_FIELD: raw}, maxlen=REJECTED_KEPT, approximate=True)
            pipe.xack(self._keys.cdr_stream, CDR_GROUP, *identities)
            pipe.xdel(self._keys.cdr_stream, *identities)
            pipe.execute()

    def _store_failed(self, error: Exception) -> None:
        if not self.store_error:
            self._note("warning", "CDRs cannot be read from the store", {"reason": str(error)})
        self.store_error = str(error) or type(error).__name__
        self._known_group = False
        self._recovering = True  # a reply that was lost may have made entries ours
        self._store.disconnect()
        self._back_off()

    # -- rows

    def _parse(self, entries: list[Entry]) -> tuple[list[Row], dict[bytes, bytes]]:
        """Rows, and what can never become one, by entry: it is logged in full and set aside in the store."""
        rows: list[Row] = []
        rejected: dict[bytes, bytes] = {}
        field = CDR_FIELD.encode()
        for identity, fields in entries:
            if not fields:
                continue
            raw = fields.get(field)
            if raw is None:
                raw = repr(fields).encode()
            try:
                cdr = orjson.loads(raw)
                if not isinstance(cdr, dict):
                    raise ValueError("not an object")
                rows.append(row_of(cdr, raw.decode()))
                self._observe(cdr)
            except ValueError as error:
                self._reject(identity, raw, error, rejected)
        return rows, rejected

    def _reject(self, identity: bytes, raw: bytes, error: Exception, rejected: dict[bytes, bytes]) -> None:
        rejected[identity] = raw
        self._note("error", "a CDR that cannot be written was set aside", {"cdr": raw, "reason": str(error)})

    def _insert(self, rows: list[Row], rejected: dict[bytes, bytes]) -> bool:
        """Commit the rows, again and again while the database is away; False when told to stop before."""
        while not self._stopping.is_set() or not self.database_error:
            try:
                written = self._table.add(rows)
            except (DataError, IntegrityError) as error:
                if len(rows) > 1:  # find the one that the database will not have
                    return all(self._insert([row], rejected) for row in rows)
                self._reject(str(rows[0]["id"]).encode(), str(rows[0]["record"]).encode(), error, rejected)
                return True
            except (SQLAlchemyError, OSError) as error:
                if type(error) is StatementError and len(rows) == 1:  # a value that the driver will not take
                    self._reject(str(rows[0]["id"]).encode(), str(rows[0]["record"]).encode(), error, rejected)
                    return True
                if type(error) is StatementError:
                    return all(self._insert([row], rejected) for row in rows)
                self._database_failed(error)
                continue
            self.database_error = ""
            self._count("CDR_WRITTEN", written)
            if written < len(rows):
                self._count("CDR_DUPLICATE", len(rows) - written)
            return True
        return False

    def _make_tables(self) -> bool:
        """Create the tables, as soon as the database lets us; False when told to stop before."""
        while not self._stopping.is_set():
            try:
                self._table.create()
            except (SQLAlchemyError, OSError) as error:
                self._database_failed(error)
            else:
                self.database_error = ""
                self._failures = 0
                return True
        return False

    def _database_failed(self, error: Exception) -> None:
        reason = str(getattr(error, "orig", None) or error)
        self._count("CDR_FAILED", 1)
        if reason != self.database_error:
            self._note("error", "the database does not take CDRs: they wait in the store", {"reason": reason})
        self.database_error = reason
        self._back_off()

    def _feed_csv(self) -> None:
        if self._csv_moved():
            if self._csv is not None:
                self._csv.close()
            self._csv = CsvFile(self._wanted_csv, self._table, self._node) if self._wanted_csv else None
        if self._csv is None:
            return
        try:
            self._csv.feed()
            self.csv_error = ""
        except (SQLAlchemyError, OSError) as error:  # tried again with the next batch; the table has the rows
            if not self.csv_error:
                self._note("error", "the CSV file of CDRs cannot be written", {"reason": str(error)})
            self.csv_error = str(error)

    def _csv_moved(self) -> bool:
        return (self._csv.path if self._csv is not None else "") != self._wanted_csv

    def _back_off(self) -> None:
        self._stopping.wait(BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)])
        self._failures += 1
