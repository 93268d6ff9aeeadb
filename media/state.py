"""The arena: everything that must survive the death of a media worker, in memory that its supervisor holds, or in a
file in memory that outlives all processes of the node.

Layout: one header page, ``capacity`` session slots, ``capacity * RULES_PER_SESSION`` rules, then as many keys, as
much for ICE and DTLS, as many players, as much of how calls go (``media.samples``), and as many processes
(``media.processing``); of players and processes only what belongs to a rule that uses it is ever touched, and takes
memory.

A session slot holds a generation and a bounded JSON identity (session, legs, realms, rule numbers). The generation is
odd while the slot and its rules are being written: a successor that finds it odd drops the session. Rules of no slot
are free.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import zlib
from typing import Any, Final, NamedTuple

from media.player import PLAYER_BYTES, Player
from media.processing import PROCESS_BYTES, Process
from media.rules import (
    AT_FEATURES,
    AT_FLAGS,
    AT_LAST_ARRIVAL,
    AT_SLOT,
    BLANK,
    RULE_BYTES,
    RULE_U32,
    RULE_U64,
    Feature,
    Rule,
    RuleFlag,
)
from media.samples import BLANK as BLANK_QUALITY
from media.samples import HEAD_BYTES, QUALITY_BYTES, Quality
from media.srtp import KEYS_BYTES, LegKeys
from media.webrtc import WEBRTC_BYTES, WebrtcLeg

MAGIC: Final = 0x504F52544D454431  # "PORTMED1"
LAYOUT: Final = 6  # of what the sizes and names of fields do not tell: those are in SHAPE
HEADER_BYTES: Final = 4096
SLOT_BYTES: Final = 2048
RULES_PER_SESSION: Final = (
    4  # two legs of one stream, and as much again for forks and video: a pool, not a limit of each
)
_KEYED: Final = int(RuleFlag.KEYED)
_WEBRTC: Final = int(Feature.ICE | Feature.DTLS)
# magic, layout, shape, capacity, epoch (number of workers that used it), boot
_HEADER: Final = struct.Struct("<QIIQQ16s")
_SLOT: Final = struct.Struct("=II")  # generation, length of the JSON
BLOB_BYTES: Final = SLOT_BYTES - _SLOT.size
TOKEN_AT = 64  # in the header page: under which token a node of a pair last served with this state, 0 for none
_IDENTITY_AT: Final = 1024  # in the header page


def _fields(kind: Any) -> str:  # Any: a ctypes type; its parts are not typed
    """Names, places and sizes of all fields, those of parts included."""
    element = getattr(kind, "_type_", None)
    if isinstance(element, type):
        return f"{kind._length_}*{_fields(element)}"
    found = [f"{f[0]}@{getattr(kind, f[0]).offset}:{_fields(f[1])}" for f in getattr(kind, "_fields_", ())]
    return f"{kind.__name__}{ctypes.sizeof(kind)}({','.join(found)})"


# A state that another version of the program has left is told by this, whoever forgot to count LAYOUT up.
SHAPE = zlib.crc32("".join(map(_fields, (Rule, LegKeys, WebrtcLeg, Player, Quality, Process))).encode())


def boot_id() -> bytes:
    """16 octets that are others after each start of the machine: monotonic times of another boot mean nothing."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def identity_in(memory: mmap.mmap) -> bytes:
    """What ``Arena.keep_identity`` was given."""
    size = int.from_bytes(memory[_IDENTITY_AT : _IDENTITY_AT + 2], "big")
    return memory[_IDENTITY_AT + 2 : min(_IDENTITY_AT + 2 + size, HEADER_BYTES)]


def epoch_in(memory: mmap.mmap) -> int:
    """How often this state was begun or gone on with."""
    found: int = _HEADER.unpack_from(memory)[4]
    return found


def fault_of(header: bytes, capacity: int) -> str:
    """Why a state with these first octets cannot be gone on with, as part of a sentence; "" where it can."""
    magic, layout, shape, held, _, boot = _HEADER.unpack_from(header.ljust(_HEADER.size, b"\0"))
    if magic != MAGIC:
        return "is damaged" if any(header) else "is empty"
    if (layout, shape, held) != (LAYOUT, SHAPE, capacity):
        return "was written by another version of the program"
    return "" if boot == boot_id() else "was left before the machine started anew"


