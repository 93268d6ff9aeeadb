"""ZMTP 3.1, the wire protocol of ZeroMQ (RFC 37/ZMTP): framing and the NULL handshake of ROUTER and DEALER. Sans-IO.

Both ends of media control speak it on sockets of their own event loop: libzmq hands each message to a thread and back,
which costs more CPU than everything else that a request does. On the wire nothing differs: any ZeroMQ DEALER can
control a media worker, and any ROUTER can stand in for one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

MORE, LONG, COMMAND = 1, 2, 4  # bits of a frame's flags
MAX_FRAMES = 8  # of one message; ours have three
MAX_IDENTITY_BYTES = 255
GREETING_BYTES = 64
# signature, version 3.1, mechanism, as-server, filler
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_PARTNERS = {b"ROUTER": (b"DEALER", b"REQ", b"ROUTER"), b"DEALER": (b"ROUTER", b"REP", b"DEALER")}


class ZmtpError(Exception):
    """The peer speaks something else, or more than it may: end the connection."""


def encode(frames: Sequence[bytes]) -> bytes:
    """One message of at least one frame."""
    return b"".join([_frame(MORE, frame) for frame in frames[:-1]]) + _frame(0, frames[-1])


def _frame(flags: int, body: bytes) -> bytes:
    size = len(body)
    if size < 256:
        return b"%c%c%b" % (flags, size, body)
    return b"%c%b%b" % (flags | LONG, size.to_bytes(8, "big"), body)


def opening(socket_type: bytes, identity: bytes = b"") -> bytes:
    """What each side sends first: its greeting and READY (both may leave at once, NULL waits for nothing)."""
    metadata = b"".join(
        b"%c%s%s%s" % (len(name), name, len(value).to_bytes(4, "big"), value)
        for name, value in ((b"Socket-Type", socket_type), (b"Identity", identity))
    )
    return GREETING + _command(b"READY", metadata)


def _command(name: bytes, content: bytes) -> bytes:
    return _frame(COMMAND, b"%c%b%b" % (len(name), name, content))


class Incoming:
    """What one peer sends. ``ready`` once its READY came; ``identity`` is what it calls itself, often empty.

    ``answer`` holds octets that the protocol itself owes the peer (PONG): send them and empty it.
    """

    __slots__ = ("_greeted", "_max_bytes", "_message", "_partners", "_rest", "answer", "identity", "ready")

    def __init__(self, socket_type: bytes, max_frame_bytes: int) -> None:
        self._partners = _PARTNERS[socket_type]
        self._max_bytes = max_frame_bytes
        self._rest = b""
        self._message: list[bytes] = []
        self._greeted = False
        self.ready = False
        self.identity = b""
        self.answer = b""

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that are complete with ``data``; raises ZmtpError."""
        if self._rest:
            data = self._rest + data
        at = 0
        end = len(data)
        if not self._greeted:
            # Signature and major version as soon as they are there: who speaks something else may never send 64 octets.
            if data[:1] not in (b"", b"\xff") or (end > 9 and data[9] != 0x7F) or (end > 10 and data[10] < 3):
                raise ZmtpError("no ZMTP 3 greeting")
            if end < GREETING_BYTES:
                self._rest = data
                return []
            if data[12:32] != GREETING[12:32]:
                raise ZmtpError("another mechanism than NULL")
            self._greeted = True
            at = GREETING_BYTES
        messages: list[list[bytes]] = []
        while end - at >= 2:
            flags = data[at]
            if flags & LONG:
                if end - at < 9:
                    break
                size = int.from_bytes(data[at + 1 : at + 9], "big")
                start = at + 9
            else:
                size = data[at + 1]
                start = at + 2
            if size > self._max_bytes:
                raise ZmtpError(f"a frame of {size} octets")
            stop = start + size
            if stop > end:
                break
            at = stop
            if flags & COMMAND:
                self._obey(data[start:stop])
                continue
            if not self.ready:
                raise ZmtpError("a message before READY")
            self._message.append(data[start:stop])
            if not flags & MORE:
                messages.append(self._message)
                self._message = []
            elif len(self._message) >= MAX_FRAMES:
                raise ZmtpError(f"a message of more than {MAX_FRAMES} frames")
        self._rest = data[at:] if at < end else b""
        return messages

    def _obey(self, body: bytes) -> None:
        length = body[0] if body else 0
        name, content = body[1 : 1 + length], body[1 + length :]
        if name == b"READY" and not self.ready:
            metadata = _read_metadata(content)
            if metadata.get(b"socket-type", b"") not in self._partners:
                raise ZmtpError("a socket type that does not fit")
            self.identity = metadata.get(b"identity", b"")[:MAX_IDENTITY_BYTES]
            self.ready = True
        elif name == b"PING" and self.ready:
            self.answer += _command(b"PONG", content[2:18])  # after two octets of time to live
        elif name == b"ERROR" or not self.ready:
            raise ZmtpError(f"the peer gave up: {content[1:81]!r}")


def _read_metadata(content: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        name_end = at + 1 + content[at]
        value = name_end + 4
        size = int.from_bytes(content[name_end:value], "big")
        if value + size > len(content):
            raise ZmtpError("READY ends too early")
        found[content[at + 1 : name_end].lower()] = content[value : value + size]
        at = value + size
    return found


Address = str | tuple[str, int]  # a path, or host and port


def parse_endpoint(endpoint: str) -> tuple[socket.AddressFamily, Address]:
    """Family and address of ``ipc://PATH`` or ``tcp://HOST:PORT`` with an IP literal; raises ValueError."""
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest:
        return socket.AF_UNIX, rest
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{endpoint!r} is neither ipc://PATH nor tcp://HOST:PORT")
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))
