"""From what a leg described and where its signalling came from to the addresses and the latch policy of its rule."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, NamedTuple

from media.config import RealmInterface
from media.protocol import Stream
from media.quality import named
from media.rules import (
    ADDRESS_BYTES,
    AT_CLOCK_RATE,
    AT_FEATURES,
    AT_FLAGS,
    AT_LATCH,
    AT_RTP_REMOTE,
    AT_RTP_SIGNALLED,
    AT_SIGNALLING,
    NO_ADDRESS,
    RULE_BYTES,
    RULE_U32,
    Feature,
    IpAddress,
    RuleFlag,
    pack_local,
)
from media.samples import AT_DIRECTION, AT_FORMAT, DIRECTIONS, FORMATS, QUALITY_BYTES, Direction
from media.state import Arena

# the latch of a leg in words of its realm's nat
_NAT_OF: Final = {"fixed": "never", "signalled": "auto", "learn": "always"}
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598: behind a carrier's NAT


class Unusable(Exception):
    """A stream cannot be relayed; ``code`` is one of the protocol's refusals."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class OtherFamily(Unusable):
    """A stream whose far end is of the IP version that its realm has no media address of."""


class Description(NamedTuple):
    """One usable stream of one leg, resolved: packed addresses (all zero for none) and their policy."""

    addresses: bytes  # RTP, then RTCP
    signalling: bytes
    flags: int  # of RuleFlag: BEHIND_NAT, MUX_WANTED
    clock_rate_hz: int
    direction: int  # of media.samples.Direction
    formats: bytes = b""  # as media.samples keeps them


_NO_VOICE: Final = int(Direction.NO_VOICE)
_DIRECTIONS: Final = {name: int(direction) for name, direction in DIRECTIONS.items()}
_DESCRIBED_FLAGS: Final = int(RuleFlag.BEHIND_NAT | RuleFlag.MUX_WANTED)
_BEHIND_NAT: Final = int(RuleFlag.BEHIND_NAT)
_MUX_WANTED: Final = int(RuleFlag.MUX_WANTED)
_RTCP_MUX: Final = int(RuleFlag.RTCP_MUX)
_ONE_PORT: Final = int(Feature.ICE | Feature.DTLS)


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


def describe(stream: Stream, realm: RealmInterface, signalling: str, latch: str = "") -> Description:
    """Resolve a relayable stream of a leg in ``realm``; ``signalling`` is where its SIP came from, or empty; ``latch``
    goes before the nat of the realm.

    Raises Unusable (``malformed``: no IP literal, a port out of range; ``unsupported``: multicast) or its OtherFamily.
    """
    port = stream.port
    rtcp_port = stream.rtcp_port or port + 1
    rate = stream.clock_rate_hz
    if not (0 < port <= 65535 and 0 < rtcp_port <= 65536 and 0 < rate <= 1_000_000):
        raise Unusable("malformed", f"port {port}, RTCP port {rtcp_port} or clock rate out of range")
    host, source, flags = _judge(stream.address, signalling, realm.address, _NAT_OF[latch] if latch else realm.nat)
    if stream.rtcp_mux:
        flags |= _MUX_WANTED
    direction = _DIRECTIONS[stream.direction] | (0 if stream.kind == "audio" else _NO_VOICE)
    formats = _formats(stream.formats) if stream.formats else b""
    if host.unspecified:
        return Description(NO_ADDRESS + NO_ADDRESS, source, flags, rate, direction, formats)
    family, ip = host.family, host.ip
    rtp = family + port.to_bytes(2, "big") + ip
    rtcp = family + rtcp_port.to_bytes(2, "big") + ip if rtcp_port < 65536 else NO_ADDRESS
    return Description(rtp + rtcp, source, flags, rate, direction, formats)


def _formats(described: list[str]) -> bytes:
    """The dynamic payload types whose codec is known, then those codecs: a few will do, they tell samples apart."""
    known = list(named(described).items())[:FORMATS]
    types = bytes(number | 128 for number, _ in known)
    return types.ljust(FORMATS, b"\0") + bytes(int(codec) for _, codec in known).ljust(FORMATS, b"\0")


