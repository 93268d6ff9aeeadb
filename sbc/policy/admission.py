"""Who may speak to us: source address to peer by longest prefix within the listener's realm, and each peer's limits.

Where several peers have the same network, port, listener, transport and certificate tell (sbc.config.matching).

A stranger ends here, before any state exists for it. Looking one up costs two dictionary probes for a known address and
one for each prefix length in use otherwise, so neither friends nor floods are slow.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from sbc.config.matching import Match, ambiguous, covers, identity, rank
from sbc.errors import ConfigError
from sbc.policy.call_tally import CallTally, due_after
from sbc.sip.flow import IDENTITY_SHIFT

if TYPE_CHECKING:
    from sbc.config.models import Listen, Peer, Realm

KNOWN_ADDRESSES: Final = 16_384  # remembered per realm; a peer may be a whole /8
REFUSED_STATUS: Final = 503  # RFC 3261 §21.5.4: to be sent with Retry-After


class Source(NamedTuple):
    """Who a message came from: the peer's name, its realm, and the direction that routes see."""

    peer: str
    realm: str
    direction: str


class _Rule:
    """A peer that asks for more than an address. What is empty asks for nothing of the kind."""

    __slots__ = ("identities", "listeners", "ports", "rank", "source")

    def __init__(
        self,
        source: Source,
        rank: tuple[bool, bool, bool, bool],
        listeners: frozenset[int] = frozenset(),
        ports: tuple[tuple[int, int], ...] = (),
        identities: frozenset[int] = frozenset(),
    ) -> None:
        self.source = source
        self.rank = rank
        self.listeners = listeners
        self.ports = ports
        self.identities = identities

    def fits(self, listener: int, port: int, connection: int) -> bool:
        """Whether a message that came so is of this peer; a port or connection of 0 is one that is not known."""
        if self.listeners and listener not in self.listeners:
            return False
        if self.ports and port and not any(low <= port <= high for low, high in self.ports):
            return False
        return not self.identities or not connection or connection >> IDENTITY_SHIFT in self.identities


_Entry = Source | tuple[_Rule, ...]


class _Limits(NamedTuple):
    """Of a peer. ``column`` is that of the tally; -1: there was none left for it, and this worker has its share."""

    column: int
    max_calls: int
    max_cps: float


