"""Connectivity checks of ICE in plain Python, over the same memory as ``ext/c/stun.c``: the specification that the
compiled code is tested against. It is not used to relay."""

from __future__ import annotations

import ctypes
import hmac
import socket
import zlib
from typing import NamedTuple

from media.counters import Handled, Reason
from media.rules import Address, Rule
from media.webrtc import CHECKS_PER_S, REFUSALS_PER_S, Credentials, WebrtcLeg

HEADER = 20
COOKIE = 0x2112A442
FINGERPRINT_XOR = 0x5354554E
MAX_BYTES = 2048
SECOND_NS = 10**9
UNKNOWN_TOLD = 8
REQUEST, INDICATION, SUCCESS, ERROR = 0x0001, 0x0011, 0x0101, 0x0111
MAPPED_ADDRESS, USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES = 0x0001, 0x0006, 0x0008, 0x0009, 0x000A
REALM, NONCE, MESSAGE_INTEGRITY_SHA256, XOR_MAPPED_ADDRESS = 0x0014, 0x0015, 0x001C, 0x0020
PRIORITY, USE_CANDIDATE, FINGERPRINT, ICE_CONTROLLED, ICE_CONTROLLING = 0x0024, 0x0025, 0x8028, 0x8029, 0x802A
# comprehension-required ones that we know, wanted here or not (RFC 8489 §14)
KNOWN = frozenset(
    {
        *(MAPPED_ADDRESS, USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES, REALM, NONCE),
        *(MESSAGE_INTEGRITY_SHA256, XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE),
    }
)


class Message(NamedTuple):
    """What of a sound message matters. ``covered`` is where MESSAGE-INTEGRITY begins."""

    kind: int
    username: bytes | None
    covered: int
    tag: bytes
    unknown: list[int]
    use_candidate: bool
    controlled: bool


def parse(data: bytes) -> Message | None:
    """RFC 8489 §5 and §14: the datagram is one whole message, every attribute lies within it, of several of a type the
    first counts, and behind MESSAGE-INTEGRITY only FINGERPRINT does. None for anything else."""
    if not HEADER <= len(data) <= MAX_BYTES or data[0] & 0xC0 or _u32(data, 4) != COOKIE:
        return None
    if _u16(data, 2) + HEADER != len(data) or len(data) % 4:
        return None
    username: bytes | None = None
    covered, tag, unknown = 0, b"", list[int]()
    use_candidate = controlled = False
    at = HEADER
    while at < len(data):
        kind, size = _u16(data, at), _u16(data, at + 2)
        value, end = data[at + 4 : at + 4 + size], at + 4 + (size + 3) // 4 * 4
        if end > len(data):
            return None
        if kind == FINGERPRINT:
            if size != 4 or end != len(data) or _u32(value, 0) != zlib.crc32(data[:at]) ^ FINGERPRINT_XOR:
                return None
        elif covered:
            pass
        elif kind == MESSAGE_INTEGRITY:
            if size != 20:
                return None
            covered, tag = at, value
        elif kind == USERNAME:
            username = value if username is None else username
        elif kind == USE_CANDIDATE:
            use_candidate = True
        elif kind == ICE_CONTROLLED:
            controlled = True
        elif kind < 0x8000 and kind not in KNOWN and len(unknown) < UNKNOWN_TOLD:
            unknown.append(kind)
        at = end
    return Message(_u16(data, 0), username, covered, tag, unknown, use_candidate, controlled)


