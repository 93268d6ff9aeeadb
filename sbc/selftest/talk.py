"""Both ends of many audio streams: 50 packets a second each way, which say whose they are and when they were sent.

A gap is the longest time between two arrivals, by the kernel's clock: this process may be late without being in it. So
it reads in batches, and looks into what it read (and decrypts it) only when somebody asks: two hundred calls are to
leave the machine to the SBC.
"""

from __future__ import annotations

import base64
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sbc.selftest.background import Background

INTERVAL_S = 0.020
LOOK_S = 0.010  # how often arrivals are read; a socket's queue holds a second of them
LEAP = 30_000  # packets that may be lost at once without a receiver's losing count of rollovers (RFC 3711 §3.3.1)
BEFORE_S = 0.2  # a gap is looked for from so long before a fault
_TIMESTAMP = 35  # SO_TIMESTAMPNS of Linux, which Python does not name
_TIMESPEC = struct.Struct("@qq")
_HEAD = struct.Struct("!BBHII")
_BODY = struct.Struct("!8sIdB")  # call, number of the packet, when it was sent, side
_FILL = bytes(160 - _BODY.size)


@dataclass(slots=True)
class Stream:
    """One end of a call's audio."""

    socket: socket.socket
    ssrc: int
    side: int
    call: bytes = bytes(8)
    far: tuple[str, int] | None = None
    sent: int = 0
    _raw: list[tuple[float, bytes]] = field(default_factory=list)  # what nobody has looked into yet, oldest first
    _heard: list[tuple[float, int]] = field(default_factory=list)
    _foreign: int = 0
    _forged: int = 0
    _ready: deque[bytes] = field(default_factory=deque)  # SRTP that was made before
    _protect: Any = None  # Any: pylibsrtp has no types
    _unprotect: Any = None

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def heard(self) -> list[tuple[float, int]]:
        """(Wall-clock seconds, number) of each packet of the other end."""
        self._look()
        return self._heard

    @property
    def foreign(self) -> int:
        """Packets of another call."""
        self._look()
        return self._foreign

    @property
    def forged(self) -> int:
        """SRTP that is none, or came twice."""
        self._look()
        return self._forged

    @property
    def is_secure(self) -> bool:
        """Whether it speaks SRTP."""
        return self._protect is not None

    def secure(self, key: str, far_key: str) -> None:
        """Speak SRTP from now on, see :func:`srtp`."""
        self._protect, self._unprotect = srtp(key, far_key)

    def prepare(self, packets: int) -> None:
        """Make so many of the next packets now rather than when they are due."""
        if self._protect is not None:
            self._ready += [self._protect(self._packet(self.sent + n, time.time())) for n in range(packets)]

    def age(self) -> None:
        """Send one packet as if nearly as many had been lost before it as may be; see LEAP."""
        self._ready.clear()
        self.sent += LEAP
        self.send(time.time())

    def send(self, at: float | None = None) -> None:
        """One packet to ``far``."""
        if self._ready:
            packet = self._ready.popleft()
        else:
            packet = self._packet(self.sent, at or time.time())
            if self._protect is not None:
                packet = self._protect(packet)
        self.sent += 1
        self.socket.sendto(packet, self.far or ("", 0))

    def _packet(self, number: int, at: float) -> bytes:
        head = _HEAD.pack(0x80, 0, number & 0xFFFF, number * 160 & 0xFFFFFFFF, self.ssrc)
        return head + _BODY.pack(self.call, number, at, self.side) + _FILL

    def hear(self, data: bytes, at: float) -> None:
        """A packet has come; it is looked into later."""
        self._raw.append((at, data))

    def heard_since(self, at: float, packets: int) -> bool:
        """Whether so many have come after that moment, whatever is in them."""
        came = [when for when, _ in self._raw[-packets:]]
        if len(came) < packets:
            came = [when for when, _ in self._heard[len(came) - packets :]] + came
        return len(came) >= packets and came[0] > at

    def _look(self) -> None:
        count = len(self._raw)  # the thread may add more
        for at, data in self._raw[:count]:
            if self._unprotect is not None:
                try:
                    data = self._unprotect(data)
                except Exception:  # pylibsrtp's own, which can be named only where it is installed
                    self._forged += 1
                    continue
            call, number, _, side = _BODY.unpack_from(data, _HEAD.size)
            if call == self.call and side != self.side:
                self._heard.append((at, number))
            else:
                self._foreign += 1
        del self._raw[:count]

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
        self._look()
        self._heard.clear()


