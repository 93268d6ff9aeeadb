"""Identifiers that we mint: branches, tags and Call-IDs, from an injected source of randomness.

A Call-ID of ours has a fixed shape, 24 characters of ``a-z2-7``, whose first two name the shard of the call. Every
message of a call carries either a Call-ID of ours or the one that the caller chose, so the shard of any message
follows from its Call-ID alone (:mod:`sbc.sip.shard`), for requests, responses, in-dialog or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from sbc.sip._ids import Mint

SHARDS: Final = 1024
ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_LETTERS: Final = frozenset(ALPHABET)
MAGIC_COOKIE: Final = "z9hG4bK"  # RFC 3261 §8.1.1.7
CALL_ID_LENGTH: Final = 24
TOKEN_LENGTH: Final = 16  # 80 random bits; RFC 3261 §19.3 asks for 32


def is_ours(call_id: str) -> bool:
    """Whether a Call-ID has the shape of those that we mint."""
    return len(call_id) == CALL_ID_LENGTH and _LETTERS.issuperset(call_id)


def is_token(text: str) -> bool:
    """Whether a tag has the shape of those that we mint."""
    return len(text) == TOKEN_LENGTH and _LETTERS.issuperset(text)


def is_branch(text: str) -> bool:
    """Whether a Via branch has the shape of those that we mint."""
    return text.startswith(MAGIC_COOKIE) and is_token(text[len(MAGIC_COOKIE) :])


class Ids:
    """Mints identifiers of 80 random bits or more from ``random_bytes``, asked for ``buffer_bytes`` octets at a time:
    a system call per token costs more than the token.

    One with a buffer is to be made after a fork: two processes that share it would mint the same identifiers.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom, *, buffer_bytes: int = 0) -> None:
        self._letters = Mint(random_bytes, buffer_bytes).letters

    def token(self) -> str:
        """16 characters of a-z2-7: 80 random bits."""
        return self._letters("", TOKEN_LENGTH)

    def branch(self) -> str:
        """A Via branch (RFC 3261 §8.1.1.7)."""
        return self._letters(MAGIC_COOKIE, TOKEN_LENGTH)

    def tag(self) -> str:
        """A From or To tag (RFC 3261 §19.3)."""
        return self._letters("", TOKEN_LENGTH)

    def call_id(self, shard: int) -> str:
        """A Call-ID that names ``shard`` (0..1023) in its first two characters."""
        return self._letters(ALPHABET[shard >> 5] + ALPHABET[shard & 31], CALL_ID_LENGTH - 2)
