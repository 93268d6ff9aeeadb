"""Frames between the nodes of a pair: each can be read by itself, and says which version and which shape it is of.

A frame is a head and a body. Records of a session are whole; changes are blocks of rules that the receiver has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from media.replication.blocks import BLOCKS
from media.state import BLOB_BYTES, HEADER_BYTES, SHAPE

MAGIC = b"PCMR"
VERSION = 1
FRAME_BYTES = 64 * 1024  # the longest
_HEAD = struct.Struct("<4sBBHIIQ")  # magic, version, kind, worker, shape, number, sampled_ns
_SESSION = struct.Struct("<IHH")  # slot, octets of the identity, rules
_ENTRY = struct.Struct("<IB")  # rule, blocks
_BEGIN = struct.Struct("<I")
_SLOT = struct.Struct("<I")
HEAD_BYTES = _HEAD.size


class FrameError(ValueError):
    """A frame that cannot be used; the text says why. After it only a full synchronisation helps."""


class Kind(IntEnum):
    BEGIN = 1  # a full synchronisation: capacity; numbers begin at 0
    IDENTITY = 2  # the certificate of DTLS
    SESSION = 3
    CHANGES = 4
    GONE = 5
    COVERED = 6  # all keys as of this time have been told
    END = 7  # of a full synchronisation: what was not named is gone
    FINAL = 8  # the worker has ended, and everything has been told


Entry = tuple[int, list[tuple[int, bytes]]]  # a rule, and blocks of it with their numbers


class Frame(NamedTuple):
    """``sampled_ns``: of the sender's monotonic clock, not later than what it tells."""

    kind: Kind
    worker: int
    number: int
    sampled_ns: int
    body: memoryview


class SessionRecord(NamedTuple):
    """All of one session; blocks that are not there are blank."""

    slot: int
    identity: bytes
    rules: list[Entry]


def pack(kind: Kind, worker: int, number: int, sampled_ns: int, *body: bytes) -> bytes:
    """One frame."""
    head = _HEAD.pack(MAGIC, VERSION, kind, worker, SHAPE, number & 0xFFFFFFFF, sampled_ns)
    return b"".join((head, *body))


def unpack(octets: bytes) -> Frame:
    """Raises FrameError."""
    if not HEAD_BYTES <= len(octets) <= FRAME_BYTES:
        raise FrameError(f"a frame of {len(octets)} octets")
    magic, version, kind, worker, shape, number, sampled_ns = _HEAD.unpack_from(octets)
    if magic != MAGIC or version != VERSION or shape != SHAPE:
        raise FrameError("the other node runs another version of the program: media are not kept ready for it")
    try:
        found = Kind(kind)
    except ValueError:
        raise FrameError(f"a frame of kind {kind}") from None
    return Frame(found, worker, number, sampled_ns, memoryview(octets)[HEAD_BYTES:])


def pack_entry(rule: int, blocks: list[tuple[int, bytes]]) -> bytes:
    """Blocks of one rule."""
    parts = [_ENTRY.pack(rule, len(blocks))]
    for number, octets in blocks:
        parts += (bytes((number,)), octets)
    return b"".join(parts)


def pack_session(slot: int, identity: bytes, rules: list[Entry]) -> bytes:
    """The body of SESSION."""
    entries = (pack_entry(rule, blocks) for rule, blocks in rules)
    return b"".join((_SESSION.pack(slot, len(identity), len(rules)), identity, *entries))


def read_session(body: memoryview) -> SessionRecord:
    """Raises FrameError."""
    try:
        slot, size, count = _SESSION.unpack_from(body)
    except struct.error:
        raise FrameError("a record that is cut off") from None
    at = _SESSION.size + size
    if size > BLOB_BYTES or at > len(body):
        raise FrameError("a record with an identity that is too long")
    rules = list(read_entries(body[at:]))
    if len(rules) != count:
        raise FrameError(f"a record of {count} rules has {len(rules)}")
    return SessionRecord(slot, bytes(body[_SESSION.size : at]), rules)


def read_entries(body: memoryview) -> Iterator[Entry]:
    """The body of CHANGES. Raises FrameError."""
    at = 0
    while at < len(body):
        if at + _ENTRY.size > len(body):
            raise FrameError("changes that are cut off")
        rule, count = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        blocks = []
        for _ in range(count):
            if at >= len(body) or body[at] >= len(BLOCKS):
                raise FrameError("changes to a block that there is not")
            number = body[at]
            size = BLOCKS[number].end - BLOCKS[number].at
            octets = bytes(body[at + 1 : at + 1 + size])
            if len(octets) < size:
                raise FrameError("changes that are cut off")
            blocks.append((number, octets))
            at += 1 + size
        yield rule, blocks


def pack_begin(capacity: int) -> bytes:
    """The body of BEGIN."""
    return _BEGIN.pack(capacity)


def read_begin(body: memoryview) -> int:
    """Raises FrameError."""
    if len(body) != _BEGIN.size:
        raise FrameError("a beginning of another length")
    capacity: int = _BEGIN.unpack(body)[0]
    return capacity


def pack_slots(slots: Iterable[int]) -> bytes:
    """The body of GONE."""
    return b"".join(map(_SLOT.pack, slots))


def read_slots(body: memoryview) -> list[int]:
    """Raises FrameError."""
    if len(body) % _SLOT.size:
        raise FrameError("a list of slots of another length")
    return [slot for (slot,) in _SLOT.iter_unpack(body)]


def read_identity(body: memoryview) -> bytes:
    """Raises FrameError."""
    if len(body) > HEADER_BYTES // 2 + 1000:
        raise FrameError("a certificate that is too long")
    return bytes(body)