class Admission:
    """The peers of a node as one immutable look-up, and their limits.

    ``tally`` is what all SIP workers count together, None: there is no other. While one of ``workers`` does not count
    there, each has its share, rounded up. Raises ConfigError when two peers of a realm claim the same network.
    """

    __slots__ = (
        "_awaited",
        "_calls",
        "_certificates",
        "_due",
        "_known",
        "_limits",
        "_networks",
        "_realms",
        "_tally",
        "_workers",
    )

    def __init__(
        self,
        peers: Mapping[str, Peer],
        realms: Mapping[str, Realm],
        *,
        workers: int = 1,
        tally: CallTally | None = None,
    ) -> None:
        self._realms = tuple(name for name, realm in realms.items() for _ in realm.listen)  # by Flow.listener
        # by realm, then by (IP version, prefix length) longest first: network as a number -> source
        self._networks: dict[str, list[tuple[int, int, dict[int, _Entry]]]] = {}
        self._known: dict[str, dict[str, Source]] = {name: {} for name in realms}
        self._calls: dict[str, int] = {}
        self._due: dict[str, float] = {}  # of peers without a column
        self._workers = workers
        tables: dict[str, dict[tuple[int, int], dict[int, _Entry]]] = {name: {} for name in realms}
        self._certificates: dict[str, list[str]] = {}  # names that peers of a realm are known by
        listeners = [(name, listen) for name, realm in realms.items() for listen in realm.listen]
        for name, peer in peers.items():
            source = Source(name, peer.realm, peer.direction)
            entry: _Entry = source if peer.match is None else (_rule(source, peer.match, listeners),)
            if peer.match is not None:
                self._certificates.setdefault(peer.realm, []).extend(peer.match.certificate)
            for network in peer.addresses:
                table = tables[peer.realm].setdefault((network.version, network.prefixlen), {})
                number = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                other = table.setdefault(number, entry)
                if other is entry:
                    continue
                for rule in _rules(other):
                    if rule.source.peer != name and ambiguous(peers[rule.source.peer].match, peer.match):
                        found = rule.source.peer
                        raise ConfigError([f"peers.{name}.addresses: {network} is also an address of peer {found}"])
                joined = {rule.source.peer: rule for rule in (*_rules(other), *_rules(entry))}
                if len(joined) > 1:
                    table[number] = tuple(sorted(joined.values(), key=lambda rule: rule.rank, reverse=True))
        for realm, by_length in tables.items():
            ordered = sorted(by_length.items(), key=lambda item: -item[0][1])
            self._networks[realm] = [
                (version, (32 if version == 4 else 128) - length, table) for (version, length), table in ordered
            ]
        limited = limited_peers(peers)
        if tally is None:
            tally = CallTally()
            tally.claim(limited)
        self._tally = tally
        self._limits = {name: _Limits(tally.find(name), peers[name].max_calls, peers[name].max_cps) for name in limited}
        # Calls of a former life of this worker that have not been taken up yet.
        self._awaited = {name: tally.mine(limits.column) for name, limits in self._limits.items() if limits.column >= 0}

    def admit(self, listener: int, host: str, port: int = 0, connection: int = 0) -> Source | None:
        """The peer behind an address (a literal) that was seen on a listener; None for a stranger.

        ``port`` 0: it is not known, and could be any. ``connection`` is that of the flow, whose upper bits say which
        certificate was shown (:meth:`identity_of`); 0 where one is yet to be made.
        """
        realm = self._realms[listener]
        known = self._known[realm]
        source = known.get(host)
        if source is not None:
            return source
        source, always = self._look_up(realm, listener, host, port, connection)
        if source is not None and always:  # strangers are not remembered: they come in any number
            if len(known) >= KNOWN_ADDRESSES:
                known.clear()
            known[host] = source
        return source

    def _look_up(self, realm: str, listener: int, host: str, port: int, connection: int) -> tuple[Source | None, bool]:
        """Who it is, and whether it is so by the address alone."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None, True
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        version, number = address.version, int(address)
        always = True
        for table_version, shift, table in self._networks[realm]:
            if table_version != version or (entry := table.get(number >> shift)) is None:
                continue
            if isinstance(entry, Source):
                return entry, always
            always = False
            for rule in entry:
                if rule.fits(listener, port, connection):
                    return rule.source, False
        return None, always

    def identity_of(self, listener: int, names: Iterable[str]) -> int:
        """The number of the configured name that a certificate with these names stands for, 0 for none; an exact one
        before one with ``*``."""
        realm = self._realms[listener]
        configured = self._certificates.get(realm)
        if configured:
            for name in sorted(configured, key=lambda one: one.startswith("*")):
                if any(covers(name, one) for one in names):
                    return identity(realm, name)
        return 0

    def open_call(self, peer: str, now: float) -> int | None:
        """Let a peer open a call: None, or the status to refuse it with (503, with Retry-After).

        A refused call is not counted and need not be closed.
        """
        limits = self._limits.get(peer)
        if limits is None:
            self._calls[peer] = self._calls.get(peer, 0) + 1
            return None
        self._count(peer, 1)
        if not self._has_room(peer, limits) or not self._is_in_time(peer, limits, now):
            self._count(peer, -1)
            return REFUSED_STATUS
        return None

    def _has_room(self, peer: str, limits: _Limits) -> bool:
        if not limits.max_calls:
            return True
        total = self._tally.total(limits.column) if limits.column >= 0 else -1
        if total >= 0:
            return total <= limits.max_calls
        return self._calls[peer] <= -(-limits.max_calls // self._workers)

    def _is_in_time(self, peer: str, limits: _Limits, now: float) -> bool:
        if not limits.max_cps:
            return True
        if limits.column >= 0:
            return self._tally.take(limits.column, limits.max_cps, now)
        due = due_after(self._due.get(peer, 0.0), limits.max_cps / self._workers, now)
        if due is None:
            return False
        self._due[peer] = due
        return True

    def count_call(self, peer: str) -> None:
        """A call that a former owner let pass goes on here; no limit is asked."""
        awaited = self._awaited.get(peer, 0)
        if awaited:
            self._awaited[peer] = awaited - 1
        self._count(peer, 1)

    def close_call(self, peer: str) -> None:
        """A call that was counted has ended."""
        if self._calls.get(peer):
            self._count(peer, -1)

    def all_here(self) -> None:
        """All calls of a former life of this worker that went on have been taken up."""
        self._awaited = {}
        for peer in self._limits:
            self._count(peer, 0)

    def inherit(self, former: Admission) -> None:
        """Take the place of what was in force before a reload, with its counts."""
        self._calls, self._awaited, self._due = former._calls, former._awaited, former._due
        for peer in self._limits:
            self._count(peer, 0)

    def _count(self, peer: str, change: int) -> None:
        count = self._calls.get(peer, 0) + change
        if count:
            self._calls[peer] = count
        else:
            self._calls.pop(peer, None)
        limits = self._limits.get(peer)
        if limits is not None and limits.column >= 0:
            self._tally.tell(limits.column, count + self._awaited.get(peer, 0))


def limited_peers(peers: Mapping[str, Peer]) -> list[str]:
    """Those whose calls are to be counted by all workers together."""
    return [name for name, peer in peers.items() if peer.max_calls or peer.max_cps]


def _rule(source: Source, match: Match, listeners: Sequence[tuple[str, Listen]]) -> _Rule:
    ours = [(index, listen) for index, (realm, listen) in enumerate(listeners) if realm == source.realm]
    if match.listeners:
        ours = [(index, listen) for index, listen in ours if listen.text in match.listeners]
    if match.transports:
        ours = [(index, listen) for index, listen in ours if listen.transport in match.transports]
    if match.certificate:
        ours = [(index, listen) for index, listen in ours if listen.is_secure]
    chosen: frozenset[int] = frozenset()
    if match.listeners or match.transports or match.certificate:
        chosen = frozenset(index for index, _ in ours) or frozenset({-1})  # -1: there is none, so nothing comes by it
    identities = frozenset(identity(source.realm, name) for name in match.certificate)
    return _Rule(source, rank(match), chosen, tuple(match.ports), identities)


def _rules(entry: _Entry) -> tuple[_Rule, ...]:
    """As rules: a peer that asks for its address alone fits always."""
    if isinstance(entry, Source):
        return (_Rule(entry, rank(None)),)
    return entry
