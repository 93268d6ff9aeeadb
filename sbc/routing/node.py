"""The node as route authors see it: its peers, its calls, its log; and how a name becomes a target."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from sbc.b2bua import subjects
from sbc.b2bua.effects import RunRoute, ServerFailed
from sbc.b2bua.subjects import Redirects, Target
from sbc.clock import Clock
from sbc.config.models import Config
from sbc.errors import ResolveError, SipSyntaxError
from sbc.lookups.lookups import Database, Http, Lookups, Redis
from sbc.policy.server_location import Path, Server, is_name
from sbc.routing.acts import Acts
from sbc.routing.authentication import Nonces
from sbc.routing.routes import RouteError
from sbc.sip.flow import Flow
from sbc.sip.uri import Uri, parse_uri
from sbc.telemetry.log import Logger, get

if TYPE_CHECKING:
    from sbc.b2bua.forward import Requests
    from sbc.routing.call import EstablishedCall


class Decisions(Protocol):
    """What routing asks of :class:`sbc.b2bua.core.Core`."""

    @property
    def calls(self) -> Mapping[str, subjects.Call]: ...

    def listener_of(self, realm: str, transport: str, host: str) -> int: ...

    @property
    def requests(self) -> Requests: ...

    def reject(
        self,
        call: subjects.Call,
        status: int,
        now: float,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None: ...

    def dial(
        self,
        call: subjects.Call,
        targets: Sequence[Target | Sequence[Target]],
        now: float,
        *,
        follow_redirects: Redirects | None = None,
        on_branch: Any = None,  # Any: opaque to the core, in these three
        on_reply: Any = None,
        on_failure: Any = None,
    ) -> None: ...

    def dial_next(self, call: subjects.Call, now: float, *, on_failure: Any = None) -> bool: ...  # Any: opaque

    def drop(self, call: subjects.Call, now: float) -> None: ...

    def release(self, call: subjects.Call, now: float, *, reason: str, cause: int = 16, status: int = 500) -> None: ...

    def move_media(
        self, call: subjects.Call, profile: str | None, then: Callable[[str, float], None], now: float
    ) -> str: ...

    def reply_bad(self, bad: subjects.BadMessage, status: int, now: float, *, reason: str | None = None) -> None: ...

    def route_done(self, effect: RunRoute, error: BaseException | None, now: float) -> None: ...


class Resolver(Protocol):
    """What routing asks of :class:`sbc.transport.resolver.Resolver`."""

    async def resolve(self, uri: Uri, paths: Sequence[Path]) -> list[Server]: ...

    def failed(self, server: Server) -> None: ...


NAMED_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Peer:
    """A configured peer. ``gateway`` is '' for one that is never called; ``calls_to`` names another peer or is ''."""

    name: str
    realm: str
    direction: str = ""
    gateway: str = ""
    calls_to: str = ""
    profile: str = "default"
    media_set: str = ""

    def uri_for(self, number: str) -> str:
        """The Request-URI of a call to ``number`` through this peer's gateway, whose own user part wins.

        Raises RouteError for a peer without a gateway.
        """
        if not self.gateway:
            raise RouteError(f"peer {self.name} has no gateway to send calls to")
        head, user, tail = _gateway(self.gateway)
        user = user or number
        return f"{head}{user}@{tail}" if user else head + tail


STRANGER = Peer("", "")  # of a call whose peer is no longer configured


def _gateway(uri: str) -> tuple[str, str, str]:
    scheme, _, rest = uri.partition(":")
    user, at, tail = rest.rpartition("@")
    return scheme + ":", user, tail if at else rest


class Node:
    """This node. ``peers`` by name; replaced as a whole when the configuration is.

    ``resolver`` looks up gateways that are host names; without one (virtual time) only addresses can be dialled.
    ``lookups`` is what routes may ask: ``http``, ``redis`` and ``database``.
    """

    __slots__ = (
        "_by_host",
        "_named",
        "_networks",
        "_owned",
        "_paths",
        "_realm_sets",
        "acts",
        "clock",
        "core",
        "decided",
        "log",
        "lookups",
        "media_profiles",
        "media_sets",
        "name",
        "nonces",
        "peers",
        "raising",
        "resolver",
    )

    def __init__(
        self,
        config: Config,
        core: Decisions,
        clock: Clock,
        resolver: Resolver | None = None,
        lookups: Lookups | None = None,
    ) -> None:
        self.core = core
        self.acts = Acts()
        self.clock = clock
        self.resolver = resolver
        self.lookups = lookups or Lookups()
        self.log: Logger = get()
        self.nonces = Nonces(clock)
        self.raising: Callable[[str, object], None] | None = None  # what runs event routes
        self.decided: Callable[[str], None] | None = None  # hears in a sentence what a route changes
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take another configuration over."""
        self.name = config.node
        self.peers: dict[str, Peer] = {
            name: Peer(name, peer.realm, peer.direction, peer.gateway, peer.calls_to, peer.profile, peer.media_set)
            for name, peer in config.peers.items()
        }
        self.media_sets = config.media_sets.keys()
        self.media_profiles = config.media_profiles
        self._realm_sets = {name: realm.media_set for name, realm in config.realms.items()}
        self._by_host: dict[str, Peer] = {}
        for peer in self.peers.values():
            if peer.gateway:
                self._by_host.setdefault(_host(peer.gateway).address.lower(), peer)
        self._paths: dict[str, list[Path]] = {}
        for realm, listen in config.listeners:
            path = Path(listen.transport, ipaddress.ip_address(listen.host).version)
            if path not in (paths := self._paths.setdefault(realm, [])):
                paths.append(path)
        self._named: dict[str, bool] = {}  # by a URI without its user part
        self._networks = {name: peer.addresses for name, peer in config.peers.items()}
        self._owned: dict[tuple[str, str], bool] = {}  # by peer and address

    def peer(self, name: str) -> Peer:
        """A peer by name; raises RouteError when none is configured under it."""
        peer = self.peers.get(name)
        if peer is None:
            raise RouteError(f"no peer {name!r} is configured; there are: {', '.join(self.peers) or 'none'}")
        return peer

    @property
    def http(self) -> Http:
        """HTTP look-ups; raises LookupUnknown where ``lookups.http`` is not configured."""
        return self.lookups.http

    def redis(self, name: str) -> Redis:
        """A store by its name under ``lookups.redis``; raises LookupUnknown where there is none."""
        return self.lookups.redis(name)

    def database(self, name: str) -> Database:
        """A database by its name under ``lookups.databases``; raises LookupUnknown where there is none."""
        return self.lookups.database(name)

    def media_profile(self, peer: str) -> str:
        """The media profile of a peer."""
        return self.peers.get(peer, STRANGER).profile

    def relay_profile(self, peer: str) -> str:
        """The media profile under which media of a peer are relayed where nothing else is said."""
        profile = self.media_profile(peer)
        return "default" if self.media_profiles[profile].direct else profile

    def media_set(self, peer: str, realm: str) -> str:
        """The media set for calls from a peer: its own, or that of its realm."""
        return self.peers.get(peer, STRANGER).media_set or self._realm_sets.get(realm, "")

    def target(self, where: str | Peer | Target, number: str) -> Target:
        """What a route dials, as the core wants it: a peer or its name, a SIP URI of some peer's gateway, or a Target.

        Raises RouteError for a name that is no peer, and for a URI whose host is no peer's gateway: its realm is not
        known then, so it takes a Target.
        """
        if isinstance(where, Target):
            return where
        if isinstance(where, str):
            if where.startswith(("sip:", "sips:")):
                peer = self._by_host.get(_host(where).address.lower())
                if peer is None:
                    raise RouteError(f"{where}: no peer has its gateway there; use Target(uri, realm=...)")
                return Target(where, peer.realm, peer=peer.name, gateway=peer.name)
            where = self.peer(where)
        return Target(where.uri_for(number), where.realm, peer=where.name, gateway=where.name)

    def is_named(self, target: Target) -> bool:
        """Whether a target must be looked up before it can be dialled."""
        return target.path is None and self._has_name(target.uri)

    def _has_name(self, text: str) -> bool:
        """Whether the host of a URI is a name; what the calls of one gateway share is looked at once."""
        where = text.rpartition("@")[2]
        named = self._named.get(where)
        if named is None:
            try:
                uri = parse_uri(text)
                named = uri.is_sip and is_name(uri.address)
            except SipSyntaxError:
                named = False  # the core says what is wrong with it
            if len(self._named) >= NAMED_MAX:
                self._named.clear()
            self._named[where] = named
        return named

    async def located(self, targets: Sequence[Target | Sequence[Target]]) -> list[Target | Sequence[Target]]:
        """The same targets, each with the servers that its host name stands for, as :meth:`served` says."""
        named = [target for target in flattened(targets) if self.is_named(target)]
        if len(named) == 1:
            found = iter([await self.served(named[0])])
        else:
            found = iter(await asyncio.gather(*[self.served(target) for target in named]))

        def located(target: Target) -> Target:
            return next(found) if self.is_named(target) else target

        return [located(item) if isinstance(item, Target) else [located(target) for target in item] for item in targets]

    async def served(self, target: Target) -> Target:
        """A target whose host is a name, with the servers that this stands for (RFC 3263).

        A name that leads nowhere stays as it is: it fails with 503 when its turn comes, as any gateway may.
        """
        assert self.resolver is not None  # asked by who has seen that there is one
        try:
            servers = await self.resolver.resolve(_host(target.uri), self._paths.get(target.realm, ()))
        except ResolveError as error:
            self.log.warning("name of a gateway leads nowhere", gateway=target.gateway, reason=str(error))
            return target
        usable = [server for server in servers if self._owns(target.peer, server.host)]
        if len(usable) < len(servers):
            self.log.warning(
                "name of a gateway leads outside the addresses of its peer",
                gateway=target.gateway,
                peer=target.peer,
                servers=[server.host for server in servers if server not in usable],
            )
        return replace(target, servers=tuple([self._flow(target.realm, server) for server in usable]))

    def _owns(self, peer: str, host: str) -> bool:
        """Whether an address belongs to a peer. Any other would be a stranger, whose replies are dropped; and so a
        forged answer of the DNS sends no call elsewhere. True for a target of no peer."""
        owned = self._owned.get((peer, host))
        if owned is None:
            networks = self._networks.get(peer)
            address = ipaddress.ip_address(host)
            owned = networks is None or any(address in network for network in networks)
            if len(self._owned) >= NAMED_MAX:
                self._owned.clear()
            self._owned[peer, host] = owned
        return owned

    def _flow(self, realm: str, server: Server) -> Flow:
        listener = self.core.listener_of(realm, server.transport, server.host)
        return Flow(listener, server.transport, server.host, server.port)

    def server_failed(self, effect: ServerFailed) -> None:
        """Let others go before that server for a while (RFC 3263 §4.3)."""
        if self.resolver is not None:
            flow = effect.flow
            self.resolver.failed(Server(flow.transport, flow.host, flow.port))

    def raise_event(self, name: str, event: object) -> None:
        """Run the event routes of a name of your own, in this worker; ``event`` is what they get."""
        if self.raising is not None:
            self.raising(name, event)

    def calls(self) -> Iterator[EstablishedCall]:
        """Every call that this worker owns now."""
        from sbc.routing.call import EstablishedCall

        return iter([EstablishedCall(self, call) for call in self.core.calls.values()])

    def call(self, key: str) -> EstablishedCall | None:
        """A call of this worker by its key."""
        from sbc.routing.call import EstablishedCall

        found = self.core.calls.get(key)
        return None if found is None else EstablishedCall(self, found)


def flattened(targets: Sequence[Target | Sequence[Target]]) -> Iterator[Target]:
    """Every target, in order."""
    for item in targets:
        if isinstance(item, Target):
            yield item
        else:
            yield from item


def _host(uri: str) -> Uri:
    try:
        return parse_uri(uri)
    except SipSyntaxError as error:
        raise RouteError(f"{uri!r} is no SIP URI: {error}") from error
