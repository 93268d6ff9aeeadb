"""The ng control protocol of rtpengine: a cookie, a space and a bencoded dictionary in each datagram."""

from __future__ import annotations

import itertools
import socket
from typing import Union

Value = Union[str, int, list["Value"], dict[str, "Value"]]  # noqa: UP007 - a string cannot be joined with |

_cookies = itertools.count(1)


def encode(value: Value) -> bytes:
    """Bencode (dictionary keys sorted)."""
    match value:
        case int():
            return b"i%de" % value
        case str():
            raw = value.encode()
            return b"%d:%b" % (len(raw), raw)
        case list():
            return b"l%be" % b"".join(map(encode, value))
        case dict():
            return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))


def decode(data: bytes) -> Value:
    """Read one bencoded value; ValueError when it is none."""
    value, end = _decode(data, 0)
    if end != len(data):
        raise ValueError("octets after the value")
    return value


def _decode(data: bytes, at: int) -> tuple[Value, int]:
    lead = data[at : at + 1]
    if lead == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if lead == b"l":
        items: list[Value] = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _decode(data, at)
            items.append(item)
        return items, at + 1
    if lead == b"d":
        pairs: dict[str, Value] = {}
        at += 1
        while data[at : at + 1] != b"e":
            key, at = _decode(data, at)
            pairs[str(key)], at = _decode(data, at)
        return pairs, at + 1
    colon = data.index(b":", at)
    start, size = colon + 1, int(data[at:colon])
    return data[start : start + size].decode(errors="surrogateescape"), start + size


def request(command: dict[str, Value]) -> tuple[bytes, bytes]:
    """A fresh cookie, and the datagram that asks."""
    cookie = b"c%d" % next(_cookies)
    return cookie, cookie + b" " + encode(command)


def reply(data: bytes) -> dict[str, Value]:
    """What a datagram answers; ValueError when it is no answer."""
    told = decode(data.partition(b" ")[2])
    if not isinstance(told, dict):
        raise ValueError("not an ng reply")
    return told


def ask(address: tuple[str, int], command: dict[str, Value], timeout_s: float = 2.0) -> dict[str, Value]:
    """One request, one reply; OSError when none comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(address)
        sock.send(request(command)[1])
        return reply(sock.recv(65536))
