"""Structured logs: one JSON object per line, or readable text on a terminal.

A process calls :func:`configure` once after its fork (and again on reload); everyone else only does
``log = get()`` or ``log.bind(call=key)`` and ``log.info("event in words", field=value)``. A line below the level costs
one comparison. Text that came from outside is escaped, so no message can forge a line or drive a terminal. The same
event repeated too often is counted instead of written, and a reader that does not read never blocks a worker: lines
are then lost, and counted.
"""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import structlog

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# How many lines of one event a process writes per second. Warnings and errors can be provoked from outside, the rest
# follows the traffic.
LIMIT_PER_S: dict[str, int] = {"debug": 1000, "info": 500, "warning": 10, "error": 10}
_MAX_TEXT = 4096  # octets of one value; longer text is cut

EventDict = MutableMapping[str, Any]  # Any: log fields are free


class _State:
    """What configure() sets for the process. Module state on purpose: a process has one log."""

    threshold = LEVELS["info"]
    process = "sbc"


def escape(text: str) -> str:
    """``text`` with every character that could move a cursor, end a line or hide itself written as an escape."""
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape_character(ord(c)) for c in text)


def _escape_character(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # an octet that was not UTF-8 (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    short = {10: "\\n", 13: "\\r", 9: "\\t"}.get(code)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _plain(value: object, depth: int = 0) -> object:
    """``value`` as something that JSON and the text form can show, with all text escaped."""
    if isinstance(value, str):
        return escape(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return escape(bytes(value).decode("utf-8", "surrogateescape"))
    if depth < 4:
        if isinstance(value, dict):
            return {escape(str(k)): _plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(v, depth + 1) for v in value]
    return escape(str(value))


class RateLimit:
    """Counts the lines of each event within the running second; sans clock: ``now`` is monotonic seconds."""

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = limits
        self._events: dict[str, list[float]] = {}  # event -> [second, lines, suppressed]

    def admit(self, event: str, level: str, now: float) -> int:
        """-1 to suppress this line, else how many lines of this event were suppressed before it."""
        second = float(int(now))
        seen = self._events.get(event)
        if seen is None:
            if len(self._events) >= 1000:  # event names are constants; this only guards against one that is not
                self._events.clear()
            self._events[event] = [second, 1, 0]
            return 0
        if seen[0] != second:
            suppressed = int(seen[2])
            seen[:] = [second, 1, 0]
            return suppressed
        if seen[1] >= self._limits[level]:
            seen[2] += 1
            return -1
        seen[1] += 1
        return 0


class Sink:
    """Writes whole lines to a file descriptor and never waits for its reader.

    A pipe or socket that is full loses the line; the loss is counted in ``lost`` and told in the next line that fits.
    ``on_lost`` is told of each loss, for a counter.
    """

    def __init__(self, fd: int, on_lost: Callable[[], None] | None = None) -> None:
        self.fd = fd
        self.lost = 0
        self.on_lost = on_lost
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def msg(self, line: bytes) -> None:
        """Write one line."""
        try:
            # POLLOUT on a pipe means that PIPE_BUF octets fit, so a usual line does not block.
            if not self._poll.poll(0):
                raise BlockingIOError
            if self.lost:
                lost, self.lost = self.lost, 0
                line = b'{"level":"warning","event":"log lines lost","lines":%d}\n' % lost + line
            os.write(self.fd, line + b"\n")
        except OSError:  # full disk, closed pipe, blocked reader: calls matter more than logs
            self.lost += 1
            if self.on_lost is not None:
                self.on_lost()


class Logger(structlog.BoundLoggerBase):
    """A logger with bound fields. The level is looked at when a line is written, so a reload changes it everywhere."""

    def bind(self, **fields: Any) -> Logger:  # Any: log fields are free
        """A logger that adds ``fields`` to each line."""
        bound = super().bind(**fields)
        assert isinstance(bound, Logger)
        return bound

    def debug(self, event: str, /, **fields: Any) -> None:  # Any: log fields are free
        if _State.threshold <= 10:
            self._emit("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:  # Any: log fields are free
        if _State.threshold <= 20:
            self._emit("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:  # Any: log fields are free
        if _State.threshold <= 30:
            self._emit("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:  # Any: log fields are free
        self._emit("error", event, fields)

    def exception(self, event: str, error: BaseException | None = None, /, **fields: Any) -> None:  # Any: as above
        """An error with the traceback of ``error``, by default of the exception that is being handled."""
        error = error or sys.exception() or RuntimeError("no exception is being handled")
        rows = "".join(traceback.format_exception(error)).splitlines()
        self._emit("error", event, {**fields, "error": str(error), "traceback": rows})

    def write(self, level: str, event: str, /, **fields: Any) -> None:  # Any: log fields are free
        """A line whose level is data; an unknown level is taken as ``error``."""
        if _State.threshold <= LEVELS.get(level, 40):
            self._emit(level if level in LEVELS else "error", event, fields)

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:  # Any: log fields are free
        """Never raises, whatever the fields are called or hold: a log line is no reason to lose a call."""
        with suppress(structlog.DropEvent):
            args, _ = self._process_event(level, event, fields)
            _sink.msg(*args)


_limit = RateLimit(LIMIT_PER_S)


def _rate_limit(_: object, level: str, fields: EventDict) -> EventDict:
    suppressed = _limit.admit(str(fields["event"]), level, time.monotonic())
    if suppressed < 0:
        raise structlog.DropEvent
    if suppressed:
        fields["suppressed"] = suppressed
    return fields


def _to_json(_: object, level: str, fields: EventDict) -> bytes:
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "process": _State.process,
        "event": escape(str(fields.pop("event"))),
    }
    for name, value in fields.items():
        line[f"{name}_" if name in line else name] = _plain(value)  # type: ignore[assignment]  # JSON values of any kind follow the four texts
    return orjson.dumps(line)


_COLOUR = {"debug": "2", "info": "32", "warning": "33", "error": "31;1"}


def _to_text(_: object, level: str, fields: EventDict, *, colour: bool = False) -> bytes:
    clock = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    event = escape(str(fields.pop("event")))
    trace = fields.pop("traceback", ())
    label = f"\x1b[{_COLOUR[level]}m{level:<7}\x1b[0m" if colour else f"{level:<7}"
    parts = [clock, label, f"{_State.process:<10}", event]
    parts += [f"{name}={_quoted(_plain(value))}" for name, value in fields.items()]
    lines = [" ".join(parts), *("    | " + escape(str(row)) for row in trace)]
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def _to_coloured_text(_: object, level: str, fields: EventDict) -> bytes:
    return _to_text(_, level, fields, colour=True)


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return value if value and " " not in value and '"' not in value else '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def configure(
    level: Level = "info",
    form: Literal["auto", "text", "json"] = "auto",
    process: str = "sbc",
    *,
    fd: int | None = None,
    on_lost: Callable[[], None] | None = None,
) -> None:
    """Set the log of this process: to standard error, or to ``fd``. May be called again; loggers already made follow.

    ``form`` ``auto`` is text on a terminal and JSON otherwise.
    """
    target = sys.stderr.fileno() if fd is None else fd
    terminal = os.isatty(target)
    _State.threshold = LEVELS[level]
    _State.process = process
    text = form == "text" or (form == "auto" and terminal)
    _sink.__init__(target, on_lost)  # type: ignore[misc]  # the one sink is shared by every logger made so far
    _renderer[0] = (_to_coloured_text if terminal and "NO_COLOR" not in os.environ else _to_text) if text else _to_json


def _render(logger: object, level: str, fields: EventDict) -> bytes:
    return _renderer[0](logger, level, fields)


_renderer: list[Callable[[object, str, EventDict], bytes]] = [_to_json]
_sink = Sink(2)
# Configured at import, with the defaults, so that a logger made at module level already is one of ours.
structlog.configure(
    processors=[_rate_limit, _render],
    wrapper_class=Logger,
    context_class=dict,
    logger_factory=lambda *_: _sink,
    cache_logger_on_first_use=True,
)


def get(**fields: Any) -> Logger:  # Any: log fields are free
    """A logger with ``fields`` bound, for instance ``get(call=key)``."""
    return Logger(_sink, [_rate_limit, _render], {}).bind(**fields)
