"""Where a peer may have us send media: the deny list of each realm, applied to canonical addresses.

Whoever writes a c= line chooses where our packets go, so an address that is no peer's own could turn the relay against
this host or its network (coturn CVE-2020-26262).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from media.protocol import Stream
from sbc.errors import SdpError

if TYPE_CHECKING:
    from sbc.config.models import Realm

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Never a media receiver: this network, multicast, reserved and broadcast, and what embeds an IPv4 address for a
# translator (NAT64, 6to4, Teredo) that could lead to any of those.
_NEVER: Final[tuple[_Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "224.0.0.0/3", "::/128", "::/96", "ff00::/8", "64:ff9b::/96", "2002::/16", "2001::/32")
)
_LINK_LOCAL: Final[tuple[_Network, ...]] = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
_NULL: Final = ("0.0.0.0", "::")


class MediaTargets:
    """The deny list of one realm, whose media address is ``realm_address`` (the bound one).

    Loopback and link-local targets are allowed where that address is of their kind. ``own`` holds the port ranges that
    this node uses itself, by address, bound and advertised, of all realms: a stream sent there would circle.
    ``denied`` adds networks of the operator's choice.
    """

    __slots__ = ("_denied", "_loopback", "_own", "_reason")

    def __init__(
        self,
        realm_address: str,
        own: Mapping[str, Sequence[tuple[int, int]]] | None = None,
        denied: Iterable[_Network] = (),
    ) -> None:
        address = ipaddress.ip_address(realm_address)
        self._loopback = address.is_loopback
        self._denied = (*_NEVER, *denied, *(() if address.is_link_local else _LINK_LOCAL))
        self._own = {str(ipaddress.ip_address(text)): tuple(ranges) for text, ranges in (own or {}).items()}
        self._reason = lru_cache(maxsize=8192)(self._judge)

    def check(self, streams: Iterable[Stream]) -> None:
        """Raise SdpError (488) for the first stream in use that may not be sent to. The null address means hold."""
        for stream in streams:
            if not stream.port or stream.address in _NULL:
                continue
            # RTCP goes to any port of the same address (RFC 3605)
            rtcp_port = stream.rtcp_port or stream.port + (not stream.rtcp_mux)
            if reason := self.refusal(stream.address, stream.port) or self.refusal(stream.address, rtcp_port):
                raise SdpError(f"media to {reason}")

    def refusal(self, address: str, port: int) -> str:
        """Why nothing may be sent there, '' when it may."""
        canonical, reason = self._reason(address)
        if not reason:
            for low, high in self._own.get(canonical, ()):
                if low <= port <= high:
                    return "a port of this node"
        return reason

    def _judge(self, text: str) -> tuple[str, str]:
        """Canonical form of an address, and why it is denied or ''. Text that is no literal is denied."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text, "an address that is no IP literal"
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        canonical = str(address)
        if address.is_loopback:
            return canonical, "" if self._loopback else "a loopback address"
        for network in self._denied:
            if address.version == network.version and address in network:
                return canonical, f"{network}, where no peer of this realm can be"
        return canonical, ""


def targets_by_realm(realms: Mapping[str, Realm]) -> dict[str, MediaTargets]:
    """The deny list of every realm of a configuration: what this node binds and advertises is off limits in all.

    A trusted realm may name the media ports that it was itself told of: a proxy there that sends a call back to us, for
    another phone outside, passes on our own description. Its other end was checked in the realm that it came from.
    """
    return {name: MediaTargets(str(realm.media.address), _own(realms, realm)) for name, realm in realms.items()}


def _own(realms: Mapping[str, Realm], facing: Realm) -> dict[str, list[tuple[int, int]]]:
    own: dict[str, list[tuple[int, int]]] = {}
    for realm in realms.values():
        media = realm.media
        if realm is not facing or not realm.trusted:
            for address in {str(media.address), str(media.advertise or media.address)}:
                own.setdefault(address, []).append(media.ports)
        for listen in realm.listen:
            for address, port in {(listen.host, listen.port), realm.advertised(listen)}:
                own.setdefault(address, []).append((port, port))
    return own
