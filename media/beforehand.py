"""The ports of another node's sessions, bound in advance by an idle worker: a take-over finds them there, and what
arrives while it lasts waits in them instead of being refused."""

from __future__ import annotations

from media.allocation import Allocation
from media.session import NO_STREAM, decode
from media.state import Arena

SESSIONS_AT_ONCE = 128  # some 20 ms, in which nobody waits

Port = tuple[str, int]  # realm, number


class Beforehand:
    """``look`` now and then, while the sessions in the arena are somebody else's to write."""

    def __init__(self, arena: Arena, allocation: Allocation) -> None:
        self._arena = arena
        self._allocation = allocation
        self._generations: list[int] = [0] * arena.capacity
        self._identities: dict[int, int] = {}  # hashes, by slot
        self._ports: dict[int, set[Port]] = {}  # by slot

    def look(self) -> None:
        """Bind what sessions have got since, and let go of what they had."""
        generations = self._arena.generations()
        if generations == self._generations:
            return
        left = SESSIONS_AT_ONCE
        for slot, generation in enumerate(generations):
            if generation == self._generations[slot] or generation & 1 or not left:
                continue
            identity = self._arena.identity_of(slot)
            if hash(identity) != self._identities.get(slot):
                left -= 1
                self._identities[slot] = hash(identity)
                self._bind(slot, identity)
            self._generations[slot] = generation

    def _bind(self, slot: int, identity: bytes) -> None:
        wanted = self._wanted(slot, identity)
        had = self._ports.pop(slot, set())
        pools = self._allocation.ports
        for realm, port in had - wanted:
            pools[realm].spare(port)
        for realm, port in wanted - had:
            pools[realm].prepare(port)
        if wanted:
            self._ports[slot] = wanted

    def _wanted(self, slot: int, identity: bytes) -> set[Port]:
        rules = self._arena.rules
        try:
            legs = decode(slot, identity, len(rules)).legs.values() if identity else ()
        except ValueError:  # it is being written
            return set()
        found = {(leg.realm, rules[index].local_port) for leg in legs for index in leg.rules if index != NO_STREAM}
        return {(realm, port) for realm, port in found if port and realm in self._allocation.ports}
