"""Opens the database of the configuration."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sbc.errors import ConfigError

BUSY_TIMEOUT_S = 5.0


def open_engine(url: str) -> Engine:
    """An engine for ``url``; no connection is made yet, but the folder of an SQLite file is.

    ConfigError when the URL cannot be read or its driver is not installed. SQLite runs in WAL mode, so that readers do
    not hold up the writer, and with full synchronisation: a committed CDR survives a power cut.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError([f"database: {error}"]) from error
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:  # Any: a pool entry that we do not use
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
