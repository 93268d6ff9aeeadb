"""DTLS-SRTP in SDP (RFC 5763, 8122, 8842): whose certificate a leg has, and who begins. What was described lies in the
arena; ``media.dtls`` acts on it.

An association goes on through offers and answers that change neither fingerprints nor roles. Where they do, it gets
another number, and a handshake has to begin; the keys in force stay until it has ended.
"""

from __future__ import annotations

import ctypes
import secrets
from enum import IntEnum
from typing import NamedTuple

from media.endpoint import Unusable
from media.protocol import Setup, Stream
from media.webrtc import PRINTS, WebrtcLeg

# by the number in the arena; the first is what we offer (RFC 8827 §6.2)
PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP")
# The better last. RFC 8122 §5: MD5 must not be used; SHA-1 is no proof against who can choose his certificate.
HASHES = {"sha-256": (1, 32), "sha-384": (2, 48), "sha-512": (3, 64)}
NAMES = {number: name.replace("-", "") for name, (number, _) in HASHES.items()}  # as hashlib has them


class Role(IntEnum):
    """``WebrtcLeg.role``: what we are in the handshake."""

    NONE = 0
    PASSIVE = 1
    ACTIVE = 2


class Peer(NamedTuple):
    """What a leg described: fingerprints under one hash, its a=setup and its protocol."""

    hash: int
    digests: tuple[bytes, ...]
    setup: Setup
    protocol: int


def read(stream: Stream) -> Peer:
    """Of a stream that has to be DTLS-SRTP; of several hashes the best counts (RFC 8122 §5). Raises Unusable."""
    found: dict[int, list[bytes]] = {}
    for value in stream.fingerprints:
        name, _, text = value.strip().partition(" ")
        number, size = HASHES.get(name.lower(), (0, 0))
        try:
            digest = bytes.fromhex(text.replace(":", ""))
        except ValueError:
            raise Unusable("malformed", "an a=fingerprint that is no hexadecimal") from None
        if number and len(digest) != size:
            raise Unusable("malformed", f"an a=fingerprint of {name} with {len(digest)} octets")
        if number:
            found.setdefault(number, []).append(digest)
    if not found:
        said = "one that we can trust: sha-256 or better" if stream.fingerprints else "one"
        raise Unusable("unsupported", f"DTLS-SRTP takes an a=fingerprint, and here is not {said}")
    best = max(found)
    if len(found[best]) > PRINTS:
        raise Unusable("unsupported", f"more than {PRINTS} fingerprints")
    name = stream.protocol.upper()
    return Peer(best, tuple(found[best]), stream.setup, PROTOCOLS.index(name) if name in PROTOCOLS else 0)


def is_of(leg: WebrtcLeg, peer: Peer) -> bool:
    """Are these the fingerprints that the leg has already described?"""
    return leg.hash == peer.hash and digests(leg) == set(peer.digests)


def digests(leg: WebrtcLeg) -> set[bytes]:
    """Of the certificates that the leg may have; none before it has described any."""
    size = dict(HASHES.values()).get(leg.hash, 0)
    return {bytes(digest)[:size] for digest in leg.fingerprint[: leg.prints]}


def begin(leg: WebrtcLeg) -> None:
    """We offer: until the answer says more, the leg may begin, and its certificate is looked at afterwards."""
    if not leg.association:
        leg.role, leg.protocol = Role.PASSIVE, 0
        leg.association = _number()


def take(leg: WebrtcLeg, peer: Peer, *, offered: bool) -> None:
    """What the leg has ``offered`` or answered is in force."""
    if offered:
        leg.protocol = peer.protocol
    role = _role(leg, peer, offered)
    first = not leg.prints  # a handshake that began before the answer goes on
    if role == leg.role and leg.association and (first or is_of(leg, peer)):
        if not first:
            return
    else:
        leg.association = _number()
        leg.established = 0
    leg.role, leg.hash, leg.prints = role, peer.hash, len(peer.digests)
    for at, digest in enumerate(peer.digests):
        leg.fingerprint[at][: len(digest)] = list(digest)


def follow(leg: WebrtcLeg, seat: WebrtcLeg, *, offered: bool) -> None:
    """What a leg has ``offered`` or answered was noted for its seat, and holds for the leg: it goes on with its
    association, unless it came with another certificate or, in an answer, in the other role."""
    if not seat.prints:
        return
    known = (leg.hash, digests(leg)) == (seat.hash, digests(seat))
    role = leg.role if offered and known else seat.role
    if known and role == leg.role and leg.association:
        return
    leg.association = _number()
    leg.established = 0
    leg.role, leg.hash, leg.prints = role, seat.hash, seat.prints
    ctypes.memmove(leg.fingerprint, seat.fingerprint, ctypes.sizeof(leg.fingerprint))


def forget(leg: WebrtcLeg) -> None:
    """The leg speaks no DTLS any more."""
    leg.role = leg.established = leg.protocol = leg.hash = leg.prints = leg.association = 0
    ctypes.memset(ctypes.byref(leg.fingerprint), 0, ctypes.sizeof(leg.fingerprint))


def shown_setup(leg: WebrtcLeg) -> Setup:
    """a=setup of an answer of ours."""
    return "active" if leg.role == Role.ACTIVE else "passive"


def _role(leg: WebrtcLeg, peer: Peer, offered: bool) -> Role:
    """RFC 8842 §5. What is not said is that of RFC 4145 §4: an offer is active, an answer passive."""
    if offered and peer.setup == "actpass":
        return Role(leg.role) if leg.role and is_of(leg, peer) else Role.PASSIVE
    return Role.ACTIVE if peer.setup == "passive" or (not offered and not peer.setup) else Role.PASSIVE


def _number() -> int:
    return secrets.randbits(63) | 1
