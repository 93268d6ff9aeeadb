"""The media state of an active node, that of its standby, and a wire between them; and churn of any kind."""

from __future__ import annotations

import ctypes
import os
import sys
from random import Random

import orjson

from media.replication.blocks import BLOCKS, BOUNDS, EXTENTS, TIMES, blocks_of, move_times, place_of, sections_of
from media.replication.receiver import Receiver
from media.replication.sender import Sender
from media.rules import NO_RULE, Feature, Rule, RuleFlag
from media.session import decode
from media.state import Arena, state_size

S = 10**9
AHEAD_NS = 77 * S + 123  # of the standby's clock
LATENCY_NS = 1_000_000
MOVED_NS = AHEAD_NS + LATENCY_NS

State = dict[bytes, list[dict[int, bytes]]]  # the blocks of all rules, by the identity of their session


class Pair:
    """``active`` and ``standby`` are the arenas; ``carry`` polls and feeds."""

    def __init__(self, capacity: int = 8) -> None:
        self.capacity = capacity
        self.fds = [os.memfd_create(name) for name in ("active", "standby")]
        for fd in self.fds:
            os.ftruncate(fd, state_size(capacity))
        self.standby = Arena(self.fds[1], capacity)
        self.sender = Sender(self.fds[0], 0, capacity)
        self.receiver = Receiver(self.fds[1], 0, capacity)
        self.octets = 0

    def carry(self, now_ns: int) -> list[bytes]:
        """One poll, all of it delivered."""
        found = self.sender.poll(now_ns)
        for frame in found:
            self.octets += len(frame)
            self.receiver.feed(frame, now_ns + MOVED_NS)
        return found

    def settle(self, now_ns: int, rounds: int = 12) -> int:
        """Poll until every rule was looked at; returns the time."""
        for _ in range(rounds):
            now_ns += 100_000_000
            self.carry(now_ns)
        return now_ns

    def close(self) -> None:
        """Let go of the memory."""
        self.sender.close()
        for fd in self.fds:
            os.close(fd)


def state_of(arena: Arena, by_ns: int = 0) -> State:
    """All sessions, without what belongs to a process; times of a clock that is ``by_ns`` ahead are moved back."""
    found: State = {}
    for slot, blob in arena.scan()[0].items():
        found[blob] = []
        for index in decode(slot, blob, len(arena.rules)).all_rules():
            octets: dict[int, bytes] = {}
            for section in sections_of(bytes(arena.rules[index])):
                at = place_of(arena.at, section, index)
                whole = arena.memory[at : at + EXTENTS[section]]
                for number in blocks_of(section, whole):
                    part = bytearray(whole[BLOCKS[number].at : BLOCKS[number].end])
                    move_times(number, part, -by_ns)
                    octets[number] = bytes(part)
            found[blob].append(octets)
    return found


class Churn:
    """Sessions that come, change and go in an arena, with random content."""

    def __init__(self, arena: Arena, random: Random) -> None:
        self.arena = arena
        self.random = random
        self.sessions: dict[int, list[int]] = {}  # rules by slot
        self.torn: list[int] = []  # slots that are being written
        self._named = 0

    def step(self, now_ns: int) -> None:
        """Anything."""
        self.finish()
        what = self.random.choice("nnctttttddxj")
        slot = self.random.choice(list(self.sessions)) if self.sessions else -1
        if what == "n" or slot < 0:
            self.new(now_ns)
        elif what == "c":
            self.arena.begin(slot)
            self._fill(self.random.choice(self.sessions[slot]), slot, now_ns)
            self._commit(slot)
        elif what == "t":
            self._fill(self.random.choice(self.sessions[slot]), slot, now_ns)
        elif what == "d":
            self.drop(slot)
        elif what == "x":
            self.arena.begin(slot)
            self._fill(self.sessions[slot][0], slot, now_ns)
            self.torn.append(slot)
        elif what == "j":
            self._exchange(slot, self.random.choice(list(self.sessions)))

    def finish(self) -> None:
        """What was being written is whole."""
        for slot in self.torn:
            self._commit(slot)
        self.torn.clear()

    def new(self, now_ns: int) -> None:
        """A session of two to four rules, if there is room."""
        slot = self.arena.take_slot()
        if slot is None:
            return
        own = [self.arena.take_rule(slot, now_ns) for _ in range(self.random.randint(2, 4))]
        self.sessions[slot] = [index for index in own if index is not None]
        for index in self.sessions[slot]:
            self._fill(index, slot, now_ns)
        self._named += 1
        self._commit(slot)

    def drop(self, slot: int) -> None:
        """It ends."""
        self.arena.begin(slot)
        for index in self.sessions.pop(slot):
            self.arena.release_rule(index)
        self.arena.release_slot(slot)

    def _exchange(self, one: int, other: int) -> None:
        """Two sessions exchange a rule, as when a leg is transferred."""
        if one == other:
            return
        for slot in (one, other):
            self.arena.begin(slot)
        first, second = self.sessions[one][-1], self.sessions[other][-1]
        self.sessions[one][-1], self.sessions[other][-1] = second, first
        self.arena.rules[second].slot, self.arena.rules[first].slot = one, other
        for slot in (one, other):
            self._commit(slot)

    def _commit(self, slot: int) -> None:
        self._named += 1
        own = self.sessions[slot]
        legs = [["a", "core", own[:1], 0], ["b", "core", own[1:], 46]]
        self.arena.commit(slot, orjson.dumps({"s": f"{slot}-{self._named}", "t": [0, 0, 0], "o": "", "l": legs}))

    def _fill(self, index: int, slot: int, now_ns: int) -> None:
        """Random content that a worker could have written."""
        rule = Rule.from_buffer_copy(self.random.randbytes(ctypes.sizeof(Rule)))
        rule.flags = self.random.choice([0, 0, int(RuleFlag.SRTP | RuleFlag.KEYED)])
        rule.features = self.random.choice([0, 0, *map(int, Feature), 31]) & ~int(Feature.TAPPED)
        rule.slot, rule.peer, rule.rtp_fd, rule.rtcp_fd = slot, NO_RULE, -1, -1
        for section in sections_of(bytes(rule)):
            octets = bytearray(bytes(rule) if not section else self.random.randbytes(EXTENTS[section]))
            for number, block in enumerate(BLOCKS):
                if block.section == section:
                    self._bear(number, memoryview(octets)[block.at : block.end], now_ns)
            at = place_of(self.arena.at, section, index)
            self.arena.memory[at : at + len(octets)] = bytes(octets)

    def _bear(self, number: int, octets: memoryview, now_ns: int) -> None:
        for at, size, most in BOUNDS.get(number, ()):
            value = int.from_bytes(octets[at : at + size], sys.byteorder) % (most + 1)
            octets[at : at + size] = value.to_bytes(size, sys.byteorder)
        for at, size, unit in TIMES.get(number, ()):
            value = self.random.choice([0, (now_ns - self.random.randrange(60 * S)) // unit])
            octets[at : at + size] = value.to_bytes(size, sys.byteorder)
