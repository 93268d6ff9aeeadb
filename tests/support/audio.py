"""Both ends of many audio streams: sequence-numbered RTP every 20 ms, and when and whence each packet arrived."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

Address = tuple[str, int]

INTERVAL_S = 0.020
_HEAD = struct.Struct("!BBHII")
_PAYLOAD = bytes(160)


@dataclass(slots=True)
class Stream:
    """One end: sends to ``far`` once that is set. ``heard``: (seconds, sequence number, source) of each arrival."""

    socket: socket.socket
    ssrc: int
    far: Address | None = None
    sent: int = 0
    heard: list[tuple[float, int, Address]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def longest_silence(self, start: float, end: float) -> float:
        """Seconds, between two arrivals or the edges of the time looked at."""
        times = [start, *(at for at, _, _ in self.heard if start <= at <= end), end]
        return max(after - before for before, after in pairwise(times))


class Audio:
    """All streams of one host, in a thread until the end of the block."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.streams: dict[int, Stream] = {}  # by port
        self.talking = True
        self._running = True
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def open(self) -> int:
        """A new stream; returns its port."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((self.host, 0))
        sock.setblocking(False)
        stream = Stream(sock, 0x1000 + len(self.streams))
        self.streams[stream.port] = stream
        return stream.port

    def talk(self) -> None:
        """Begin to send and to listen, on all streams that are open."""
        for stream in self.streams.values():
            self._selector.register(stream.socket, selectors.EVENT_READ, stream)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        if self._thread.is_alive():
            self._thread.join(5)
        self._selector.close()
        for stream in self.streams.values():
            stream.socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while self._running:
            now = time.monotonic()
            if now >= due:
                due += INTERVAL_S
                if self.talking:
                    self._send()
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._listen(key.data)

    def _send(self) -> None:
        for stream in self.streams.values():
            if stream.far is not None:
                head = _HEAD.pack(0x80, 0, stream.sent & 0xFFFF, stream.sent * 160 & 0xFFFFFFFF, stream.ssrc)
                stream.socket.sendto(head + _PAYLOAD, stream.far)
                stream.sent += 1

    def _listen(self, stream: Stream) -> None:
        now = time.monotonic()
        while True:
            try:
                data, source = stream.socket.recvfrom(2048)
            except BlockingIOError:
                return
            except ConnectionRefusedError:  # the relay was away for a moment
                continue
            stream.heard.append((now, _HEAD.unpack_from(data)[2], source))
