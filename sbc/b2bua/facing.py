"""How we face each network: made once from the settings, looked up for every message."""

from __future__ import annotations

from sbc.b2bua import extensions
from sbc.b2bua.settings import CoreSettings
from sbc.dialog.dialog import DEFAULT_PORTS
from sbc.policy.identity import Trust
from sbc.policy.nat import behind, behind_by_via, host_of_contact
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction.oversize import Oversize, Wider


class Facing:
    """Vias, Contacts, extensions and trust, by listener or realm.

    ``hosts``: what stands for us in URIs, by listener. ``passing``: names, in lower case, of headers that cross into a
    realm as they are. ``supported`` as in :func:`sbc.b2bua.extensions.supported`. ``oversize``: what leaves by TCP for
    its length.
    """

    def __init__(self) -> None:
        self.oversize = Oversize()

    def face(self, settings: CoreSettings) -> None:
        """From now on by these settings."""
        self.settings = settings
        self.supported = extensions.supported(settings)
        self.passing = {
            name: frozenset(header.lower() for header in (*settings.pass_headers, *realm.pass_headers))
            for name, realm in settings.realms.items()
        }
        self.trust = {
            name: Trust(realm.trusted, realm.preferred_identity, realm.remote_party_id)
            for name, realm in settings.realms.items()
        }
        self.hosts = [_host(listener.advertised_host) for listener in settings.listeners]
        self._vias = [
            f"SIP/2.0/{listener.transport.upper()} {host}:{listener.advertised_port};rport;branch="
            for listener, host in zip(settings.listeners, self.hosts, strict=True)
        ]
        self._contacts = [
            f"@{host}:{listener.advertised_port}{_transport_param(listener.transport)}>"
            for listener, host in zip(settings.listeners, self.hosts, strict=True)
        ]
        self._by_via = frozenset(
            index
            for index, listener in enumerate(settings.listeners)
            if listener.transport == "udp" and settings.realms[listener.realm].answers_to_via
        )
        self._choices = _choices(settings)
        self._source_address = settings.source_address
        self.oversize.reconfigure(self._wider())

    def listener_of(self, realm: str, transport: str, host: str) -> int:
        """The listener by which requests leave a realm for an address: of its IP version, and where there are several,
        the one from whose address the kernel would send there. ``transport`` '' is what a bare URI means (RFC 3263
        §4.1). KeyError where the realm has none."""
        choices = self._choices[realm, transport, ":" in host]
        if len(choices) == 1:
            return choices[0]
        listeners = self.settings.listeners
        source = self._source_address(host)
        fitting = (index for index in choices if listeners[index].host == source)
        any_address = (index for index in choices if listeners[index].host in ("0.0.0.0", "::"))
        return next(fitting, next(any_address, choices[0]))

    def answer_path(self, msg: Message, flow: Flow) -> Flow:
        """Where the answers to a request go, and what is for its sender as long as no Contact says more."""
        if flow.listener not in self._by_via:
            return flow
        via = msg.top_via
        if via.rport is not None or self._behind_nat(via.host, flow):
            return flow
        return flow._replace(port=via.port or DEFAULT_PORTS[flow.transport])

    def _behind_nat(self, via: str, flow: Flow) -> bool:
        return self.nat_of(flow) == "auto" and bool(behind_by_via(via, "", flow.host))

    def nat_of(self, flow: Flow) -> str:
        """The ``nat`` of the realm that a flow belongs to."""
        return self.settings.realms[self.settings.listeners[flow.listener].realm].nat

    def behind_nat(self, msg: Message, seen: Flow, contact: str | None = None) -> str:
        """Why the sender of a request outside a dialog is taken to be behind NAT by the policy of its realm, the end of
        a sentence; '' where it is not. The host of its Contact, by default of the first, and its top Via say so."""
        nat = self.nat_of(seen)
        if nat == "auto":
            return behind(host_of_contact(msg) if contact is None else contact, msg.top_via.host, seen.host)
        return "its realm has nat: always" if nat == "always" else ""

    def via(self, listener: int, branch: str) -> str:
        """Our Via towards the network of a listener."""
        return self._vias[listener] + branch

    def contact(self, listener: int, token: str) -> str:
        """Our Contact there; ``token`` names the dialog."""
        return f"<sip:{token}{self._contacts[listener]}"

    def _wider(self) -> dict[int, Wider]:
        """For each datagram listener, the TCP listener that long requests take: at the same address, or else the first
        of its realm and IP version."""
        listeners = self.settings.listeners
        found: dict[int, Wider] = {}
        for index, listener in enumerate(listeners):
            limit = self.settings.realms[listener.realm].datagram_max_bytes
            choices = self._choices.get((listener.realm, "tcp", ":" in listener.host), ())
            if listener.transport != "udp" or not limit or not choices:
                continue
            wider = next((it for it in choices if listeners[it].host == listener.host), choices[0])
            found[index] = Wider(limit, wider, self._vias[index].encode(), self._vias[wider].encode())
        return found


def _choices(settings: CoreSettings) -> dict[tuple[str, str, bool], tuple[int, ...]]:
    """Listeners by realm, transport and whether they are of IPv6."""
    found: dict[tuple[str, str, bool], tuple[int, ...]] = {}
    for index, it in enumerate(settings.listeners):
        key = (it.realm, it.transport, ":" in it.host)
        found[key] = (*found.get(key, ()), index)
    for realm, transport, version in list(found):  # RFC 3263 §4.1: UDP, or whatever there is
        found.setdefault((realm, "", version), found.get((realm, "udp", version), found[realm, transport, version]))
    return found


def _host(address: str) -> str:
    """A host as it stands in a URI or a Via (RFC 3261 §25.1: IPv6 in brackets)."""
    return f"[{address}]" if ":" in address else address


def _transport_param(transport: str) -> str:
    """What our Contact says besides the address; WebSockets have one value for both (RFC 7118 §5.3)."""
    if transport == "udp":
        return ""
    return ";transport=ws" if transport in ("ws", "wss") else f";transport={transport}"
