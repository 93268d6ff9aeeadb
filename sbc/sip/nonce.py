"""Nonces of our own challenges: time and serial number under a key, so that none need be kept (RFC 7616 §5.4).

A nonce is base64url of: milliseconds since 1970 (6 octets), serial number (8 octets), MAC (16 octets).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

MAC_OCTETS: Final = 16
NONCE_LENGTH: Final = 40  # characters: 30 octets need no padding
SKEW_S: Final = 5.0  # by which the clock of another node of ours may be ahead


class Verdict(Enum):
    """What a nonce that came back is."""

    GOOD = "good"
    STALE = "stale"  # ours, but too old, or from a clock that has been set back: challenge anew with stale=true
    FORGED = "forged"  # not ours, or for another realm or source


class Nonce(NamedTuple):
    """A nonce that came back. ``serial`` is what it was minted with, so that each can be taken once; -1 if forged."""

    verdict: Verdict
    serial: int
    age_s: float


_FORGED: Final = Nonce(Verdict.FORGED, -1, 0.0)


def mint(key: bytes, wall: float, serial: int, *, realm: str, source: str = "") -> str:
    """A nonce for ``realm``: 40 characters that need no quoting.

    ``key`` is a secret of 32 octets, ``wall`` seconds since 1970, ``serial`` a number below 2**64 that this key has not
    been used with. With ``source`` the nonce is good for that source (an address) alone.
    """
    head = int(wall * 1000).to_bytes(6, "big") + serial.to_bytes(8, "big")
    return base64.urlsafe_b64encode(head + _mac(key, head, realm, source)).decode()


def check(keys: Iterable[bytes], nonce: str, wall: float, lifetime_s: float, *, realm: str, source: str = "") -> Nonce:
    """Judge a nonce that came back, with the current key and those before it. Never raises, whatever ``nonce`` is."""
    if len(nonce) != NONCE_LENGTH or not nonce.isascii():
        return _FORGED
    try:
        octets = base64.b64decode(nonce, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return _FORGED
    head, mac = octets[:-MAC_OCTETS], octets[-MAC_OCTETS:]
    # no early end: how long it takes does not tell which key it was
    if not sum([hmac.compare_digest(mac, _mac(key, head, realm, source)) for key in keys]):
        return _FORGED
    age_s = wall - int.from_bytes(head[:6], "big") / 1000
    verdict = Verdict.GOOD if -SKEW_S <= age_s <= lifetime_s else Verdict.STALE
    return Nonce(verdict, int.from_bytes(head[6:], "big"), age_s)


def _mac(key: bytes, head: bytes, realm: str, source: str) -> bytes:
    text = f"{realm}\0{source}".encode("utf-8", "surrogateescape")
    return hmac.digest(key, head + text, "sha256")[:MAC_OCTETS]
