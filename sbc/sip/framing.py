"""Messages out of a stream (RFC 3261 §18.3, §7.5) and the keep-alives between them (RFC 5626 §3.5.1, §4.4.1).

Where one message ends is for its Content-Length alone to say, so a head that does not say it clearly ends the stream:
nothing behind it can be told apart any more, and a guess would let a sender smuggle requests (RFC 4475 §3.3.15 ff.).
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_MESSAGE_BYTES = 65_535  # head and body; what Message.parse takes
MAX_DIGITS = 10

# A header line named Content-Length or l, whose value may be folded. The start line is never preceded by a line end.
_CONTENT_LENGTH = re.compile(rb"\n(?:content-length|l)[ \t]*:((?:[^\n]|\n[ \t])*)", re.IGNORECASE)
_BLANK = b" \t\r\n"
_LINE_END = b"\r\n"


class Limits(NamedTuple):
    """What one message may be on a stream. A header that is folded counts once for each of its lines."""

    message_bytes: int = MAX_MESSAGE_BYTES
    head_bytes: int = MAX_MESSAGE_BYTES
    header_lines: int = 200

    def excess(self, head: bytes) -> str:
        """Why a head is too much, as a plain phrase; '' where it is not."""
        if len(head) > self.head_bytes:
            return "the headers are too long"
        if head.count(b"\n") > self.header_lines + 2:  # the start line and the empty one at the end
            return "too many headers"
        return ""


NO_LIMITS = Limits()


class FramingError(Exception):
    """The stream cannot be read on: answer what ``head`` holds, then close.

    ``head`` is the broken message as far as it came and at most to the end of its headers; ``reason`` a plain sentence;
    ``too_much``: it may be sound, but is beyond a limit.
    """

    def __init__(self, reason: str, head: bytes, *, too_much: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.head = head
        self.too_much = too_much


class Framer:
    """Takes a stream in whatever pieces it comes; the pieces never show in what comes out.

    Time is linear in the octets fed, one at a time or all at once.
    """

    __slots__ = ("_buffer", "_limits", "_line_ends", "_needed", "_scanned", "fault", "pings")

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self._limits = limits
        self.fault: FramingError | None = None  # set once; nothing comes out afterwards
        self.pings = 0  # double CRLFs between messages, to be answered with one CRLF each; the caller resets it
        self._buffer = bytearray()  # the unfinished message, without line ends before it
        self._scanned = 0  # octets of the buffer in which the end of the head was looked for
        self._needed = 0  # octets of the whole message once its head is complete
        self._line_ends = b""  # line ends since the last message or ping

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, in order. After them, :attr:`fault` may say that the stream is over."""
        found: list[bytes] = []
        if self.fault is not None:
            return found
        buffered = bool(self._buffer)
        if buffered:
            self._buffer += data
        source = self._buffer if buffered else data
        at, length = 0, len(source)
        while at < length:
            if not self._needed and not self._scanned and source[at] in _LINE_END:
                at = self._skip(source, at)
                continue
            self._line_ends = b""
            needed = self._needed or self._measure(source, at)
            if needed < 0:
                self._buffer.clear()
                return found
            end = at + needed
            if not needed or end > length:
                break
            found.append(bytes(source[at:end]))
            at, self._needed, self._scanned = end, 0, 0
        if buffered:
            del self._buffer[:at]
        elif at < length:
            self._buffer += data[at:] if at else data
        return found

    def _skip(self, source: bytes | bytearray, at: int) -> int:
        """Past one octet of a line end between messages; every second CRLF in a row is a ping."""
        self._line_ends += source[at : at + 1]
        if self._line_ends == b"\r\n\r\n":
            self.pings += 1
            self._line_ends = b""
        elif not b"\r\n\r\n".startswith(self._line_ends):
            self._line_ends = b"\r" if source[at] == 13 else b""
        return at + 1

    def _measure(self, source: bytes | bytearray, at: int) -> int:
        """How long the message at ``at`` is; 0 until its head is complete, -1 where that does not say it."""
        limits = self._limits
        head_end = _head_end(source, max(at, at + self._scanned - 2))
        if head_end < 0:
            self._scanned = len(source) - at
            most = limits.head_bytes
            if self._scanned <= most:
                return 0
            return self._break("the headers are too long", bytes(source[at : at + most]), too_much=True)
        head = bytes(source[at:head_end])
        if excess := limits.excess(head):
            # without its end, so that nobody takes it for a whole message
            return self._break(excess, head[: limits.head_bytes].rstrip(_LINE_END), too_much=True)
        values = _CONTENT_LENGTH.findall(head)
        if len(values) != 1:
            return self._break("more than one Content-Length" if values else "no Content-Length on a stream", head)
        value = values[0].strip(_BLANK)
        if not value.isdigit() or len(value) > MAX_DIGITS:
            return self._break("Content-Length is no number", head)
        needed = len(head) + int(value)
        if needed > limits.message_bytes:
            return self._break("the message is too long", head.rstrip(_LINE_END), too_much=True)
        self._needed = needed
        return needed

    def _break(self, reason: str, head: bytes, *, too_much: bool = False) -> int:
        self.fault = FramingError(reason, head, too_much=too_much)
        return -1


def _head_end(source: bytes | bytearray, start: int) -> int:
    """Behind the empty line that ends the headers, -1 where there is none yet; a bare LF ends a line too."""
    usual = source.find(b"\n\r\n", start)
    bare = source.find(b"\n\n", start) if usual < 0 else source.find(b"\n\n", start, usual + 1)
    if bare >= 0:
        return bare + 2
    return usual + 3 if usual >= 0 else -1


def head_of(message: bytes) -> bytes:
    """Start line and headers of a whole message, with the empty line; all of it where there is none."""
    end = _head_end(message, 0)
    return message if end < 0 else message[:end]
