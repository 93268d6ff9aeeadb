"""Values of a=crypto (RFC 4568 §9.1): what of them we can serve, and how ours are written. They hold keys: nothing here
may quote one in an error."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from media.srtp import MKI_BYTES, Suite

# What we offer, the best first; every other suite that has a name is taken when it is offered to us.
OFFERED = (Suite.AEAD_AES_256_GCM, Suite.AEAD_AES_128_GCM, Suite.AES_CM_128_HMAC_SHA1_80)
_SUITES = {suite.name: suite for suite in Suite if suite is not Suite.NULL_HMAC_SHA1_80}
_LIFETIME = re.compile(r"(?:2\^)?[0-9]{1,15}")
_MKI = re.compile(r"([0-9]{1,39}):([0-9]{1,3})")
# Session parameters that ask nothing of us: a hint for our replay window, and the order of error correction.
_HARMLESS = re.compile(r"KDR=0|WSH=[0-9]{2,5}|FEC_ORDER=(?:FEC_SRTP|SRTP_FEC)|-.*")


class Key(NamedTuple):
    """One usable a=crypto line."""

    tag: int
    suite: Suite
    master: bytes  # key and salt
    mki: bytes

    def __repr__(self) -> str:
        return f"<Key {self.tag} {self.suite.name}>"


def read_key(value: str) -> Key | None:
    """The key of one value; None for what we cannot serve: another suite or method, several keys, a parameter that
    changes the packets (RFC 4568 §6.3.7: then the whole line is invalid), or a value that breaks the grammar."""
    fields = value.split()
    if len(fields) < 3 or not (fields[0].isascii() and fields[0].isdigit()) or len(fields[0]) > 9:
        return None
    suite = _SUITES.get(fields[1])
    if suite is None or not all(map(_HARMLESS.fullmatch, fields[3:])):
        return None
    method, _, rest = fields[2].partition(":")
    text, *options = rest.split("|")
    if method.lower() != "inline" or len(options) > 2 or ";" in rest:
        return None
    mki = b""
    if options and (identifier := _MKI.fullmatch(options[-1])):
        number, size = int(identifier[1]), int(identifier[2])
        if not 0 < size <= MKI_BYTES or number >> 8 * size:
            return None
        mki = number.to_bytes(size, "big")
        options.pop()
    if not all(map(_LIFETIME.fullmatch, options)) or len(options) > 1:
        return None
    try:  # some leave the padding out
        master = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return Key(int(fields[0]), suite, master, mki) if len(master) == suite.master_bytes else None


def write_key(tag: int, suite: Suite, master: bytes) -> str:
    """The value of an a=crypto line of ours."""
    return f"{tag} {suite.name} inline:{base64.b64encode(master).decode()}"