@lru_cache(maxsize=4096)  # hosts repeat, ports do not
def _judge(address: str, signalling: str, own_address: str, nat: str) -> tuple[Host, bytes, int]:
    """What does not depend on ports: the host of a stream, the packed source of its signalling, the flags."""
    try:
        host = read_host(address)
        source = read_host(signalling) if signalling else None
    except ValueError as error:
        raise Unusable("malformed", str(error)) from None
    if not host.unicast:
        raise Unusable("unsupported", f"{address} is no unicast address")
    if host.version != read_host(own_address).version and not host.unspecified:
        raise OtherFamily("unsupported", f"{address} cannot be reached from {own_address}")
    hidden = source is not None and host.private and source != host
    flags = _BEHIND_NAT if nat == "always" or (nat == "auto" and hidden) else 0
    return host, NO_ADDRESS if source is None or source.unspecified else source.at(1), flags


_UNLATCHED: Final = bytes(4)  # without probation there is no candidate either


def apply(arena: Arena, index: int, described: Description, reopen: bool) -> None:
    """Point a rule at what its leg described.

    An unchanged description keeps the address in use, learned or not; with ``reopen`` (a new offer or answer) the latch
    may move once more. A changed one starts from the described address.
    """
    octets = arena.octets
    at = index * RULE_BYTES
    both = described.addresses
    if octets[at + AT_RTP_SIGNALLED : at + AT_SIGNALLING] != both:
        octets[at + AT_RTP_REMOTE : at + AT_SIGNALLING] = both + both
        reopen = True
    if reopen:
        octets[at + AT_LATCH : at + AT_LATCH + 4] = _UNLATCHED
    octets[at + AT_SIGNALLING : at + AT_SIGNALLING + ADDRESS_BYTES] = described.signalling
    arena.u32[index * RULE_U32 + AT_CLOCK_RATE] = described.clock_rate_hz
    octets[at + AT_FLAGS] = octets[at + AT_FLAGS] & ~_DESCRIBED_FLAGS | described.flags
    quality, at_quality = arena.quality_octets, index * QUALITY_BYTES
    quality[at_quality + AT_DIRECTION] = described.direction
    if described.formats:
        quality[at_quality + AT_FORMAT : at_quality + AT_FORMAT + 2 * FORMATS] = described.formats


def negotiate_mux(arena: Arena, one: int, other: int) -> None:
    """After an answer: RTP and RTCP share a port only where both sides said so (RFC 5761 §5.1.1). A leg with ICE or
    DTLS always has one port (RFC 8834 §4.5), whatever the other has; RTCP then changes ports between them."""
    octets = arena.octets
    own, others = (octets[index * RULE_BYTES + AT_FEATURES] & _ONE_PORT for index in (one, other))
    if own or others:
        share_port(arena, one, own != 0)
        share_port(arena, other, others != 0)
        return
    at, other_at = one * RULE_BYTES + AT_FLAGS, other * RULE_BYTES + AT_FLAGS
    both = octets[at] & octets[other_at] & _MUX_WANTED
    for flags in (at, other_at):
        octets[flags] = octets[flags] | _RTCP_MUX if both else octets[flags] & ~_RTCP_MUX


def has_one_port(arena: Arena, index: int) -> bool:
    """Has the leg of a rule ICE or DTLS, and so RTCP on its RTP port?"""
    return arena.octets[index * RULE_BYTES + AT_FEATURES] & _ONE_PORT != 0


def share_port(arena: Arena, index: int, on: bool) -> None:
    """RTCP goes to the RTP port of a leg, or to its own."""
    at = index * RULE_BYTES + AT_FLAGS
    arena.octets[at] = arena.octets[at] | _RTCP_MUX if on else arena.octets[at] & ~_RTCP_MUX
