"""Two ends of a stream that send tones in A-law and keep what they hear."""

from __future__ import annotations

import selectors
import socket
import struct
import time

from media.protocol import Stream
from tests.support.waves import from_alaw


class Phone:
    """An end that hears what comes, and can send a tone in A-law."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.port = int(self.socket.getsockname()[1])
        self.heard: list[tuple[float, bytes]] = []
        self.far = 0  # the relay's port; 0: not known yet
        self.far_host = "127.0.0.1"
        self.sent = 0
        self.clip = b""

    def stream(self, **fields: object) -> Stream:
        return Stream(self.host, self.port, **fields)  # type: ignore[arg-type]  # of the test's choice

    def send(self) -> None:
        start = self.sent * 160 % max(1, len(self.clip))
        head = struct.pack("!BBHII", 0x80, 8, self.sent & 0xFFFF, self.sent * 160, self.port)
        self.socket.sendto(head + self.clip[start : start + 160], (self.far_host, self.far))
        self.sent += 1

    def audio(self) -> list[int]:
        return from_alaw(b"".join(data[12:] for _, data in self.heard))


def run(phones: tuple[Phone, Phone], seconds: float, *, until: int = 0) -> None:
    """Let both send each 20 ms, where they know whereto, and listen; ``until`` the first has heard so many packets."""
    with selectors.DefaultSelector() as selector:
        for phone in phones:
            selector.register(phone.socket, selectors.EVENT_READ, phone)
        end = time.monotonic() + seconds
        due = time.monotonic()
        while time.monotonic() < end and not (until and len(phones[0].heard) >= until):
            if time.monotonic() >= due:
                due += 0.02
                for phone in phones:
                    if phone.far:
                        phone.send()
            for key, _ in selector.select(max(0.0, min(due, end) - time.monotonic())):
                try:
                    data = key.data.socket.recv(2048)
                except ConnectionRefusedError:
                    continue
                key.data.heard.append((time.monotonic(), data))
