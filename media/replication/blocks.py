"""The memory of a rule and of all that lies beside it, cut into blocks: what changed is sent by the block.

A block is found by its number, which both nodes count alike because they have the same SHAPE. Monotonic times are
those of one machine: the receiver moves every one of them by the difference of the two clocks.
"""

from __future__ import annotations

import ctypes
import sys
from itertools import pairwise
from typing import NamedTuple

from media.player import PLAYER_BYTES, TICK_NS, Player
from media.processing import DIGITS, FORMATS, PROCESS_BYTES, Process
from media.rules import RULE_BYTES, Feature, Rule, RuleFlag
from media.samples import HEAD_BYTES, QUALITY_BYTES, SENT_REPORTS, Quality, SentReport
from media.srtp import KEYS_BYTES, MKI_BYTES, SOURCES, LegKeys, Source, Stream, Suite
from media.state import Places
from media.webrtc import PRINTS, THEIRS_BYTES, WEBRTC_BYTES, Credentials, WebrtcLeg

RULE, KEYS, WEBRTC, PLAYER, QUALITY, PROCESS = range(6)  # the sections, in the order of media.state.Places
STRIDES = (RULE_BYTES, KEYS_BYTES, WEBRTC_BYTES, PLAYER_BYTES, QUALITY_BYTES, PROCESS_BYTES)
# of the samples of the last minute nothing is sent: they begin anew
EXTENTS = (RULE_BYTES, KEYS_BYTES, WEBRTC_BYTES, PLAYER_BYTES, HEAD_BYTES, PROCESS_BYTES)
S = 1_000_000_000


def offset(kind: type[ctypes.Structure], name: str) -> int:
    """Where a field of a structure begins."""
    found: int = getattr(kind, name).offset
    return found


class Block(NamedTuple):
    """Octets ``at`` to ``end`` of a section."""

    section: int
    at: int
    end: int


def _cut(section: int, *bounds: int) -> list[Block]:
    edges = [0, *bounds, EXTENTS[section]]
    return [Block(section, at, end) for at, end in pairwise(edges)]


SOURCE_BYTES = ctypes.sizeof(Source)
STREAMS = (offset(LegKeys, "receiving"), offset(LegKeys, "former"), offset(LegKeys, "sending"))
_KEY_EDGES = [
    edge
    for stream in STREAMS
    for edge in (stream, *(stream + offset(Stream, "source") + n * SOURCE_BYTES for n in range(SOURCES)))
]
BLOCKS: tuple[Block, ...] = (
    *_cut(RULE, offset(Rule, "rtp_remote")),
    *_cut(KEYS, *_KEY_EDGES[1:], offset(LegKeys, "grace")),
    *_cut(WEBRTC, offset(WebrtcLeg, "checked_ns")),
    *_cut(PLAYER),
    *_cut(QUALITY),
    *_cut(PROCESS),
)
OF_SECTION = tuple(tuple(n for n, block in enumerate(BLOCKS) if block.section == section) for section in range(6))
STREAM_BLOCKS = 1 + SOURCES  # what a direction has: its head and its sources
HEADS = tuple(OF_SECTION[KEYS][number * STREAM_BLOCKS] for number in range(3))
SENDING_HEAD = HEADS[2]
KEYS_TAIL = OF_SECTION[KEYS][-1]
AT_SOURCES = offset(Stream, "sources")


def sections_of(rule: bytes | memoryview) -> list[int]:
    """What beside a rule belongs to it."""
    flags, features = rule[offset(Rule, "flags")], rule[offset(Rule, "features")]
    found = [RULE, QUALITY]
    if flags & RuleFlag.KEYED:
        found.append(KEYS)
    if features & (Feature.ICE | Feature.DTLS):
        found.append(WEBRTC)
    if features & Feature.PLAYING:
        found.append(PLAYER)
    if features & Feature.PROCESSED:
        found.append(PROCESS)
    return found


def place_of(at: Places, section: int, index: int) -> int:
    """Where a section of a rule begins."""
    return at[section] + index * STRIDES[section]


def blocks_of(section: int, octets: bytes) -> list[int]:
    """The blocks of a section that are in use: of its keys, those of the sources that there are."""
    if section != KEYS:
        return list(OF_SECTION[section])
    found: list[int] = []
    for stream, head in zip(STREAMS, HEADS, strict=True):
        found += range(head, head + 1 + min(octets[stream + AT_SOURCES], SOURCES))
    return [*found, KEYS_TAIL]


