"""STUN keep-alives on a SIP socket (RFC 5626 §4.4.2, RFC 8489): the sender learns that we are there, and where we see
it. Nothing else of STUN is served here."""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

_HEAD: Final = struct.Struct("!HHI12s")  # type, length of the attributes, cookie, transaction
_ATTRIBUTE: Final = struct.Struct("!HH")
_REQUEST, _RESPONSE, _COOKIE = 0x0001, 0x0101, 0x2112A442
_XOR_MAPPED_ADDRESS: Final = 0x0020
_OPTIONAL: Final = 0x8000  # attributes from here on may be passed over


def binding_response(data: bytes, host: str, port: int) -> bytes | None:
    """The answer to a Binding request that came from this address; None where the octets are none, or one that asks
    for what a keep-alive does not."""
    if len(data) < _HEAD.size:
        return None
    kind, length, cookie, transaction = _HEAD.unpack_from(data)
    if kind != _REQUEST or cookie != _COOKIE or length % 4 or length != len(data) - _HEAD.size:
        return None
    at = _HEAD.size
    while at < len(data):
        attribute, size = _ATTRIBUTE.unpack_from(data, at)
        at += _ATTRIBUTE.size + size + -size % 4
        if attribute < _OPTIONAL or at > len(data):
            return None
    address = ipaddress.ip_address(host)
    mask = (_COOKIE.to_bytes(4, "big") + transaction)[: len(address.packed)]
    hidden = bytes(one ^ other for one, other in zip(address.packed, mask, strict=True))
    value = struct.pack("!BBH", 0, 1 if address.version == 4 else 2, port ^ _COOKIE >> 16) + hidden
    attributes = _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEAD.pack(_RESPONSE, len(attributes), _COOKIE, transaction) + attributes
