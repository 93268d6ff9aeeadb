"""Writes CDRs: each ``id`` once, however often it is handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Insert, String, insert, select
from sqlalchemy.exc import IntegrityError

from sbc.database.tables import CDR, metadata

Row = dict[str, str | int | float | None]

_TEXTS = {
    column.name: column.type.length or 0
    for column in CDR.columns
    if isinstance(column.type, String) and column.name not in ("id", "record")
}
_TIMES = ("started", "answered", "ended")
_NUMBERS = {"duration_ms": 2**63 - 1, "status": 2**31 - 1, "cause": 2**31 - 1}


def row_of(cdr: Mapping[str, Any], text: str) -> Row:  # Any: JSON values
    """The row of a CDR whose JSON is ``text``. What does not fit a column is cut or left out there; ``record`` has it.

    ValueError when it has no ``id``: it could not be told from another.
    """
    identity = cdr.get("id")
    if not isinstance(identity, str) or not identity or len(identity) > 128 or not identity.isprintable():
        raise ValueError("a CDR needs a printable id of at most 128 characters")
    row: Row = {"id": identity, "record": text.replace("\\u0000", "")}
    for name, length in _TEXTS.items():
        value = cdr.get(name)
        row[name] = None if value is None else str(value).replace("\0", "")[:length]
    row["node"] = row["node"] or ""
    for name in _TIMES:
        value = cdr.get(name)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        row[name] = float(value) if fits and value is not None else None
    for name, largest in _NUMBERS.items():
        value = cdr.get(name)
        row[name] = value if isinstance(value, int) and -largest <= value <= largest else None
    return row


class CdrTable:
    """The table, through an engine. Every method raises SQLAlchemy's errors; OperationalError means: try again."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._insert = _insert_or_skip(engine.dialect.name)

    def create(self) -> None:
        """Make the tables where they are missing."""
        metadata.create_all(self.engine)

    def add(self, rows: Sequence[Row]) -> int:
        """Insert, in order and in one transaction, those whose id is new; how many were."""
        if not rows:
            return 0
        with self.engine.begin() as connection:
            return self._insert(connection, rows)


def _insert_or_skip(dialect: str) -> Callable[[Connection, Sequence[Row]], int]:
    """The way to insert rows and skip known ids that this database offers."""
    statement: Insert | None = None
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        statement = sqlite_insert(CDR).on_conflict_do_nothing(index_elements=["id"])
    elif dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        statement = postgresql_insert(CDR).on_conflict_do_nothing(index_elements=["id"])
    elif dialect in ("mysql", "mariadb"):
        statement = insert(CDR).prefix_with("IGNORE")
    if statement is None:
        return _insert_checked
    ready = statement.inline()

    def run(connection: Connection, rows: Sequence[Row]) -> int:
        written = connection.execute(ready, rows).rowcount
        return written if written >= 0 else len(rows)  # a driver that cannot count

    return run


def _insert_checked(connection: Connection, rows: Sequence[Row]) -> int:
    """For databases without such a statement: look, insert, and fall back to savepoints where another was faster."""
    known = _known(connection, rows)
    written = 0
    for row in rows:
        if row["id"] in known:
            continue
        try:
            with connection.begin_nested():
                connection.execute(insert(CDR).inline(), row)
        except IntegrityError:
            continue
        known.add(row["id"])
        written += 1
    return written


def _known(connection: Connection, rows: Sequence[Row]) -> set[str | int | float | None]:
    ids = [row["id"] for row in rows]
    return {found for (found,) in connection.execute(select(CDR.c.id).where(CDR.c.id.in_(ids)))}
