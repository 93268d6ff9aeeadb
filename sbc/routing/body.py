"""A body as its parts (RFC 2046 §5.1, RFC 5621): a body of one kind is its own only part."""

from __future__ import annotations

from typing import Protocol

from sbc.errors import SipSyntaxError
from sbc.routing.routes import RouteError
from sbc.sip.multipart import Part, is_multipart, parts_of, replaced

_CRLF = b"\r\n"


class HasBody(Protocol):
    """A message with a body that may be changed."""

    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> bytes: ...

    def set_body(self, body: bytes, content_type: str) -> None: ...


class Parts:
    """The parts of a body by their type, in any case and without parameters: ``application/sdp``.

    Every octet that is not of a changed part stays. A change is there for the next line to see. Raises RouteError for
    a body whose parts cannot be told apart.
    """

    __slots__ = ("_message",)

    def __init__(self, message: HasBody) -> None:
        self._message = message

    @property
    def types(self) -> tuple[str, ...]:
        """The types, in order; empty without a body."""
        return tuple([part.type for part in self._parts()])

    def get(self, kind: str) -> bytes | None:
        """The content of the first part of this type, None where there is none."""
        part = self._find(kind)
        return None if part is None else self._message.body[part.start : part.end]

    def set(self, kind: str, content: bytes) -> None:
        """Another content of the first part of this type; RouteError where there is none."""
        part = self._find(kind)
        if part is None:
            raise RouteError(f"the body has no part {kind}; there are: {', '.join(self.types) or 'none'}")
        message = self._message
        message.set_body(replaced(message.body, part, content), message.content_type)

    def remove(self, kind: str) -> bool:
        """Take the first part of this type away, with its headers; False where there is none."""
        part = self._find(kind)
        if part is None:
            return False
        message, body = self._message, self._message.body
        if not is_multipart(message.content_type):
            message.set_body(b"", "")
            return True
        boundary = body[: body.index(_CRLF)] if body.startswith(b"--") else b""
        if not boundary:
            boundary = body[body.index(_CRLF + b"--") + 2 :].partition(_CRLF)[0]
        boundary = boundary.rstrip(b" \t")
        begin = body.rfind(boundary + _CRLF, 0, part.start)
        message.set_body(body[:begin] + body[part.end + len(_CRLF) :], message.content_type)
        return True

    def __contains__(self, kind: str) -> bool:
        return self._find(kind) is not None

    def __len__(self) -> int:
        return len(self._parts())

    def _find(self, kind: str) -> Part | None:
        kind = kind.lower()
        return next((part for part in self._parts() if part.type == kind), None)

    def _parts(self) -> list[Part]:
        kind, body = self._message.content_type, self._message.body
        if not body:
            return []
        if not is_multipart(kind):
            return [Part(kind.partition(";")[0].strip().lower(), 0, len(body))]
        try:
            return parts_of(kind, body)
        except SipSyntaxError as error:
            raise RouteError(f"the parts of the body cannot be told apart: {error.reason}") from error
