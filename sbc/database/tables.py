"""The tables, as SQLAlchemy Core knows them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text

metadata = MetaData()

_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER PRIMARY KEY counts by itself there
_TIME = Float(53)  # wall-clock seconds since 1970, UTC

CDR = Table(
    "cdr",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),  # order of arrival; the CSV file follows it
    Column("id", String(128), nullable=False, unique=True),
    Column("node", String(64), nullable=False),
    Column("started", _TIME),
    Column("answered", _TIME),  # NULL: never answered
    Column("ended", _TIME),
    Column("duration_ms", BigInteger),  # from the 2xx to the end, by a clock that does not jump
    Column("status", Integer),  # final SIP status towards the A leg
    Column("from_user", String(128)),
    Column("to_user", String(128)),
    Column("peer_a", String(128)),
    Column("peer_b", String(128)),
    Column("hangup_side", String(16)),
    Column("cause", Integer),  # Q.850
    Column("call_id_a", String(256)),
    Column("call_id_b", String(256)),
    Column("record", Text),  # the whole CDR as JSON
    sqlite_autoincrement=True,  # a number is never given twice, so the CSV file cannot skip a row
)

CSV_POSITION = Table(
    "cdr_csv_position",
    metadata,
    Column("path", String(512), primary_key=True),
    Column("sequence", _SEQUENCE, nullable=False),  # of the last row written; used where the file itself is empty
)
