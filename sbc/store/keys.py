"""Every key name and every time to live in Redis; nowhere else are they spelled.

All keys of a node share one hash tag, ``sbc:{node}:``, so that a script may touch several of them on a cluster too.
No text that a peer chose ever stands in a key: a call key of another shape than ours is replaced by its digest.
"""

from __future__ import annotations

import hashlib
from typing import Final

# The server of the store times keys by its wall clock, which may be set ahead: then they expire early. By less than
# MARKER_TTL_S that is less than the margin of any record; by more the marker is gone too, and all is written again.
RECORD_TTL_MARGIN_S = 86_400  # a record outlives the longest dialog by this, then Redis forgets it by itself
MARKER_TTL_S = 3_300  # renewed each second
QUARANTINE_TTL_S = 86_400  # how long a record that nobody could read is kept for a look at it
CDR_GROUP = "writers"  # consumer group of the CDR stream
CDR_FIELD = "cdr"  # field of a stream entry: the CDR as JSON

_MEMBER_LENGTH: Final = 64
_DIGEST_MARK: Final = "~"  # outside isalnum(), so that no key of a peer's choosing can pose as a digest


def member_of(call_key: str) -> str:
    """The name of a call inside our keys: itself when plain ASCII letters and digits, else its digest.

    Idempotent: the member of a member is itself.
    """
    if call_key.isalnum() and call_key.isascii() and len(call_key) <= _MEMBER_LENGTH:
        return call_key
    if is_member(call_key):
        return call_key
    octets = call_key.encode("utf-8", "surrogatepass")
    return _DIGEST_MARK + hashlib.blake2b(octets, digest_size=16).hexdigest()


def is_member(text: str) -> bool:
    """Whether ``text`` has a shape that :func:`member_of` returns; what else stands in an index is foreign."""
    if text.startswith(_DIGEST_MARK):
        digest = text[1:]
        return len(digest) == 32 and digest.isalnum() and digest.isascii()
    return text.isalnum() and text.isascii() and len(text) <= _MEMBER_LENGTH


class Keys:
    """The key names of one node; ``node`` has the shape that the configuration demands (letters, digits, ``.-``)."""

    __slots__ = ("_bad", "_call", "_shard", "cdr_stream", "incarnation", "lease", "marker", "prefix", "token")

    def __init__(self, node: str) -> None:
        self.prefix = f"sbc:{{{node}}}:"
        self.cdr_stream = self.prefix + "cdr"
        self.marker = self.prefix + "marker"  # its loss tells that the store forgot what it held
        # of a pair: who is active, the latest token, which nodes were there lately
        self.token = self.prefix + "token"
        self.lease = (self.prefix + "lease", self.token, self.prefix + "presence")
        self.incarnation = self.prefix + "incarnation"  # of the worker that started last
        self._call = self.prefix + "call:"
        self._bad = self.prefix + "bad:"
        self._shard = self.prefix + "shard:"

    def call(self, member: str) -> str:
        """STRING: ``<format> <epoch> <version>\\n`` and the record; ``member`` comes from :func:`member_of`."""
        return self._call + member

    def bad(self, member: str) -> str:
        """Where a record that nobody could read is moved to, for :data:`QUARANTINE_TTL_S`."""
        return self._bad + member

    def shard(self, shard: int) -> str:
        """SET: the members of one shard's calls."""
        return f"{self._shard}{shard}"
