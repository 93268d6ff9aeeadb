"""One SIP worker relieves another while calls go on: with new code, or in another number of workers.

The successor starts beside the one that it relieves and is ready to the last. Then that one stops reading its sockets,
which both have, and says what it still has: the Call-IDs of its calls and transactions. From then on the successor
reads, takes every new call, and passes on what is of those Call-IDs. A call with nothing under way is handed over as
the record that the journal has of it; one that is being set up stays until it is up or has ended. When nothing is left
the former worker ends, and the successor looks through the journal for what was left behind, as after any death.

What they say goes the way of datagrams between workers (:mod:`sbc.worker.peers`), in order: first a letter, then

    S  Call-IDs, one a line: these are with me
    G  you have the sockets
    C  the record of a call, which is yours now
    N  what a media worker told, as JSON
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from sbc.b2bua import lodging, part, snapshot
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.effects import Transmit
from sbc.media_client.client import Notification
from sbc.services.trunk_registration import call_id_of
from sbc.sip._shard import peek_call_id
from sbc.sip.flow import Flow
from sbc.sip.shard import shard_of
from sbc.store.journal import Journal
from sbc.store.nothing import NoJournal
from sbc.telemetry import log
from sbc.worker.peers import HANDING, RECEIVED, Frame, HandOver
from sbc.worker.slot import SipSlot

LOOK_S = 0.02  # between two looks at which calls may go
AT_ONCE = 50  # calls of a look: the turn stays short
AGAIN_S = 0.002  # until a full queue is tried again
LINGER_S = 2.0  # after the last call: who missed its end asks again within that time
MAX_BYTES = 60_000  # of one frame
EARLY_MOST = 20_000  # messages that wait for the beginning

Receive = Callable[[bytes, Flow, float, float], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a worker its relief works with. ``receive`` gives a message to the core, ``look`` takes what others have
    handed over, ``transmit`` performs that effect, ``after_input`` ends a turn, ``wake`` asks for one."""

    slot: SipSlot
    core: Core
    journal: Journal | NoJournal
    hand_over: HandOver
    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    wall: Callable[[], float]
    receive: Receive
    look: Callable[[], object]
    transmit: Callable[[Transmit], None]
    after_input: Callable[[], None]
    wake: Callable[[], None]


class Leaving:
    """The one that is relieved. ``gone`` is told when nothing is left or the time is over."""

    def __init__(self, parts: Parts, gone: Callable[[], None]) -> None:
        self._parts = parts
        self._gone = gone
        self._log = log.get()
        self._heirs: list[int] = []  # by seat
        self._former = 0  # the arrangement that ends
        self._mine: set[bytes] = set()
        self._trunks: set[bytes] = set()  # their registrations are begun anew by who has them now
        self._out: deque[tuple[int, int, Flow, bytes]] = deque()
        self._left_at = 0.0
        self._until = 0.0

    def may_begin(self) -> bool:
        """Whether somebody is there to relieve this worker."""
        seats, mine = self._parts.slot.seats, self._parts.slot.slot
        seats.look()
        # Where all are relieved, another one may have been faster.
        self._heirs = seats.prepared if mine in seats.numbers else seats.numbers
        self._former = seats.version if mine in seats.numbers else seats.version - 1
        return mine not in self._heirs

    def is_read_by_another(self, seat: int) -> bool:
        """Whether the sockets of a seat have somebody who reads them when we have gone."""
        return seat < len(self._heirs)

    def begin(self, limit_s: float) -> None:
        """The sockets have been given up; at the latest after ``limit_s`` this worker ends."""
        seats, core, heirs = self._parts.slot.seats, self._parts.core, self._heirs
        key = self._parts.slot.shard_key
        self._trunks = {_octets(call_id_of(peer, key)) for peer in core.trunks}
        self._mine = set(self._known()) - self._trunks
        by_heir: dict[int, list[bytes]] = {}
        for call_id in self._mine:
            by_heir.setdefault(self._heir(call_id), []).append(call_id)
        for heir, call_ids in by_heir.items():
            for some in _bundles(call_ids):
                self._say(heir, b"S" + some)
        for effect in core.lodging.records():
            self._say(self._heir_of(effect.shard), b"C" + effect.record)
        seats.turn(self._former)
        for heir in dict.fromkeys(heirs):
            if seats.relieves(heir):
                self._say(heir, b"G")
        now = self._parts.now()
        self._left_at, self._until = now, now + limit_s
        self._log.info("relieved", calls=len(core.calls), by=sorted({f"sip {heir}" for heir in heirs}))
        self._look()

    # what comes and leaves meanwhile

    def receive(self, data: bytes, flow: Flow, now: float, wall: float) -> None:
        """A message: for a call that is still here, or on to who has the shard."""
        call_id = peek_call_id(data)
        if call_id is None or call_id in self._mine:
            self._parts.receive(data, flow, now, wall)
        else:
            self._say(self._heir(call_id), data, flow)

    def transmit(self, effect: Transmit) -> None:
        """Answers to a new request of ours must find their way here."""
        data = effect.data
        if not data.startswith(b"SIP/2.0 "):
            call_id = peek_call_id(data)
            if call_id in self._trunks:
                return
            if call_id is not None and call_id not in self._mine:
                self._mine.add(call_id)
                self._say(self._heir(call_id), b"S" + call_id)
        self._parts.transmit(effect)

    def news(self, session: str, node: str, event: Notification) -> None:
        """A media worker tells of a call that has been handed over."""
        self._say(self._heir(_octets(session)), b"N" + orjson.dumps([node, event]))

    # calls

    def _look(self) -> None:
        core, now = self._parts.core, self._parts.now()
        busy = core.layer.call_ids(pending=True)
        given = 0
        for call in list(core.calls.values()):
            if given == AT_ONCE:
                break
            given += self._give(call, busy, now)
        if core.calls:
            self._left_at = now
        self._parts.after_input()
        if now >= self._until or (now >= self._left_at + LINGER_S and not busy - self._trunks):
            if core.calls:
                self._log.warning("calls that are not up end with their worker", calls=len(core.calls))
            self._flush_and_go()
        else:
            self._parts.loop.call_later(LOOK_S, self._look)

    def _give(self, call: Call, busy: set[bytes], now: float) -> bool:
        """Hand a call over, if it may go."""
        core = self._parts.core
        call_ids = [_octets(leg.dialog.call_id) for leg in call.legs()]
        if not lodging.may_go(call) or any(call_id in busy for call_id in call_ids):
            return False
        if self._parts.journal.has_unsaved(call.key):  # a moment more, then it is the journal's last word of us
            return False
        call.version += 1
        record = snapshot.encode(core, call, now)
        if len(record) > MAX_BYTES:  # it is found in the journal, when we have gone
            return False
        part.part_with(core, call)
        self._parts.journal.given(call.key)
        self._mine.difference_update(call_ids)
        self._say(self._heir_of(call.shard), b"C" + record)
        return True

    def _known(self) -> Iterator[bytes]:
        core = self._parts.core
        yield from core.layer.call_ids()
        for call in core.calls.values():
            for leg in call.legs():
                yield _octets(leg.dialog.call_id)
        for side in core.requests.sides.values():
            yield _octets(side.dialog.call_id)

    # frames

    def _heir(self, call_id: bytes) -> int:
        return self._heir_of(shard_of(call_id, self._parts.slot.shard_key))

    def _heir_of(self, shard: int) -> int:
        return self._heirs[shard % len(self._heirs)]

    def _say(self, heir: int, data: bytes, flow: Flow | None = None) -> None:
        """In order: what finds the queue full waits, and all that follows."""
        kind = HANDING if flow is None else RECEIVED
        self._out.append((heir, kind, flow or _NOWHERE, data))
        if len(self._out) == 1:
            self._write()

    def _write(self) -> None:
        while self._out:
            heir, kind, flow, data = self._out[0]
            if not self._parts.hand_over.give(heir, flow.listener, flow.host, flow.port, data, kind, flow.connection):
                self._parts.loop.call_later(AGAIN_S, self._write)
                return
            self._out.popleft()

    def _flush_and_go(self) -> None:
        if self._out and self._parts.now() < self._until + 1.0:
            self._parts.loop.call_later(AGAIN_S, self._flush_and_go)
        else:
            self._gone()


