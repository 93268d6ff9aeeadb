"""Addresses of From, To, Contact, Route and their kin (RFC 3261 §20.10, §25.1 name-addr and addr-spec)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sbc.errors import SipSyntaxError
from sbc.sip._message import usual_address
from sbc.sip.params import next_quote, parse_params
from sbc.sip.uri import NO_PARAMS, Params, Uri, find_param, format_params, parse_uri

_TOKEN_OR_BLANK: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~ ")
_NEVER_UNQUOTED: Final = frozenset('",;\\>')
_PAIR: Final = re.compile(r'\\[\\"]')


class NameAddr(NamedTuple):
    """``"display" <uri>;params``: ``display`` without its quotes and escapes, parameter values as received."""

    display: str
    uri: Uri
    params: Params = NO_PARAMS

    @property
    def tag(self) -> str:
        """The tag parameter, '' where there is none."""
        return find_param(self.params, "tag") or ""

    def param(self, name: str) -> str | None:
        """Value of a header parameter by name in any case, '' for one without a value, None for none."""
        return find_param(self.params, name)

    def replace(self, *, display: str | None = None, uri: Uri | None = None, params: Params | None = None) -> NameAddr:
        """A copy with what is given changed."""
        return NameAddr(
            self.display if display is None else display,
            self.uri if uri is None else uri,
            self.params if params is None else params,
        )

    def __str__(self) -> str:
        text = f"<{self.uri}>{format_params(self.params)}"
        return f"{quote_display(self.display)} {text}" if self.display else text


def quote_display(display: str) -> str:
    """A display name as it is written: bare where it consists of tokens, quoted and escaped otherwise."""
    if _TOKEN_OR_BLANK.issuperset(display) and display[:1] != " " != display[-1:]:
        return display
    return '"' + display.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_name_addr(text: str) -> NameAddr:
    """Parse one address with its header parameters. Raises SipSyntaxError.

    Without angle brackets every parameter is one of the header, not of the URI, and the URI may hold no '?' (§20).
    """
    return usual_address(NameAddr, Uri, NO_PARAMS, text) or _parse_any(text)


def _parse_any(text: str) -> NameAddr:
    text = text.strip(" \t")
    if text[:1] == '"':
        end = next_quote(text, 1)
        display = text[1:end]
        if "\\" in display:
            display = _unescape(display)
        rest = text[end + 1 :].lstrip(" \t")
        if rest[:1] != "<":
            raise SipSyntaxError("a display name without an address")
    else:
        start = text.find("<")
        semicolon = text.find(";")
        if start < 0 or 0 <= semicolon < start:
            spec, found, tail = text.partition(";")
            spec = spec.rstrip(" \t")
            if "?" in spec or "," in spec:
                raise SipSyntaxError("an address with ? or , needs angle brackets")
            return NameAddr("", parse_uri(spec), parse_params(";" + tail) if found else NO_PARAMS)
        display = text[:start].rstrip(" \t")
        if not _NEVER_UNQUOTED.isdisjoint(display):
            if not _NEVER_UNQUOTED.isdisjoint(_PAIR.sub("", display)):
                raise SipSyntaxError("a display name must be quoted")
            display = _unescape(display)
        rest = text[start:]
    uri, bracket, tail = rest[1:].partition(">")
    if not bracket:
        raise SipSyntaxError("an address has no closing >")
    return NameAddr(display, parse_uri(uri), parse_params(tail) if tail else NO_PARAMS)


def _unescape(text: str) -> str:
    """Quoted pairs resolved (§25.1)."""
    parts = []
    i = 0
    while (j := text.find("\\", i)) >= 0:
        parts += [text[i:j], text[j + 1 : j + 2]]
        i = j + 2
    return "".join(parts) + text[i:]
