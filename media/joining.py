"""A leg with DTLS-SRTP that leaves its call for another one of this worker, and keeps its transport (RFC 8842).

Its port, its ICE agent and its DTLS association are one rule, and that goes with it: a peer sees no reason to begin any
of them anew, and some could not. Until it joins, the other session has a seat for it: a leg with rules of its own, for
which it is described, and in whose place it is shown the transport that it has. Then the rules change places, and what
was agreed for the seat holds for the leg. What was counted stays with the session in which it was counted.
"""

from __future__ import annotations

from media import association, conversion, ice, keying
from media.conversion import Attendant
from media.features import Features
from media.protocol import Endpoint
from media.rules import (
    ADDRESS_BYTES,
    AT_CLOCK_RATE,
    AT_FEATURES,
    AT_HAS_SSRC,
    AT_LAST_ARRIVAL,
    AT_LATCH,
    AT_LOCAL_PORT,
    AT_PAYLOAD_TYPE,
    AT_PEER,
    AT_RTP_REMOTE,
    AT_RTP_SIGNALLED,
    AT_SIGNALLING,
    AT_SLOT,
    NO_RULE,
    RULE_BYTES,
    RULE_U16,
    RULE_U32,
    RULE_U64,
    Feature,
)
from media.samples import QUALITY_BYTES
from media.session import NO_STREAM, Leg, Session
from media.state import Arena

_COUNTED_BYTES = AT_PEER * 4  # what a rule counts comes first in it
_TAPPED, _PLAYING = int(Feature.TAPPED), int(Feature.PLAYING)


def kept(arena: Arena, leg: Leg, seat: Leg) -> list[int]:
    """The streams whose transport a leg keeps in this seat: both have DTLS, and ICE or not alike, in one realm."""
    if leg.realm != seat.realm:
        return []
    return [
        stream
        for stream, (own, other) in enumerate(zip(leg.rules, seat.rules, strict=False))
        if own != NO_STREAM
        and other != NO_STREAM
        and keying.speaks_dtls(arena, own)
        and keying.speaks_dtls(arena, other)
        and ice.is_on(arena, own) == ice.is_on(arena, other)
    ]


def show(arena: Arena, leg: Leg, seat: Leg, endpoints: list[Endpoint]) -> None:
    """Change endpoints that face the seat into the transport that the leg has."""
    for stream in kept(arena, leg, seat):
        endpoint = endpoints[stream]
        if endpoint.port:
            own = leg.rules[stream]
            endpoint.port = endpoint.rtcp_port = arena.u16[own * RULE_U16 + AT_LOCAL_PORT]
            endpoint.ice = ice.ours(arena, own)
            endpoint.protocol = association.PROTOCOLS[arena.webrtc[own].protocol]


def join(
    arena: Arena,
    attendant: Attendant,
    features: Features | None,
    home: tuple[Session, Leg],
    place: tuple[Session, Leg],
    *,
    offered: bool,
) -> list[int]:
    """The leg of ``home`` takes the seat of ``place``; it has ``offered`` or answered what the seat was described by.
    Returns the rules that it keeps. Both sessions are being written."""
    (session, leg), (other, seat) = home, place
    found = []
    for stream in kept(arena, leg, seat):
        own, spare = leg.rules[stream], seat.rules[stream]
        if features is not None:
            _leave(arena, features, session, leg, own, spare)
        leg.rules[stream], seat.rules[stream] = spare, own
        _change_peers(arena, [*session.all_rules(), *other.all_rules()], own, spare)
        _divide_counts(arena, own, spare)
        _describe(arena, own, spare)
        association.follow(arena.webrtc[own], arena.webrtc[spare], offered=offered)
        ice.follow(arena, own, spare, offered=offered)
        conversion.move(arena, attendant, spare, own)
        if features is not None and other.recording is not None:
            features.recordings.made(other, seat, own)
        found.append(own)
    if found:
        leg.dscp, seat.dscp = seat.dscp, leg.dscp  # the ports are marked already
        session.changed = other.changed = True
    return found


def _leave(arena: Arena, features: Features, session: Session, leg: Leg, own: int, spare: int) -> None:
    """What the leg heard in its former call, and who recorded it there, is over."""
    present = arena.octets[own * RULE_BYTES + AT_FEATURES]
    if present & _PLAYING:
        features.playing.end(session, leg, own, "stopped")
    for index in (own, spare):
        if arena.octets[index * RULE_BYTES + AT_FEATURES] & _TAPPED:
            features.recordings.freed(index)


def _change_peers(arena: Arena, rules: list[int], own: int, spare: int) -> None:
    """Who sent to the seat sends to the leg, and nobody of its former call does."""
    u32 = arena.u32
    for index in rules:
        peer = u32[index * RULE_U32 + AT_PEER]
        if peer == own:
            u32[index * RULE_U32 + AT_PEER] = NO_RULE
        elif peer == spare:
            u32[index * RULE_U32 + AT_PEER] = own
    at, spare_at = own * RULE_U32, spare * RULE_U32
    u32[at + AT_PEER], u32[spare_at + AT_PEER] = u32[spare_at + AT_PEER], NO_RULE
    u32[at + AT_SLOT], u32[spare_at + AT_SLOT] = u32[spare_at + AT_SLOT], u32[at + AT_SLOT]


def _divide_counts(arena: Arena, own: int, spare: int) -> None:
    """The spare rule has what was counted in the former call; the leg's own begins to count."""
    octets, quality = arena.octets, arena.quality_octets
    at, spare_at = own * RULE_BYTES, spare * RULE_BYTES
    arrival_ns = arena.u64[own * RULE_U64 + AT_LAST_ARRIVAL]
    clock_rate_hz = arena.u32[spare * RULE_U32 + AT_CLOCK_RATE]
    octets[spare_at : spare_at + _COUNTED_BYTES] = octets[at : at + _COUNTED_BYTES]
    octets[at : at + _COUNTED_BYTES] = bytes(_COUNTED_BYTES)
    arena.u64[own * RULE_U64 + AT_LAST_ARRIVAL] = arrival_ns
    arena.u32[own * RULE_U32 + AT_CLOCK_RATE] = clock_rate_hz
    for place in (AT_HAS_SSRC, AT_PAYLOAD_TYPE):
        octets[spare_at + place], octets[at + place] = octets[at + place], 0
    at, spare_at = own * QUALITY_BYTES, spare * QUALITY_BYTES
    former = bytes(quality[at : at + QUALITY_BYTES])
    quality[at : at + QUALITY_BYTES] = quality[spare_at : spare_at + QUALITY_BYTES]
    quality[spare_at : spare_at + QUALITY_BYTES] = former


def _describe(arena: Arena, own: int, spare: int) -> None:
    """Where the leg is, if that is no matter of ICE: where it was, unless it has described something else since."""
    octets = arena.octets
    at, spare_at = own * RULE_BYTES, spare * RULE_BYTES
    if (
        octets[at + AT_RTP_SIGNALLED : at + AT_SIGNALLING]
        != octets[spare_at + AT_RTP_SIGNALLED : spare_at + AT_SIGNALLING]
    ):
        end = AT_SIGNALLING + ADDRESS_BYTES
        octets[at + AT_RTP_REMOTE : at + end] = octets[spare_at + AT_RTP_REMOTE : spare_at + end]
        octets[at + AT_LATCH : at + AT_LATCH + 4] = bytes(4)
