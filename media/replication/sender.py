"""The side of the active node: watches the state of one media worker without touching it, and tells what changed.

A session that was made or changed by signalling is known by the generation of its slot and is told at once. What the
relay changes with every packet is looked at in turn, each session some twice a second; indices of SRTP that were used
are looked at five times a second, because what the standby does not know of them costs a gap when it takes over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from media.replication import frames
from media.replication.blocks import (
    AT_SOURCES,
    BLOCKS,
    EXTENTS,
    KEYS,
    RULE,
    SENDING_HEAD,
    SOURCE_BYTES,
    STREAMS,
    blocks_of,
    changed,
    offset,
    place_of,
    sections_of,
)
from media.replication.frames import Entry, Kind
from media.session import decode
from media.srtp import SOURCES, Stream
from media.state import (
    BLOB_BYTES,
    HEADER_BYTES,
    RULES_PER_SESSION,
    SLOT_BYTES,
    fault_of,
    identity_in,
    places,
    state_size,
)

STREAMS_NS = 600_000_000  # in which every rule is looked at once
KEYS_NS = 200_000_000
SESSIONS_AT_ONCE = 256  # records of one poll: some 300 kB, or 2 MB with SRTP
BATCH_BYTES = 16 * 1024  # of changes in one frame
_HEAD_BYTES = 8  # of a slot
_SENDING = STREAMS[2]
_COUNT_AT = _SENDING + AT_SOURCES
_SOURCES_AT = _SENDING + offset(Stream, "source")


class Sender:
    """The state of worker ``worker`` in ``state_fd``, read only. Times are monotonic nanoseconds.

    A session takes some 1.5 kB of memory here, 8 kB with SRTP on one side.
    """

    def __init__(self, state_fd: int, worker: int, capacity: int) -> None:
        self._worker = worker
        self._capacity = capacity
        self._places = places(capacity)
        self._memory = mmap.mmap(state_fd, state_size(capacity), prot=mmap.PROT_READ)
        self._octets = memoryview(self._memory)
        self._slots = self._octets[HEADER_BYTES : self._places.rules].cast("I")
        self._number = 0
        self._out: list[bytes] = []
        self._forget()

    def _forget(self) -> None:
        self._begins, self._syncing = True, False
        self._identity = b""
        self._told: dict[int, tuple[int, tuple[int, ...]]] = {}  # slots: generation, rules
        self._owners: dict[int, int] = {}  # slots, by the rules that were told
        self._waiting: set[int] = set()  # slots to be told of
        self._generations: list[int] = [0] * self._capacity
        self._copies: dict[int, list[bytes | None]] = {}  # by rule and section, as it was told
        self._turn: list[int] = []  # rules that are still to be looked at in this round
        self._keys_at = self._streams_at = 0
        self._rest = 0.0

    def close(self) -> None:
        """Let go of the memory."""
        self._slots.release()
        self._octets.release()
        self._memory.close()

    def full_sync(self) -> None:
        """The receiver is new, or has lost something: what follows from ``poll`` is all there is, over several polls
        where it is much."""
        self._forget()

    @property
    def is_synced(self) -> bool:
        """Has everything been told since ``full_sync``?"""
        return not self._begins and not self._syncing

    def poll(self, now_ns: int, *, whole: bool = False) -> list[bytes]:
        """What is to be sent now; to be asked every 50 to 200 ms. ``whole``: all that changed, whoever's turn it is."""
        if fault_of(self._memory[:HEADER_BYTES], self._capacity):
            self._forget()  # the worker has not begun, or begins anew
            return []
        self._out = []
        if self._begins:
            self._begins, self._number, self._syncing = False, 0, True
            self._put(Kind.BEGIN, now_ns, frames.pack_begin(self._capacity))
        identity = identity_in(self._memory)
        if identity != self._identity:
            self._identity = identity
            self._put(Kind.IDENTITY, now_ns, identity)
        self._tell_sessions(now_ns)
        if self._syncing and not self._waiting:
            self._syncing = False
            self._put(Kind.END, now_ns)
        if whole:
            self._rest, self._turn = float(len(self._copies)), []
        if whole or now_ns - self._keys_at >= KEYS_NS:
            self._keys_at = now_ns
            self._put_changes(now_ns, self._sample_keys())
            self._put(Kind.COVERED, now_ns)
        self._put_changes(now_ns, self._sample_streams(now_ns))
        out, self._out = self._out, []
        return out

    def finish(self, now_ns: int) -> list[bytes]:
        """All that is left to tell of a worker that has ended, and that this is the end of it; not the latter where a
        session was being written when the worker died."""
        told: list[bytes] = []
        for _ in range(self._capacity // SESSIONS_AT_ONCE + 1):
            told += self.poll(now_ns, whole=True)
            if not self._waiting:
                break
        if told and not self._waiting:
            self._out = []
            self._put(Kind.FINAL, now_ns)
            told += self._out
            self._out = []
        return told

    # -- parts

    def _put(self, kind: Kind, now_ns: int, *body: bytes) -> None:
        self._out.append(frames.pack(kind, self._worker, self._number, now_ns, *body))
        self._number += 1

    def _put_changes(self, now_ns: int, entries: Iterable[Entry]) -> None:
        batch: list[bytes] = []
        size = 0
        for rule, blocks in entries:
            packed = frames.pack_entry(rule, blocks)
            if size + len(packed) > BATCH_BYTES:
                self._put(Kind.CHANGES, now_ns, *batch)
                batch, size = [], 0
            batch.append(packed)
            size += len(packed)
        if batch:
            self._put(Kind.CHANGES, now_ns, *batch)

    def _tell_sessions(self, now_ns: int) -> None:
        """New ones, those that signalling has changed, and those that are gone."""
        generations = self._slots[:: SLOT_BYTES // 4].tolist()
        if generations != self._generations:
            before = self._generations
            self._waiting.update(slot for slot, now in enumerate(generations) if now != before[slot])
            self._generations = generations
        gone: list[int] = []
        for slot in sorted(self._waiting)[:SESSIONS_AT_ONCE]:
            if self._tell_session(slot, now_ns, gone):
                self._waiting.discard(slot)
        if gone:
            self._put(Kind.GONE, now_ns, frames.pack_slots(gone))

    def _tell_session(self, slot: int, now_ns: int, gone: list[int]) -> bool:
        """False: it is being written, and is looked at again."""
        at = slot * SLOT_BYTES // 4
        generation, size = self._slots[at], self._slots[at + 1]
        if generation & 1:
            return False
        start = HEADER_BYTES + slot * SLOT_BYTES + _HEAD_BYTES
        blob = bytes(self._octets[start : start + min(size, BLOB_BYTES)])
        rules: list[int] = []
        if blob:
            try:
                rules = decode(slot, blob, self._capacity * RULES_PER_SESSION).all_rules()
            except ValueError:  # torn, or nothing that a successor would take
                blob = b""
        copies = {index: self._copy(index) for index in rules}
        if self._slots[at] != generation:
            return False
        known = self._told.pop(slot, None)
        for index in known[1] if known is not None else ():
            if self._owners.get(index) == slot:  # else another session has it by now
                del self._owners[index], self._copies[index]
        if not blob:
            if known is not None:
                gone.append(slot)
            return True
        self._told[slot] = generation, tuple(rules)
        self._copies.update(copies)
        self._owners.update(dict.fromkeys(rules, slot))
        entries = [(index, _blocks(copy)) for index, copy in copies.items()]
        self._put(Kind.SESSION, now_ns, frames.pack_session(slot, blob, entries))
        return True

    def _section(self, index: int, section: int) -> bytes:
        at = place_of(self._places, section, index)
        return bytes(self._octets[at : at + EXTENTS[section]])

    def _copy(self, index: int) -> list[bytes | None]:
        """All that belongs to a rule, by section."""
        found: list[bytes | None] = [None] * len(EXTENTS)
        rule = found[RULE] = self._section(index, RULE)
        for section in sections_of(rule)[1:]:
            found[section] = self._section(index, section)
        return found

    def _is_being_changed(self, index: int) -> bool:
        """By signalling: then all of it is told as a session, soon."""
        slot = self._owners[index]
        return self._slots[slot * SLOT_BYTES // 4] != self._told[slot][0]

    def _sample_streams(self, now_ns: int) -> Iterable[Entry]:
        """The share of all rules that is due."""
        passed = min(now_ns - self._streams_at, STREAMS_NS)
        self._streams_at = now_ns
        self._rest += len(self._copies) * passed / STREAMS_NS
        count = int(self._rest)
        self._rest -= count
        for _ in range(min(count, len(self._copies))):
            if not self._turn:
                self._turn = list(self._copies)
            index = self._turn.pop()
            before = self._copies.get(index)
            if before is not None:
                now = self._copy(index)
                if self._is_being_changed(index):
                    continue
                blocks = _difference(before, now)
                self._copies[index] = now
                if blocks:
                    yield index, blocks

    def _sample_keys(self) -> Iterable[Entry]:
        """The indices that were used towards legs with SRTP."""
        for index, copy in self._copies.items():
            known = copy[KEYS]
            if known is None:
                continue
            at = place_of(self._places, KEYS, index)
            count = min(self._octets[at + _COUNT_AT], SOURCES)
            end = _SOURCES_AT + count * SOURCE_BYTES
            now = bytes(self._octets[at + _SENDING : at + end])
            if now == known[_SENDING:end] or self._is_being_changed(index):
                continue
            fresh = known[:_SENDING] + now + known[end:]
            blocks = [
                (number, fresh[BLOCKS[number].at : BLOCKS[number].end])
                for number in changed(KEYS, known, fresh)
                if SENDING_HEAD <= number <= SENDING_HEAD + count
            ]
            copy[KEYS] = fresh
            if blocks:
                yield index, blocks


def _blocks(copy: list[bytes | None]) -> list[tuple[int, bytes]]:
    """All blocks in use."""
    found = []
    for section, octets in enumerate(copy):
        if octets is not None:
            for number in blocks_of(section, octets):
                _, at, end = BLOCKS[number]
                found.append((number, octets[at:end]))
    return found


def _difference(before: list[bytes | None], now: list[bytes | None]) -> list[tuple[int, bytes]]:
    """What has to be told of a rule, first the rule itself: it says what else there is."""
    found = []
    for section, octets in enumerate(now):
        if octets is None:
            continue
        known = before[section]
        numbers = blocks_of(section, octets) if known is None else changed(section, known, octets)
        found += [(number, octets[BLOCKS[number].at : BLOCKS[number].end]) for number in numbers]
    return found
