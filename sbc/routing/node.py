"""The node as route authors see it: its peers, its calls, its log; and how a name becomes a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sbc.b2bua import subjects
from sbc.b2bua.effects import RunRoute
from sbc.b2bua.subjects import Target
from sbc.clock import Clock
from sbc.config.models import Config
from sbc.errors import SipSyntaxError
from sbc.routing.routes import RouteError
from sbc.sip.uri import Uri, parse_uri
from sbc.telemetry.log import Logger, get

if TYPE_CHECKING:
    from sbc.routing.facade import EstablishedCall


class Decisions(Protocol):
    """What routing asks of :class:`sbc.b2bua.core.Core`."""

    @property
    def calls(self) -> Mapping[str, subjects.Call]: ...

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
        targets: Sequence[Target],
        now: float,
        *,
        on_branch: Any = None,  # Any: opaque to the core, in these three
        on_reply: Any = None,
        on_failure: Any = None,
    ) -> None: ...

    def dial_next(self, call: subjects.Call, now: float) -> bool: ...

    def release(self, call: subjects.Call, now: float, *, reason: str, cause: int = 16, status: int = 500) -> None: ...

    def reply_bad(self, bad: subjects.BadMessage, status: int, now: float) -> None: ...

    def route_done(self, effect: RunRoute, error: BaseException | None, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A configured peer. ``gateway`` is '' for one that is never called; ``calls_to`` names another peer or is ''."""

    name: str
    realm: str
    direction: str = ""
    gateway: str = ""
    calls_to: str = ""
    profile: str = "default"

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
    """This node. ``peers`` by name; replaced as a whole when the configuration is."""

    __slots__ = ("_by_host", "clock", "core", "log", "name", "peers")

    def __init__(self, config: Config, core: Decisions, clock: Clock) -> None:
        self.core = core
        self.clock = clock
        self.log: Logger = get()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take another configuration over."""
        self.name = config.node
        self.peers: dict[str, Peer] = {
            name: Peer(name, peer.realm, peer.direction, peer.gateway, peer.calls_to, peer.profile)
            for name, peer in config.peers.items()
        }
        self._by_host: dict[str, Peer] = {}
        for peer in self.peers.values():
            if peer.gateway:
                self._by_host.setdefault(_host(peer.gateway).address, peer)

    def peer(self, name: str) -> Peer:
        """A peer by name; raises RouteError when none is configured under it."""
        peer = self.peers.get(name)
        if peer is None:
            raise RouteError(f"no peer {name!r} is configured; there are: {', '.join(self.peers) or 'none'}")
        return peer

    def target(self, where: str | Peer | Target, number: str) -> Target:
        """What a route dials, as the core wants it: a peer or its name, a SIP URI of some peer's gateway, or a Target.

        Raises RouteError for a name that is no peer, and for a URI whose host is no peer's gateway: its realm is not
        known then, so it takes a Target.
        """
        if isinstance(where, Target):
            return where
        if isinstance(where, str):
            if where.startswith(("sip:", "sips:")):
                peer = self._by_host.get(_host(where).address)
                if peer is None:
                    raise RouteError(f"{where}: no peer has its gateway there; use Target(uri, realm=...)")
                return Target(where, peer.realm, peer=peer.name, gateway=peer.name)
            where = self.peer(where)
        return Target(where.uri_for(number), where.realm, peer=where.name, gateway=where.name)

    def calls(self) -> Iterator[EstablishedCall]:
        """Every call that this worker owns now."""
        from sbc.routing.facade import EstablishedCall

        return iter([EstablishedCall(self, call) for call in self.core.calls.values()])

    def call(self, key: str) -> EstablishedCall | None:
        """A call of this worker by its key."""
        from sbc.routing.facade import EstablishedCall

        found = self.core.calls.get(key)
        return None if found is None else EstablishedCall(self, found)


def _host(uri: str) -> Uri:
    try:
        return parse_uri(uri)
    except SipSyntaxError as error:
        raise RouteError(f"{uri!r} is no SIP URI: {error}") from error
