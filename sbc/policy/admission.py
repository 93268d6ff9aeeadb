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


class _Bucket:
    """Calls that a peer may still open: ``rate_per_s`` flow in, one second's worth is kept (at least one call)."""

    __slots__ = ("filled_at", "rate_per_s", "tokens")

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.tokens = max(1.0, rate_per_s)
        self.filled_at = 0.0

    def take(self, now: float) -> bool:
        tokens = self.tokens
        if self.filled_at:
            tokens = min(max(1.0, self.rate_per_s), tokens + (now - self.filled_at) * self.rate_per_s)
        self.filled_at = now
        allowed = tokens >= 1.0
        self.tokens = tokens - 1.0 if allowed else tokens
        return allowed


class Admission:
    """The peers of a node as one immutable look-up, and their limits.

    ``workers`` is the number of SIP workers that share the limits: calls spread evenly over them, so each grants its
    part (rounded up for calls). Raises ConfigError when two peers of a realm claim the same network.
    """

    __slots__ = ("_buckets", "_calls", "_certificates", "_known", "_max_calls", "_networks", "_realms")

    def __init__(self, peers: Mapping[str, Peer], realms: Mapping[str, Realm], *, workers: int = 1) -> None:
        self._realms = tuple(name for name, realm in realms.items() for _ in realm.listen)  # by Flow.listener
        # by realm, then by (IP version, prefix length) longest first: network as a number -> source
        self._networks: dict[str, list[tuple[int, int, dict[int, _Entry]]]] = {}
        self._known: dict[str, dict[str, Source]] = {name: {} for name in realms}
        self._max_calls: dict[str, int] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._calls: dict[str, int] = {}
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
            if peer.max_calls:
                self._max_calls[name] = -(-peer.max_calls // workers)
            if peer.max_cps:
                self._buckets[name] = _Bucket(peer.max_cps / workers)
        for realm, by_length in tables.items():
            ordered = sorted(by_length.items(), key=lambda item: -item[0][1])
            self._networks[realm] = [
                (version, (32 if version == 4 else 128) - length, table) for (version, length), table in ordered
            ]

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

    def open_call(self, peer: str, now: float, *, calls: int | None = None) -> int | None:
        """Let a peer open a call: None, or the status to refuse it with (503, with Retry-After).

        ``calls`` is the number of its calls that the core owns; without it, opened calls less closed ones. A refused
        call is not counted and need not be closed.
        """
        limit = self._max_calls.get(peer)
        count = self._calls.get(peer, 0)
        if limit is not None and (count if calls is None else calls) >= limit:
            return REFUSED_STATUS
        bucket = self._buckets.get(peer)
        if bucket is not None and not bucket.take(now):
            return REFUSED_STATUS
        self._calls[peer] = count + 1
        return None

    def close_call(self, peer: str) -> None:
        """A call that :meth:`open_call` let pass has ended."""
        count = self._calls.get(peer, 0)
        if count > 1:
            self._calls[peer] = count - 1
        else:
            self._calls.pop(peer, None)

    def inherit(self, former: Admission) -> None:
        """Take over counts and the fill of buckets from before a reload, so that a reload grants no burst."""
        self._calls = dict(former._calls)
        for name, bucket in self._buckets.items():
            old = former._buckets.get(name)
            if old is not None:
                bucket.tokens = min(old.tokens, max(1.0, bucket.rate_per_s))
                bucket.filled_at = old.filled_at


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
