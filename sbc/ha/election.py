"""Who of two nodes is active. A table, and the guards that make events of what was heard. No socket, clock or store.

Two witnesses: the lease in the store, and heartbeats on one or two paths. Each change of owner has a later token, so of
two that take themselves for active both know which one is not.

- While the store answers, who has its lease is active. A lease is claimed only where the peer is not heard at all, or
  says that it is passive: a node that returns takes nothing from one that serves.
- While the store is away heartbeats alone decide: the active node stays active, and a passive one that the store did
  not answer either when the peer was last heard takes over once the peer is silent.
- Who hears neither store nor peer takes itself for cut off: active it falls silent before its lease expires, passive it
  stays so. But not where it knew that there is nobody else: the peer had gone before the store did, or could not reach
  the store itself.
- Where each node has a store of its own, routers may be the witness. They cannot say who is active, but a node that
  reaches none of them knows that it is the one that is cut off: hearing neither them nor its peer, it falls silent
  before the peer takes over, or stays passive.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, IntEnum


class State(IntEnum):
    """As it travels in heartbeats."""

    STANDBY = 1
    CLAIMING = 2  # the store is asked for the lease
    ACTIVE = 3
    HANDING = 4  # by order: falls silent, and then the peer is given the token
    FENCED = 5  # another one is active, or may be: falls silent
    GONE = 6  # said last by a node that stops


class Event(Enum):
    FREE = "free"  # nobody else is active, as far as can be known
    GRANTED = "granted"
    TAKEN = "taken"  # another one has a later token, or the lease
    AWAY = "away"  # the store did not answer
    CUT_OFF = "cut off"
    ORDERED_AWAY = "ordered away"  # planned switch
    OFFERED = "offered"  # the peer gives us its token
    SILENT = "silent"  # nothing of ours sends any more


class Act(Enum):
    CLAIM = "claim"  # ask the store
    TAKE = "take"  # become active under the token
    LEAVE = "leave"  # fall silent in order: what waits for the store is written first
    FENCE = "fence"  # fall silent at once
    GIVE = "give"  # the lease and the next token to the peer


S, E, A = State, Event, Act
TABLE: dict[tuple[State, Event], tuple[State, tuple[Act, ...]]] = {
    (S.STANDBY, E.FREE): (S.CLAIMING, (A.CLAIM,)),
    (S.STANDBY, E.GRANTED): (S.ACTIVE, (A.TAKE,)),  # by heartbeats alone
    (S.STANDBY, E.OFFERED): (S.ACTIVE, (A.TAKE,)),
    (S.CLAIMING, E.GRANTED): (S.ACTIVE, (A.TAKE,)),
    (S.CLAIMING, E.OFFERED): (S.ACTIVE, (A.TAKE,)),
    (S.CLAIMING, E.TAKEN): (S.STANDBY, ()),
    (S.CLAIMING, E.AWAY): (S.STANDBY, ()),
    (S.ACTIVE, E.TAKEN): (S.FENCED, (A.FENCE,)),
    (S.ACTIVE, E.CUT_OFF): (S.FENCED, (A.FENCE,)),
    (S.ACTIVE, E.ORDERED_AWAY): (S.HANDING, (A.LEAVE,)),
    (S.HANDING, E.TAKEN): (S.FENCED, (A.FENCE,)),
    (S.HANDING, E.SILENT): (S.STANDBY, (A.GIVE,)),
    (S.FENCED, E.SILENT): (S.STANDBY, ()),
}
ORDERED = "ordered by the operator"
PASSIVE = frozenset({S.STANDBY, S.CLAIMING, S.FENCED, S.GONE})


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds."""

    beat_s: float = 0.2
    misses: int = 3
    lease_s: float = 1.0
    alone_s: float = 5.0  # without a lease: how long a node that starts listens before it believes to be alone
    preferred_s: float = 10.0  # how long one that starts leaves the field to the node that is preferred
    wants_s: float = 2.0

    @property
    def dead_s(self) -> float:
        """Silence that means death, of the peer and of the store."""
        return self.beat_s * self.misses

    @property
    def cut_s(self) -> float:
        """Silence of peer and routers, without a lease, after which an active node falls silent."""
        return max(self.dead_s, self.safe_s)

    @property
    def patience_s(self) -> float:
        """Silence of a peer that may have to fall silent itself, before it is followed."""
        return max(self.lease_s, self.cut_s + self.beat_s)

    @property
    def renew_s(self) -> float:
        return self.lease_s / 4

    @property
    def safe_s(self) -> float:
        """How long after asking for the lease its holder relies on it: falling silent takes time, too."""
        return self.lease_s * 0.8


