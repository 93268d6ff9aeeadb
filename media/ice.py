"""Our side of ICE (RFC 8445, lite): credentials towards a leg, from what it described. The checks are answered in C.

Ours are minted when the leg is offered ICE or offers it, and again when it begins anew (an ICE restart: an offer of its
own with other credentials). The former ones are answered until the new ones are used.
"""

from __future__ import annotations

import ctypes
import hashlib
import secrets

from media.endpoint import Unusable
from media.protocol import Ice
from media.rules import AT_FEATURES, RULE_BYTES, Feature
from media.state import Arena
from media.webrtc import PASSWORD_BYTES, THEIRS_BYTES, UFRAG_BYTES, Credentials, WebrtcLeg

_ICE = int(Feature.ICE)


def is_on(arena: Arena, index: int) -> bool:
    """Has the leg of a rule to prove where it is?"""
    return bool(arena.octets[index * RULE_BYTES + AT_FEATURES] & _ICE)


def begin(arena: Arena, index: int) -> None:
    """The leg of a rule is offered ICE. Its part of the user name is not known yet; what it has already stays."""
    if is_on(arena, index):
        return
    leg = arena.webrtc[index]
    _forget(leg)
    _mint(leg.present)
    leg.fresh = 1
    arena.octets[index * RULE_BYTES + AT_FEATURES] |= _ICE


def take(arena: Arena, index: int, theirs: Ice, *, offered: bool) -> None:
    """What the leg of a rule has ``offered`` or answered. Raises Unusable for what RFC 8839 §5.4 does not allow."""
    ufrag = check(theirs)
    begin(arena, index)
    leg = arena.webrtc[index]
    secret = hashlib.blake2b(f"{theirs.ufrag} {theirs.password}".encode(), digest_size=16).digest()
    known = leg.present.theirs_known
    if known and bytes(leg.secret) == secret:
        return
    if known and offered:  # an ICE restart
        ctypes.pointer(leg.former)[0] = leg.present
        _mint(leg.present)
    if known:
        leg.fresh = 1
    leg.present.theirs[: len(ufrag)] = list(ufrag)
    leg.present.theirs_bytes = len(ufrag)
    leg.present.theirs_known = 1
    leg.secret[:] = list(secret)


def follow(arena: Arena, index: int, seat: int, *, offered: bool) -> None:
    """As :func:`take`, of what the leg of a rule has said for its ``seat``, which is the rule that noted it."""
    leg, noted = arena.webrtc[index], arena.webrtc[seat]
    known = leg.present.theirs_known
    if not noted.present.theirs_known or (known and bytes(leg.secret) == bytes(noted.secret)):
        return
    if known and offered:
        ctypes.pointer(leg.former)[0] = leg.present
        _mint(leg.present)
    if known:
        leg.fresh = 1
    leg.present.theirs[:] = list(bytes(noted.present.theirs))
    leg.present.theirs_bytes, leg.present.theirs_known = noted.present.theirs_bytes, 1
    leg.secret[:] = list(bytes(noted.secret))


def check(theirs: Ice) -> bytes:
    """The octets of a sound a=ice-ufrag; raises Unusable."""
    ufrag = theirs.ufrag.encode("utf-8", "surrogateescape")
    if not 4 <= len(ufrag) <= THEIRS_BYTES or not 22 <= len(theirs.password) <= THEIRS_BYTES:
        raise Unusable("malformed", "a=ice-ufrag or a=ice-pwd is too short or too long")
    return ufrag


def drop(arena: Arena, index: int) -> None:
    """The leg of a rule has no ICE: it is where it says."""
    arena.octets[index * RULE_BYTES + AT_FEATURES] &= ~_ICE
    _forget(arena.webrtc[index])


def ours(arena: Arena, index: int) -> Ice | None:
    """What to show to the leg of a rule; None without ICE."""
    if not is_on(arena, index):
        return None
    present = arena.webrtc[index].present
    return Ice(bytes(present.ufrag).decode(), bytes(present.password).decode())


def _forget(leg: WebrtcLeg) -> None:
    """Nothing of ICE is left."""
    for part in (leg.present, leg.former, leg.heard, leg.secret):
        ctypes.memset(ctypes.byref(part), 0, ctypes.sizeof(part))
    leg.checked_ns = leg.window_ns = leg.answered = leg.refused = leg.fresh = 0


def _mint(credentials: Credentials) -> None:
    """Fresh ones of ours, of 48 and 144 random bits."""
    ctypes.memset(ctypes.byref(credentials), 0, ctypes.sizeof(Credentials))
    credentials.ufrag[:] = list(_text(UFRAG_BYTES))
    credentials.password[:] = list(_text(PASSWORD_BYTES))
    credentials.valid = 1


def _text(size: int) -> bytes:
    """So many ice-chars (RFC 8839 §5.4: letters, digits, + and /)."""
    return secrets.token_urlsafe(size).replace("-", "+").replace("_", "/")[:size].encode()


def find(arena: Arena, index: int, theirs: Ice | None, *, offered: bool) -> None:
    """The leg of a rule is found by ICE, or is where it says."""
    if theirs is not None:
        take(arena, index, theirs, offered=offered)
    elif is_on(arena, index):
        drop(arena, index)
