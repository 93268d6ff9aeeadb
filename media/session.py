"""One session: its legs, the rules of their streams, and the identity by which a successor worker finds them again."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from media.protocol import StreamStats
from media.quality import Codec, estimate
from media.rules import (
    ADDRESS_BYTES,
    AT_CLOCK_RATE,
    AT_HAS_SSRC,
    AT_JITTER,
    AT_PEER,
    AT_RTP_LATCHED,
    AT_RTP_REMOTE,
    NO_RULE,
    RULE_BYTES,
    RULE_U32,
    RULE_U64,
    Feature,
    Rule,
    address_text,
)
from media.samples import AT_PATIENCE, PATIENCE_NEVER, QUALITY_BYTES, Direction
from media.state import BLOB_BYTES, Arena
from media.summary import summary

NO_STREAM: Final = -1
MAX_STREAMS = 16
MAX_LEGS = 24
MAX_NAME = 32
MAX_SESSION_ID = 256


@dataclass(slots=True)
class Leg:
    """One side: the rule of each stream by index (NO_STREAM: rejected). ``awaiting`` an answer from it to an offer;
    ``dscp`` marks what is sent to it."""

    name: str
    realm: str
    rules: list[int] = field(default_factory=list)
    awaiting: bool = False
    dscp: int = 0
    given_up: tuple[int, ...] = ()  # streams that the open offer to this leg rejects


@dataclass(slots=True)
class Recorded:
    """A session that is recorded: the legs other than ``left`` are on the right. ``number`` is the datapath's."""

    file: str  # without its suffix
    format: Literal["wav", "pcap"]
    left: str
    stream: int
    number: int = -1

    @property
    def name(self) -> str:
        """The first file of it."""
        return self.part(1)

    def part(self, part: int) -> str:
        """The file of that number."""
        return f"{self.file}{f'-{part}' if part > 1 else ''}.{self.format}"


@dataclass(slots=True)
class Session:
    """The relay state of one call. ``owner`` is the control identity that used it last: it gets the notifications.

    ``changed`` tells that the identity in the arena is no longer this one.
    """

    id: str
    slot: int
    silence_s: float = 0.0  # 0: as the worker is configured
    hold_silence_s: float = 0.0
    one_way_s: float = 0.0
    owner: bytes = b""
    legs: dict[str, Leg] = field(default_factory=dict)
    touched_ns: int = 0
    notified_ns: int = 0
    resumed_ns: int = 0  # silence is counted from then on, but told of as long as it was
    changed: bool = True
    recording: Recorded | None = None

    def all_rules(self) -> list[int]:
        """Rule numbers of all legs."""
        return [index for leg in self.legs.values() for index in leg.rules if index != NO_STREAM]

    def leg_of(self, index: int) -> Leg | None:
        """Whose rule it is."""
        return next((leg for leg in self.legs.values() if index in leg.rules), None)

    def encode(self) -> bytes | None:
        """The identity for the arena; None when it would not fit."""
        legs = [[leg.name, leg.realm, leg.rules, leg.dscp] for leg in self.legs.values()]
        patience = self.silence_s, self.hold_silence_s, self.one_way_s
        identity = {"s": self.id, "t": patience, "o": self.owner.hex(), "l": legs}
        recorded = self.recording
        if recorded is not None:
            identity["r"] = [recorded.file, recorded.format, recorded.left, recorded.stream]
        blob = orjson.dumps(identity)
        return blob if len(blob) <= BLOB_BYTES else None


def decode(slot: int, blob: bytes, rule_count: int) -> Session:
    """A session as a predecessor left it; raises ValueError for anything that it cannot have written."""
    try:
        raw: dict[str, Any] = orjson.loads(blob)  # Any: JSON, checked below
        silence_s, hold_silence_s, one_way_s = map(float, raw["t"])
        session = Session(str(raw["s"]), slot, silence_s, hold_silence_s, one_way_s, bytes.fromhex(raw["o"]))
        for name, realm, rules, dscp in raw["l"]:
            if not all(isinstance(index, int) and NO_STREAM <= index < rule_count for index in rules):
                raise ValueError("a rule number out of range")
            session.legs[str(name)] = Leg(str(name), str(realm), list(rules), dscp=int(dscp) & 63)
        if "r" in raw:
            file, kind, left, stream = raw["r"]
            session.recording = Recorded(str(file), "wav" if kind == "wav" else "pcap", str(left), int(stream))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a session: {error!r}") from error
    used = session.all_rules()
    if not session.id or len(set(used)) != len(used):
        raise ValueError("a session without a name or with a rule twice")
    return session


