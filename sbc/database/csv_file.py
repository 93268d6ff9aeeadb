"""The CSV file of CDRs, fed from the table: each row once through any crash, because the file says how far it is.

RFC 4180, one physical line per record (control characters are written as escapes), so the last complete line is found
from the end of the file. Text that a spreadsheet would take for a formula is preceded by an apostrophe.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Float, Row, String, delete, insert, select

from sbc.database.cdr import CdrTable
from sbc.database.tables import CDR, CSV_POSITION

COLUMNS = tuple(column for column in CDR.columns if column.name not in ("sequence", "record"))
_HEADER = ",".join(column.name for column in COLUMNS) + "\r\n"
_AT_ONCE = 1000
_BLOCK_BYTES = 65536


class CsvFile:
    """One file; ``node`` restricts it to the CDRs of this node. Raises OSError and SQLAlchemy's errors."""

    def __init__(self, path: str, table: CdrTable, node: str) -> None:
        self.path = path
        self._table = table
        self._node = node
        self._position = 0  # sequence of the last row in the file
        self._file: io.FileIO | None = None

    def feed(self) -> int:
        """Append what the table has and the file has not; how many rows."""
        if self._file is None or self._was_moved():
            self._open()
        written = 0
        while rows := self._next_rows():
            try:
                self._write(_lines(rows))
            except OSError:
                self.close()  # the next attempt cuts a partial line off
                raise
            self._position = rows[-1][0]
            written += len(rows)
        if written:
            self._remember()
        return written

    def close(self) -> None:
        """Close the file; :meth:`feed` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_rows(self) -> list[Row[Any]]:  # Any: a column of any of our types
        query = (
            select(CDR.c.sequence, *COLUMNS)
            .where(CDR.c.sequence > self._position, CDR.c.node == self._node)
            .order_by(CDR.c.sequence)
            .limit(_AT_ONCE)
        )
        with self._table.engine.connect() as connection:
            return list(connection.execute(query).all())

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        os.fdatasync(self._file.fileno())

    def _was_moved(self) -> bool:
        """Whether log rotation took the file away under us."""
        assert self._file is not None
        try:
            there, ours = os.stat(self.path), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or ours.st_size == 0

    def _open(self) -> None:
        """Open for appending, behind the last complete line."""
        self.close()
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._file = io.FileIO(descriptor, "r+")
        try:
            line, end = _last_line(self._file)
            self._file.truncate(end)
            if end == 0:
                self._write(_HEADER.encode())
            self._position = self._sequence_of(line)
        except BaseException:
            self.close()
            raise

    def _sequence_of(self, line: bytes) -> int:
        """The sequence of the row on this line; where there is none, or the table does not know it, what we noted."""
        identity = next(csv.reader([line.decode("utf-8", "replace")]), [""])[0] if line else ""
        with self._table.engine.connect() as connection:
            for candidate in (identity, identity[1:] if identity.startswith("'") else ""):
                if candidate:
                    found = connection.execute(select(CDR.c.sequence).where(CDR.c.id == candidate)).scalar()
                    if found is not None:
                        return int(found)
            noted = select(CSV_POSITION.c.sequence).where(CSV_POSITION.c.path == self.path)
            return int(connection.execute(noted).scalar() or 0)

    def _remember(self) -> None:
        with self._table.engine.begin() as connection:
            connection.execute(delete(CSV_POSITION).where(CSV_POSITION.c.path == self.path))
            connection.execute(insert(CSV_POSITION), {"path": self.path, "sequence": self._position})


def _last_line(file: io.FileIO) -> tuple[bytes, int]:
    """The last line that ends with a newline, and where it ends; a partial line behind it does not count."""
    size = file.seek(0, os.SEEK_END)
    tail = b""
    start = size
    while start > 0:
        step = min(_BLOCK_BYTES, start)
        start -= step
        file.seek(start)
        tail = (file.read(step) or b"") + tail
        end = tail.rfind(b"\n")
        if end >= 0 and ((before := tail.rfind(b"\n", 0, end)) >= 0 or start == 0):
            return tail[before + 1 : end].rstrip(b"\r"), start + end + 1
    return b"", 0


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:  # Any: a column of any of our types
    """The rows as lines; each begins with its sequence, which is left out."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(
        [form(value) for form, value in zip(_FORMS, row[1:], strict=True)] for row in rows
    )
    return out.getvalue().encode()


def _text(value: str | None) -> str:
    if not value:
        return ""
    text = value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
    return "'" + text if value[0] in "=+-@\t\r" else text


def _time(value: float | None) -> str:
    if value is None:
        return ""
    try:
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(value)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


# Any: each form takes what its own column holds
_FORMS: tuple[Callable[[Any], str], ...] = tuple(
    _time if isinstance(column.type, Float) else _text if isinstance(column.type, String) else _number
    for column in COLUMNS
)
