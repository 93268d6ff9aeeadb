"""What the answer to a REGISTER says, read with the care that a stranger's numbers deserve."""

from __future__ import annotations

from typing import Final

from sbc.errors import SipSyntaxError
from sbc.sip.address import parse_name_addr
from sbc.sip.message import Message
from sbc.sip.uri import Uri

EXPIRES_MAX_S: Final = 86_400
RETRY_AFTER_MAX_S: Final = 3600.0
ROUTES_MAX: Final = 8
# Not about the registration: somebody, or this server, cannot serve us now (RFC 3261 §21.4, §21.5, RFC 6585 §4).
UNAVAILABLE: Final = frozenset({408, 429, 480, 491, *range(500, 600)} - {501, 505, 513})


def granted_s(msg: Message, contact: Uri, asked_s: int) -> int:
    """For how long a 2xx binds our Contact; 0 where it lists other Contacts and not ours (RFC 3261 §10.2.4).

    A registrar that lists none, or one whose Contact is ours but for what it rewrote, is taken at its Expires header,
    or at what we asked for.
    """
    listed = msg.get_all("Contact")
    found = None
    for value in listed:
        try:
            address = parse_name_addr(value)
        except SipSyntaxError:
            continue
        same = (address.uri.user, address.uri.address, address.uri.port) == (
            contact.user,
            contact.address,
            contact.port,
        )
        if same or len(listed) == 1:
            found = address.param("expires") or ""
            if same:
                break
    if listed and found is None:
        return 0
    seconds = _seconds(found or "")
    if seconds is None:
        seconds = _seconds(msg.get("Expires") or "")
    return min(asked_s if seconds is None else seconds, EXPIRES_MAX_S)


def min_expires_s(msg: Message) -> int | None:
    """The Min-Expires of a 423; None where it is missing, or longer than anybody means."""
    seconds = _seconds(msg.get("Min-Expires") or "")
    return None if seconds is None or seconds > EXPIRES_MAX_S else seconds


def retry_after_s(msg: Message) -> float:
    """Its Retry-After, 0 where there is none."""
    seconds = _seconds((msg.get("Retry-After") or "").partition(";")[0].partition("(")[0])
    return 0.0 if seconds is None else min(float(seconds), RETRY_AFTER_MAX_S)


def service_route(msg: Message) -> tuple[str, ...]:
    """The Service-Route of a 2xx (RFC 3608), those values that are addresses."""
    routes = []
    for value in msg.get_all("Service-Route")[:ROUTES_MAX]:
        try:
            if parse_name_addr(value).uri.is_sip:
                routes.append(value)
        except SipSyntaxError:
            continue
    return tuple(routes)


def _seconds(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None