@dataclass(frozen=True, slots=True)
class Beat:
    """What a node tells its peer about itself."""

    name: str
    state: State
    token: int  # the latest that it knows; its own while it is active
    store: bool  # the store answers it
    ready: bool  # it could take over now
    offer: int = 0  # the token that it gives away
    synced: bool = True  # its store has what that of the active node has
    witness: bool = True  # a router answers it
    prefers: bool = False  # it is to be the active one where both could be
    wants: bool = False  # by order: the active node is to hand over
    unsure: bool = False  # it has just started, and the store may answer it yet
    records: int = 1  # the format of the records of calls that it writes, and reads besides all former ones

    @property
    def lacks_store(self) -> bool:
        """It can have no lease, and can get none."""
        return not self.store and not self.unsure


@dataclass(frozen=True, slots=True)
class Lease:
    """What the store said. ``mine``: claimed, or kept."""

    mine: bool
    holder: str  # empty: nobody
    token: int  # the latest
    others: int  # nodes but this one that the store has heard of lately


class Ask(Enum):
    """Questions to the store; one is under way at a time."""

    LOOK = "look"
    CLAIM = "claim"  # where nobody has it
    FORCE = "force"  # whoever has it
    KEEP = "keep"
    GIVE = "give"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Order:
    """For the shell: exactly one of the two is set."""

    act: Act | None = None
    ask: Ask | None = None


@dataclass(slots=True)
class Peer:
    """The last word of the other node, and when each path brought one."""

    heard_s: list[float]
    beat: Beat | None = None
    had_store: bool = False  # when it was last sure, unless it was away for long since


