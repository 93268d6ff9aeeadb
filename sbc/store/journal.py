"""The journal: what another process needs to go on with our calls, and the outbox of CDRs.

A worker's memory is the authority for its calls; the store is what someone else resumes from. So nothing here blocks or
raises into the caller, and what the store did not confirm is kept (the latest record of each call, and finished CDRs in
order) until it does. CDRs are kept until they are in the database, here and on the disk (:mod:`sbc.store.spool`): a
store may die with what it confirmed, and this worker with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from itertools import count as counting
from typing import Any

from sbc.b2bua.effects import DropRecord, FinishCall, SaveCall
from sbc.store.breaker import State
from sbc.store.epoch import UNKNOWN, incarnation_of
from sbc.store.fencing import Fencing
from sbc.store.jsontext import to_json
from sbc.store.keys import CDR_FIELD, MARKER_TTL_S, RECORD_TTL_MARGIN_S, Keys, member_of
from sbc.store.loading import StoredCall, load, with_deadline, with_unstored
from sbc.store.outbox import Outbox, StreamId, stream_id
from sbc.store.owner import Owner
from sbc.store.pipe import Pipe, Refusal, Reply
from sbc.store.pruning import Known, prune
from sbc.store.replay import Replay
from sbc.store.script import Script, unknown
from sbc.store.spool import Spool
from sbc.store.unstored import Unstored
from sbc.store.url import StoreAddress

Done = Callable[[bool], None]
Note = Callable[[str, str, dict[str, Any]], None]  # level, event, fields; Any: log fields are free

CDR_CAPACITY = 100_000
LOAD_DEADLINE_S = 1.0
_TICK_S = 1.0
_ANOTHER_NODE = "another node of the pair is active by now, with a later token"


class _Finished:
    """A CDR on its way to the outbox."""

    __slots__ = ("cdr", "ceiling", "key", "lodged", "sent", "shard", "with_record")

    def __init__(
        self, key: str, shard: int, cdr: bytes, with_record: bool, lodged: bool = False, ceiling: int = UNKNOWN
    ) -> None:
        self.key = key
        self.shard = shard
        self.cdr = cdr
        self.with_record = with_record
        self.lodged = lodged
        self.ceiling = ceiling  # of a former worker: it had ended the call as an owner of no later epoch
        self.sent = False  # issued to the pipe and not yet answered


class Journal:
    """Saves, finishes and loads the calls of one worker. All of it runs in the worker's event loop.

    ``commit_timeout_s``  each ``done`` is called within this; it is the deadline of each command too (0: nobody waits)
    ``lifetime_s``        the longest dialog; the store forgets an abandoned record some minutes after that
    ``epoch``             of this owner: a record of a later epoch is not overwritten or finished; None: the store says
    ``token``             the fencing token of this node, 0 where it has none (:mod:`sbc.store.epoch`); asked for then
    ``on_lost``           a later owner has this call: it is to be let go in silence
    ``on_restored``       the store came back without some of what it held: answer with :meth:`republish`
    ``count``, ``note``   counters by name with an amount, and log lines
    ``spool``             keeps CDRs on disk; what it has of a former worker goes to the store first
    ``unstored``          keeps the records of answered calls that the store has not taken
    """

    def __init__(
        self,
        address: StoreAddress,
        node: str,
        loop: asyncio.AbstractEventLoop,
        *,
        commit_timeout_s: float = 0.05,
        lifetime_s: int = 43_200,
        epoch: int | None = 0,
        token: Callable[[], int] = lambda: 0,
        on_restored: Callable[[], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
        count: Callable[[str, int], None] | None = None,
        note: Note | None = None,
        cdr_capacity: int = CDR_CAPACITY,
        pipe: Pipe | None = None,
        spool: Spool | None = None,
        unstored: Unstored | None = None,
    ) -> None:
        self.on_restored = on_restored
        self._loop = loop
        self._keys = Keys(node)
        self._nobody_waits = commit_timeout_s <= 0
        self._ttl_s = lifetime_s + RECORD_TTL_MARGIN_S
        self._token = token
        self._on_lost = on_lost or (lambda _key: None)
        self._any_lost = False
        self._count = count or (lambda _name, _amount: None)
        self._note = note or (lambda _level, _event, _fields: None)
        self._cdr_capacity = cdr_capacity
        deadline_s = 0.05 if self._nobody_waits else max(0.005, commit_timeout_s)
        self._pipe = pipe or Pipe(
            address, loop, key=self._keys.marker, deadline_s=deadline_s, count=lambda name: self._count(name, 1)
        )
        self._pipe.on_ready = self._connected
        self._pipe.on_change = self._state_changed
        self._fencing = Fencing(self._pipe, self._keys)
        self._owner = Owner(self._pipe, self._keys, epoch, token, self._was_refused)
        self._replay = Replay(
            self._pipe,
            self._may_send,
            self._send_waiting_cdr,
            self._send_waiting_record,
            self._send_listed,
            self._listed,
        )
        self._save = Script("save")
        self._finish = Script("finish")
        self._unsaved: dict[str, SaveCall] = {}  # by call key: the latest that the store has not confirmed
        self._unsent: dict[int, _Finished] = {}  # in order of their end
        self._outbox: Outbox[_Finished] = Outbox(cdr_capacity)
        self._spool = spool
        self._ended: set[str] = set()  # members of calls whose CDRs a former worker left
        if spool is not None:
            for left in spool.recover():
                self._unsent[left.number] = _Finished(left.member, left.shard, left.cdr, True, ceiling=left.ceiling)
                self._ended.add(left.member)
        self._unstored = unstored
        self._sequence = counting(spool.next_number if spool is not None else 0)
        self._republish_due = False
        self._refused = False  # the store said no to something since the last replay
        self._refusal = ""  # what it said last, until nothing waits
        self._run_id = ""
        self._marker = b""
        self._ticker: asyncio.TimerHandle | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._shown: dict[str, int] = {}

    # -- life

    def start(self) -> None:
        """Begin to connect. Everything else may be called before."""
        if self._spool is not None:
            self._spool.start()
        self._pipe.start()
        self._tick()

    async def ready(self, timeout_s: float) -> bool:
        """Wait until the store answers, at most ``timeout_s``; whether it does."""
        if self._pipe.state is State.READY:
            return True
        self._arrived = arrived = self._loop.create_future()
        await asyncio.wait([arrived], timeout=timeout_s)
        self._arrived = None
        return arrived.done()

    async def close(self, timeout_s: float = 1.0) -> int:
        """Wait until all is stored, at most ``timeout_s``, and disconnect; how much was left unstored."""
        if self.waiting:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=timeout_s)
            self._drained = None
        if self._ticker is not None:
            self._ticker.cancel()
        self._pipe.close()
        if self._unstored is not None:
            self._unstored.close()
        if self._spool is not None:
            await asyncio.to_thread(self._spool.close, max(0.05, timeout_s))
        return self.waiting

    def has_unsaved(self, key: str) -> bool:
        """Whether a record of this call is on its way to a store that answers."""
        return key in self._unsaved and not self.is_unprotected

    @property
    def waiting(self) -> int:
        """Records and CDRs that the store has not confirmed."""
        return len(self._unsaved) + len(self._unsent)

    @property
    def is_full(self) -> bool:
        """Whether so many CDRs wait that new calls should be refused."""
        return max(len(self._unsent), self._spool.unsaved if self._spool is not None else 0) >= self._cdr_capacity

    def troubles(self) -> dict[str, str]:
        """Why the store does not take what it is given, and the disk no CDRs; empty where they do."""
        return {"store": self._refusal, "spool": self._spool.error if self._spool is not None else ""}

    @property
    def is_away(self) -> bool:
        """Whether nothing can be written now: the circuit is open, or the store has not said yet who we are."""
        return self._pipe.is_open or not self._owner.is_known

    @property
    def is_unprotected(self) -> bool:
        """Whether a call made now would have no record: the store is away, or takes nothing (no memory, a replica)."""
        return self.is_away or self._refusal != ""

    @property
    def epoch(self) -> int:
        """Ours; negative while it is not known."""
        return self._owner.epoch

    def gather(self, on: bool) -> None:
        """With ``on`` what is to be written waits until :meth:`flush`, what the store answers until :meth:`poll`."""
        self._pipe.gather(on)

    def poll(self) -> None:
        """Hear what the store has answered."""
        self._pipe.poll()

    def flush(self) -> bool:
        """Write what waits for it; whether there was anything."""
        return self._pipe.flush()

    # -- the hot path

    def save(self, effect: SaveCall, done: Done | None = None) -> None:
        """Store the record; ``done(True)`` once it, or a newer one, is stored, ``done(False)`` when that failed, the
        store is away or ``commit_timeout_s`` has passed. Then it is kept, and stored later."""
        self._unsaved[effect.key] = effect
        if self.is_away:
            self._count("JOURNAL_FAILED", 1)
            self._not_stored(effect, done)
            return
        if self._nobody_waits and done is not None:
            done(False)
            done = None
        self._send_save(effect, done)

    def finish(self, effect: FinishCall) -> None:
        """Put the CDR on the outbox and remove the record, both or neither; repeated until confirmed.

        After a lost reply the stream may hold the CDR twice; its ``id`` keeps the table at one row.
        """
        unconfirmed = self._unsaved.pop(effect.key, None)
        cdr = to_json(effect.cdr)
        if len(self._unsent) >= 2 * self._cdr_capacity:
            # new calls were refused long before this; the log is the last place for it
            self._count("JOURNAL_DROPPED", 1)
            self._note("error", "CDR lost: too many wait for the store", {"cdr": effect.cdr})
            return
        sequence = next(self._sequence)
        item = _Finished(effect.key, effect.shard, cdr, effect.saved or unconfirmed is not None, effect.lodged)
        self._unsent[sequence] = item
        if self._spool is not None:
            self._spool.add(sequence, effect.shard, member_of(effect.key), cdr, self._owner.ceiling(effect.lodged))
        if not self._replay.behind(sequence) and not self.is_away:
            self._send_finish(sequence, item)

    def drop(self, effect: DropRecord) -> None:
        """Remove a record that has no CDR. Sent once: what a store that is away keeps of it, a successor of ours takes
        up, finds out of time and drops again; at last Redis forgets it by itself."""
        self._unsaved.pop(effect.key, None)
        self.given(effect.key)
        self._settle()
        if not self.is_away:
            self._remove(member_of(effect.key), effect.shard)

    def _remove(self, member: str, shard: int) -> None:
        self._fencing.drop(member, shard, self._owner.ceiling(lodged=True), self._owner.fence())

    def republish(self, records: Iterable[SaveCall]) -> None:
        """Store all of these again, a window at a time: the iterable is drawn from as the store confirms."""
        self._replay.then(records)

    def prune(self, shards: Iterable[int], known: Known) -> Coroutine[Any, Any, int]:
        """See :func:`sbc.store.pruning.prune`."""
        drop = partial(self._fencing.drop, ceiling=self._owner.epoch, token=self._owner.fence())
        return prune(self._pipe, self._keys, shards, known, drop)

    def _send_save(self, effect: SaveCall, done: Done | None, *, source: bool = False) -> None:
        member = member_of(effect.key)
        send = self._save.send_source if source else self._save.send
        token = self._owner.fence()
        names = (self._keys.call(member), self._keys.shard(effect.shard), self._keys.token)[: 3 if token else 2]
        value = b"1 %d %d\n%b" % (self._owner.epoch, effect.version, effect.record)
        arguments = (value, self._ttl_s, member, self._owner.ceiling(effect.lodged), token)[: 5 if token else 4]
        send(self._pipe, partial(self._saved, effect, done), len(names), *names, *arguments)

    def _saved(self, effect: SaveCall, done: Done | None, reply: Reply) -> None:
        if reply == 1 or reply == 0:
            if self._unsaved.get(effect.key) is effect:
                del self._unsaved[effect.key]
                self.given(effect.key)
            self._count("JOURNAL_SAVED", 1)
            if done is not None:
                done(True)
            self._settle()
            return
        self._count("JOURNAL_FAILED", 1)
        if reply == -1:
            self._unsaved.pop(effect.key, None)
            self._lost(effect.key)
        elif reply == -2:
            self._was_refused(_ANOTHER_NODE)
        elif unknown(reply):
            if self._unsaved.get(effect.key) is effect:
                self._send_save(effect, None, source=True)
        elif isinstance(reply, Refusal):
            self._was_refused(str(reply))
        self._not_stored(effect, done)

    def _not_stored(self, effect: SaveCall, done: Done | None) -> None:
        """A call that goes on without a record would be lost with this worker."""
        if self._unstored is not None and self._unsaved.get(effect.key) is effect:
            member = member_of(effect.key)
            if done is not None or member in self._unstored.members:
                self._unstored.keep(member, effect.shard, self._token(), effect.version, effect.record)
        if done is not None:
            done(False)

    def given(self, key: str) -> None:
        """The store has what we know of this call, or another owner the call."""
        if self._unstored is not None and self._unstored.members:
            self._unstored.stored(member_of(key))

    def _send_finish(self, sequence: int, item: _Finished, *, source: bool = False) -> None:
        item.sent = True
        on_reply = partial(self._finished, sequence, item)
        if not item.with_record:
            self._pipe.send(on_reply, "XADD", self._keys.cdr_stream, "*", CDR_FIELD, item.cdr)
            return
        member = member_of(item.key)
        send = self._finish.send_source if source else self._finish.send
        token = self._owner.fence()
        keys = self._keys
        names = (keys.call(member), keys.shard(item.shard), keys.cdr_stream, keys.token)[: 4 if token else 3]
        ceiling = item.ceiling if item.ceiling >= 0 else self._owner.ceiling(item.lodged)
        arguments = (member, CDR_FIELD, item.cdr, ceiling, token)[: 5 if token else 4]
        send(self._pipe, on_reply, len(names), *names, *arguments)

    def _finished(self, sequence: int, item: _Finished, reply: Reply) -> None:
        item.sent = False
        if reply == -2:
            self._was_refused(_ANOTHER_NODE)
        elif not isinstance(reply, Exception):
            del self._unsent[sequence]
            self.given(item.key)
            if reply == -1:
                self._ended.discard(member_of(item.key))  # a former worker thought so
                self._lost(item.key)
            else:
                self._count("CDR_QUEUED", 1)
            if (identity := stream_id(reply)) is not None:
                self._outbox.put(identity, sequence, item)
            elif self._spool is not None:
                self._spool.written([sequence])
            self._settle()
        elif unknown(reply):
            self._send_finish(sequence, item, source=True)
        elif isinstance(reply, Refusal):
            if "WRONGTYPE" in str(reply):  # foreign content in the place of the stream
                self._fencing.mend(self._keys.cdr_stream, "stream", self._keys.bad("cdr"))
            self._was_refused(str(reply))

    def _lost(self, key: str) -> None:
        """A later owner holds this call: what we know of it, its CDR included, is not to be told any more."""
        self._count("CALLS_FENCED", 1)
        self.given(key)
        if not self._any_lost:
            self._any_lost = True
            said = {"call": key, "epoch": self._owner.epoch}
            self._note("error", "a later owner holds calls that this worker has: they are let go", said)
        self._on_lost(key)

    def _was_refused(self, reason: str) -> None:
        if not self._refused:
            self._note("error", "the store refused to write", {"reason": reason})
        self._refused = True  # tried again at the next tick
        self._refusal = reason

    def _settle(self) -> None:
        if self._drained is not None and not self._drained.done() and not self.waiting:
            self._drained.set_result(None)

    # -- what waited, after an outage

    def _connected(self) -> None:
        """The pipe is ready. Scripts first, then whether this is the store that we knew."""
        self._save.load(self._pipe)
        self._finish.load(self._pipe)
        # another run of the server may hold less: restarted, restored from a snapshot, or a promoted replica
        if self._run_id and self._pipe.run_id != self._run_id:
            self._republish_due = True
            self._take_back()
            if self._owner.is_known:
                self._fencing.counted(incarnation_of(self._owner.epoch))
        self._run_id = self._pipe.run_id
        if not self._owner.is_known:
            self._owner.ask(self._know_who_we_are)
        else:
            self._know_who_we_are()

    def _know_who_we_are(self) -> None:
        self._look_at_marker()
        self._begin_replay()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _begin_replay(self) -> None:
        self._replay.begin([sequence for sequence, item in self._unsent.items() if not item.sent], list(self._unsaved))

    def _may_send(self) -> bool:
        return self._pipe.state is State.READY and self._owner.is_known

    def _send_waiting_cdr(self, sequence: int) -> bool:
        item = self._unsent.get(sequence)
        if item is None or item.sent:
            return False
        self._send_finish(sequence, item)
        return True

    def _send_waiting_record(self, key: str) -> bool:
        effect = self._unsaved.get(key)
        if effect is None:
            return False
        self._send_save(effect, None)
        return True

    def _send_listed(self, effect: SaveCall) -> None:
        self._unsaved[effect.key] = effect
        self._send_save(effect, None)

    def _listed(self, error: str) -> None:
        if error:  # asked for again at the next tick
            self._note("error", "the live calls cannot be listed", {"reason": error})
        else:
            self._republish_due = False

    def _look_at_marker(self) -> None:
        """A key that every worker of the node knows: gone, or another one, the store has been emptied, or its clock
        set so far ahead that other keys may have expired."""
        mine = os.urandom(8).hex().encode()  # taken when there is none
        self._pipe.send(partial(self._seen_marker, mine), "SET", self._keys.marker, mine, "NX", "GET")
        self._pipe.send(lambda _reply: None, "EXPIRE", self._keys.marker, MARKER_TTL_S)

    def _seen_marker(self, mine: bytes, reply: Reply) -> None:
        if isinstance(reply, Refusal):
            if "WRONGTYPE" in str(reply):
                self._fencing.mend(self._keys.marker, "string")
            self._was_refused(str(reply))
        if isinstance(reply, Exception):
            return
        found = reply if isinstance(reply, bytes) else mine
        known, self._marker = self._marker, found
        if known and found != known:
            self._republish_due = True
            self._replay.unlist()
            if self._outbox:
                self._take_back()
                self._begin_replay()
        if self._republish_due and not self._replay.is_listing and self.on_restored is not None:
            self._note("warning", "the store lost what it held: all live calls are written again", {})
            self.on_restored()

    def _take_back(self) -> None:
        """The store may have lost its stream: CDRs that are not in the database yet go there again."""
        lost = self._outbox.take()
        if lost:
            said = "the store lost its stream: CDRs that may not be written go there again"
            self._note("warning", said, {"cdrs": len(lost)})
            self._unsent = dict(sorted([*lost, *self._unsent.items()]))

    def _look_at_stream(self) -> None:
        asked_at = self._outbox.newest
        if asked_at is not None:
            self._pipe.send(partial(self._seen_stream, asked_at), "XRANGE", self._keys.cdr_stream, "-", "+", "COUNT", 1)

    def _seen_stream(self, asked_at: StreamId, reply: Reply) -> None:
        if isinstance(reply, list):
            numbers = self._outbox.written(asked_at, stream_id(reply[0][0]) if reply else None)
            if numbers and self._spool is not None:
                self._spool.written(numbers)

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_TICK_S, self._tick)
        if self._pipe.state is State.READY:
            if not self._owner.is_known:
                self._owner.ask(self._know_who_we_are)
            self._look_at_marker()
            self._look_at_stream()
            if self._refused and not self._replay.is_running:
                self._refused = False
                self._begin_replay()
        self._show()

    def _show(self) -> None:
        """Bring the gauges up to date."""
        waiting = self.waiting
        self._gauge("JOURNAL_WAITING", waiting)
        self._gauge("STORE_DOWN", int(self._pipe.state is not State.READY))
        if not waiting:
            self._refusal = ""
        self._gauge("STORE_REFUSES", int(self._refusal != ""))
        if self._spool is not None:
            self._gauge("CDR_SPOOL_DOWN", int(self._spool.error != ""))
            self._gauge("CDR_UNSAVED", self._spool.unsaved if self._spool.error else 0)

    def _gauge(self, name: str, value: int) -> None:
        shown = self._shown.get(name, 0)
        if value != shown:
            self._count(name, value - shown)
            self._shown[name] = value

    def _state_changed(self, state: State, reason: str) -> None:
        was_down = self._shown.get("STORE_DOWN", 0)
        if state is State.OPEN and not was_down:
            self._note("error", "the store is away: calls go on, their state is kept here", {"reason": reason})
        elif state is State.READY and was_down:
            self._note("info", "the store is back", {"waiting": self.waiting})
        if state in (State.OPEN, State.READY):
            self._show()

    # -- at start

    def load(self, shards: Iterable[int], *, patient: bool = False) -> AsyncIterator[StoredCall]:
        """See :func:`sbc.store.loading.load`. ``patient``: each command has LOAD_DEADLINE_S meanwhile, more than a call
        can wait."""
        mend = partial(self._fencing.mend, kind="set")
        found = load(self._pipe, self._keys, shards, self._note, self._owner.claim, self._remove, mend, self._ended)
        if self._unstored is not None and self._unstored.members:
            found = with_unstored(found, self._unstored, shards, self._token(), self._ended)
        return with_deadline(self._pipe, LOAD_DEADLINE_S, found) if patient else found

    def quarantine(self, key: str, shard: int) -> None:
        """Set aside a record that the core could not read: kept for a day under another name, never loaded again."""
        self.given(key)
        self._fencing.quarantine(member_of(key), shard, self._owner.ceiling(lodged=True), self._owner.fence())
