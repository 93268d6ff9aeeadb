"""What a leg with ICE or DTLS-SRTP has beside its rule: the ctypes mirror of ``struct webrtc_leg`` in ``ext/c/stun.h``.

It lies in the arena, so a successor of the worker answers checks with the same credentials, knows where the leg has
proved to be, and whose certificate it waits for.
"""

from __future__ import annotations

import ctypes

from media.rules import Address

UFRAG_BYTES = 8  # of ours; RFC 8445 §5.3 asks for 24 random bits, and 128 in the password
PASSWORD_BYTES = 24
THEIRS_BYTES = 256  # the longest that RFC 8839 §5.4 allows
CHECKS_PER_S = 100  # authentic checks of a leg that are answered
REFUSALS_PER_S = 10  # and those of strangers that are told so
CONSENT_NS = 30 * 10**9  # RFC 7675 §5.1
PRINTS = 4  # certificates that one stream may name
DIGEST_BYTES = 64


class Credentials(ctypes.Structure):
    """``struct ice_credentials``: ours, and their part of the user name."""

    valid: int
    theirs_known: int
    theirs_bytes: int
    ufrag: ctypes.Array[ctypes.c_ubyte]
    password: ctypes.Array[ctypes.c_ubyte]
    theirs: ctypes.Array[ctypes.c_ubyte]
    _fields_ = [
        ("valid", ctypes.c_uint8),
        ("theirs_known", ctypes.c_uint8),
        ("theirs_bytes", ctypes.c_uint16),
        ("ufrag", ctypes.c_uint8 * UFRAG_BYTES),
        ("password", ctypes.c_uint8 * PASSWORD_BYTES),
        ("theirs", ctypes.c_uint8 * THEIRS_BYTES),
    ]


class WebrtcLeg(ctypes.Structure):
    """``struct webrtc_leg``. From ``role`` on it is Python's alone."""

    present: Credentials
    former: Credentials  # answered until the first check under the present ones
    checked_ns: int  # the last authentic check from where the leg is; 0: none yet
    window_ns: int
    answered: int
    refused: int
    fresh: int  # the first check under the present credentials is still to come
    heard: Address  # where the last authentic check came from
    role: int  # of ours: media.keying.Role
    established: int  # the keys in force came by this association
    protocol: int  # of its m= line: an index of media.keying.PROTOCOLS
    hash: int  # an index of media.keying.HASHES
    prints: int  # how many fingerprints there are
    association: int  # a number at random; another one: a handshake has to begin
    secret: ctypes.Array[ctypes.c_ubyte]  # by which their credentials of ICE are known again
    fingerprint: ctypes.Array[ctypes.Array[ctypes.c_ubyte]]
    _fields_ = [
        ("present", Credentials),
        ("former", Credentials),
        ("checked_ns", ctypes.c_uint64),
        ("window_ns", ctypes.c_uint64),
        ("answered", ctypes.c_uint16),
        ("refused", ctypes.c_uint16),
        ("fresh", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
        ("heard", Address),
        *((name, ctypes.c_uint8) for name in ("role", "established", "protocol", "hash", "prints")),
        ("reserved2", ctypes.c_uint8 * 7),
        ("association", ctypes.c_uint64),
        ("secret", ctypes.c_uint8 * 16),
        ("fingerprint", (ctypes.c_uint8 * DIGEST_BYTES) * PRINTS),
    ]


WEBRTC_BYTES = ctypes.sizeof(WebrtcLeg)


def has_consent(leg: WebrtcLeg, now_ns: int) -> bool:
    """May a leg with ICE be sent anything?"""
    return bool(leg.checked_ns) and now_ns < leg.checked_ns + CONSENT_NS
