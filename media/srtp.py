"""SRTP state as flat memory: the ctypes mirror of ``ext/c/srtp.h``, and the crypto suites by name.

What belongs to a leg with SRTP lies beside its rule (``media.state``): session keys, rollover counters and replay
windows of every SSRC, so that a successor of the worker goes on with the next index and never uses one again.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

WINDOW = 128  # packets behind the latest that are told from replays
SOURCES = 16  # SSRCs of one key
MASTER_BYTES = 46
MKI_BYTES = 16
GRACE = 64  # packets under a new key until the former one is forgotten
RESUME_RTCP_SKIP = 16  # SRTCP indices that a successor leaves out


class Suite(IntEnum):
    """``enum srtp_suite``; the names are those of RFC 4568 §6.2, RFC 6188 and RFC 7714 §14.2."""

    AES_CM_128_HMAC_SHA1_80 = 1
    AES_CM_128_HMAC_SHA1_32 = 2
    AES_256_CM_HMAC_SHA1_80 = 3
    AES_256_CM_HMAC_SHA1_32 = 4
    AEAD_AES_128_GCM = 5
    AEAD_AES_256_GCM = 6
    NULL_HMAC_SHA1_80 = 7  # for published vectors; signalling knows no name for it

    @property
    def key_bytes(self) -> int:
        """Octets of the master key."""
        return 32 if self in (3, 4, 6) else 16

    @property
    def salt_bytes(self) -> int:
        """Octets of the master salt."""
        return 12 if self in (5, 6) else 14

    @property
    def master_bytes(self) -> int:
        """Octets of master key and salt together."""
        return self.key_bytes + self.salt_bytes


class Source(ctypes.Structure):
    """One SSRC under one key; ``latest`` is a packet index: rollover counter << 16 | sequence number."""

    ssrc: int
    rtcp_latest: int
    latest: int
    window: ctypes.Array[ctypes.c_uint64]  # bit n: index latest - n is used
    rtcp_window: ctypes.Array[ctypes.c_uint64]
    _fields_ = [
        ("ssrc", ctypes.c_uint32),
        ("rtcp_latest", ctypes.c_uint32),
        ("latest", ctypes.c_uint64),
        ("window", ctypes.c_uint64 * 2),
        ("rtcp_window", ctypes.c_uint64 * 2),
    ]


class SessionKeys(ctypes.Structure):
    """What RFC 3711 §4.3 derives from a master key, for RTP or for RTCP."""

    cipher: ctypes.Array[ctypes.c_ubyte]
    auth: ctypes.Array[ctypes.c_ubyte]
    salt: ctypes.Array[ctypes.c_ubyte]
    _fields_ = [("cipher", ctypes.c_uint8 * 32), ("auth", ctypes.c_uint8 * 20), ("salt", ctypes.c_uint8 * 14)]


class Stream(ctypes.Structure):
    """One direction of one leg under one master key; ``suite`` 0 is none. ``unsure``, ``doubtful``, ``renumbered``: of
    the sending side, after a take-over (``media.replication.takeover``)."""

    suite: int
    mki_bytes: int
    sources: int
    next: int
    rtcp_index: int
    master: ctypes.Array[ctypes.c_ubyte]
    mki: ctypes.Array[ctypes.c_ubyte]
    rtp: SessionKeys
    rtcp: SessionKeys
    unsure: int
    doubtful: int
    renumbered: int
    source: ctypes.Array[Source]
    _fields_ = [
        *((name, ctypes.c_uint8) for name in ("suite", "mki_bytes", "sources", "next")),
        ("rtcp_index", ctypes.c_uint32),
        ("master", ctypes.c_uint8 * MASTER_BYTES),
        ("mki", ctypes.c_uint8 * MKI_BYTES),
        ("rtp", SessionKeys),
        ("rtcp", SessionKeys),
        ("unsure", ctypes.c_uint16),
        ("doubtful", ctypes.c_uint16),
        ("renumbered", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("source", Source * SOURCES),
    ]


class LegKeys(ctypes.Structure):
    """``struct srtp_leg``: ``receiving`` what the leg sends, under the key before the last re-keying too."""

    receiving: Stream
    former: Stream
    sending: Stream
    grace: int
    mode: int
    offered_mode: int
    offered_suite: int
    offered_mki_bytes: int
    offered_master: ctypes.Array[ctypes.c_ubyte]
    offered_mki: ctypes.Array[ctypes.c_ubyte]
    offered_tag: int
    secret: ctypes.Array[ctypes.c_ubyte]
    _fields_ = [
        *((name, Stream) for name in ("receiving", "former", "sending")),
        *((name, ctypes.c_uint8) for name in ("grace", "mode", "offered_mode", "offered_suite", "offered_mki_bytes")),
        ("reserved", ctypes.c_uint8),
        ("offered_master", ctypes.c_uint8 * MASTER_BYTES),
        ("offered_mki", ctypes.c_uint8 * MKI_BYTES),
        ("offered_tag", ctypes.c_uint32),
        ("secret", ctypes.c_uint8 * 32),
    ]


KEYS_BYTES = ctypes.sizeof(LegKeys)


def distrust(keys: LegKeys) -> None:
    """For a successor of a worker that may have died between two writes: what is not later than the last index known
    counts as used. It costs the packets that were overtaken just then, and no index can be used twice.
    """
    for stream in (keys.receiving, keys.former, keys.sending):
        for source in stream.source[: stream.sources]:
            if any(source.window):
                source.window[:] = [2**64 - 1] * 2
            if any(source.rtcp_window):
                source.rtcp_window[:] = [2**64 - 1] * 2
    keys.sending.rtcp_index += RESUME_RTCP_SKIP
