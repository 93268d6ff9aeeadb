"""A heartbeat as octets: authentic by the key that both nodes share, and of no use to whoever sends it again.

Each process draws a number for its life. A heartbeat names the life of its sender and that of the receiver as last
heard, and counts up within the former. It is believed when it names our own life, so nothing recorded in an earlier one
passes, and when its count has risen on that path. One that does not name us yet only tells us whom to name.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from sbc.ha.election import Beat, State

MAGIC = b"SBCHA1\0\0"
_HEAD = struct.Struct(">8sQQQBBQQ63p")  # magic, life, life of the receiver, count, state, flags, token, offer, name
_TAG = 32
LENGTH = _HEAD.size + _TAG
_WORDS = ("store", "ready", "synced", "witness", "prefers", "wants", "unsure")  # of Beat; one bit each, in this order
_FLAGS = {word: 1 << bit for bit, word in enumerate(_WORDS)}
_NAME_AT = _HEAD.size - 63  # a name of 62 octets leaves none for the format of records, which then is unknown: 1
_LONGEST = 62
LIVES_KEPT = 64


def key_of(shared: bytes, purpose: str) -> bytes:
    """32 octets for one purpose, from the key that both nodes of a pair have."""
    return hmac.digest(shared, b"portcullis pair: " + purpose.encode(), hashlib.sha256)


class Speaker:
    """Writes and reads heartbeats of one pair of processes. ``life`` is a random number of 64 bits, never 0."""

    def __init__(self, key: bytes, life: int) -> None:
        self._key = key
        self._life = life
        self._count = 0
        self._peer_life = 0
        self._heard: dict[tuple[int, int], int] = {}  # the highest count by life of the peer and path
        self.refused = 0  # datagrams that were no heartbeat of our peer, or had come before

    def write(self, beat: Beat) -> bytes:
        """The next heartbeat."""
        self._count += 1
        flags = sum(flag for word, flag in _FLAGS.items() if getattr(beat, word))
        head = _HEAD.pack(
            MAGIC, self._life, self._peer_life, self._count, beat.state, flags, beat.token, beat.offer,
            beat.name.encode(),
        )  # fmt: skip
        if len(beat.name) < _LONGEST:  # behind the name, where former releases have a zero and look at nothing
            head = head[:-1] + bytes([min(beat.records, 255)])
        return head + hmac.digest(self._key, head, hashlib.sha256)

    def read(self, data: bytes, path: int) -> Beat | None:
        """What an authentic new heartbeat of the peer says; None for everything else."""
        if len(data) != LENGTH or not hmac.compare_digest(
            hmac.digest(self._key, data[:-_TAG], hashlib.sha256), data[-_TAG:]
        ):
            self.refused += 1
            return None
        _, life, mine, count, state, flags, token, offer, name = _HEAD.unpack_from(data)
        if life == self._life:  # our own, reflected
            self.refused += 1
            return None
        if mine != self._life:
            if (life, path) not in self._heard:
                self._peer_life = life
            return None
        if count <= self._heard.get((life, path), 0):
            self.refused += 1
            return None
        if (life, path) not in self._heard and len(self._heard) >= LIVES_KEPT:
            del self._heard[next(iter(self._heard))]
        self._heard[life, path] = count
        self._peer_life = life
        try:
            said = {word: bool(flags & flag) for word, flag in _FLAGS.items()}
            records = data[_HEAD.size - 1] if data[_NAME_AT] < _LONGEST else 0
            return Beat(name.decode(), State(state), token, offer=offer, records=max(1, records), **said)
        except ValueError:
            self.refused += 1
            return None
