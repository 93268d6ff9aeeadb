"""Identifiers that we mint: branches, tags and Call-IDs, from an injected source of randomness.

A Call-ID of ours has a fixed shape, 24 characters of ``a-z2-7``, whose first two name the shard of the call. Every
message of a call carries either a Call-ID of ours or the one that the caller chose, so the shard of any message
follows from its Call-ID alone (:mod:`sbc.sip.shard`), for requests, responses, in-dialog or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable

SHARDS = 1024
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
MAGIC_COOKIE = "z9hG4bK"  # RFC 3261 §8.1.1.7
CALL_ID_LENGTH = 24
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]  # 10 bits at a time: a call takes eleven tokens


def buffered(source: Callable[[int], bytes], size: int = 4096) -> Callable[[int], bytes]:
    """``source`` asked for ``size`` octets at a time: a system call per token costs more than the token.

    To be made after a fork: two processes that share a buffer would mint the same identifiers.
    """
    pool, at = b"", 0

    def take(count: int) -> bytes:
        nonlocal pool, at
        if at + count > len(pool):
            pool, at = source(max(size, count)), 0
        at += count
        return pool[at - count : at]

    return take


class Ids:
    """Mints identifiers of 80 random bits or more (RFC 3261 §19.3 asks for 32)."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes

    def token(self) -> str:
        """16 characters of a-z2-7: 80 random bits."""
        n = int.from_bytes(self._random_bytes(10), "big")
        return (
            _PAIRS[n >> 70]
            + _PAIRS[n >> 60 & 1023]
            + _PAIRS[n >> 50 & 1023]
            + _PAIRS[n >> 40 & 1023]
            + _PAIRS[n >> 30 & 1023]
            + _PAIRS[n >> 20 & 1023]
            + _PAIRS[n >> 10 & 1023]
            + _PAIRS[n & 1023]
        )

    def branch(self) -> str:
        """A Via branch (RFC 3261 §8.1.1.7)."""
        return MAGIC_COOKIE + self.token()

    def tag(self) -> str:
        """A From or To tag (RFC 3261 §19.3)."""
        return self.token()

    def call_id(self, shard: int) -> str:
        """A Call-ID that names ``shard`` (0..1023) in its first two characters."""
        return ALPHABET[shard >> 5] + ALPHABET[shard & 31] + self.token() + self.token()[:6]
