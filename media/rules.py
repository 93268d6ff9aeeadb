"""The forward rule as flat memory: the ctypes mirror of ``struct rule`` in ``ext/c/rule.h``.

A rule is one stream of one leg: the port pair that faces the leg, where the leg is, whom it sends to, and its counters.
The compiled datapath, the reference datapath and a respawned worker all read this same memory.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import sys
from enum import IntFlag
from functools import lru_cache

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NO_RULE = 0xFFFFFFFF
NO_SEQUENCE = 0x10000  # bad_sequence: no jump is pending
# Rule.rtp_latched: the address in use was learned from a host that the leg described or that its signalling came from,
# from the first that came, or is another port of the same host that went on with the stream.
BY_PROOF, ON_TRUST, FOLLOWED = 1, 2, 3
UNLATCHED_PACKETS = 3  # what a leg behind NAT may send from an unproven source before its latch


class RuleFlag(IntFlag):
    """Bits of ``Rule.flags``."""

    IN_USE = 1
    BEHIND_NAT = 2  # a foreign source may be learned
    RTCP_MUX = 4  # this leg takes RTCP on its RTP port (RFC 5761)
    SECURE = 8  # SRTP whose keys only the ends have: RTCP beyond its first header is opaque
    MUX_WANTED = 16  # this leg described a=rtcp-mux; not yet agreed
    SRTP = 32  # this leg speaks SRTP with us, and nothing else
    KEYED = 64  # what lies beside the rule (media.srtp) is in use; not looked at by the datapath


class Feature(IntFlag):
    """Bits of ``Rule.features``: what is done with a stream beyond passing it on, each with memory beside the rule."""

    ICE = 1  # STUN checks are answered, and tell where the leg is (RFC 8445 §2.5)
    DTLS = 2  # keys come by DTLS-SRTP (RFC 5764)
    PROCESSED = 4  # payloads towards the leg are changed: payload types, codecs, DTMF
    TAPPED = 8  # a copy goes to a recorder
    PLAYING = 16  # the leg hears an announcement instead of its peer


class Address(ctypes.Structure):
    """IP address and port; ``family`` 0 is none, ``port`` is in network order, IPv4 uses the first 4 octets."""

    family: int
    port: int
    ip: ctypes.Array[ctypes.c_ubyte]
    _fields_ = [("family", ctypes.c_uint16), ("port", ctypes.c_uint16), ("ip", ctypes.c_uint8 * 16)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and bytes(self) == bytes(other)

    __hash__ = None  # type: ignore[assignment]  # mutable memory

    def __str__(self) -> str:
        if not self.family:
            return ""
        if self.family == socket.AF_INET:
            return f"{socket.inet_ntop(socket.AF_INET, bytes(self.ip)[:4])}:{socket.ntohs(self.port)}"
        return f"[{socket.inet_ntop(socket.AF_INET6, bytes(self.ip))}]:{socket.ntohs(self.port)}"


ADDRESS_BYTES = ctypes.sizeof(Address)
NO_ADDRESS = bytes(ADDRESS_BYTES)


def pack_address(ip: IpAddress | None, port: int) -> bytes:
    """The octets of an Address; all zero (none) for no address, an unspecified one, or port 0."""
    if ip is None or not port or ip.is_unspecified:
        return NO_ADDRESS
    return pack_local(ip, port)


def pack_local(ip: IpAddress, port: int) -> bytes:
    """The octets of an address to bind: as pack_address, but unspecified means every interface."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    return int(family).to_bytes(2, sys.byteorder) + port.to_bytes(2, "big") + ip.packed.ljust(16, b"\0")