def _times() -> dict[int, list[tuple[int, int, int]]]:
    """By block: (offset in it, octets, nanoseconds of its unit)."""
    known: list[tuple[int, int, int, int]] = [
        (RULE, offset(Rule, "last_arrival_ns"), 8, 1),
        (RULE, offset(Rule, "follows_ms"), 4, 1_000_000),
        *((QUALITY, offset(Quality, name), 8, 1) for name in ("report_ns", "heard_ns", "expected_ns")),
        *((QUALITY, offset(Quality, "sent") + n * ctypes.sizeof(SentReport), 8, 1) for n in range(SENT_REPORTS)),
        (QUALITY, offset(Quality, "began"), 4, S),
        *((WEBRTC, offset(WebrtcLeg, name), 8, 1) for name in ("checked_ns", "window_ns")),
        (PLAYER, offset(Player, "tick"), 8, TICK_NS),
        *((PROCESS, offset(Process, name), 8, 1) for name in ("out_ns", "heard_ns", "next_ns")),
    ]
    found: dict[int, list[tuple[int, int, int]]] = {}
    for number, block in enumerate(BLOCKS):
        inside = [one for one in known if one[0] == block.section and block.at <= one[1] < block.end]
        if inside:
            found[number] = [(at - block.at, size, unit) for _, at, size, unit in inside]
    return found


TIMES = _times()


def move_times(number: int, octets: bytearray, by_ns: int) -> None:
    """Turn the times of a block into those of a clock that is ``by_ns`` ahead. 0 is no time, and stays."""
    for at, size, unit in TIMES.get(number, ()):
        value = int.from_bytes(octets[at : at + size], sys.byteorder)
        if value:
            moved = max(1, value + round(by_ns / unit)) & ((1 << 8 * size) - 1)
            octets[at : at + size] = moved.to_bytes(size, sys.byteorder)


class Bound(NamedTuple):
    """An octet, or two, that the datapath counts by or jumps by, and the most that it may be."""

    at: int
    size: int
    most: int


def _bounds() -> dict[int, list[Bound]]:
    known: list[tuple[int, int, int, int]] = [
        (QUALITY, offset(Quality, "next_sent"), 1, SENT_REPORTS - 1),
        *(
            (WEBRTC, where + offset(Credentials, "theirs_bytes"), 2, THEIRS_BYTES)
            for where in (offset(WebrtcLeg, "present"), offset(WebrtcLeg, "former"))
        ),
        (WEBRTC, offset(WebrtcLeg, "prints"), 1, PRINTS),
        (PLAYER, offset(Player, "law"), 1, 1),
        (PLAYER, offset(Player, "state"), 1, 3),
        (PLAYER, PLAYER_BYTES - 1, 1, 0),  # a name ends
        (PROCESS, offset(Process, "count"), 1, FORMATS),
        (PROCESS, offset(Process, "digit_count"), 1, DIGITS),
        (KEYS, offset(LegKeys, "offered_mki_bytes"), 1, MKI_BYTES),
        (KEYS, offset(LegKeys, "offered_suite"), 1, max(Suite)),
    ]
    for stream in STREAMS:
        known += [
            (KEYS, stream + offset(Stream, "suite"), 1, max(Suite)),
            (KEYS, stream + offset(Stream, "mki_bytes"), 1, MKI_BYTES),
            (KEYS, stream + offset(Stream, "sources"), 1, SOURCES),
            (KEYS, stream + offset(Stream, "next"), 1, SOURCES - 1),
        ]
    found: dict[int, list[Bound]] = {}
    for section, at, size, most in known:
        number = next(n for n in OF_SECTION[section] if BLOCKS[n].at <= at < BLOCKS[n].end)
        found.setdefault(number, []).append(Bound(at - BLOCKS[number].at, size, most))
    return found


BOUNDS = _bounds()


def is_sound(number: int, octets: bytes | bytearray) -> bool:
    """Can the datapath bear this block, whoever made it?"""
    return all(
        int.from_bytes(octets[at : at + size], sys.byteorder) <= most for at, size, most in BOUNDS.get(number, ())
    )


def changed(section: int, before: bytes, now: bytes) -> list[int]:
    """The blocks in use that differ, or were not in use."""
    if before == now:
        return []
    found, known = [], set(blocks_of(section, before))
    for number in blocks_of(section, now):
        _, at, end = BLOCKS[number]
        if before[at:end] != now[at:end] or number not in known:
            found.append(number)
    return found
