"""A call that goes on in another worker: whoever is to join it to one of his own asks its owner for it.

The messages of a leg reach the worker that its Call-ID names, and no other can know of a call that it does not own. So
the owner gives the call away, as the record that a successor would have resumed, and keeps a note of it: by our tag in
each of its dialogs, which worker has it now. What comes for it is forwarded as it is. The note is in the journal, and
lasts as long as two dialogs may.

A call is given once its note is stored and its own record is gone (or the store had its time): the journal never holds
it twice. Only a call that is up, with nothing under way, may go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from sbc.b2bua import part, record_time, refresh, replaces, snapshot
from sbc.b2bua.call import Call
from sbc.b2bua.effects import AskWorker, DropRecord, Forward, SaveCall
from sbc.b2bua.tables import CallState
from sbc.dialog.replaces import Replaces
from sbc.sip.flow import Flow
from sbc.sip.ids import SHARDS
from sbc.sip.message import Message
from sbc.sip.shard import shard_of

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

ANSWER_S = 1.0  # a worker that is asked has answered by then, or will not
MAX_ASKED = 3  # workers, one after the other, of a call that has gone from one to the next
MAX_RECORD_BYTES = 60_000  # of one datagram between workers
_BEGINNING = b'{"away":'

Then = Callable[["Leg | None", float], None]


class Away(NamedTuple):
    """The note of a call that was given away: to the worker of shard ``to``, until ``until`` by the clock ``clock``."""

    id: str  # its own name in the journal
    key: str
    shard: int
    to: int
    tags: tuple[str, ...]
    until: float
    clock: record_time.Written


class _Asked(NamedTuple):
    wanted: Replaces
    peer: str
    shard: int
    then: Then
    tried: int


class Lodging:
    """What this worker has given away, and what it has asked others for."""

    __slots__ = ("_asked", "_core", "_giving", "_notes", "_ticket", "away")

    def __init__(self, core: Core) -> None:
        self._core = core
        self.away: dict[str, Away] = {}  # by our tag in a dialog
        self._notes: dict[str, Away] = {}  # by the key of the call
        self._asked: dict[int, _Asked] = {}
        self._giving: dict[str, AskWorker] = {}  # by the name of the note that must be stored first
        self._ticket = 0

    def __contains__(self, key: str) -> bool:
        """Whether a call of this key was given away."""
        return key in self._notes

    def forwards(self, tag: str, msg: Message, flow: Flow) -> bool:
        """Whether a message is of a dialog that was given away; then it is on its way to who has it."""
        note = self.away.get(tag) if self.away else None
        if note is None:
            return False
        self._core.emit(Forward(note.to, flow, msg.came.raw))
        return True

    # Asking

    def fetch(self, wanted: Replaces, peer: str, shard: int, then: Then, now: float) -> None:
        """``then(leg, now)``: our side of the dialog that ``peer`` means, once its call is here, among those of
        ``shard``; None where no worker has one that it may have."""
        core = self._core
        note = self.away.get(wanted.to_tag) or self._notes.get(wanted.call_id)
        owner = shard_of(wanted.call_id, core.settings.shard_key) if note is None else note.to
        self._ask(_Asked(wanted, peer, shard, then, 1), owner, now)

    def _ask(self, asked: _Asked, owner: int, now: float) -> None:
        core = self._core
        if core.settings.owns(owner) or asked.tried > MAX_ASKED:
            asked.then(None, now)
            return
        self._ticket += 1
        self._asked[self._ticket] = asked
        core.timers.start(ANSWER_S, partial(self._nobody, self._ticket), now)
        head = ["want", self._ticket, asked.shard, owner, list(asked.wanted), asked.peer]
        core.emit(AskWorker(owner, orjson.dumps(head)))

    def _nobody(self, ticket: int, now: float) -> None:
        asked = self._asked.pop(ticket, None)
        if asked is not None:
            asked.then(None, now)

    def told(self, data: bytes, now: float, wall: float) -> None:
        """What another worker asks, or answers."""
        head, _, record = data.partition(b"\n")
        kind, ticket, *rest = orjson.loads(head)
        if kind == "want":
            self._wanted(ticket, *rest, now=now)
        else:
            self._given(ticket, *rest, record=record, now=now, wall=wall)

    def _given(self, ticket: int, moved: int, *, record: bytes, now: float, wall: float) -> None:
        core = self._core
        call = core.resume(record, now, wall) if record else None
        if isinstance(call, Call):
            call.resumed, call.lodged = False, True
            core.count("CALLS_LODGED")
            self._is_back(call)
            core.touch(call)
        asked = self._asked.pop(ticket, None)
        if asked is None:
            return  # too late for who asked: the call lives on here
        if record or moved < 0:
            asked.then(replaces.here(core, asked.wanted, asked.peer), now)
        else:
            self._ask(asked._replace(tried=asked.tried + 1), moved, now)

    # Giving

    def _wanted(self, ticket: int, shard: int, owner: int, wanted: list[Any], peer: str, *, now: float) -> None:
        core = self._core
        replaced = Replaces(*wanted)
        note = self.away.get(replaced.to_tag) or self._notes.get(replaced.call_id)
        leg = replaces.here(core, replaced, peer)
        if leg is None or not may_go(leg.call):
            head = ["have", ticket, -1 if note is None else note.to]
            core.emit(AskWorker(shard, orjson.dumps(head)))
            return
        call = leg.call
        former, call.shard = call.shard, shard
        call.version += 1
        record = snapshot.encode(core, call, now)
        if len(record) > MAX_RECORD_BYTES:
            call.shard = former
            core.emit(AskWorker(shard, orjson.dumps(["have", ticket, -1])))
            return
        part.part_with(core, call)
        core.count("CALLS_GIVEN")
        core.emit(DropRecord(call.key, former))
        lifetime_s = 2 * core.settings.dialog_lifetime_s
        tags = tuple(leg.dialog.local_tag for leg in (call.a, call.b) if leg is not None)
        clock = record_time.written(core, now)
        note = Away(core.ids.call_id(owner), call.key, owner, shard, tags, core.wall(now) + lifetime_s, clock)
        self._note(note, lifetime_s, now)
        self._giving[note.id] = AskWorker(shard, orjson.dumps(["have", ticket, shard]) + b"\n" + record)
        core.emit(SaveCall(note.id, note.shard, 1, _record(note), wait=True))

    def saved(self, name: str) -> None:
        """A note is in the journal, or that has had its time: the call may go."""
        effect = self._giving.pop(name, None)
        if effect is not None:
            self._core.emit(effect)

    # Notes

    def _note(self, note: Away, left_s: float, now: float) -> None:
        self._notes[note.key] = note
        for tag in note.tags:
            self.away[tag] = note
        self._core.timers.start(left_s, lambda now: self._forget(note), now)

    def _forget(self, note: Away) -> None:
        if self._notes.get(note.key) is note:
            del self._notes[note.key]
            for tag in note.tags:
                self.away.pop(tag, None)
            self._core.emit(DropRecord(note.id, note.shard))

    def _is_back(self, call: Call) -> None:
        """A call that had been given away before: its messages are for us again."""
        note = self._notes.get(call.key)
        if note is not None:
            self._forget(note)
        for leg in call.legs():
            self.away.pop(leg.dialog.local_tag, None)

    def resume(self, data: bytes, now: float, wall: float) -> Away:
        """Take up a note from the journal, unless a change of their number made both one worker. Raises BadRecord."""
        fields = snapshot.load(data)
        left_s = fields.seconds("until") - snapshot.clock_of(self._core, fields, now, wall)
        left_s = min(max(left_s, 1.0), 20 * 86_400.0)
        note = Away(
            fields.text("away", 64),
            fields.text("key", 64),
            fields.integer("shard", 0, SHARDS - 1),
            fields.integer("to", 0, SHARDS - 1),
            fields.texts("tags", 2),
            wall + left_s,
            record_time.written(self._core, now),
        )
        if self._core.settings.owns(note.to):
            self._core.emit(DropRecord(note.id, note.shard))
            return note
        self._note(note, left_s, now)
        return note

    def names(self) -> list[str]:
        """Of all notes, as records have them."""
        return [note.id for note in self._notes.values()]

    def records(self) -> Iterator[SaveCall]:
        """Every note anew, for a store that came back without what it held."""
        for note in list(self._notes.values()):
            yield SaveCall(note.id, note.shard, 1, _record(note))


def is_note(data: bytes) -> bool:
    """Whether a record is such a note: its kind comes first."""
    return data.startswith(_BEGINNING)


def _record(note: Away) -> bytes:
    return orjson.dumps(
        {
            "away": note.id,
            "key": note.key,
            "shard": note.shard,
            "to": note.to,
            "tags": note.tags,
            "until": note.until,
            "clock": note.clock,
        }
    )


def may_go(call: Call) -> bool:
    """Whether nothing is under way that would be lost on the way."""
    if call.state is not CallState.UP or call.media_pending or call.moving is not None or call.joining is not None:
        return False
    if call.announcing is not None or call.pending_route is not None:
        return False
    return all(leg is not None and refresh.is_quiet(leg) and not leg.busy for leg in (call.a, call.b))
