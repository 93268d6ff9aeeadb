"""Addresses as they stand in c=, o= and a= lines (RFC 8866 §5.7), and the search for addresses that would leak."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

NULL_ADDRESSES = ("0.0.0.0", "::")  # RFC 3264 §8.4: hold in the manner of RFC 2543; still sent by old gateways

_HOST_NAME = re.compile(
    r"^(?=.{1,253}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z][A-Za-z0-9-]{0,62}\.?$"
)
# An IPv4 literal, something with the look of an IPv6 literal, or user@host.domain.
_LEAK = re.compile(
    r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.])|(?:[0-9A-Fa-f]{0,4}:){2,}[0-9A-Fa-f]{0,4}|@[^\s@.]+\.[^\s@]"
)


@lru_cache(maxsize=8192)  # bounded; ipaddress takes 2 µs, and a node sees the same media addresses again and again
def ip_literal(text: str) -> str:
    """The canonical form of an IP literal, '' when ``text`` is none.

    IPv4-mapped IPv6 becomes IPv4. Zone ids (``fe80::1%eth0``) are refused: they mean nothing to anyone else.
    """
    if len(text) > 45 or "%" in text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if address.version == 6 and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def is_host_name(text: str) -> bool:
    """A name that could be resolved; all-numeric top labels are refused, they are broken addresses."""
    return _HOST_NAME.match(text) is not None


def connection_data(address: str) -> str:
    """``IN IP4 …`` or ``IN IP6 …`` for a literal (RFC 8866 §5.7)."""
    return f"IN IP6 {address}" if ":" in address else f"IN IP4 {address}"


def holds_address(text: str) -> bool:
    """True when ``text`` holds an IP literal or user@host: for lines whose meaning we do not know."""
    return _LEAK.search(text) is not None
