"""How we face each network: made once from the settings, looked up for every message."""

from __future__ import annotations

from sbc.b2bua import extensions
from sbc.b2bua.settings import CoreSettings
from sbc.policy.identity import Trust


class Facing:
    """Vias, Contacts, extensions and trust, by listener or realm.

    ``hosts``: what stands for us in URIs, by listener. ``passing``: names, in lower case, of headers that cross into a
    realm as they are. ``supported`` as in :func:`sbc.b2bua.extensions.supported`.
    """

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
        self._listeners: dict[tuple[str, str], int] = {}  # by realm and transport, '' for what a bare URI means
        for index, listener in enumerate(settings.listeners):
            self._listeners.setdefault((listener.realm, listener.transport), index)
        for index, listener in enumerate(settings.listeners):
            default = self._listeners.get((listener.realm, "udp"), index)  # RFC 3263 §4.1
            self._listeners.setdefault((listener.realm, ""), default)

    def listener_of(self, realm: str, transport: str = "") -> int:
        """The listener by which requests leave into a realm; KeyError where it has none of this transport."""
        return self._listeners[realm, transport]

    def via(self, listener: int, branch: str) -> str:
        """Our Via towards the network of a listener."""
        return self._vias[listener] + branch

    def contact(self, listener: int, token: str) -> str:
        """Our Contact there; ``token`` names the dialog."""
        return f"<sip:{token}{self._contacts[listener]}"


def _host(address: str) -> str:
    """A host as it stands in a URI or a Via (RFC 3261 §25.1: IPv6 in brackets)."""
    return f"[{address}]" if ":" in address else address


def _transport_param(transport: str) -> str:
    """What our Contact says besides the address; WebSockets have one value for both (RFC 7118 §5.3)."""
    if transport == "udp":
        return ""
    return ";transport=ws" if transport in ("ws", "wss") else f";transport={transport}"