class Places(NamedTuple):
    """Where the parts of a state begin, in octets; slots begin after the header page."""

    rules: int
    keys: int
    webrtc: int
    players: int
    quality: int
    processes: int
    end: int


def places(capacity: int) -> Places:
    """Of the state of a worker of ``capacity`` sessions."""
    count, at = capacity * RULES_PER_SESSION, HEADER_BYTES + capacity * SLOT_BYTES
    found = [at]
    for size in (RULE_BYTES, KEYS_BYTES, WEBRTC_BYTES, PLAYER_BYTES, QUALITY_BYTES, PROCESS_BYTES):
        at += count * size
        found.append(at)
    return Places(*found)


def state_size(capacity: int) -> int:
    """Octets of shared memory that a worker of ``capacity`` sessions needs (sparse: touched only as far as used)."""
    return places(capacity).end


class Arena:
    """Session slots and rules over shared (``state_fd``) or private (-1) memory.

    ``resumed`` tells whether the memory held a state of the same layout and boot; if not, it was initialised.
    """

    def __init__(self, state_fd: int, capacity: int) -> None:
        size = state_size(capacity)
        if state_fd >= 0 and os.fstat(state_fd).st_size < size:
            os.ftruncate(state_fd, size)
        self.capacity = capacity
        self.memory = mmap.mmap(state_fd, size)
        header = self.memory[: _HEADER.size]
        self.resumed = not fault_of(header, capacity)
        if not self.resumed and any(header):
            self.memory[:] = bytes(size)
        self.epoch = _HEADER.unpack(header)[4] + 1 if self.resumed else 1
        _HEADER.pack_into(self.memory, 0, MAGIC, LAYOUT, SHAPE, capacity, self.epoch, boot_id())
        count, at = capacity * RULES_PER_SESSION, places(capacity)
        self.at = at
        self.rules_offset = at.rules
        self.rules = (Rule * count).from_buffer(self.memory, at.rules)
        self.keys = (LegKeys * count).from_buffer(self.memory, at.keys)
        self.webrtc = (WebrtcLeg * count).from_buffer(self.memory, at.webrtc)
        self.players = (Player * count).from_buffer(self.memory, at.players)
        self.quality = (Quality * count).from_buffer(self.memory, at.quality)
        self.quality_octets = memoryview(self.memory)[at.quality : at.processes]
        self.processes = (Process * count).from_buffer(self.memory, at.processes)
        # The same rules as plain arrays (RULE_U16, RULE_U32, RULE_U64 words each), and the words of the slots.
        self.octets = memoryview(self.memory)[at.rules : at.keys]
        self.u16, self.u32, self.u64 = self.octets.cast("H"), self.octets.cast("I"), self.octets.cast("Q")
        self._slot_words = memoryview(self.memory)[: self.rules_offset].cast("I")
        self.free_slots = list(range(capacity - 1, -1, -1))
        self.free_rules = list(range(len(self.rules) - 1, -1, -1))

    @property
    def identity(self) -> bytes:
        """What ``keep_identity`` was given by this worker or one before it, b"" for nothing."""
        return identity_in(self.memory)

    def keep_identity(self, blob: bytes) -> None:
        """Keep up to 3 kB for those who come after this worker."""
        if len(blob) > HEADER_BYTES - _IDENTITY_AT - 2:
            raise ValueError("too long for the header")
        self.memory[_IDENTITY_AT + 2 : _IDENTITY_AT + 2 + len(blob)] = blob
        self.memory[_IDENTITY_AT : _IDENTITY_AT + 2] = len(blob).to_bytes(2, "big")

    def begin(self, slot: int) -> None:
        """Mark a slot as being written; idempotent until ``end`` or ``commit``."""
        self._slot_words[(HEADER_BYTES + slot * SLOT_BYTES) // 4] |= 1

    def end(self, slot: int) -> None:
        """The slot is whole again, its identity the same as before ``begin``."""
        at = (HEADER_BYTES + slot * SLOT_BYTES) // 4
        self._slot_words[at] = ((self._slot_words[at] | 1) + 1) & 0xFFFFFFFF

    def commit(self, slot: int, blob: bytes) -> None:
        """Store the identity of a slot (empty: the slot is free) and end its being written; the blob must fit."""
        at = HEADER_BYTES + slot * SLOT_BYTES
        words = self._slot_words
        words[at // 4] |= 1
        self.memory[at + _SLOT.size : at + _SLOT.size + len(blob)] = blob
        words[at // 4 + 1] = len(blob)
        words[at // 4] = (words[at // 4] + 1) & 0xFFFFFFFF

    def scan(self) -> tuple[dict[int, bytes], int]:
        """Identities by slot as a predecessor left them, and how many slots were caught half written (now free)."""
        found: dict[int, bytes] = {}
        half_written = 0
        for slot in range(self.capacity):
            at = HEADER_BYTES + slot * SLOT_BYTES
            generation, length = _SLOT.unpack_from(self.memory, at)
            if generation & 1:
                half_written += 1
                self.commit(slot, b"")
            elif 0 < length <= BLOB_BYTES:
                found[slot] = self.memory[at + _SLOT.size : at + _SLOT.size + length]
        return found, half_written

    def generations(self) -> list[int]:
        """Of all slots: one that changes between two looks was written, one that is odd is being written."""
        end = (HEADER_BYTES + self.capacity * SLOT_BYTES) // 4
        found: list[int] = self._slot_words[HEADER_BYTES // 4 : end : SLOT_BYTES // 4].tolist()
        return found

    def identity_of(self, slot: int) -> bytes:
        """What a slot holds, empty for none; of a slot that is being written, anything."""
        at = HEADER_BYTES + slot * SLOT_BYTES
        length = _SLOT.unpack_from(self.memory, at)[1]
        return self.memory[at + _SLOT.size : at + _SLOT.size + min(length, BLOB_BYTES)]

    def take_slot(self) -> int | None:
        """A free slot, already marked as being written, or None."""
        if not self.free_slots:
            return None
        slot = self.free_slots.pop()
        self.begin(slot)
        return slot

    def release_slot(self, slot: int) -> None:
        """Free a slot; its rules must have been freed before."""
        self.commit(slot, b"")
        self.free_slots.append(slot)

    def take_rule(self, slot: int, now_ns: int) -> int | None:
        """A free rule, blank, for a session; silent from now on. None when all are in use."""
        if not self.free_rules:
            return None
        index = self.free_rules.pop()
        self.octets[index * RULE_BYTES : (index + 1) * RULE_BYTES] = BLANK
        self.quality_octets[index * QUALITY_BYTES : index * QUALITY_BYTES + HEAD_BYTES] = BLANK_QUALITY
        self.u64[index * RULE_U64 + AT_LAST_ARRIVAL] = now_ns
        self.u32[index * RULE_U32 + AT_SLOT] = slot
        return index

    def release_rule(self, index: int) -> None:
        """Free a rule; the datapath must have closed its sockets before."""
        at = index * RULE_BYTES + AT_FLAGS
        if self.octets[at] & _KEYED:
            self.wipe_keys(index)
        self.octets[at] = 0
        if self.octets[index * RULE_BYTES + AT_FEATURES]:
            self.wipe_features(index)
        self.free_rules.append(index)

    def wipe_keys(self, index: int) -> None:
        """Nothing of the keys of a rule remains in memory."""
        ctypes.memset(ctypes.byref(self.keys[index]), 0, KEYS_BYTES)

    def wipe_features(self, index: int) -> None:
        """Nothing is done with a rule beyond passing packets on, and nothing of what that took remains in memory."""
        at = index * RULE_BYTES + AT_FEATURES
        if self.octets[at] & _WEBRTC:
            ctypes.memset(ctypes.byref(self.webrtc[index]), 0, WEBRTC_BYTES)
        self.octets[at] = 0

    def keep(self, slots: set[int], rules: set[int]) -> None:
        """After a scan: these are in use, all others free (and committed empty)."""
        for slot in range(self.capacity):
            at = HEADER_BYTES + slot * SLOT_BYTES
            if slot not in slots and _SLOT.unpack_from(self.memory, at)[1]:
                self.commit(slot, b"")
        self.free_slots = [slot for slot in range(self.capacity - 1, -1, -1) if slot not in slots]
        self.free_rules = [index for index in range(len(self.rules) - 1, -1, -1) if index not in rules]
        for index in self.free_rules:
            flags = self.rules[index].flags
            if flags & _KEYED:
                self.wipe_keys(index)
            if flags:
                self.rules[index].flags = 0
            if self.rules[index].features:
                self.wipe_features(index)
