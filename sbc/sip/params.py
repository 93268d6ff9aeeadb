"""Header parameters: ``;name[=value]`` with blanks where the grammar allows them (RFC 3261 §25.1 generic-param)."""

from __future__ import annotations

import re

from sbc.errors import SipSyntaxError
from sbc.sip.uri import NO_PARAMS, Params

_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~")
_NOT_IN_VALUE = frozenset(' \t,;"<>')
# Parameters without blanks or quotes need no second look.
_PLAIN = re.compile(r"""(?:;[-.!%*_+`'~A-Za-z0-9]+(?:=[^ \t,;"<>]*)?)+""")


def next_quote(text: str, start: int) -> int:
    """Index of the quote that closes a quoted-string whose inside begins at ``start``. Raises SipSyntaxError."""
    end = text.find('"', start)
    if end >= 0 and "\\" not in text[start:end]:
        return end
    i = start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] == '"':
            return i
        i += 1
    raise SipSyntaxError("a quoted string has no end")


def parse_params(text: str) -> Params:
    """Parse all of ``text``: parameters, each behind its ';'. Quoted values keep their quotes, so that they are written
    as they came; a name without '=' has the value None; of a repeated name the first counts. Raises SipSyntaxError."""
    params: dict[str, str | None] = {}
    if _PLAIN.fullmatch(text):
        for item in text[1:].split(";"):
            name, equals, value = item.partition("=")
            if name not in params:
                params[name] = value if equals else None
        return params
    text = text.strip(" \t")
    if not text:
        return NO_PARAMS
    if text[0] != ";":
        raise SipSyntaxError("something other than a parameter follows")
    for item in text[1:].split(";") if '"' not in text else _split_outside_quotes(text[1:]):
        name, equals, value = item.partition("=")
        name = name.strip(" \t")
        if not name or not _TOKEN.issuperset(name):
            raise SipSyntaxError("a parameter is malformed")
        if not equals:
            params.setdefault(name, None)
            continue
        value = value.strip(" \t")
        if value[:1] == '"':
            if next_quote(value, 1) != len(value) - 1:
                raise SipSyntaxError("something follows a quoted parameter")
        elif not _NOT_IN_VALUE.isdisjoint(value):
            raise SipSyntaxError("a parameter value is malformed")
        params.setdefault(name, value)
    return params


def _split_outside_quotes(text: str) -> list[str]:
    items = []
    start = i = 0
    while i < len(text):
        if text[i] == '"':
            i = next_quote(text, i + 1)
        elif text[i] == ";":
            items.append(text[start:i])
            start = i + 1
        i += 1
    items.append(text[start:])
    return items
