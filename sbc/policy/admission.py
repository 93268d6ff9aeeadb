"""Who may speak to us: source address to peer by longest prefix within the listener's realm, and each peer's limits.

A stranger ends here, before any state exists for it. Looking one up costs two dictionary probes for a known address and
one for each prefix length in use otherwise, so neither friends nor floods are slow.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from sbc.errors import ConfigError

if TYPE_CHECKING:
    from sbc.config.models import Peer, Realm

KNOWN_ADDRESSES: Final = 16_384  # remembered per realm; a peer may be a whole /8
REFUSED_STATUS: Final = 503  # RFC 3261 §21.5.4: to be sent with Retry-After


class Source(NamedTuple):
    """Who a message came from: the peer's name, its realm, and the direction that routes see."""

    peer: str
    realm: str
    direction: str


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

    __slots__ = ("_buckets", "_calls", "_known", "_max_calls", "_networks", "_realms")

    def __init__(self, peers: Mapping[str, Peer], realms: Mapping[str, Realm], *, workers: int = 1) -> None:
        self._realms = tuple(name for name, realm in realms.items() for _ in realm.listen)  # by Flow.listener
        # by realm, then by (IP version, prefix length) longest first: network as a number -> source
        self._networks: dict[str, list[tuple[int, int, dict[int, Source]]]] = {}
        self._known: dict[str, dict[str, Source]] = {name: {} for name in realms}
        self._max_calls: dict[str, int] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._calls: dict[str, int] = {}
        tables: dict[str, dict[tuple[int, int], dict[int, Source]]] = {name: {} for name in realms}
        for name, peer in peers.items():
            source = Source(name, peer.realm, peer.direction)
            for network in peer.addresses:
                table = tables[peer.realm].setdefault((network.version, network.prefixlen), {})
                number = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                other = table.setdefault(number, source)
                if other is not source and other.peer != name:
                    raise ConfigError([f"peers.{name}.addresses: {network} is also an address of peer {other.peer}"])
            if peer.max_calls:
                self._max_calls[name] = -(-peer.max_calls // workers)
            if peer.max_cps:
                self._buckets[name] = _Bucket(peer.max_cps / workers)
        for realm, by_length in tables.items():
            ordered = sorted(by_length.items(), key=lambda item: -item[0][1])
            self._networks[realm] = [
                (version, (32 if version == 4 else 128) - length, table) for (version, length), table in ordered
            ]

    def admit(self, listener: int, host: str) -> Source | None:
        """The peer behind an address (a literal) that was seen on a listener; None for a stranger."""
        realm = self._realms[listener]
        known = self._known[realm]
        source = known.get(host)
        if source is not None:
            return source
        source = self._look_up(realm, host)
        if source is not None:  # strangers are not remembered: they come in any number
            if len(known) >= KNOWN_ADDRESSES:
                known.clear()
            known[host] = source
        return source

    def _look_up(self, realm: str, host: str) -> Source | None:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        version, number = address.version, int(address)
        for table_version, shift, table in self._networks[realm]:
            if table_version == version and (source := table.get(number >> shift)) is not None:
                return source
        return None

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
