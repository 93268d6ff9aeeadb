"""A stream between the nodes of a pair that nobody else can read, write, repeat or cut unnoticed. Sans-IO.

Both ends send 32 random octets in clear; from these and the key that both nodes have, each direction gets a key of its
own for AES-256-GCM, whose nonces count up. So an end without the shared key can neither make a message nor read one,
and nothing of an earlier connection is worth anything.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from media.replication.frames import FRAME_BYTES

MAGIC = b"PCML\x01\0\0\0"
RANDOM_BYTES = 32
HELLO_BYTES = len(MAGIC) + RANDOM_BYTES
_TAG = 16
_LENGTH = struct.Struct(">I")
MESSAGE_BYTES = FRAME_BYTES + _TAG


class ChannelError(ValueError):
    """The other end is not that of our pair, or the stream is damaged: close the connection. The text says which."""


class Channel:
    """One end of one connection. ``ours`` are random octets; ``opened``: this end has made the connection."""

    def __init__(self, key: bytes, ours: bytes, *, opened: bool) -> None:
        if len(ours) != RANDOM_BYTES:
            raise ValueError(f"{RANDOM_BYTES} random octets, not {len(ours)}")
        self.hello = MAGIC + ours  # to be sent first
        self._key = key
        self._ours = ours
        self._opened = opened
        self._buffer = bytearray()
        self._sealing: AESGCM | None = None
        self._opening: AESGCM | None = None
        self._sealed = self._unsealed = 0

    @property
    def is_ready(self) -> bool:
        """Has the other end said hello, so that ``seal`` can be used?"""
        return self._sealing is not None

    def seal(self, message: bytes) -> bytes:
        """A message as it goes over the wire."""
        assert self._sealing is not None
        body = self._sealing.encrypt(self._sealed.to_bytes(12, "big"), message, None)
        self._sealed += 1
        return _LENGTH.pack(len(body)) + body

    def receive(self, octets: bytes) -> list[bytes]:
        """The messages that are whole now. Raises ChannelError."""
        self._buffer += octets
        if self._opening is None and not self._take_hello():
            return []
        found = []
        at, buffer = 0, self._buffer
        while len(buffer) - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, at)
            if not _TAG <= size <= MESSAGE_BYTES:
                raise ChannelError("the other node does not speak as this one does")
            end = at + _LENGTH.size + size
            if len(buffer) < end:
                break
            found.append(self._open(bytes(buffer[at + _LENGTH.size : end])))
            at = end
        del buffer[:at]
        return found

    def _open(self, body: bytes) -> bytes:
        assert self._opening is not None
        try:
            message = self._opening.decrypt(self._unsealed.to_bytes(12, "big"), body, None)
        except InvalidTag:
            raise ChannelError("the other node has another key: ha.key_file is to be the same on both") from None
        self._unsealed += 1
        return message

    def _take_hello(self) -> bool:
        if self._buffer[: len(MAGIC)] != MAGIC[: len(self._buffer)]:
            raise ChannelError("the other node does not speak as this one does")
        if len(self._buffer) < HELLO_BYTES:
            return False
        theirs = bytes(self._buffer[len(MAGIC) : HELLO_BYTES])
        del self._buffer[:HELLO_BYTES]
        if theirs == self._ours:
            raise ChannelError("our own octets come back")
        both = self._ours + theirs if self._opened else theirs + self._ours
        forth, back = (
            AESGCM(hmac.digest(self._key, b"media state " + way + both, hashlib.sha256)) for way in (b"forth", b"back")
        )
        self._sealing, self._opening = (forth, back) if self._opened else (back, forth)
        return True
