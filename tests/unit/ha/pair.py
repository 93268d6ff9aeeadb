"""Two elections in virtual time, with links that can be cut each way and a store that comes and goes for each."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from sbc.ha.election import PASSIVE, Act, Ask, Beat, Election, Lease, State, Timing

STEP_S = 0.05
FLIGHT_S = 0.003
CONNECT_S = 0.25  # until a process that has just started has found the store
DEADLINE_S = 0.2
SILENCE_S = 0.08  # what it takes to remove addresses and end processes


class StoreModel:
    """What ``lease.lua`` does."""

    def __init__(self) -> None:
        self.holder, self.until_s, self.token = "", 0.0, 0
        self.seen: dict[str, float] = {}

    def answer(self, what: Ask, name: str, token: int, to: str, now: float) -> Lease:
        holder = self.holder if now < self.until_s else ""
        mine = False
        if what is Ask.FORCE or (what is Ask.CLAIM and holder in ("", name)):
            self.token, mine = max(self.token, token) + 1, True
        elif what is Ask.KEEP:
            mine = token > self.token or (token == self.token and holder in ("", name))
            self.token = max(self.token, token)
        elif what is Ask.GIVE and token >= self.token:
            self.token, self.holder, self.until_s = token, to, now + 1.0
        elif what is Ask.LEAVE and holder == name:
            self.holder = ""
        if mine:
            self.holder, self.until_s = name, now + 1.0
        self.seen[name] = now
        others = sum(now - at < 1.5 for other, at in self.seen.items() if other != name)
        return Lease(mine, self.holder if now < self.until_s else "", self.token, others)


class Node:
    def __init__(self, name: str, lease: bool) -> None:
        self.name, self.lease = name, lease
        self.alive = False
        self.reaches_store = True
        self.reaches_router = True
        self.election: Election
        self.life = 0
        self.knows = 0  # the life of the other node that was heard last
        self.began_s = 0.0
        self.takes: list[tuple[float, int]] = []


class Pair:
    """``advance`` moves the time; ``both_s`` is the longest that both spoke at once, outside exempted times."""

    def __init__(self, *, paths: int = 2, lease: bool = True, witness: bool = False, prefers: str = "") -> None:
        self.witness, self.prefers = witness, prefers
        self.now = 100.0
        self.paths = paths
        self.nodes = {name: Node(name, lease) for name in "ab"}
        self.store = StoreModel()
        self.store_up = True
        self.cut: set[tuple[str, int]] = set()  # (sender, path)
        self.both_s = 0.0
        self._both_since: float | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # --- what a test does

    def start(self, *names: str) -> None:
        for name in names or ("a", "b"):
            node = self.nodes[name]
            self._begin(
                node,
                Election(
                    name,
                    Timing(),
                    self.paths,
                    self.now,
                    has_lease=node.lease,
                    has_witness=self.witness,
                    prefers=name == self.prefers,
                ),
            )

    def restart(self, name: str) -> None:
        """The process of a node dies, and its successor goes on, active where it was."""
        node = self.nodes[name]
        before = node.election
        is_active = before.state in (State.ACTIVE, State.HANDING)
        again = Election(
            name, Timing(), self.paths, self.now,
            has_lease=node.lease, has_witness=self.witness, token=before.token, active=is_active,
        )  # fmt: skip
        self._begin(node, again)

    def _begin(self, node: Node, election: Election) -> None:
        node.alive, node.life, node.knows, node.began_s = True, node.life + 1, 0, self.now
        node.election = election
        election.ready = True
        self._every(node, node.life)
        self._beats(node, node.life)

    def kill(self, name: str) -> None:
        self.nodes[name].alive = False

    def sever(self, *senders: str) -> None:
        """Nothing that these say arrives any more."""
        self.cut |= {(name, path) for name in senders for path in range(self.paths)}

    def order(self, name: str, what: str) -> str | None:
        """Give an order of the operator: ``hand_over``, ``force``."""
        node = self.nodes[name]
        said: str | None = getattr(node.election, what)(self.now)
        self._perform(node)
        return said

    def heal(self) -> None:
        self.cut.clear()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
            self._watch()
        self.now = until

    def state(self, name: str) -> State:
        return self.nodes[name].election.state

    def election(self, name: str) -> Election:
        return self.nodes[name].election

    @property
    def owners(self) -> list[str]:
        """Who may send."""
        speaks = [n for n in self.nodes.values() if n.alive and n.election.state not in PASSIVE - {State.FENCED}]
        return [node.name for node in speaks]

    def until(self, holds: Callable[[], bool], limit_s: float) -> float:
        began = self.now
        while not holds():
            assert self.now - began < limit_s, (
                f"not within {limit_s} s: {[n.election.state for n in self.nodes.values()]}"
            )
            self.advance(0.01)
        return self.now - began

    # --- inside

    def _watch(self) -> None:
        if len(self.owners) < 2:
            self._both_since = None
        elif self._both_since is None:
            self._both_since = self.now
        else:
            self.both_s = max(self.both_s, self.now - self._both_since)

    def _at(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), act))

    def _every(self, node: Node, life: int) -> None:
        if node.alive and node.life == life:
            node.election.look(self.now)
            self._perform(node)
            self._at(STEP_S, lambda: self._every(node, life))

    def _beats(self, node: Node, life: int) -> None:
        if node.alive and node.life == life:
            self.say(node)
            if node.reaches_router:
                self._at(FLIGHT_S, partial(self._witnessed, node, life))
            self._at(0.2, lambda: self._beats(node, life))

    def say(self, node: Node) -> None:
        beat, lives = node.election.beat(self.now), (node.life, node.knows)
        for path in range(self.paths):
            if (node.name, path) not in self.cut:
                self._at(FLIGHT_S, partial(self._arrives, node.name, lives, path, beat))

    def _witnessed(self, node: Node, life: int) -> None:
        if node.alive and node.life == life:
            node.election.witnessed(self.now)

    def _arrives(self, sender: str, lives: tuple[int, int], path: int, beat: Beat) -> None:
        """Believed is what names the present life of the hearer; see :mod:`sbc.ha.beat`."""
        other = self.nodes["b" if sender == "a" else "a"]
        if not other.alive:
            return
        other.knows, is_new = lives[0], lives[1] == other.life
        if is_new:
            other.election.heard(path, beat, self.now)
            self._perform(other)

    def _perform(self, node: Node) -> None:
        spoke = False
        while (order := node.election.poll()) is not None:
            life = node.life
            if order.ask is not None:
                self._question(node, order.ask)
            elif order.act is Act.TAKE:
                node.takes.append((self.now, node.election.token))
                spoke = True
            elif order.act is Act.GIVE:
                spoke = True
            elif order.act in (Act.FENCE, Act.LEAVE):
                self._at(SILENCE_S, partial(self._silent, node, life))
        if spoke:
            self.say(node)

    def _silent(self, node: Node, life: int) -> None:
        if node.alive and node.life == life:
            node.election.silent(self.now)
            self._perform(node)

    def _question(self, node: Node, what: Ask) -> None:
        asked_s, life, election = self.now, node.life, node.election
        to = "b" if node.name == "a" else "a"
        token = election.offer if what is Ask.GIVE else election.token

        def at_store() -> None:
            if not (self.store_up and node.reaches_store) or self.now - node.began_s < CONNECT_S:
                self._at(DEADLINE_S, lambda: reply(None))
            else:
                said = self.store.answer(what, node.name, token, to, self.now)
                self._at(FLIGHT_S, lambda: reply(said))

        def reply(said: Lease | None) -> None:
            if node.alive and node.life == life:
                if said is None:
                    election.unanswered(self.now)
                else:
                    election.leased(what, said, asked_s, self.now)
                self._perform(node)

        self._at(FLIGHT_S, at_store)


def ready_pair(*, lease: bool = True, witness: bool = False, active: str = "a", names: Sequence[str] = "ab") -> Pair:
    """A pair of which ``active`` serves."""
    pair = Pair(lease=lease, witness=witness)
    pair.start(active)
    pair.until(lambda: pair.state(active) is State.ACTIVE, 8)
    pair.start(*(name for name in names if name != active))
    pair.advance(2)
    assert pair.owners == [active]
    return pair