class Election:
    """Feed it ``heard``, ``leased`` or ``unanswered``, ``silent``, and ``look`` some twenty times a second; then
    perform what ``poll`` gives. ``has_lease``: False where the store is no witness, being one of each node;
    ``has_witness``: routers are asked instead, and ``witnessed`` is fed when one of them has answered. ``token`` is the
    latest known, and this node's own where it is ``active`` already (the process was started anew). ``decides``: False
    where somebody else does, by ``force`` and ``withdraw``; a later token still ends an activity. ``prefers``: of two
    that start, this one is to serve. ``records``: the format of the records of calls that this release writes.
    """

    def __init__(
        self,
        name: str,
        timing: Timing,
        paths: int,
        now: float,
        *,
        has_lease: bool,
        has_witness: bool = False,
        token: int = 0,
        active: bool = False,
        decides: bool = True,
        prefers: bool = False,
        records: int = 1,
    ) -> None:
        self.name = name
        self.state = S.ACTIVE if active else S.STANDBY
        self.token = token
        self.since_s = now
        self.why = "it was active" if active else "it has just started"
        self.ready = False  # the processes of this node serve
        self.synced = True  # its store is a copy of that of the active node
        self.peer = Peer([float("-inf")] * paths)
        self.lease = Lease(False, "", token, 0)
        self.offer = 0
        self._timing = timing
        self._has_lease = has_lease
        self._has_witness = has_witness and not has_lease
        self._witness_s = float("-inf")  # when a router last answered
        self._witness_since_s = float("inf")
        self._adopted_s = now if active else float("-inf")  # until then a predecessor heard somebody
        self._prefers = prefers
        self._records = records
        self._wants_until_s = float("-inf")
        self._is_ordered = False  # to serve, and nobody was heard since
        self._decides = decides
        self._began_s = now
        self._asked: Ask | None = None
        self._asked_s = float("-inf")
        self._store_s = float("-inf")  # when it last answered
        self._mine_until_s = now + timing.lease_s if active else float("-inf")
        self._offer_until_s = float("-inf")
        self._orders: deque[Order] = deque()
        self._leaving = False

    # --- inputs

    def heard(self, path: int, beat: Beat, now: float) -> None:
        """The peer said something; authentic and new."""
        peer = self.peer
        if not beat.unsure or now - max(peer.heard_s) > self._timing.lease_s:
            peer.had_store = beat.store
        peer.heard_s[path] = now
        peer.beat = beat
        self._is_ordered = False
        if beat.offer > self.token and self._may_take:
            self.token = beat.offer
            self._step(E.OFFERED, now, f"{beat.name} handed over")
        elif beat.state in (S.ACTIVE, S.HANDING) and self.state in (S.ACTIVE, S.HANDING):
            # the later token; of two equal ones, which only heartbeats alone can give, that of the first name
            if (beat.token, self.name) > (self.token, beat.name):
                self._step(E.TAKEN, now, f"{beat.name} is active with a later token")
        elif beat.state is S.ACTIVE and beat.token >= self.offer:
            self.offer = 0
        elif beat.wants:
            self.hand_over(now)
        if self.state not in (S.ACTIVE, S.HANDING):
            self.token = max(self.token, beat.token)

    def witnessed(self, now: float) -> None:
        """A router answered."""
        if not self.is_witnessed(now):
            self._witness_since_s = now
        self._witness_s = now
        self._is_ordered = False

    def leased(self, asked: Ask, said: Lease, asked_s: float, now: float) -> None:
        """The store answered what was asked at ``asked_s``."""
        self._asked = None
        self._store_s = now
        self.lease = said
        active = self.state in (S.ACTIVE, S.HANDING)
        if asked in (Ask.CLAIM, Ask.FORCE) and said.mine:
            if self.state is S.CLAIMING or active:  # active: the peer handed over meanwhile
                self.token = said.token
                self._mine_until_s = asked_s + self._timing.safe_s
                self._orders += [Order(act=A.TAKE)] if active else []
                self._step(E.GRANTED, now, "the store gave it the lease" if asked is Ask.CLAIM else ORDERED)
                return
        elif asked is Ask.CLAIM:
            if self.state is S.CLAIMING:
                self._step(E.TAKEN, now, f"{said.holder} has the lease")
        elif asked is Ask.KEEP and active:
            if said.mine:
                self._mine_until_s = asked_s + self._timing.safe_s
            else:
                self._step(E.TAKEN, now, f"{said.holder or 'another node'} has the lease, with a later token")
        if not active:
            self.token = max(self.token, said.token)

    def unanswered(self, now: float) -> None:
        """The store did not answer in time, or refused."""
        forced, self._asked = self._asked is Ask.FORCE, None
        if forced and self.state is S.CLAIMING:
            self.token += 1
            self._step(E.GRANTED, now, ORDERED)
        self._step(E.AWAY, now, "")

    def silent(self, now: float) -> None:
        """No process and no virtual address of ours speaks any more, after FENCE or LEAVE."""
        if self.state is S.HANDING:
            self.offer = self.token + 1
            self._offer_until_s = now + 2 * self._timing.lease_s
        self._step(E.SILENT, now, self.why)

    def hand_over(self, now: float) -> str:
        """A planned switch: begins it, or says in a sentence why it cannot be."""
        if not self._decides:
            return "keepalived decides here: lower the priority of this node there"
        if self.state is not S.ACTIVE:
            return f"this node is not active but {self.state.name.lower()}"
        if reason := self.peer_unready(now):
            return reason
        self._step(E.ORDERED_AWAY, now, "handed over by order")
        return ""

    def call_for(self, now: float) -> str:
        """A planned switch to this node: asks the active one to hand over, or says in a sentence why it cannot be."""
        beat = self.peer.beat
        if not self._decides:
            return "keepalived decides here: raise the priority of this node there"
        if beat is None or not self.hears_peer(now) or beat.state is not S.ACTIVE:
            return "the other node is not heard to be active"
        if not (self.ready and self.synced):
            return "this node is not ready to take over: see sbc ha status"
        self._wants_until_s = now + self._timing.wants_s
        return ""

    def stop(self) -> None:
        """This node takes nothing up any more."""
        self._leaving = True

    def force(self, now: float) -> None:
        """Become active without regard to anybody, with a token later than all that are known."""
        if self.state is S.STANDBY:
            self.state = S.CLAIMING
            self._is_ordered = True
            if self._has_lease:
                self._ask(Ask.FORCE, now)
            else:
                self.token += 1
                self._step(E.GRANTED, now, ORDERED)

    def withdraw(self, now: float) -> None:
        """Fall silent without regard to anybody."""
        self._step(E.TAKEN, now, ORDERED)

    def look(self, now: float) -> None:
        """What time has brought."""
        if self.offer and now >= self._offer_until_s:
            self.offer = 0
        expired = self._has_lease and self._decides and now >= self._mine_until_s
        if self.state is S.ACTIVE and expired and self._is_cut_off(now):
            self._step(E.CUT_OFF, now, "it heard neither the store nor its peer, who may have taken over")
        elif self.state is S.ACTIVE and self._decides and self._has_lost_witness(now):
            self._step(E.CUT_OFF, now, "it heard neither a router nor its peer, who may have taken over")
        elif self.state is S.STANDBY and self._may_take and self._decides and self.ready and not self.offer:
            self._consider(now)
        if self._has_lease and self._asked is None and now - self._asked_s >= self._timing.renew_s:
            self._ask(Ask.KEEP if self.state in (S.ACTIVE, S.HANDING) else Ask.LOOK, now)

    # --- outputs

    def poll(self) -> Order | None:
        """The next thing to do."""
        return self._orders.popleft() if self._orders else None

    def beat(self, now: float) -> Beat:
        """What to tell the peer now."""
        state = S.GONE if self._leaving and self.state in PASSIVE else self.state
        ready = self.ready and not self._leaving
        return Beat(
            self.name,
            state,
            self.token,
            self.store_answers(now),
            ready,
            self.offer,
            self.synced,
            self.is_witnessed(now),
            self._prefers,
            self.state is S.STANDBY and now < self._wants_until_s,
            self._is_unsure(now),
            self._records,
        )

    # --- what is the case

    @property
    def preferred(self) -> str:
        """The name of the node that is to serve where both could; empty: neither."""
        beat = self.peer.beat
        return self.name if self._prefers else beat.name if beat is not None and beat.prefers else ""

    def hears_peer(self, now: float) -> bool:
        return any(now - at < self._timing.dead_s for at in self.peer.heard_s)

    def store_answers(self, now: float) -> bool:
        return self._has_lease and now - self._store_s < self._timing.dead_s

    def _is_unsure(self, now: float) -> bool:
        """Whether it is too early to say that the store does not answer."""
        return self._has_lease and self._store_s == float("-inf") and now - self._began_s < self._timing.dead_s

    def is_witnessed(self, now: float) -> bool:
        """Whether a router answers, where any is to."""
        return not self._has_witness or now - self._witness_s < self._timing.dead_s

    def holds_lease(self, now: float) -> bool:
        return self.state in (S.ACTIVE, S.HANDING) and now < self._mine_until_s

    def peer_unready(self, now: float) -> str:
        """Why the peer could not take over now, in a sentence; empty: it could."""
        beat = self.peer.beat
        if beat is None:
            return "the other node has never been heard"
        if not self.hears_peer(now):
            return f"{beat.name} is not heard"
        if beat.state is S.GONE:
            return f"{beat.name} is stopping"
        if beat.records < self._records:
            return (
                f"{beat.name} has a former release, which cannot read the records of calls that this one writes (format"
                f" {self._records}, and it reads up to {beat.records}): it needs the same release first"
            )
        if not beat.ready:
            return f"{beat.name} is not ready; ask there with sbc ha status"
        if not beat.synced:
            return f"the store of {beat.name} does not yet have all that this one has"
        return ""

    def unreadable(self) -> str:
        """Why this node could not go on with calls of its peer, in a sentence; empty: it could."""
        beat = self.peer.beat
        if beat is None or beat.records <= self._records:
            return ""
        return (
            f"this node has a former release, which cannot read the records of calls that {beat.name} writes (format"
            f" {beat.records}, and it reads up to {self._records}): install that release here"
        )

    # --- inside

    @property
    def _may_take(self) -> bool:
        return not self._leaving

    def _is_cut_off(self, now: float) -> bool:
        """Asked of an active node whose lease has expired: could another one have it by now?"""
        if self.hears_peer(now):
            return False
        beat = self.peer.beat
        if beat is not None and max(self.peer.heard_s) > self._store_s:  # its word is newer than the store's
            return self.peer.had_store and beat.state is not S.GONE
        return self.lease.others > 0  # nobody: whoever comes later finds an expired lease, and calls to resume

    def _has_lost_witness(self, now: float) -> bool:
        """Asked of an active node without a lease: has it lost peer and routers, and may the peer have taken over?"""
        if not self._has_witness or self._is_ordered:
            return False
        heard_s, witness_s = (max(at, self._adopted_s) for at in (max(self.peer.heard_s), self._witness_s))
        beat = self.peer.beat
        if now - max(heard_s, witness_s) < self._timing.cut_s or heard_s == float("-inf"):
            return False
        if beat is not None and (beat.state is S.GONE or not beat.witness):
            return False
        return witness_s - heard_s < self._timing.alone_s  # else the peer had gone long before

    def _consider(self, now: float) -> None:
        """Standing by: is nobody active?"""
        beat = self.peer.beat
        if self.hears_peer(now):
            assert beat is not None
            if beat.state not in PASSIVE or beat.offer:
                return
            is_start = now - self._began_s < self._timing.preferred_s
            if is_start and beat.prefers and not self._prefers and beat.state in (S.STANDBY, S.CLAIMING):
                return
        elif now - self._began_s < self._timing.dead_s + self._timing.beat_s:
            return  # it would not have been heard yet
        if self.store_answers(now):
            held = self.hears_peer(now) and self.lease.holder not in ("", self.name)
            if self._asked is None and now - self._asked_s >= self._timing.renew_s / 3 and not held:
                self._step(E.FREE, now, self.why)
            return
        if self._by_heartbeats(beat, now):
            self.token += 1
            self._step(E.GRANTED, now, "the peer is silent" if not self.hears_peer(now) else "nobody was active")

    def _by_heartbeats(self, beat: Beat | None, now: float) -> bool:
        """The store does not answer, or is no witness: whether this node is to take over."""
        if now - self._began_s < self._timing.lease_s:
            return False
        if beat is None:
            return not self._has_lease and now - self._began_s >= self._timing.alone_s and self._may_follow(now)
        if self.hears_peer(now):  # both are passive
            first = (self.token, self._prefers, beat.name) > (beat.token, beat.prefers, self.name)
            return beat.lacks_store and (first or not beat.ready)
        if beat.state is S.GONE:
            return True
        return beat.lacks_store and self._may_follow(now)

    def _may_follow(self, now: float) -> bool:
        """Where routers are asked: one answers, and for so long that a peer who is there would have been heard as well;
        and the peer has been silent for so long that it has fallen silent, if it is the one that is cut off."""
        if not self._has_witness:
            return True
        timing, silent_s = self._timing, now - max(self.peer.heard_s)
        since_s = now - self._witness_since_s
        return self.is_witnessed(now) and since_s >= timing.dead_s + timing.beat_s and silent_s >= timing.patience_s

    def _ask(self, what: Ask, now: float) -> None:
        self._asked, self._asked_s = what, now
        self._orders.append(Order(ask=what))

    def _step(self, event: Event, now: float, why: str) -> None:
        step = TABLE.get((self.state, event))
        if step is None:
            return
        before = self.state
        self.state, acts = step
        if S.CLAIMING not in (before, self.state) or self.state is S.ACTIVE:
            self.since_s, self.why = now, why
        for act in acts:
            if act is A.CLAIM:
                self._ask(Ask.CLAIM, now)
            elif act is A.GIVE:
                if self._has_lease:
                    self._ask(Ask.GIVE, now)
                self._orders.append(Order(act=act))
            else:
                self._orders.append(Order(act=act))
