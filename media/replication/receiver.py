"""The side of the standby: writes what the active node tells into the state of a media worker that is idle.

Slots and rules have the same numbers on both nodes: until ``activate`` the state belongs to the sender alone. After it
the worker takes the sessions over as it would those of a predecessor that has died.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

from media.replication import frames
from media.replication.blocks import (
    BLOCKS,
    KEYS,
    QUALITY,
    RULE,
    STRIDES,
    is_sound,
    move_times,
    offset,
    place_of,
)
from media.replication.frames import Entry, Frame, FrameError, Kind
from media.replication.takeover import Indices, Takeover
from media.rules import Feature, Rule, RuleFlag
from media.session import decode
from media.state import HEADER_BYTES, TOKEN_AT, Arena, epoch_in, fault_of

_FLAGS, _SLOT_AT = offset(Rule, "flags"), offset(Rule, "slot")
_FEATURES = offset(Rule, "features")
_FDS = slice(offset(Rule, "rtp_fd"), offset(Rule, "rtcp_fd") + 4)
NO_DESCRIPTORS = b"\xff" * 8
DRIFT = 5000  # two clocks part by one in so many at most (200 ppm)


class Receiver:
    """The state of worker ``worker`` in ``state_fd``. Times are monotonic nanoseconds of this machine.

    It holds a number for each rule; all else is in the state.
    """

    def __init__(self, state_fd: int, worker: int, capacity: int) -> None:
        self._fd = state_fd
        self._worker = worker
        self._capacity = capacity
        self._arena: Arena | None = None
        self._reset()

    def _reset(self) -> None:
        self._arena = None
        self.synced = False  # there has been an END
        self.is_final = False  # the last frame said that no more follows, and that everything is known
        self.covered_ns = 0  # how old what we know of keys is, at most
        self._number = 0
        self._offset_ns: int | None = None  # of our clock to the sender's, as of the last frame
        self._heard_ns = 0
        self._rules: dict[int, list[int]] = {}  # by slot
        self._owners: dict[int, int] = {}  # slots, by rule
        self._unseen: set[int] = set()  # slots that the full synchronisation has not named yet
        self._indices = Indices()

    def close(self) -> None:
        """Let go of the memory, as far as nobody looks at it."""
        self._arena = None

    def feed(self, octets: bytes, now_ns: int) -> None:
        """Take a frame. Raises FrameError where it cannot be used: nothing of it was written but perhaps the session
        that it is about, and only a full synchronisation helps (``Sender.full_sync``)."""
        frame = frames.unpack(octets)
        if frame.worker != self._worker:
            raise FrameError(f"a frame for media worker {frame.worker} came to that of {self._worker}")
        if frame.kind is Kind.BEGIN:
            self._begin(frame)
        elif self._arena is None or frame.number != self._number:
            raise FrameError("frames are missing")
        elif epoch_in(self._arena.memory) != self._arena.epoch:
            self._reset()
            raise FrameError("the idle media worker has begun anew")
        self._number = (frame.number + 1) & 0xFFFFFFFF
        self.is_final = frame.kind is Kind.FINAL
        sampled_ns = frame.sampled_ns + self._offset(frame.sampled_ns, now_ns)
        match frame.kind:
            case Kind.IDENTITY:
                self._write_identity(frames.read_identity(frame.body))
            case Kind.SESSION:
                self._write_session(frame.body, sampled_ns)
            case Kind.CHANGES:
                for index, blocks in frames.read_entries(frame.body):
                    self._change(index, blocks, sampled_ns)
            case Kind.GONE:
                self._remove(frames.read_slots(frame.body))
            case Kind.COVERED:
                self.covered_ns = sampled_ns
            case Kind.END:
                self._remove(self._unseen)
                self._unseen = set()
                self.synced = True

    @property
    def sessions(self) -> int:
        """How many are kept ready."""
        return len(self._rules)

    def activate(self, now_ns: int, token: int = 0) -> Takeover:
        """This node is the active one from now on, under this token of its pair: makes the state safe to go on with. A
        media worker is to take it over afterwards; frames that still come are refused.

        Where nobody has told anything, what lies there is of an earlier life of this node. It is gone on with unless
        another one may have served since: that one has used the same keys.
        """
        found = Takeover(0, 0, 0, 0)
        if self._arena is not None and self.is_final:
            found = Takeover(len(self._rules), 0, 0, 0)  # no index was used that is not known
        elif self._arena is not None:
            found = self._indices.jump(self._arena, self._rules, self.covered_ns, now_ns)
        else:
            last = int.from_bytes(os.pread(self._fd, 8, TOKEN_AT), sys.byteorder)
            if last and token and not 0 <= token - last <= 1 and not fault_of(self._header(), self._capacity):
                self._arena = Arena(self._fd, self._capacity)
                self._clear()
        os.pwrite(self._fd, token.to_bytes(8, sys.byteorder), TOKEN_AT)
        self._reset()
        return found

    # -- parts

    def _offset(self, sampled_ns: int, now_ns: int) -> int:
        """Of the two clocks, by the frame that came fastest: one that waited on its way is older than it seems. But
        clocks drift, by seconds in a week, so an old measure is worth less the older it is."""
        ahead_ns = now_ns - sampled_ns
        if self._offset_ns is None:
            self._offset_ns = ahead_ns
        else:
            self._offset_ns = min(self._offset_ns + (now_ns - self._heard_ns) // DRIFT, ahead_ns)
        self._heard_ns = now_ns
        return self._offset_ns

    def _begin(self, frame: Frame) -> None:
        capacity = frames.read_begin(frame.body)
        if capacity != self._capacity:
            raise FrameError(f"the other node has room for {capacity} sessions, this one for {self._capacity}")
        if self._arena is not None and epoch_in(self._arena.memory) != self._arena.epoch:
            self._reset()
        if self._arena is None:
            why = fault_of(self._header(), capacity)
            if why:
                raise FrameError(f"the state of the idle media worker {why}")
            self._arena = Arena(self._fd, capacity)
            self._clear()
        self._number = frame.number
        self._offset_ns = None
        self._unseen = set(self._rules)

    def _header(self) -> bytes:
        return os.pread(self._fd, HEADER_BYTES, 0)

    def _clear(self) -> None:
        """What is there is of another life, and the active node may have used its keys since."""
        assert self._arena is not None
        for slot, blob in self._arena.scan()[0].items():
            try:
                rules = decode(slot, blob, len(self._arena.rules)).all_rules()
            except ValueError:
                rules = []
            for index in rules:
                self._wipe(index)
            self._arena.commit(slot, b"")

    def _write_identity(self, blob: bytes) -> None:
        assert self._arena is not None
        try:
            self._arena.keep_identity(blob)
        except ValueError as error:
            raise FrameError(str(error)) from None

    def _write_session(self, body: memoryview, sampled_ns: int) -> None:
        arena = self._arena
        assert arena is not None
        record = frames.read_session(body)
        slot, entries = record.slot, record.rules
        if slot >= self._capacity:
            raise FrameError("a record for a slot that there is not")
        try:
            named = decode(slot, record.identity, len(arena.rules)).all_rules()
        except ValueError as error:
            raise FrameError(f"a record that no worker would take: {error}") from None
        if set(named) != {index for index, _ in entries} or len(entries) != len(named):
            raise FrameError("a record whose rules are not those of its identity")
        self._check(entries)
        arena.begin(slot)
        self._give_up(slot)
        for index in named:
            other = self._owners.get(index)
            if other is not None:  # a leg that has changed its call: that one is told of as well
                self._spoil(other)
            self._wipe(index)
            self._owners[index] = slot
        self._rules[slot] = named
        for index, blocks in entries:
            self._write(index, blocks, sampled_ns)
        arena.commit(slot, record.identity)
        self._unseen.discard(slot)

    def _change(self, index: int, blocks: list[tuple[int, bytes]], sampled_ns: int) -> None:
        slot = self._owners.get(index)
        if slot is None:
            return  # of a session that was spoiled, and will be told of
        assert self._arena is not None
        self._check([(index, blocks)])
        self._arena.begin(slot)
        self._write(index, blocks, sampled_ns)
        self._arena.end(slot)

    def _check(self, entries: Iterable[Entry]) -> None:
        for _, blocks in entries:
            for number, octets in blocks:
                if not is_sound(number, octets):
                    raise FrameError("a record with a count beyond its bounds")

    def _write(self, index: int, blocks: list[tuple[int, bytes]], sampled_ns: int) -> None:
        arena, offset_ns = self._arena, self._offset_ns
        assert arena is not None
        assert offset_ns is not None
        for number, octets in blocks:
            section, at, end = BLOCKS[number]
            fresh = bytearray(octets)
            move_times(number, fresh, offset_ns)
            if section == RULE:
                self._make_idle(index, at, fresh)
            elif section == KEYS:
                self._indices.note(index, number, octets, sampled_ns, self.covered_ns)
            start = place_of(arena.at, section, index)
            arena.memory[start + at : start + end] = bytes(fresh)

    def _make_idle(self, index: int, at: int, octets: bytearray) -> None:
        """No packet passes here yet, and descriptors are those of a process."""
        arena = self._arena
        assert arena is not None
        if at == 0:
            octets[_FDS] = NO_DESCRIPTORS
            octets[_FLAGS] &= ~RuleFlag.IN_USE & 0xFF
            before = arena.rules[index]
            if before.flags & ~octets[_FLAGS] & RuleFlag.KEYED:
                arena.wipe_keys(index)
            if before.features & ~octets[_FEATURES] & (Feature.ICE | Feature.DTLS):
                arena.wipe_features(index)
        else:
            octets[_SLOT_AT - at : _SLOT_AT - at + 4] = memoryview((ctypes.c_uint32 * 1)(self._owners[index])).cast("B")

    def _wipe(self, index: int) -> None:
        """Nothing is left of whoever had this rule. What was never written is not touched: it would take memory."""
        arena = self._arena
        assert arena is not None
        rule = arena.rules[index]
        if rule.flags & RuleFlag.KEYED:
            arena.wipe_keys(index)
        for section, used in ((RULE, True), (QUALITY, bool(rule.slot or rule.packets_in or rule.last_arrival_ns))):
            if used:
                at = place_of(arena.at, section, index)
                arena.memory[at : at + STRIDES[section]] = bytes(STRIDES[section])
        if rule.features:
            arena.wipe_features(index)

    def _give_up(self, slot: int) -> None:
        """Its rules are nobody's."""
        for index in self._rules.pop(slot, ()):
            if self._owners.get(index) == slot:
                del self._owners[index]
                self._wipe(index)
                self._indices.forget(index)

    def _spoil(self, slot: int) -> None:
        """A session that has lost a rule to another one cannot be taken over, until it is told of again."""
        assert self._arena is not None
        self._arena.begin(slot)
        self._give_up(slot)

    def _remove(self, slots: Iterable[int]) -> None:
        assert self._arena is not None
        for slot in list(slots):
            if slot >= self._capacity:
                raise FrameError("a slot that there is not")
            self._arena.begin(slot)
            self._give_up(slot)
            self._arena.commit(slot, b"")
