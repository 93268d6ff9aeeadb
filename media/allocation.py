"""Rules and port pairs: lent to the legs of sessions, taken back, and bound again after a death. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from media import conversion, keying
from media.config import RealmInterface
from media.counters import MediaCounter
from media.endpoint import Unusable, read_host
from media.features import Features
from media.ports import SPARE, NoPortError, PortPool, Sockets
from media.rules import AT_FEATURES, AT_PEER, NO_RULE, RULE_BYTES, RULE_U32, RuleFlag
from media.session import NO_STREAM, Leg, Session
from media.srtp import distrust
from media.state import Arena

SHUT_PER_TICK: Final = 100  # pairs that are too many; to close one takes some 5 us
SHED_PAIRS: Final = 16  # of each pool, when descriptors run out


class Allocation:
    """What the sessions of one worker have of rules and ports. ``changed`` are rules whose handshake may have to begin
    or to end, until somebody takes them; times are monotonic nanoseconds."""

    def __init__(
        self,
        realms: dict[str, RealmInterface],
        arena: Arena,
        sockets: Sockets,
        random: Random,
        count: Callable[[MediaCounter, int], None],
        quarantine_s: float,
        features: Features | None,
    ) -> None:
        self.changed: list[int] = []
        self._arena = arena
        self._sockets = sockets
        self._count = count
        self._features = features
        keep = max(arena.capacity // 4, 2 * SPARE)
        # realms that share an address and a range share its ports
        shared: dict[tuple[str, tuple[int, int]], PortPool] = {}
        self.ports: dict[str, PortPool] = {}
        for name, realm in realms.items():
            pool = PortPool(read_host(realm.address).at, realm.ports, quarantine_s, random, sockets, keep)
            self.ports[name] = shared.setdefault((realm.address, realm.ports), pool)
        self.pools = list(shared.values())

    def make(self, leg: Leg, slot: int, now_ns: int) -> int:
        """A rule with a port pair for a leg. Raises Unusable where there is none."""
        index = self._arena.take_rule(slot, now_ns)
        if index is None:
            raise Unusable("full", "all rules are in use")
        try:
            self._lend(self.ports[leg.realm], index, now_ns / 1e9, leg.dscp)
        except NoPortError as error:
            self._arena.release_rule(index)
            raise Unusable("no_ports", f"no port pair in realm {leg.realm!r}: {error}") from None
        return index

    def drop(self, session: Session, leg: Leg, stream: int, now_ns: int) -> None:
        """A leg has no such stream any more, and nobody sends to it."""
        if stream >= len(leg.rules) or leg.rules[stream] == NO_STREAM:
            return
        index = leg.rules[stream]
        u32 = self._arena.u32
        for other in session.all_rules():
            if u32[other * RULE_U32 + AT_PEER] == index:
                u32[other * RULE_U32 + AT_PEER] = NO_RULE
        self.free(leg, index, now_ns)
        leg.rules[stream] = NO_STREAM
        session.changed = True

    def free(self, leg: Leg, index: int, now_ns: int) -> None:
        """Take a rule of a leg back; the leg may not name it any more."""
        conversion.forget(self._arena, self._sockets, index)
        if self._features is not None and self._arena.octets[index * RULE_BYTES + AT_FEATURES]:
            self._features.freed(index)
        if keying.speaks_dtls(self._arena, index):
            self.changed.append(index)
        self.ports[leg.realm].release(index, now_ns / 1e9)
        self._arena.release_rule(index)

    def inherit(self, pairs: dict[bytes, int]) -> None:
        """What predecessors have bound, by packed address: before anything is bound again, and ``settle`` follows."""
        for local, pair in pairs.items():
            for pool in self.pools:
                if pool.claims(local):
                    break
            else:
                pool = next((pool for pool in self.pools if pool.shares(local)), self.pools[0])
            pool.inherit(int.from_bytes(local[2:4], "big"), pair)

    def settle(self, now_ns: int) -> None:
        """All sessions have their ports again: see PortPool."""
        for pool in self.pools:
            pool.settle(now_ns / 1e9)

    def rebind(self, session: Session) -> None:
        """What a session of a predecessor had: the same ports. Raises ValueError where one cannot be bound. The pools
        must be settled before anything is lent."""
        own = session.all_rules()
        bound: list[tuple[PortPool, int]] = []
        for leg in session.legs.values():
            for index in leg.rules:
                if index == NO_STREAM:
                    continue
                rule = self._arena.rules[index]
                rule.flags &= ~RuleFlag.IN_USE
                if rule.flags & RuleFlag.KEYED:
                    distrust(self._arena.keys[index])
                if rule.peer not in own:
                    rule.peer = NO_RULE
                pool = self.ports.get(leg.realm)
                if pool is None or pool.adopt(index, rule.local_port, leg.dscp):
                    for done, adopted in bound:
                        done.disown(adopted)
                    raise ValueError(f"port {rule.local_port} cannot be bound again")
                bound.append((pool, index))
                conversion.resume(self._arena, self._sockets, index)

    def tidy(self, now_ns: int) -> None:
        """Free what has waited out its quarantine, as much as a moment allows."""
        for pool in self.pools:
            pool.ripen(now_ns / 1e9, SHUT_PER_TICK)

    def _lend(self, pool: PortPool, index: int, now: float, dscp: int) -> None:
        try:
            pool.lend(index, now, dscp)
        except NoPortError as error:
            if not error.wanting:
                raise
            self._count(MediaCounter.DESCRIPTORS_EXHAUSTED, 1)
            if not sum(other.shed(SHED_PAIRS) for other in self.pools):
                raise
            pool.lend(index, now, dscp)
