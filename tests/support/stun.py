"""The asking side of ICE for tests: checks, and what is in the answers."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from media import reference_stun as stun

COOKIE = stun.COOKIE.to_bytes(4, "big")


@dataclass
class Agent:
    """A full agent that knows the credentials of both sides."""

    ufrag: str
    password: str
    theirs: str = "abcd"

    def check(
        self,
        *,
        nominate: bool = False,
        role: int = stun.ICE_CONTROLLING,
        more: tuple[tuple[int, bytes], ...] = (),
        transaction: bytes | None = None,
    ) -> bytes:
        """A Binding request as RFC 8445 §7.1 has it; ``more`` are further attributes."""
        attributes = [
            (stun.USERNAME, f"{self.ufrag}:{self.theirs}".encode()),
            (stun.PRIORITY, (1862270975).to_bytes(4, "big")),
            (role, bytes(range(8))),
            *more,
        ]
        if nominate:
            attributes.append((stun.USE_CANDIDATE, b""))
        return stun.build(stun.REQUEST, COOKIE + (transaction or os.urandom(12)), attributes, self.password.encode())


def attributes(message: bytes) -> dict[int, bytes]:
    """Those of a sound message."""
    found, at = {}, stun.HEADER
    assert len(message) == 20 + int.from_bytes(message[2:4], "big")
    while at < len(message):
        kind, size = int.from_bytes(message[at : at + 2], "big"), int.from_bytes(message[at + 2 : at + 4], "big")
        found[kind] = message[at + 4 : at + 4 + size]
        at += 4 + (size + 3) // 4 * 4
    return found


def error_code(message: bytes) -> int:
    """The code of an error response."""
    value = attributes(message)[stun.ERROR_CODE]
    return value[2] * 100 + value[3]


def mapped(message: bytes) -> tuple[str, int]:
    """The address in a success response."""
    value = attributes(message)[stun.XOR_MAPPED_ADDRESS]
    mask = message[4:6] + message[4:20]
    plain = bytes(a ^ b for a, b in zip(value[2:], mask, strict=False))
    return str(ipaddress.ip_address(plain[2:])), int.from_bytes(plain[:2], "big")


def is_authentic(message: bytes, password: str) -> bool:
    """Does its MESSAGE-INTEGRITY fit?"""
    parsed = stun.parse(message)
    assert parsed is not None, "broken, or a wrong FINGERPRINT"
    return stun.integrity(message, parsed.covered, password.encode()) == parsed.tag