class Arriving:
    """The one that relieves others. ``resume`` takes a record up, ``news`` takes what a media worker told."""

    def __init__(
        self, parts: Parts, resume: Callable[[bytes], list[str]], news: Callable[[str, Notification], None]
    ) -> None:
        seats = parts.slot.seats
        seats.look()
        self._awaited = set(seats.numbers) - set(seats.prepared)
        self._parts = parts
        self._resume = resume
        self._news = news
        self._log = log.get()
        self._elsewhere: dict[bytes, int] = {}
        self._early: list[tuple[bytes, Flow]] = []
        self._is_looking = False
        self.taken = 0  # calls that were handed over
        self.begins: asyncio.Future[None] = parts.loop.create_future()  # the sockets are ours

    def told(self, frame: Frame) -> None:
        """Something from those that are relieved."""
        kind, data = frame.data[:1], frame.data[1:]
        if kind == b"S":
            self._elsewhere.update(dict.fromkeys(data.split(b"\n"), frame.slot))
        elif kind == b"C":
            for call_id in self._resume(data):
                self._elsewhere.pop(_octets(call_id), None)
                self.taken += 1
        elif kind == b"N":
            self._news(*orjson.loads(data))
        elif kind == b"G":
            self._awaited.discard(frame.slot)
            if not self._awaited:
                self._begin()

    def alone(self) -> None:
        """Those that were relieved have ended."""
        self._elsewhere.clear()
        self._begin()

    def receive(self, data: bytes, flow: Flow, now: float, wall: float) -> None:
        """A message: ours, or of a call that is still with a worker that we relieve."""
        if not self.begins.done():
            if len(self._early) < EARLY_MOST:
                self._early.append((data, flow))
            return
        call_id = peek_call_id(data)
        if call_id is None:
            self._parts.receive(data, flow, now, wall)
            return
        if call_id not in self._elsewhere and not self._is_looking:
            # An answer may be faster than the word that its request has left.
            self._is_looking = True
            try:
                self._parts.look()
            finally:
                self._is_looking = False
        holder = self._elsewhere.get(call_id)
        if holder is None:
            self._parts.receive(data, flow, now, wall)
        else:
            self._parts.hand_over.give(holder, flow.listener, flow.host, flow.port, data, RECEIVED, flow.connection)

    def _begin(self) -> None:
        if self.begins.done():
            return
        self.begins.set_result(None)
        early, self._early = self._early, []
        for data, flow in early:
            self.receive(data, flow, self._parts.now(), self._parts.wall())


_NOWHERE = Flow(0, "udp", "", 0)


def _octets(call_id: str) -> bytes:
    return call_id.encode("utf-8", "surrogateescape")


def _bundles(call_ids: list[bytes]) -> Iterator[bytes]:
    """As many to a frame as there is room for."""
    some: list[bytes] = []
    size = 0
    for call_id in call_ids:
        if some and size + len(call_id) + 1 > MAX_BYTES:
            yield b"\n".join(some)
            some, size = [], 0
        some.append(call_id)
        size += len(call_id) + 1
    if some:
        yield b"\n".join(some)