def srtp(key: str, far_key: str) -> tuple[Any, Any]:  # Any: pylibsrtp has no types
    """What makes SRTP, AES_CM_128_HMAC_SHA1_80, of RTP, and what undoes that for the other side's; master keys in
    base64. ImportError without pylibsrtp."""
    import pylibsrtp

    kinds = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
    ours, theirs = (
        pylibsrtp.Session(pylibsrtp.Policy(key=base64.b64decode(said), ssrc_type=kind))
        for said, kind in zip((key, far_key), kinds, strict=True)
    )
    return ours.protect, theirs.unprotect


class Talk(Background):
    """All streams of one host, in a thread until the end of the block. ``open_socket``: where its sockets come from."""

    def __init__(self, host: str, side: int, open_socket: Callable[[], socket.socket] | None = None) -> None:
        super().__init__()
        self.host = host
        self.side = side
        self._open_socket = open_socket or (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._streams: dict[int, Stream] = {}  # by port
        self._lock = threading.Lock()
        self._poll = select.epoll()
        self._readers: dict[int, Stream] = {}  # by descriptor
        self._silent = False

    def open(self) -> int:
        """A new stream, which listens; returns its port."""
        sock = self._open_socket()
        sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        sock.bind((self.host, 0))
        sock.setblocking(False)
        stream = Stream(sock, 0x5E1F0000 + self.side * 0x8000 + len(self._streams), self.side)
        with self._lock:
            self._streams[stream.port] = stream
            self._readers[sock.fileno()] = stream
            self._poll.register(sock, select.EPOLLIN)
        return stream.port

    def stream(self, port: int) -> Stream:
        return self._streams[port]

    def be_silent(self, silent: bool) -> None:
        """From now on nothing is sent by itself, or all is again; what comes is heard either way."""
        with self._lock:
            self._silent = silent

    def close_streams(self, ports: Iterable[int]) -> None:
        """These calls are over."""
        with self._lock:
            for port in ports:
                stream = self._streams.pop(port, None)
                if stream is not None:
                    del self._readers[stream.socket.fileno()]
                    self._poll.unregister(stream.socket)
                    stream.socket.close()

    def _close(self) -> None:
        self.close_streams(list(self._streams))
        self._poll.close()

    def _run(self) -> None:
        due = time.monotonic()
        while self._running:
            now = time.monotonic()
            with self._lock:
                if now >= due:
                    due = max(due + INTERVAL_S, now - 5 * INTERVAL_S)
                    if not self._silent:
                        self._send()
                while self._listen():
                    pass
            time.sleep(max(0.0, min(LOOK_S, due - time.monotonic())))

    def _send(self) -> None:
        at = time.time()
        for stream in self._streams.values():
            if stream.far is not None:
                try:
                    stream.send(at)
                except ConnectionRefusedError:  # of an earlier packet: the relay was away
                    continue

    def _listen(self) -> int:
        """One packet of each stream that has any; how many those are."""
        ready = self._poll.poll(0)
        for descriptor, _ in ready:
            stream = self._readers[descriptor]
            try:
                data, ancillary, _, _ = stream.socket.recvmsg(2048, 64)
            except (BlockingIOError, ConnectionRefusedError):
                continue
            at = 0.0
            for level, kind, value in ancillary:
                if kind == _TIMESTAMP and level == socket.SOL_SOCKET:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    at = seconds + nanoseconds / 1e9
            if len(data) >= _HEAD.size + _BODY.size:
                stream.hear(data, at or time.time())
        return len(ready)
