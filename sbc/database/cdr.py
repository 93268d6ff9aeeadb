"""Writes CDRs: each ``id`` once, however often it is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Insert, String, insert, select
from sqlalchemy.exc import IntegrityError

from sbc.database.tables import CDR, metadata

Row = dict[str, str | int | float | None]

# Columns by the field of the CDR (:mod:`sbc.b2bua.cdr`) that they come from.
_TIMES = {"start_time": "start", "answer_time": "answer", "end_time": "end"}
_MILLISECONDS = {"duration_ms": "duration_s", "setup_ms": "setup_s"}
_USERS = {"from_user": "from", "to_user": "to", "ruri_user": "ruri"}
_NUMBERS = ("status", "cause")
_LENGTHS = {column.name: column.type.length or 0 for column in CDR.columns if isinstance(column.type, String)}
_TEXTS = tuple(name for name in _LENGTHS if name not in (*_USERS, "id", "node", "record"))
_INTEGER_MAX = 2**31 - 1


def row_of(cdr: Mapping[str, Any], text: str) -> Row:  # Any: JSON values
    """The row of a CDR whose JSON is ``text``. What does not fit a column is cut or left out there; ``record`` has it.

    ValueError when it has no ``id``: it could not be told from another.
    """
    identity = cdr.get("id")
    if not isinstance(identity, str) or not 0 < len(identity) <= _LENGTHS["id"] or not identity.isprintable():
        raise ValueError("a CDR needs a printable id of at most 128 characters")
    row: Row = {"id": identity, "node": _text(cdr.get("node"), _LENGTHS["node"]) or "", "record": text}
    for name, field in _TIMES.items():
        row[name] = _real(cdr.get(field))
    for name, field in _MILLISECONDS.items():
        seconds = _real(cdr.get(field))
        row[name] = None if seconds is None or abs(seconds) > 1e12 else round(seconds * 1000)
    for name, field in _USERS.items():
        row[name] = _text(_user(cdr.get(field)), _LENGTHS[name])
    for name in _TEXTS:
        row[name] = _text(cdr.get(name), _LENGTHS[name])
    for name in _NUMBERS:
        value = cdr.get(name)
        row[name] = value if isinstance(value, int) and -_INTEGER_MAX <= value <= _INTEGER_MAX else None
    return row


def _text(value: Any, length: int) -> str | None:  # Any: a JSON value
    if value is None:
        return None
    text = value if value.__class__ is str else str(value)
    if "\0" in text:  # PostgreSQL has no room for it
        text = text.replace("\0", "")
    return text if len(text) <= length else text[:length]


def _real(value: Any) -> float | None:  # Any: a JSON value
    if value.__class__ is not float and value.__class__ is not int:
        return None
    return float(value) if abs(value) < 1e300 else None


def _user(uri: Any) -> str | None:  # Any: a JSON value
    """The user part of a SIP URI, the number of a tel URI; '' where there is none."""
    if not isinstance(uri, str):
        return None
    scheme, _, rest = uri.partition(":")
    user, at, _ = rest.rpartition("@")
    if at:
        return user.partition(";")[0].partition(":")[0]
    return rest.partition(";")[0] if scheme.lower() == "tel" else ""


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
