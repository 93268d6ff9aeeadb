"""The tables, as SQLAlchemy Core knows them. What a CDR holds is said in :mod:`sbc.b2bua.cdr`."""

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
    Column("start_time", _TIME),
    Column("answer_time", _TIME),  # NULL: never answered
    Column("end_time", _TIME),
    Column("duration_ms", BigInteger),  # from answer to end, by a clock that does not jump
    Column("setup_ms", BigInteger),
    Column("status", Integer),  # final SIP status towards the A leg
    Column("from_user", String(128)),
    Column("to_user", String(128)),
    Column("ruri_user", String(128)),  # what was dialled
    Column("direction", String(64)),
    Column("a_peer", String(128)),
    Column("b_peer", String(128)),
    Column("hangup", String(16)),
    Column("cause", Integer),  # Q.850
    Column("note", String(256)),
    Column("a_call_id", String(256)),
    Column("b_call_id", String(256)),
    Column("media_node", String(64)),
    Column("record", Text),  # the whole CDR as JSON
    sqlite_autoincrement=True,  # a number is never given twice, so the CSV file cannot skip a row
)

CSV_POSITION = Table(
    "cdr_csv_position",
    metadata,
    Column("path", String(512), primary_key=True),
    Column("sequence", _SEQUENCE, nullable=False),  # of the last row written; used where the file itself is empty
)
