"""The Replaces header (RFC 3891): which dialog an INVITE is to take the place of."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

from sbc.errors import SipSyntaxError
from sbc.sip.params import parse_params
from sbc.sip.uri import find_param

_UNESCAPED = "-_.!~*'()[]/?:+$"  # RFC 3261 §25.1 hvalue: hnv-unreserved and unreserved


class Replaces(NamedTuple):
    """The dialog as the receiver of the INVITE has it: ``to_tag`` is its own tag, ``from_tag`` that of the other side.

    ``early_only``: only while it is an early dialog (§3).
    """

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False

    def __str__(self) -> str:
        text = f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}"
        return text + ";early-only" if self.early_only else text

    def in_uri(self) -> str:
        """As a header of a URI (RFC 3261 §19.1.1), as it stands in a Refer-To."""
        return "Replaces=" + quote(str(self), safe=_UNESCAPED)


def parse_replaces(value: str) -> Replaces:
    """Read a value of the header. Raises SipSyntaxError (400) where a tag or the Call-ID is missing (§3)."""
    call_id, semicolon, rest = value.partition(";")
    params = parse_params(semicolon + rest)
    to_tag, from_tag = find_param(params, "to-tag"), find_param(params, "from-tag")
    call_id = call_id.strip()
    if not call_id or " " in call_id or not to_tag or not from_tag:
        raise SipSyntaxError("Replaces without a Call-ID or a tag")
    return Replaces(call_id, to_tag, from_tag, find_param(params, "early-only") is not None)


def replaces_of(headers: str) -> Replaces | None:
    """What the headers of a URI (what follows its '?') say of Replaces. Raises SipSyntaxError where it is malformed."""
    for item in headers.split("&"):
        name, _, value = item.partition("=")
        if unquote(name).lower() == "replaces":
            text = unquote(value, errors="surrogateescape")
            if any(c < " " for c in text):
                raise SipSyntaxError("Replaces with a control character")
            return parse_replaces(text)
    return None