def have_patience(arena: Arena, session: Session) -> None:
    """Give every leg the patience of the session until it is found not to send."""
    seconds = PATIENCE_NEVER if session.one_way_s < 0 else min(round(session.one_way_s), PATIENCE_NEVER - 1)
    for index in session.all_rules():
        at = index * QUALITY_BYTES + AT_PATIENCE
        arena.quality_octets[at : at + 2] = seconds.to_bytes(2, sys.byteorder)


def converses(arena: Arena, index: int) -> bool:
    """Do both legs send and receive this stream? What only one sends may be music, or nothing, during a hold."""
    rules, quality, peer = arena.rules, arena.quality, arena.rules[index].peer
    if peer == NO_RULE or not (_has_place(rules[index]) and _has_place(rules[peer])):
        return False  # the null address of RFC 2543 is a hold as well
    both = Direction.SEND | Direction.RECEIVE
    return quality[index].direction & quality[peer].direction & both == both


def _has_place(rule: Rule) -> bool:
    """Is it known where the leg is, or, with ICE, will its first check tell?"""
    return bool(rule.rtp_remote.family or rule.features & Feature.ICE)


def stream_stats(arena: Arena, index: int, now_ns: int, samples: int = 0) -> StreamStats:
    """Counters of one rule as the protocol tells them, with what was sampled in the last seconds."""
    at, at_u32, at_u64 = index * RULE_BYTES, index * RULE_U32, index * RULE_U64
    octets = arena.octets
    # the first words of a rule: see media.rules.Rule
    words = arena.u64[at_u64 : at_u64 + 15].tolist()
    packets_in, bytes_in, packets_out, bytes_out, rtcp_in, rtcp_out, refused, last_arrival_ns = words[:8]
    duplicates, reordered, _, lost, received, base_sequence, max_sequence = words[8:]
    if octets[at + AT_HAS_SSRC]:
        lost += max(0, max_sequence - base_sequence + 1 - received)  # RFC 3550 A.3, as in rules.lost_packets
    jitter_ms = arena.u32[at_u32 + AT_JITTER] / 16 * 1000 / (arena.u32[at_u32 + AT_CLOCK_RATE] or 8000)
    mos, quality = 0.0, None
    if packets_in or packets_out:
        known = arena.quality[index]
        quality = summary(known, lost, now_ns, samples)
        trip_ms = quality.rtt_avg_ms if quality is not None and quality.rtt_avg_ms >= 0 else None
        if not known.direction & Direction.NO_VOICE:
            mos = estimate(packets_in - duplicates, lost, jitter_ms, Codec(known.codec), trip_ms)
    return StreamStats(
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        rtcp_in,
        rtcp_out,
        lost,
        reordered,
        duplicates,
        round(jitter_ms, 3),
        mos,
        refused,
        address_text(bytes(octets[at + AT_RTP_REMOTE : at + AT_RTP_REMOTE + ADDRESS_BYTES])),
        octets[at + AT_RTP_LATCHED] != 0,
        (now_ns - last_arrival_ns) // 1_000_000 if packets_in else -1,
        quality,
    )


def is_armed(rule: Rule) -> bool:
    """Does it forward to someone?"""
    return rule.peer != NO_RULE


def in_force(arena: Arena, one: Leg, other: Leg, stream: int) -> bool:
    """Do two legs exchange media of a stream?"""
    own, facing = one.rules[stream], other.rules[stream]
    return own != NO_STREAM and facing != NO_STREAM and arena.u32[own * RULE_U32 + AT_PEER] == facing
