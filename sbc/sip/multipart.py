"""Bodies of several parts (RFC 2046 §5.1, RFC 5621): one part found and replaced, everything else octet for octet."""

from __future__ import annotations

import re
from typing import NamedTuple

from sbc.errors import SipSyntaxError

MAX_PARTS = 16
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_MAX_BOUNDARY = 70  # RFC 2046 §5.1.1


class Part(NamedTuple):
    """Where the content of a part lies in the body; ``type`` is in lower case, without parameters."""

    type: str
    start: int
    end: int


def is_multipart(content_type: str) -> bool:
    """Whether this Content-Type says that the body has parts."""
    return content_type.lstrip()[:10].lower() == "multipart/"


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """The parts of a body, in order; none is looked into. Raises SipSyntaxError: no boundary, no end, too many."""
    match = _BOUNDARY.search(content_type)
    boundary = "" if match is None else (match[1] or match[2] or "")
    if not boundary or len(boundary) > _MAX_BOUNDARY:
        raise SipSyntaxError("a multipart body without a boundary")
    delimiter = b"--" + boundary.encode("utf-8", "surrogateescape")
    found: list[Part] = []
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if at == 1:
        raise SipSyntaxError("a multipart body without its boundary")
    while True:
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return found
        head = body.find(b"\r\n", at)
        end = _next(body, delimiter, at)
        if head < 0 or end < 0:
            raise SipSyntaxError("a multipart body does not end")
        if len(found) == MAX_PARTS:
            raise SipSyntaxError(f"a multipart body of more than {MAX_PARTS} parts")
        found.append(_part(body, head, end))
        at = end + 2


def _next(body: bytes, delimiter: bytes, at: int) -> int:
    """Where the line break before the next delimiter is; a longer boundary that begins alike is none."""
    while (end := body.find(b"\r\n" + delimiter, at)) >= 0:
        rest = body[end + 2 + len(delimiter) :]
        if rest[:2] == b"--" or rest.lstrip(b" \t")[:2] in (b"\r\n", b""):
            return end
        at = end + 2
    return -1


def _part(body: bytes, head: int, end: int) -> Part:
    """``head`` is the line break behind the delimiter; an empty line ends the headers of the part."""
    blank = body.find(b"\r\n\r\n", head, end + 4)
    start = min(blank + 4, end) if 0 <= blank <= end else end
    kind = "text/plain"  # RFC 2046 §5.1
    for line in body[head:start].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() in (b"content-type", b"c"):
            kind = value.partition(b";")[0].strip().lower().decode("ascii", "replace")
    return Part(kind, start, end)


def replaced(body: bytes, part: Part, content: bytes) -> bytes:
    """``body`` with the content of one of its parts exchanged."""
    return body[: part.start] + content + body[part.end :]
