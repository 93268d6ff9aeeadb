"""Named databases: a few threads with a connection each, a queue before them, and a deadline that no thread delays.

A statement whose time is up is given up by the route at once. Its thread ends soon after: SQLite is interrupted, the
other drivers are told the same limit when they connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from sbc.config.lookups import DatabaseLookups
from sbc.errors import ConfigError
from sbc.lookups.asking import Row, Statement
from sbc.lookups.circuit import Circuit
from sbc.lookups.errors import LookupFailed, LookupTimeout, ServerAway

Result = Sequence[Row] | int


class _Job:
    """One statement on its way through a thread; ``connection`` while it is under way."""

    __slots__ = ("connection", "given_up", "statement")

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self.given_up = False
        self.connection: Connection | None = None


class DatabaseClient:
    """One database. ``changed(server, is away)`` as for HTTP. Raises ConfigError for a URL that cannot be used."""

    def __init__(
        self,
        name: str,
        config: DatabaseLookups,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[str, bool], None],
    ) -> None:
        self._config = config
        self._loop = loop
        self._changed = changed
        try:
            url = make_url(config.url.get_secret_value())
            self._engine = _engine(url, config)
        except (ArgumentError, ImportError) as error:
            raise ConfigError([f"lookups.databases.{name}: {error}"]) from error
        self._server = f"database {name} ({url.render_as_string(hide_password=True)})"
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self._threads = ThreadPoolExecutor(config.connections, thread_name_prefix=f"lookup-{name}")
        self._circuit = Circuit(config.circuit.failures, config.circuit.retry_s)
        self._lock = threading.Lock()
        self._under_way = 0

    async def ask(self, statement: Statement) -> Result:
        """Rows, or their number. Raises LookupFailed."""
        if not self._circuit.admits(self._loop.time()):
            raise ServerAway(statement.name, f"{self._server} has not answered for some time")
        if self._under_way >= self._config.connections + self._config.waiting:
            raise ServerAway(statement.name, f"{self._under_way} statements wait for it already")
        timeout_s = statement.timeout_s or self._config.timeout_s
        job = _Job(statement)
        with self._lock:
            self._under_way += 1
        work = self._loop.run_in_executor(self._threads, self._run, job)
        try:
            async with asyncio.timeout(timeout_s):
                # shielded: a cancelled entry of the queue would never run, and so never be counted off
                result, error = await asyncio.shield(work)
        except TimeoutError:
            self._give_up(job)
            self._failed()
            raise LookupTimeout(statement.name, f"no answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        if error is not None and _is_away(error):
            self._failed()
        elif self._circuit.succeeded():
            self._changed(self._server, False)
        if error is not None:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            raise LookupFailed(statement.name, f"the database refused: {' '.join(str(cause).split())}") from error
        return result

    def close(self) -> None:
        """Give the threads back when they are done with what they have."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if not self._under_way:
            self._engine.dispose()

    def _failed(self) -> None:
        if self._circuit.failed(self._loop.time()):
            self._changed(self._server, True)

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            job.given_up = True
            if self._is_sqlite and job.connection is not None:
                raw: Any = job.connection.connection.driver_connection  # Any: a sqlite3.Connection
                with contextlib.suppress(Exception):
                    raw.interrupt()

    def _run(self, job: _Job) -> tuple[Result, Exception | None]:
        """In a thread."""
        try:
            if job.given_up:
                return 0, None
            return self._perform(job), None
        except Exception as error:  # whatever a driver raises belongs to this statement
            return 0, error
        finally:
            with self._lock:
                job.connection = None
                self._under_way -= 1

    def _perform(self, job: _Job) -> Result:
        statement = job.statement
        with self._engine.connect() as connection:
            try:
                with self._lock:
                    if job.given_up:
                        return 0
                    job.connection = connection
                found = connection.execute(text(statement.sql), dict(statement.values))
                if statement.writes:
                    connection.commit()
                    return max(0, found.rowcount)
                return [dict(row) for row in found.mappings()] if found.returns_rows else 0
            finally:
                with self._lock:
                    job.connection = None


_SQLITE_AWAY = frozenset({5, 6, 9, 10, 13, 14})  # busy, locked, interrupted, I/O error, full, cannot open
_MYSQL_CLIENT = 2000  # and above: errors of the client, which has no server


def _is_away(error: Exception) -> bool:
    """Whether an error is of the server and not of the statement, which drivers mix under one class."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_AWAY
    number = next(iter(getattr(error.orig, "args", ())), None)
    return not isinstance(number, int) or number >= _MYSQL_CLIENT


def _engine(url: URL, config: DatabaseLookups) -> Engine:
    """An engine that has a connection for each thread and gives none of them up for longer than a look-up may take."""
    backend, limit_s = url.get_backend_name(), config.timeout_s
    arguments: dict[str, Any] = {}  # Any: each driver has its own
    if backend == "sqlite":
        arguments = {"timeout": limit_s, "check_same_thread": False}
    elif backend == "postgresql":
        arguments = {
            "connect_timeout": max(2, math.ceil(limit_s)),  # libpq takes less than 2 for 2
            "tcp_user_timeout": math.ceil(limit_s * 1000),
            "options": f"-c statement_timeout={math.ceil(limit_s * 1000)}",
        }
    elif backend == "mysql":
        whole_s = max(1, math.ceil(limit_s))
        arguments = {"connect_timeout": whole_s, "read_timeout": whole_s, "write_timeout": whole_s}
    pool: dict[str, Any] = {"pool_pre_ping": backend != "sqlite"}  # Any: as above
    if url.database not in (None, "", ":memory:") or backend != "sqlite":
        pool |= {"pool_size": config.connections, "max_overflow": 0, "pool_timeout": limit_s}
    return create_engine(url, connect_args=arguments, **pool)
