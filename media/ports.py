"""Port pairs of one realm: even RTP, odd RTCP (RFC 3550 §11), drawn at random, each at most once, with quarantine."""

from __future__ import annotations

import os
import struct
from collections import deque
from random import Random, SystemRandom


class BufferedRandom(SystemRandom):
    """The system's random source, asked once for many numbers; only ``random`` is buffered."""

    def __init__(self) -> None:
        self._drawn: list[float] = []
        super().__init__()

    def random(self) -> float:
        """As Random.random: 0 or more, below 1."""
        if not self._drawn:
            self._drawn = [(word >> 11) * 2.0**-53 for word in struct.unpack("=256Q", os.urandom(2048))]
        return self._drawn.pop()


class PortPairs:
    """All even ports of an inclusive range whose odd neighbour is in it too; every operation is O(1).

    A released pair comes back only ``quarantine_s`` later, so that late packets of one call never meet the next one.
    Which pair is drawn is random: spraying a range finds a call only by luck.
    """

    def __init__(self, low: int, high: int, quarantine_s: float, random: Random) -> None:
        self._free = list(range(low + low % 2, high, 2))
        self._taken: set[int] = set()
        self._quarantine: deque[tuple[float, int]] = deque()
        self._quarantine_s = quarantine_s
        self._random = random

    def take(self, now: float) -> int | None:
        """An RTP port, or None when the range is used up."""
        while self._quarantine and self._quarantine[0][0] <= now:
            self._free.append(self._quarantine.popleft()[1])
        if not self._free:
            return None
        free = self._free
        at = int(self._random.random() * len(free))
        free[at], free[-1] = free[-1], free[at]
        port = free.pop()
        self._taken.add(port)
        return port

    def claim(self, ports: set[int]) -> None:
        """Take exactly these, as a predecessor had them; ports outside the range are ignored."""
        self._taken |= ports.intersection(self._free)
        self._free = [port for port in self._free if port not in ports]

    def release(self, port: int, now: float) -> None:
        """Give a pair back, into quarantine. ``now`` must not run backwards; a port not taken is ignored."""
        if port in self._taken:
            self._taken.remove(port)
            self._quarantine.append((now + self._quarantine_s, port))

    @property
    def free(self) -> int:
        """Pairs that could be drawn now or after their quarantine has been noticed by ``take``."""
        return len(self._free)

    @property
    def quarantined(self) -> int:
        """Pairs that wait."""
        return len(self._quarantine)
