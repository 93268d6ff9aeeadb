"""Log lines: what they look like, and what nobody can make them look like."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from sbc.telemetry import log

HOSTILE = 'x\r\n{"event":"forged"}\x1b[2J\x1b]0;owned\x07\x9b31m\u2028\u202e\x00\x7f' + b"\xff\xfe".decode(
    "utf-8", "surrogateescape"
)

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    """The lines written so far; the log is JSON at level info unless a test configures it again."""
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    log._limit = log.RateLimit(log.LIMIT_PER_S)
    log.configure("info", "json", "sip 0", fd=fd)

    def read() -> list[str]:
        return (tmp_path / "log").read_bytes().decode().splitlines()

    yield read
    log.configure("info", "auto", "sbc", fd=2)
    os.close(fd)


def test_a_json_line_holds_its_process_and_what_was_bound(lines: Lines) -> None:
    log.get(call="c1").bind(leg="b1").info("call answered", after_ms=120)
    (line,) = map(json.loads, lines())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "process": "sip 0",
        "event": "call answered",
        "call": "c1",
        "leg": "b1",
        "after_ms": 120,
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_text_from_outside_makes_a_line_or_drives_a_terminal(
    lines: Lines, tmp_path: Path, form: Any
) -> None:  # Any: parametrize cannot say Literal
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    log.configure("info", form, "sip 0", fd=fd)
    bound = log.get(call=HOSTILE)
    bound.info(HOSTILE, **{"from": HOSTILE, "octets": HOSTILE.encode("utf-8", "surrogateescape")})
    bound.info("nested", value={HOSTILE: [HOSTILE, (HOSTILE,)]}, error=ValueError(HOSTILE))
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        bound.exception("failed", error)
    os.close(fd)
    text = "\n".join(lines())
    assert all(character.isprintable() for character in text.replace("\n", ""))
    if form == "json":
        assert len(lines()) == 3
        assert all("forged" not in json.loads(line)["event"].split() for line in lines())
    else:
        own = [line for line in lines() if not line.startswith("    | ")]  # the rows of a traceback
        assert [line.split()[3] for line in own] == ["0"] * 3  # time, level, "sip 0"
    assert "\\x1b[2J" in text.replace("\\\\", "\\")


def test_a_filtered_level_writes_nothing_and_follows_a_reload(lines: Lines, tmp_path: Path) -> None:
    made_before = log.get(call="c1")
    made_before.debug("quiet")
    assert lines() == []
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    log.configure("debug", "json", "sip 0", fd=fd)
    made_before.debug("loud")
    log.configure("error", "json", "sip 0", fd=fd)
    made_before.warning("quiet again")
    os.close(fd)
    assert [json.loads(line)["event"] for line in lines()] == ["loud"]


def test_loggers_of_structlog_are_ours(lines: Lines) -> None:
    structlog.get_logger().bind(call="c9").warning("through structlog", n=1)
    assert json.loads(lines()[0])["call"] == "c9"


def test_the_level_may_be_data(lines: Lines) -> None:
    log.get().write("warning", "one")
    log.get().write("debug", "two")
    log.get().write("no such level", "three")
    assert [(row["event"], row["level"]) for row in map(json.loads, lines())] == [
        ("one", "warning"),
        ("three", "error"),
    ]


def test_a_field_may_have_any_name_and_cannot_pose_as_another(lines: Lines) -> None:
    names = ("event", "level", "time", "process", "error", "self", "method_name", "fields")
    log.get().warning("real", **dict.fromkeys(names, "forged"))
    row = json.loads(lines()[0])
    assert (row["event"], row["level"], row["process"]) == ("real", "warning", "sip 0")
    assert (row["level_"], row["process_"], row["self"]) == ("forged", "forged", "forged")


def test_an_error_has_its_traceback(lines: Lines) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        log.get().exception("route failed", call="c1")
    row = json.loads(lines()[0])
    assert row["error"] == "integer division or modulo by zero"
    assert row["traceback"][-1] == "ZeroDivisionError: integer division or modulo by zero"


def test_a_repeated_event_is_counted_instead_of_written() -> None:
    limit = log.RateLimit({"warning": 3})
    admitted = [limit.admit("flood", "warning", 10.0 + n / 100) for n in range(50)]
    assert admitted == [0, 0, 0] + [-1] * 47
    assert limit.admit("another", "warning", 10.5) == 0
    assert limit.admit("flood", "warning", 11.0) == 47
    assert limit.admit("flood", "warning", 11.1) == 0


def test_a_reader_that_does_not_read_never_blocks() -> None:
    read, write = os.pipe()
    lost: list[None] = []
    sink = log.Sink(write, lambda: lost.append(None))
    line = b"x" * 1000
    for _ in range(200):
        sink.msg(line)
    assert len(lost) == sink.lost > 100
    assert os.read(read, 1 << 20).count(b"\n") + len(lost) == 200
    sink.msg(b"after")
    first, second = os.read(read, 65536).splitlines()
    assert json.loads(first)["lines"] == len(lost)
    assert second == b"after"
    os.close(read)
    sink.msg(b"nobody listens")  # EPIPE
    assert sink.lost == 1
    os.close(write)
