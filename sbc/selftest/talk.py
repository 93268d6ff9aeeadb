"""Both ends of many audio streams: 50 packets a second each way, which say whose they are and when they were sent.

A gap is the longest time between two arrivals, by the kernel's clock: this process may be late without being in it.
"""

from __future__ import annotations

import base64
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

INTERVAL_S = 0.020
BEFORE_S = 0.2  # a gap is looked for from so long before a fault
_TIMESTAMP = 35  # SO_TIMESTAMPNS of Linux, which Python does not name
_TIMESPEC = struct.Struct("@qq")
_HEAD = struct.Struct("!BBHII")
_BODY = struct.Struct("!8sIdB")  # call, number of the packet, when it was sent, side
_FILL = bytes(160 - _BODY.size)


@dataclass(slots=True)
class Stream:
    """One end of a call's audio. ``heard``: (wall-clock seconds, number) of each packet of the other end."""

    socket: socket.socket
    ssrc: int
    side: int
    call: bytes = bytes(8)
    far: tuple[str, int] | None = None
    sent: int = 0
    heard: list[tuple[float, int]] = field(default_factory=list)
    foreign: int = 0  # packets of another call
    forged: int = 0  # SRTP that is none, or came twice
    _protect: Any = None  # Any: pylibsrtp has no types
    _unprotect: Any = None

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def is_secure(self) -> bool:
        """Whether it speaks SRTP."""
        return self._protect is not None

    def secure(self, key: str, far_key: str) -> None:
        """Speak SRTP, AES_CM_128_HMAC_SHA1_80, from now on; master keys in base64. ImportError without pylibsrtp."""
        import pylibsrtp

        kinds = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
        sessions = [
            pylibsrtp.Session(pylibsrtp.Policy(key=base64.b64decode(said), ssrc_type=kind))
            for said, kind in zip((key, far_key), kinds, strict=True)
        ]
        self._protect, self._unprotect = sessions[0].protect, sessions[1].unprotect

    def send(self) -> None:
        """One packet to ``far``."""
        head = _HEAD.pack(0x80, 0, self.sent & 0xFFFF, self.sent * 160 & 0xFFFFFFFF, self.ssrc)
        packet = head + _BODY.pack(self.call, self.sent, time.time(), self.side) + _FILL
        self.socket.sendto(packet if self._protect is None else self._protect(packet), self.far or ("", 0))
        self.sent += 1

    def hear(self, data: bytes, at: float) -> None:
        """A packet has come."""
        if self._unprotect is not None:
            try:
                data = self._unprotect(data)
            except Exception:  # pylibsrtp's own, which can be named only where it is installed
                self.forged += 1
                return
        call, number, _, side = _BODY.unpack_from(data, _HEAD.size)
        if call == self.call and side != self.side:
            self.heard.append((at, number))
        else:
            self.foreign += 1

    def gap(self, start: float, end: float) -> float:
        """The longest time without a packet from ``start`` to ``end`` (wall clock), both included."""
        times = [start, *(at for at, _ in self.heard if start <= at <= end), end]
        return max(after - before for before, after in pairwise(times))

    def losses(self, start: float, end: float) -> tuple[int, int]:
        """Of the packets that came in that time: how many are missing between them, and how many came again."""
        numbers = [number for at, number in self.heard if start <= at <= end]
        if not numbers:
            return 0, 0
        known = set(numbers)
        return max(known) - min(known) + 1 - len(known), len(numbers) - len(known)

    def forget(self) -> None:
        """What was heard is no longer of interest."""
        self.heard = []


class Talk:
    """All streams of one host, in a thread until the end of the block. ``open_socket``: where its sockets come from."""

    def __init__(self, host: str, side: int, open_socket: Callable[[], socket.socket] | None = None) -> None:
        self.host = host
        self.side = side
        self._open_socket = open_socket or (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._streams: dict[int, Stream] = {}  # by port
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def open(self) -> int:
        """A new stream, which listens; returns its port."""
        sock = self._open_socket()
        sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        sock.bind((self.host, 0))
        sock.setblocking(False)
        stream = Stream(sock, 0x5E1F0000 + self.side * 0x8000 + len(self._streams), self.side)
        with self._lock:
            self._streams[stream.port] = stream
            self._selector.register(sock, selectors.EVENT_READ, stream)
        return stream.port

    def stream(self, port: int) -> Stream:
        return self._streams[port]

    def close_streams(self, ports: Iterable[int]) -> None:
        """These calls are over."""
        with self._lock:
            for port in ports:
                stream = self._streams.pop(port, None)
                if stream is not None:
                    self._selector.unregister(stream.socket)
                    stream.socket.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        self._thread.join(5)
        self.close_streams(list(self._streams))
        self._selector.close()

    def _run(self) -> None:
        due = time.monotonic()
        while self._running:
            now = time.monotonic()
            if now >= due:
                due = max(due + INTERVAL_S, now - 5 * INTERVAL_S)
                with self._lock:
                    self._send()
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                with self._lock:
                    self._listen(key.data)

    def _send(self) -> None:
        for stream in self._streams.values():
            if stream.far is not None:
                try:
                    stream.send()
                except ConnectionRefusedError:  # of an earlier packet: the relay was away
                    continue

    def _listen(self, stream: Stream) -> None:
        while stream.socket.fileno() >= 0:  # it may just have been closed
            try:
                data, ancillary, _, _ = stream.socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue
            at = time.time()
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMP):
                    seconds, nanoseconds = _TIMESPEC.unpack(value[: _TIMESPEC.size])
                    at = seconds + nanoseconds / 1e9
            if len(data) >= _HEAD.size + _BODY.size:
                stream.hear(data, at)
