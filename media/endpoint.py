"""From what a leg described and where its signalling came from to the addresses and the latch policy of its rule."""

from __future__ import annotations

import ctypes
import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from media.config import RealmInterface
from media.protocol import Stream
from media.rules import NO_ADDRESS, IpAddress, Rule, RuleFlag, pack_local

NAT_PROFILE = "phone-behind-nat"
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598: behind a carrier's NAT


class Unusable(Exception):
    """A stream cannot be relayed; ``code`` is one of the protocol's refusals."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Description:
    """One usable stream of one leg, resolved: packed addresses (all zero for none) and their policy."""

    rtp: bytes
    rtcp: bytes
    signalling: bytes
    flags: int  # of RuleFlag: BEHIND_NAT, SECURE, MUX_WANTED
    clock_rate_hz: int


_DESCRIBED_FLAGS = int(RuleFlag.BEHIND_NAT | RuleFlag.SECURE | RuleFlag.MUX_WANTED)
_BEHIND_NAT, _SECURE, _MUX_WANTED = int(RuleFlag.BEHIND_NAT), int(RuleFlag.SECURE), int(RuleFlag.MUX_WANTED)
_RTCP_MUX = int(RuleFlag.RTCP_MUX)


class Host(NamedTuple):
    """An IP literal, understood."""

    version: int
    family: bytes  # in the octets of rules.Address
    ip: bytes
    unspecified: bool
    unicast: bool
    private: bool  # not reachable over the public Internet: what a phone behind NAT puts into its SDP

    def at(self, port: int) -> bytes:
        """The octets of a rules.Address."""
        return self.family + port.to_bytes(2, "big") + self.ip


@lru_cache(maxsize=4096)  # the same few hosts, call after call
def read_host(text: str) -> Host:
    """An IP literal, with IPv4-mapped IPv6 as the IPv4 address that it is; raises ValueError."""
    ip: IpAddress = ipaddress.ip_address(text.strip("[]"))
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    packed = pack_local(ip, 0)
    return Host(
        version=ip.version,
        family=packed[:2],
        ip=packed[4:],
        unspecified=ip.is_unspecified,
        unicast=not ip.is_multicast and ip != _BROADCAST,
        private=ip.is_private or (ip.version == 4 and ip in _SHARED),
    )


def relayable(stream: Stream) -> bool:
    """Is it alive (RFC 3264 §6: port 0 is rejected) and RTP?"""
    return stream.port != 0 and "RTP/" in stream.protocol.upper()


def describe(stream: Stream, realm: RealmInterface, signalling: str, profile: str) -> Description:
    """Resolve a relayable stream of a leg in ``realm``; ``signalling`` is where its SIP came from, or empty.

    Raises Unusable (``malformed``: no IP literal, a port out of range; ``unsupported``: multicast, another IP version
    than the realm's).
    """
    try:
        host = read_host(stream.address)
        source = read_host(signalling) if signalling else None
    except ValueError as error:
        raise Unusable("malformed", str(error)) from None
    rtcp_port = stream.rtcp_port or stream.port + 1
    if not (0 < stream.port <= 65535 and 0 < rtcp_port <= 65536 and 0 < stream.clock_rate_hz <= 1_000_000):
        raise Unusable("malformed", f"port {stream.port}, RTCP port {rtcp_port} or clock rate out of range")
    if not host.unicast:
        raise Unusable("unsupported", f"{stream.address} is no unicast address")
    if host.version != read_host(realm.address).version and not host.unspecified:
        raise Unusable("unsupported", f"{stream.address} cannot be reached from {realm.address}")
    hidden = profile == NAT_PROFILE or (source is not None and source is not host and host.private and source != host)
    flags = _MUX_WANTED if stream.rtcp_mux else 0
    if realm.nat == "always" or (realm.nat == "auto" and hidden):
        flags |= _BEHIND_NAT
    if "SAVP" in stream.protocol.upper():
        flags |= _SECURE
    return Description(
        rtp=_address(host, stream.port),
        rtcp=_address(host, rtcp_port % 65536),
        signalling=_address(source, 1) if source else NO_ADDRESS,
        flags=flags,
        clock_rate_hz=stream.clock_rate_hz,
    )


def _address(host: Host, port: int) -> bytes:
    return NO_ADDRESS if host.unspecified or not port else host.at(port)


# Where the addresses lie in a rule: the described ones are written whole, RTP and RTCP at once.
_REMOTE = Rule.rtp_remote.offset
_SIGNALLED = Rule.rtp_signalled.offset
_SIGNALLING = Rule.signalling.offset


def apply(rule: Rule, described: Description, reopen: bool) -> None:
    """Point a rule at what its leg described.

    An unchanged description keeps the address in use, learned or not; with ``reopen`` (a new offer or answer) the latch
    may move once more. A changed one starts from the described address.
    """
    base = ctypes.addressof(rule)
    both = described.rtp + described.rtcp
    if ctypes.string_at(base + _SIGNALLED, len(both)) != both:
        ctypes.memmove(base + _SIGNALLED, both, len(both))
        ctypes.memmove(base + _REMOTE, both, len(both))
        reopen = True
    if reopen:
        rule.rtp_latched = rule.rtcp_latched = 0
        rule.probation = rule.relayed_unlatched = 0  # and so no candidate
    ctypes.memmove(base + _SIGNALLING, described.signalling, len(described.signalling))
    rule.clock_rate_hz = described.clock_rate_hz
    rule.flags = rule.flags & ~_DESCRIBED_FLAGS | described.flags


def negotiate_mux(one: Rule, other: Rule) -> None:
    """After an answer: RTP and RTCP share a port only where both sides said so (RFC 5761 §5.1.1)."""
    both = one.flags & other.flags & _MUX_WANTED
    for rule in (one, other):
        rule.flags = rule.flags | _RTCP_MUX if both else rule.flags & ~_RTCP_MUX
