"""A stream connection of a test's own: octets as they are, in the pieces that the test wants."""

from __future__ import annotations

import itertools
import select
import socket
import time
from typing import Self

from sbc.sip.framing import Framer

Address = tuple[str, int]
_numbers = itertools.count(1)


class Stream:
    """A connection from ``host`` to ``to``; ``receive_bytes`` makes its receive buffer small."""

    def __init__(self, host: str, to: Address, *, receive_bytes: int = 0) -> None:
        self.host = host
        self._socket = socket.socket()
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(5)
        self._socket.bind((host, 0))
        self._socket.connect(to)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(self._socket.getsockname()[1])
        self.to = to
        self._framer = Framer()
        self._messages: list[bytes] = []
        self.octets = b""  # all that came
        self.ended = False  # the far side has closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Each piece as a segment of its own."""
        for piece in pieces:
            self._socket.sendall(piece)
            if pause_s:
                time.sleep(pause_s)

    def next(self, timeout_s: float = 3.0) -> bytes:
        """The next message; b'' when none comes in time or the connection is closed."""
        end = time.monotonic() + timeout_s
        while not self._messages:
            if not self.read(end - time.monotonic()):
                return b""
        return self._messages.pop(0)

    def read(self, timeout_s: float) -> bool:
        """Some octets; False when none came or nothing more can."""
        if timeout_s <= 0 or not select.select([self._socket], [], [], timeout_s)[0]:
            return False
        try:
            data = self._socket.recv(65_536)
        except ConnectionError:
            data = b""
        self.ended = self.ended or not data
        self.octets += data
        self._messages += self._framer.feed(data)
        return bool(data)

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> list[tuple[bytes, Address]]:
        """All messages that have arrived, and where from."""
        while not self.ended and self.read(0.000_001):
            pass
        taken, self._messages = self._messages, []
        return [(message, self.to) for message in taken]

    def closed_after(self, timeout_s: float) -> float:
        """Seconds until the far side closes; infinite when it does not in time."""
        start = time.monotonic()
        self._socket.settimeout(timeout_s)
        try:
            while time.monotonic() - start < timeout_s:
                data = self._socket.recv(65_536)
                if not data:
                    return time.monotonic() - start
                self.octets += data
        except TimeoutError:
            return float("inf")
        except ConnectionError:
            return time.monotonic() - start
        return float("inf")

    def request(
        self, method: str, *, call_id: str = "", body: bytes = b"", length: str = "", more: tuple[str, ...] = ()
    ) -> bytes:
        """A sound request; ``length`` stands in for the Content-Length line, ``more`` are further lines."""
        number = next(_numbers)
        user = "" if method == "OPTIONS" else "1001@"  # for nobody in particular: a ping
        lines = [
            f"{method} sip:{user}{self.to[0]}:{self.to[1]};transport=tcp SIP/2.0",
            f"Via: SIP/2.0/TCP {self.host}:{self.port};rport;branch=z9hG4bKstream{number}",
            "Max-Forwards: 70",
            f"From: <sip:raw@{self.host}>;tag=raw{number}",
            f"To: <sip:1001@{self.to[0]}>",
            f"Call-ID: {call_id or f'stream{number}@{self.host}'}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:raw@{self.host}:{self.port};transport=tcp>",
            *(["Content-Type: application/sdp"] if body else []),
            *more,
            length or f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body