def receive(rule: Rule, leg: WebrtcLeg, data: bytes, source: Address, now_ns: int) -> tuple[int, bytes, bool]:
    """STUN for a leg with ICE: a Handled or the Reason why it is dropped, the answer, and whether the leg has moved."""
    message = parse(data)
    if message is None:
        return Reason.BAD_STUN, data, False
    if message.kind == INDICATION:
        return Handled.ABSORBED, data, False
    if message.kind != REQUEST:
        return Reason.BAD_STUN, data, False
    if now_ns - leg.window_ns >= SECOND_NS:
        leg.window_ns = now_ns
        leg.answered = leg.refused = 0
    if message.username is None or not message.covered:
        return Reason.STUN_UNPROVEN, data, False
    credentials = _prove(leg, message, data)
    transaction = data[4:HEADER]
    if credentials is None:
        if leg.refused >= REFUSALS_PER_S:
            return Reason.STUN_UNPROVEN, data, False
        leg.refused += 1
        rule.refused += 1
        return Handled.ANSWERED, build(ERROR, transaction, [_error(401, "Unauthorized")]), False
    if leg.answered >= CHECKS_PER_S:
        return Reason.STUN_LIMIT, data, False
    leg.answered += 1
    password = bytes(credentials.password)
    if message.unknown:
        told = b"".join(kind.to_bytes(2, "big") for kind in message.unknown)
        attributes = [_error(420, "Unknown Attribute"), (UNKNOWN_ATTRIBUTES, told)]
        return Handled.ANSWERED, build(ERROR, transaction, attributes, password), False
    if message.controlled:
        return Handled.ANSWERED, build(ERROR, transaction, [_error(487, "Role Conflict")], password), False
    attributes = [(XOR_MAPPED_ADDRESS, xor_address(source, transaction))]
    is_present = ctypes.addressof(credentials) == ctypes.addressof(leg.present)
    moved = _learn(rule, leg, message, is_present, source, now_ns)
    return Handled.ANSWERED, build(SUCCESS, transaction, attributes, password), moved


def build(kind: int, transaction: bytes, attributes: list[tuple[int, bytes]], password: bytes = b"") -> bytes:
    """A message with its FINGERPRINT, and before that MESSAGE-INTEGRITY where there is a password. ``transaction`` has
    the cookie before it."""
    body = b"".join(_attribute(*attribute) for attribute in attributes)
    head = kind.to_bytes(2, "big")
    if password:
        covered = head + (len(body) + 24).to_bytes(2, "big") + transaction + body
        body += _attribute(MESSAGE_INTEGRITY, hmac.digest(password, covered, "sha1"))
    whole = head + (len(body) + 8).to_bytes(2, "big") + transaction + body
    return whole + _attribute(FINGERPRINT, (zlib.crc32(whole) ^ FINGERPRINT_XOR).to_bytes(4, "big"))


def integrity(data: bytes, covered: int, password: bytes) -> bytes:
    """The tag over everything before ``covered``, as if the message ended with it (RFC 8489 §14.5)."""
    return hmac.digest(password, data[:2] + (covered + 24 - HEADER).to_bytes(2, "big") + data[4:covered], "sha1")


def xor_address(source: Address, transaction: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS (RFC 8489 §14.2)."""
    is_v4 = source.family == socket.AF_INET
    plain = socket.ntohs(source.port).to_bytes(2, "big") + bytes(source.ip)[: 4 if is_v4 else 16]
    mask = transaction[:2] + transaction
    return bytes((0, 1 if is_v4 else 2)) + bytes(a ^ b for a, b in zip(plain, mask, strict=False))


def _prove(leg: WebrtcLeg, message: Message, data: bytes) -> Credentials | None:
    for credentials in (leg.present, leg.former):
        if message.username is not None and _is_for(credentials, message.username):
            tag = integrity(data, message.covered, bytes(credentials.password))
            return credentials if hmac.compare_digest(tag, message.tag) else None
    return None


def _is_for(credentials: Credentials, name: bytes) -> bool:
    """RFC 8445 §7.2.2: ours:theirs."""
    prefix = bytes(credentials.ufrag) + b":"
    if not credentials.valid or not name.startswith(prefix):
        return False
    return not credentials.theirs_known or name[len(prefix) :] == bytes(credentials.theirs)[: credentials.theirs_bytes]


def _learn(rule: Rule, leg: WebrtcLeg, message: Message, is_present: bool, source: Address, now_ns: int) -> bool:
    here, moved = bool(leg.checked_ns) and source == rule.rtp_remote, False
    if is_present:
        if leg.former.valid:
            ctypes.memset(ctypes.byref(leg.former), 0, ctypes.sizeof(Credentials))
        if not here and (message.use_candidate or leg.fresh):
            for address in (rule.rtp_remote, rule.rtcp_remote):
                ctypes.pointer(address)[0] = source
            rule.rtp_latched = rule.rtcp_latched = 1
            moved = here = True
        leg.fresh = 0
    ctypes.pointer(leg.heard)[0] = source
    if here:
        leg.checked_ns = now_ns
    return moved


def _attribute(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def _error(code: int, phrase: str) -> tuple[int, bytes]:
    return ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + phrase.encode()


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
