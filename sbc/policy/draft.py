"""A message that a policy is about to change: its start line and headers as lists, in the order in which they stand.

A field is a header, or a part of the addresses in it: ``("from", "host")``. ``request-uri`` stands for that of a
request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sbc.config.header_rules import REQUEST_URI
from sbc.errors import SipSyntaxError
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.build import build_request, build_response
from sbc.sip.headers import HEADERS, Arity
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri

_ROWS: Final = {header.name.lower(): header for header in HEADERS}
_COMPACT: Final = {header.compact: header.name.lower() for header in HEADERS if header.compact}

Field = tuple[str, str]


def long_name(name: str) -> str:
    """A header name in any case, or compact, as its long one in lower case."""
    name = name.lower()
    return _COMPACT.get(name, name)


def spelled(name: str) -> str:
    """The usual spelling of a header name."""
    row = _ROWS.get(long_name(name))
    return name if row is None else row.name


class Draft:
    """``changed``: whether it differs from the message that it was made of."""

    __slots__ = ("body", "changed", "headers", "is_request", "method", "reason", "status", "uri")

    def __init__(self, message: Message) -> None:
        self.is_request = message.is_request
        self.method = message.cseq_method
        self.uri = message.uri if self.is_request else ""
        self.status = 0 if self.is_request else message.status
        self.reason = "" if self.is_request else message.reason
        self.headers = message.items()
        self.body = message.body
        self.changed = False

    def octets(self) -> bytes:
        """The message as it now is. Raises SipSyntaxError for what cannot be written."""
        if self.is_request:
            return build_request(self.method, self.uri, self.headers, self.body)
        return build_response(self.status, self.reason, self.headers, self.body)

    # Headers

    def lines(self, name: str) -> list[str]:
        """The value of each line of a header; ``name`` long, in lower case."""
        return [value for header, value in self.headers if header.lower() == name]

    def remove(self, wanted: Callable[[str, str], bool]) -> list[tuple[str, str]]:
        """Take away the lines for which ``wanted(name in lower case, value)``; returns them."""
        gone = [item for item in self.headers if wanted(item[0].lower(), item[1])]
        if gone:
            self.headers = [item for item in self.headers if item not in gone]
            self.changed = True
        return gone

    def add(self, name: str, value: str) -> None:
        """One more line."""
        self.headers.append((name, value))
        self.changed = True

    # Fields

    def values(self, field: Field) -> list[str]:
        """What a field says: each line of a header, or the part of each address that has it."""
        name, part = field
        if name == REQUEST_URI:
            return [self.uri] if self.is_request and not part else self._of_uri(part)
        lines = self.lines(name)
        if not part:
            return lines
        found = []
        for line in lines:
            for element in elements(name, line):
                address = _address(element)
                value = None if address is None else part_of(address, part)
                if value is not None:
                    found.append(value)
        return found

    def _of_uri(self, part: str) -> list[str]:
        try:
            value = part_of(NameAddr("", parse_uri(self.uri)), part) if self.is_request else None
        except SipSyntaxError:
            value = None
        return [] if value is None else [value]

    def change(self, field: Field, edit: Callable[[str], str]) -> list[tuple[str, str]]:
        """Put ``edit(value)`` in the place of each value of a field; returns the pairs that differ. What would be no
        address any more stays as it was. A part that an address does not have is not made up, but for a display."""
        name, part = field
        if name == REQUEST_URI:
            return self._change_uri(part, edit)
        if part:
            return self.change_addresses(name, lambda address: with_part(address, part, edit), part)
        pairs = []
        for index, (header, value) in enumerate(self.headers):
            if header.lower() == name and (new := edit(value)) != value:
                self.headers[index] = (header, new)
                pairs.append((value, new))
        self.changed = self.changed or bool(pairs)
        return pairs

    def change_addresses(
        self, name: str, edit: Callable[[NameAddr], NameAddr | None], part: str = ""
    ) -> list[tuple[str, str]]:
        """The same for the addresses of a header; None leaves one as it is. The pairs are of ``part``."""
        pairs = []
        for index, (header, line) in enumerate(self.headers):
            if header.lower() != name:
                continue
            found = elements(name, line)
            here = []
            for at, element in enumerate(found):
                address = _address(element)
                new = None if address is None else edit(address)
                if address is None or new is None or new == address or _address(str(new)) != new:
                    continue
                found[at] = str(new)
                here.append((part_of(address, part) or "", part_of(new, part) or ""))
            if here:
                self.headers[index] = (header, ", ".join(found))
                pairs += here
        self.changed = self.changed or bool(pairs)
        return pairs

    def _change_uri(self, part: str, edit: Callable[[str], str]) -> list[tuple[str, str]]:
        try:
            before = NameAddr("", parse_uri(self.uri))
            after = with_part(before, part or "uri", edit)
            if after is None or parse_uri(str(after.uri)) != after.uri:
                return []
        except SipSyntaxError:
            return []
        new = str(after.uri)
        if new == self.uri:
            return []
        pairs = [(part_of(before, part) or "", part_of(after, part) or "")] if part else [(self.uri, new)]
        self.uri, self.changed = new, True
        return pairs


def elements(name: str, line: str) -> list[str]:
    """The elements of a line of a list header (RFC 3261 §7.3.1), of any other the line."""
    row = _ROWS.get(name)
    if row is None or row.arity is not Arity.LIST or "," not in line:
        return [line]
    found, start, quoted, angle, escaped = [], 0, False, False, False
    for at, char in enumerate(line):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = not angle
        elif char == "<":
            angle = True
        elif char == ">":
            angle = False
        elif char == "," and not angle:
            found.append(line[start:at].strip())
            start = at + 1
    return [*found, line[start:].strip()]


def part_of(address: NameAddr, part: str) -> str | None:
    """A part of an address, '' all of it; None where it has none."""
    uri = address.uri
    if part == "user":
        return uri.user
    if part == "host":
        return uri.host or None
    if part == "display":
        return address.display
    return str(uri) if part == "uri" else str(address)


def with_part(address: NameAddr, part: str, edit: Callable[[str], str]) -> NameAddr | None:
    """The address with ``edit`` of a part of it; None where it has no such part, or the new one cannot be."""
    value = part_of(address, part)
    if value is None:
        return None
    new = edit(value)
    if new == value:
        return None
    if part == "display":
        return address.replace(display=new)
    try:
        uri = parse_uri(new) if part == "uri" else _with(address.uri, part, new)
        return address.replace(uri=uri) if parse_uri(str(uri)) == uri else None
    except SipSyntaxError:
        return None


def _with(uri: Uri, part: str, value: str) -> Uri:
    return uri._replace(user=value) if part == "user" else uri._replace(host=value)


def _address(text: str) -> NameAddr | None:
    try:
        return parse_name_addr(text)
    except SipSyntaxError:
        return None
