"""A UDP port that sends octets as they are: for messages that no user agent would send."""

from __future__ import annotations

import itertools
import select
import socket
import time
from typing import Self

Address = tuple[str, int]
_numbers = itertools.count(1)


class Raw:
    """One port of ``host``; what it received stays in its queue until it is taken."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.host = host
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((host, port))
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes, to: Address) -> None:
        self._socket.sendto(data, to)

    def take(self) -> list[tuple[bytes, Address]]:
        """All that has arrived, with its source."""
        found = []
        while True:
            try:
                found.append(self._socket.recvfrom(65_535))
            except BlockingIOError:
                return found

    def next(self, timeout_s: float = 2.0) -> bytes:
        """The next datagram; b'' when none comes in time."""
        if select.select([self._socket], [], [], timeout_s)[0]:
            return self._socket.recv(65_535)
        return b""

    def request(self, method: str, to: Address, *, body: bytes = b"", more: tuple[str, ...] = ()) -> bytes:
        """A sound request of our own; ``more`` are header lines that replace ours of the same name or are added."""
        number = next(_numbers)
        ours = {
            "via": f"Via: SIP/2.0/UDP {self.host}:{self.port};rport;branch=z9hG4bKraw{number}",
            "max-forwards": "Max-Forwards: 70",
            "from": f"From: <sip:raw@{self.host}>;tag=raw{number}",
            "to": f"To: <sip:1001@{to[0]}>",
            "call-id": f"Call-ID: raw{number}@{self.host}",
            "cseq": f"CSeq: 1 {method}",
            "contact": f"Contact: <sip:raw@{self.host}:{self.port}>",
        }
        if body:
            ours["content-type"] = "Content-Type: application/sdp"
        for line in more:
            ours[line.partition(":")[0].lower()] = line
        lines = [f"{method} sip:1001@{to[0]}:{to[1]} SIP/2.0", *ours.values(), f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body

    def ping(self, to: Address, timeout_s: float = 2.0) -> float:
        """Seconds until an OPTIONS is answered with 200; infinite when it is not in time."""
        # without a user part it is for the SBC itself, not for somebody behind it
        data = self.request("OPTIONS", to).replace(b"OPTIONS sip:1001@", b"OPTIONS sip:", 1)
        branch = data.partition(b"branch=")[2].partition(b"\r")[0]
        start = time.monotonic()
        self.send(data, to)
        while (left_s := start + timeout_s - time.monotonic()) > 0:
            answer = self.next(left_s)
            if answer.startswith(b"SIP/2.0 200 ") and branch in answer:
                return time.monotonic() - start
        return float("inf")

    def best_ping(self, to: Address) -> float:
        """The best of three: what else runs on this machine is not the SBC's fault."""
        return min(self.ping(to) for _ in range(3))


def status_of(data: bytes) -> int:
    """The status of a response; 0 for anything else."""
    words = data.split(b" ", 2)
    return int(words[1]) if words[0] == b"SIP/2.0" and len(words) > 1 and words[1].isdigit() else 0