class Rule(ctypes.Structure):
    """One stream of one leg. Counters named ``in`` are what the leg sent, ``out`` what we sent to it."""

    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    rtcp_in: int
    rtcp_out: int
    refused: int
    last_arrival_ns: int  # monotonic; set when the rule is made, so that silence counts from then
    duplicates: int
    reordered: int
    seen: int  # bit n: extended sequence number max_sequence - n has arrived
    lost_before: int  # of earlier sources
    received: int  # of the present source, without duplicates
    base_sequence: int  # extended sequence numbers, offset by 65536
    max_sequence: int
    ssrc: int
    transit: int
    last_timestamp: int
    jitter_q4: int  # RFC 3550 A.8: sixteenths of a clock tick
    clock_rate_hz: int
    bad_sequence: int
    peer: int  # index of the rule that gets what arrives here, or NO_RULE
    rtp_fd: int
    rtcp_fd: int
    candidate_ssrc: int
    candidate_sequence: int
    local_port: int
    probation: int
    relayed_unlatched: int
    rtp_latched: int
    rtcp_latched: int
    has_ssrc: int
    flags: int
    features: int
    payload_type: int  # of the last packet
    rtp_remote: Address  # where we send
    rtcp_remote: Address
    rtp_signalled: Address  # what the leg described
    rtcp_signalled: Address
    signalling: Address  # where its signalling came from (port unused)
    candidate: Address  # unproven source of a leg behind NAT; once that is latched, one that goes on with its stream
    slot: int  # session slot that owns this rule
    avpf: int  # the leg has offered feedback (RFC 4585); Python's alone
    follows_ms: int  # since when candidate goes on with the stream, of the monotonic clock
    former: Address  # where the leg was before it was FOLLOWED
    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("packets_in", "bytes_in", "packets_out", "bytes_out", "rtcp_in")),
        *((name, ctypes.c_uint64) for name in ("rtcp_out", "refused", "last_arrival_ns", "duplicates", "reordered")),
        *((name, ctypes.c_uint64) for name in ("seen", "lost_before", "received", "base_sequence", "max_sequence")),
        *((name, ctypes.c_uint32) for name in ("ssrc", "transit", "last_timestamp", "jitter_q4", "clock_rate_hz")),
        *((name, ctypes.c_uint32) for name in ("bad_sequence", "peer")),
        ("rtp_fd", ctypes.c_int32),
        ("rtcp_fd", ctypes.c_int32),
        ("candidate_ssrc", ctypes.c_uint32),
        ("candidate_sequence", ctypes.c_uint16),
        ("local_port", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in ("probation", "relayed_unlatched", "rtp_latched", "rtcp_latched")),
        ("has_ssrc", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("features", ctypes.c_uint8),
        ("payload_type", ctypes.c_uint8),
        *((name, Address) for name in ("rtp_remote", "rtcp_remote", "rtp_signalled", "rtcp_signalled")),
        ("signalling", Address),
        ("candidate", Address),
        ("slot", ctypes.c_uint32),
        ("avpf", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
        ("follows_ms", ctypes.c_uint32),
        ("former", Address),
    ]


RULE_BYTES = ctypes.sizeof(Rule)
# A rule as an array of octets, u16, u32 or u64, for code that runs per request: reading many fields at once, or one
# without an object made for it. Position of a field in units of its own size.
RULE_U16, RULE_U32, RULE_U64 = RULE_BYTES // 2, RULE_BYTES // 4, RULE_BYTES // 8


def _at(name: str, size: int = 1) -> int:
    offset: int = getattr(Rule, name).offset
    return offset // size


AT_LAST_ARRIVAL = _at("last_arrival_ns", 8)
AT_PEER, AT_SLOT, AT_JITTER, AT_CLOCK_RATE = (_at(name, 4) for name in ("peer", "slot", "jitter_q4", "clock_rate_hz"))
AT_LOCAL_PORT = _at("local_port", 2)
AT_FLAGS, AT_HAS_SSRC, AT_RTP_LATCHED, AT_RTP_REMOTE = map(_at, ("flags", "has_ssrc", "rtp_latched", "rtp_remote"))
AT_FEATURES, AT_PAYLOAD_TYPE, AT_AVPF = map(_at, ("features", "payload_type", "avpf"))
# A described leg: the addresses in use, the same as described, and the signalling's, in a row.
AT_RTP_SIGNALLED, AT_SIGNALLING = _at("rtp_signalled"), _at("signalling")
# probation, relayed_unlatched, rtp_latched, rtcp_latched: four octets in a row
AT_LATCH = _at("probation")
assert RULE_BYTES % 8 == 0


def _blank() -> bytes:
    rule = Rule()
    rule.peer = NO_RULE
    rule.bad_sequence = NO_SEQUENCE
    rule.clock_rate_hz = 8000
    return bytes(rule)


BLANK = _blank()  # a rule as it is made: sends to nobody, has heard nothing


@lru_cache(maxsize=4096)
def address_text(octets: bytes) -> str:
    """The text of an Address, "" for none."""
    return str(Address.from_buffer_copy(octets))


def lost_packets(rule: Rule) -> int:
    """RFC 3550 A.3: expected minus received, over all sources that this stream had; never below 0."""
    if not rule.has_ssrc:
        return rule.lost_before
    return rule.lost_before + max(0, rule.max_sequence - rule.base_sequence + 1 - rule.received)
