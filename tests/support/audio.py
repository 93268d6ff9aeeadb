"""Both ends of many audio streams: sequence-numbered RTP every 20 ms, and when and whence each packet arrived.

Streams may speak SRTP (by libsrtp) and be of any age.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import pylibsrtp

from sbc.selftest.background import Background
from sbc.selftest.talk import INTERVAL_S, srtp

Address = tuple[str, int]

_LEAP = 20_000  # in sequence numbers: a receiver must still see which way it went (RFC 3711 §3.3.1)
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
    forged: int = 0  # what came under another key, or a second time
    refused: int = 0  # times that the far port was closed (ICMP), which only a connected socket hears of
    payload: bytes = _PAYLOAD
    expected: bytes = _PAYLOAD
    _protect: Any = None  # Any: pylibsrtp has no types
    _unprotect: Any = None
    _last: bytes = b""

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def secure(self, key: str, far_key: str) -> None:
        """Speak SRTP from now on, see :func:`sbc.selftest.talk.srtp`."""
        self._protect, self._unprotect = srtp(key, far_key)

    def send(self) -> None:
        """One packet, to where ``far`` is."""
        assert self.far is not None
        packet = _HEAD.pack(0x80, 0, self.sent & 0xFFFF, self.sent * 160 & 0xFFFFFFFF, self.ssrc) + self.payload
        self._last = packet if self._protect is None else self._protect(packet)
        try:
            self.socket.sendto(self._last, self.far)
        except ConnectionRefusedError:  # what an earlier packet has met
            self.refused += 1
            self.socket.sendto(self._last, self.far)
        self.sent += 1

    def send_again(self) -> None:
        """The last packet, a second time."""
        assert self.far is not None
        self.socket.sendto(self._last, self.far)

    def age(self, rollovers: int) -> None:
        """As after so many rollovers of the sequence number: send as if nearly everything had been lost until then."""
        while self.sent >> 16 < rollovers:
            self.send()
            self.sent += _LEAP
            time.sleep(0.001)

    def hear(self, data: bytes, source: Address, now: float) -> None:
        """A packet has come."""
        if self._unprotect is not None:
            try:
                data = self._unprotect(data)
            except pylibsrtp.Error:
                self.forged += 1
                return
        assert data[12:] == self.expected
        self.heard.append((now, _HEAD.unpack_from(data)[2], source))

    def longest_silence(self, start: float, end: float) -> float:
        """Seconds, between two arrivals or the edges of the time looked at."""
        times = [start, *(at for at, _, _ in self.heard if start <= at <= end), end]
        return max(after - before for before, after in pairwise(times))


class Audio(Background):
    """All streams of one host, in a thread until the end of the block. ``open_socket``: where its sockets come from."""

    def __init__(self, host: str, open_socket: Callable[[], socket.socket] | None = None) -> None:
        super().__init__()
        self.host = host
        self._open_socket = open_socket or (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.streams: dict[int, Stream] = {}  # by port
        self.talking = True
        self.repeats = False  # every packet is sent twice
        self._selector = selectors.DefaultSelector()

    def open(self) -> int:
        """A new stream; returns its port."""
        sock = self._open_socket()
        sock.bind((self.host, 0))
        sock.setblocking(False)
        stream = Stream(sock, 0x1000 + len(self.streams))
        self.streams[stream.port] = stream
        return stream.port

    def talk(self) -> None:
        """Begin to send and to listen, on all streams that are open."""
        for stream in list(self.streams.values()):  # others may open some
            self._selector.register(stream.socket, selectors.EVENT_READ, stream)
        self._thread.start()

    def __enter__(self) -> Self:  # the thread begins with :meth:`talk`
        return self

    def _close(self) -> None:
        self._selector.close()
        for stream in list(self.streams.values()):  # others may open some
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
        for stream in list(self.streams.values()):  # others may open some
            if stream.far is not None:
                stream.send()
                if self.repeats:
                    stream.send_again()

    def _listen(self, stream: Stream) -> None:
        now = time.monotonic()
        while True:
            try:
                data, source = stream.socket.recvfrom(2048)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                stream.refused += 1
                continue
            stream.hear(data, source, now)
