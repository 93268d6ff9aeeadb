"""UDP payloads of the captures (libpcap format, Ethernet, IPv4 without fragments)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path


def udp_payloads(path: Path) -> Iterator[bytes]:
    """What each UDP datagram of a capture carried, in order."""
    data = path.read_bytes()
    assert struct.unpack_from("<I", data)[0] == 0xA1B2C3D4
    at = 24
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 8)
        frame = data[at + 16 : at + 16 + size]
        at += 16 + size
        header = 14 + 4 * (frame[14] & 15)
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            (length,) = struct.unpack_from("!H", frame, header + 4)
            yield frame[header + 8 : header + length]
