"""Two ends of SRTP for tests: the compiled code and the Python reference side by side, and master keys."""

from __future__ import annotations

import random
import struct

from media import _datapath, reference_srtp
from media.counters import Reason
from media.srtp import LegKeys, Suite

SUITES = [suite for suite in Suite if suite is not Suite.NULL_HMAC_SHA1_80]


def rtp(sequence: int, payload: bytes = b"\x55" * 160, ssrc: int = 1, first: int = 0x80) -> bytes:
    """An RTP packet of payload type 8; its timestamp follows the sequence number."""
    timestamp = 160 * sequence & 0xFFFFFFFF
    return struct.pack("!BBHII", first, 8, sequence & 0xFFFF, timestamp, ssrc) + payload


def rtcp(ssrc: int = 1, reports: int = 0, words: int = 5) -> bytes:
    """A sender report."""
    return struct.pack("!BBHI", 0x80 | reports, 200, words + 1, ssrc) + b"\x77" * (4 * words)


def master(suite: Suite, seed: int = 1) -> bytes:
    """A master key and salt that fit."""
    return random.Random(seed).randbytes(suite.master_bytes)


class TwinKeys:
    """The keys of one leg twice; every packet goes through both, and all that they do must agree."""

    def __init__(self, suite: Suite, key: bytes | None = None, mki: bytes = b"") -> None:
        self.compiled, self.reference = LegKeys(), LegKeys()
        self.install(suite, key or master(suite), mki)

    def install(self, suite: Suite, key: bytes, mki: bytes = b"") -> None:
        """The same key in both directions."""
        for direction in ("receiving", "sending"):
            _datapath.install(getattr(self.compiled, direction), suite, key, mki)
            reference_srtp.install(getattr(self.reference, direction), suite, key, mki)
        self.agree()

    def rekey(self, suite: Suite, key: bytes, grace: int) -> None:
        """The leg sends under another key from now on."""
        for keys, install in ((self.compiled, _datapath.install), (self.reference, reference_srtp.install)):
            keys.former = keys.receiving
            keys.grace = grace
            install(keys.receiving, suite, key)
        self.agree()

    def agree(self) -> None:
        assert bytes(self.compiled) == bytes(self.reference)

    def protect(self, data: bytes, *, is_rtcp: bool = False) -> tuple[Reason, bytes]:
        return self._both(True, is_rtcp, data)

    def unprotect(self, data: bytes, *, is_rtcp: bool = False) -> tuple[Reason, bytes]:
        return self._both(False, is_rtcp, data)

    def _both(self, protect: bool, is_rtcp: bool, data: bytes) -> tuple[Reason, bytes]:
        reason, octets = _datapath.transform(self.compiled, protect, is_rtcp, data)
        expected = (reference_srtp.protect if protect else reference_srtp.unprotect)(self.reference, is_rtcp, data)
        assert (reason, octets) == expected
        self.agree()
        return Reason(reason), octets
