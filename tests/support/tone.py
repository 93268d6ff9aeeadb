"""A plain RTP end that plays a tone as PCMU (ITU-T G.711), or what it hears, and keeps that."""

from __future__ import annotations

import math
import select
import socket
import struct
import time

from sbc.selftest.background import Background

Address = tuple[str, int]
RATE_HZ = 8000
SAMPLES = 160  # of a packet: 20 ms


def mu_law(sample: int) -> int:
    """The octet of a sample of 16 bits."""
    magnitude = min(abs(sample), 32635) + 132
    exponent = magnitude.bit_length() - 8
    octet = exponent << 4 | (magnitude >> exponent + 3) & 15
    return ~(octet | (128 if sample < 0 else 0)) & 255


class Tone(Background):
    """Sends to ``far`` once that is set, until the end of the block; ``heard`` are the packets that came, whole.
    ``hz`` 0: no tone, but every packet back to where it came from."""

    def __init__(self, host: str, hz: int, *, loudness: int = 8000) -> None:
        super().__init__()
        self.far: Address | None = None
        self.heard: list[bytes] = []
        self.sent = 0
        self._echoes = hz == 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self._octets = bytes(
            mu_law(int(loudness * math.sin(2 * math.pi * hz * at / RATE_HZ))) for at in range(RATE_HZ)
        )  # one second, of whole periods

    def _close(self) -> None:
        self._socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while self._running:
            if select.select([self._socket], [], [], max(0.0, due - time.monotonic()))[0]:
                self._listen()
            if time.monotonic() >= due:
                due += SAMPLES / RATE_HZ
                if self.far is not None and not self._echoes:
                    self._send(self.far)

    def _listen(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(2048)
                self.heard.append(data)
                if self._echoes:
                    self._socket.sendto(data, source)
            except (BlockingIOError, ConnectionRefusedError):
                return

    def _send(self, far: Address) -> None:
        at = self.sent * SAMPLES % RATE_HZ
        head = struct.pack("!BBHII", 0x80, 0, self.sent & 0xFFFF, self.sent * SAMPLES, 0x70E)
        self._socket.sendto(head + self._octets[at : at + SAMPLES], far)
        self.sent += 1
