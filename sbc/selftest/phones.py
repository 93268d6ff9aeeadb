"""Phones that keep one connection to their server, by TLS or by WSS, and connect again when it has gone."""

from __future__ import annotations

import base64
import os
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sbc.selftest.agents import TICK_S, TIMEOUT_S, Address, Agent, Asked, UaCall
from sbc.selftest.measure import Failed
from sbc.selftest.node import wait

PING_S = 0.5  # a phone of flesh takes 25 s and more (RFC 5626 §4.4.1)
CONNECT_S = 0.5
RETRY_S = 0.1
_TEXT, _BINARY, _PING, _PONG = 1, 2, 9, 10


class TlsPhone(Agent):
    """An agent whose messages all go by one connection from ``here``'s address to ``server``. It pings, so it notices
    when nobody knows the connection any more; then it connects to the same address, and registers again if it had.

    Its Contact names a port at which nobody listens, as those of phones do. ``open_socket`` gives sockets for TCP.
    """

    transport = "TLS"

    def __init__(
        self,
        here: Address,
        server: Address,
        certificate: Path,
        audio_port: Callable[[], int],
        open_socket: Callable[[], socket.socket],
    ) -> None:
        super().__init__(here[0], audio_port=audio_port, secure=True, open_socket=open_socket)
        self.server = server
        self.port = here[1]
        self.contact = f"<sip:ua{here[1]}@{here[0]}:{here[1]};transport={self.transport.lower()}>"
        self.connected_at: list[float] = []  # each connection: monotonic seconds
        self._again: Asked | None = None
        self._context = ssl.create_default_context(cafile=str(certificate))
        self._registration: tuple[UaCall, str] | None = None
        self._tls: ssl.SSLSocket | None = None
        self._input = bytearray()
        self._ping_at = 0.0

    def __exit__(self, *what: object) -> None:
        super().__exit__(*what)  # type: ignore[arg-type]
        self._break()

    # -- what a test does and sees

    def connect(self, limit_s: float = 15.0) -> None:
        """Connect, and keep connected from now on."""
        self._wants = True
        wait(lambda: self._tls is not None, limit_s, f"a connection by {self.transport}")

    def expect_back(self, at: float, limit_s: float = 35.0) -> float:
        """Wait until it has connected and registered again after that moment (monotonic seconds); how long after it the
        connection was there. Failed where it is refused."""
        wait(lambda: self._tls is not None and self.connected_at[-1] > at, limit_s, f"{self.transport} again")
        wait(lambda: self._again is not None and self._again.status != 0, limit_s, "an answer to REGISTER")
        if self._again is None or self._again.status != 200:
            raise Failed(f"REGISTER by a new connection of {self.transport} is refused")
        return self.connected_at[-1] - at

    def register(self) -> None:
        """Register, and again after each connection. Failed unless it succeeds."""
        with self._lock:
            here = f"<sip:phone{self.port}@{self.server[0]}>"
            call = UaCall(f"{os.urandom(12).hex()}@{self.host}", f"{here};tag={os.urandom(6).hex()}", remote=here)
            call.target, call.far = f"sip:{self.server[0]}", self.server
            asked = self._register(call)
        wait(lambda: asked.status != 0, 35, "an answer to REGISTER")
        if asked.status != 200:
            raise Failed(f"REGISTER by {self.transport} was answered with {asked.status}")
        self._registration = call, here

    def _register(self, call: UaCall) -> Asked:
        return self._ask(call, "REGISTER", extra=["Expires: 300"])

    # -- the connection

    _wants = False

    def _open(self, port: int) -> socket.socket:
        sock = self._open_socket()
        sock.settimeout(CONNECT_S)
        sock.bind((self.host, port))
        return sock

    def _run(self) -> None:
        try:
            while self._running:
                if not self._wants:
                    time.sleep(TICK_S)
                elif self._tls is None:
                    self._connect()
                else:
                    self._turn(self._tls)
        except BaseException as error:
            self.error = error

    def _connect(self) -> None:
        raw = self._socket if self._socket.fileno() >= 0 else self._open(0)
        self._socket = raw
        try:
            raw.connect(self.server)
            tls = self._context.wrap_socket(raw, server_hostname=self.server[0])
            self._greet(tls)
            tls.setblocking(False)
        except OSError:
            raw.close()
            time.sleep(RETRY_S)
            return
        with self._lock:
            self._input.clear()
            self._tls = self._socket = tls
            self.connected_at.append(time.monotonic())
            if self._registration is not None:
                call = self._registration[0]
                call.cseq += 1
                self._again = self._register(call)

    def _break(self) -> None:
        """Nothing of it is of use any more."""
        self._tls = None
        self._socket.close()

    def _turn(self, tls: ssl.SSLSocket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(tls, selectors.EVENT_READ)
            selector.select(TICK_S)
        with self._lock:
            now = time.monotonic()
            try:
                self._read(tls)
                if now >= self._ping_at:
                    self._ping_at = now + PING_S
                    tls.sendall(self._ping())
            except ssl.SSLWantReadError:
                pass
            except OSError:
                self._break()
            self._send_again(now)

    def _read(self, tls: ssl.SSLSocket) -> None:
        with suppress(ssl.SSLWantReadError):
            while True:
                data = tls.recv(65_536)
                if not data:
                    raise ConnectionResetError
                self._input += data
        while (message := self._message()) is not None:
            if message.strip(b"\r\n"):
                self._received(message, self.server)

    def _send(self, data: bytes, to: Address) -> None:
        """By its connection; where it has none, nowhere."""
        if self._tls is not None:
            with suppress(OSError):
                self._tls.sendall(self._framed(data))

    def _send_again(self, now: float) -> None:
        """Nothing, as a connection does that (RFC 3261 §17.1.1.2); what has no answer for too long has none."""
        for key, (asked, _) in list(self._waiting.items()):
            if now - asked.sent_at > TIMEOUT_S and not asked.provisional:
                asked.status = 408
                del self._waiting[key]

    # -- what differs for WSS

    def _greet(self, tls: ssl.SSLSocket) -> None:
        """What comes before the first message. OSError where the server is none."""

    def _ping(self) -> bytes:
        return b"\r\n\r\n"

    def _framed(self, data: bytes) -> bytes:
        return data

    def _message(self) -> bytes | None:
        """The next one that is whole, a pong included (RFC 3261 §18.3)."""
        if self._input.startswith(b"\r\n"):
            del self._input[:2]
            return b"\r\n"
        head, found, _ = self._input.partition(b"\r\n\r\n")
        if not found:
            return None
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith((b"content-length:", b"l:"))]
        end = len(head) + 4 + (int(lengths[0].partition(b":")[2]) if lengths else 0)
        if len(self._input) < end:
            return None
        message = bytes(self._input[:end])
        del self._input[:end]
        return message


class WssPhone(TlsPhone):
    """The same by WebSocket (RFC 7118), each message a frame."""

    transport = "WSS"

    def _greet(self, tls: ssl.SSLSocket) -> None:
        asks = (
            f"GET / HTTP/1.1\r\nHost: {self.server[0]}:{self.server[1]}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: sip\r\n\r\n"
        )
        tls.sendall(asks.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = tls.recv(1)  # the first frame is to stay where it is
            if not data:
                raise ConnectionResetError
            answer += data
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionRefusedError(answer.decode())

    def _ping(self) -> bytes:
        return _frame(_PING, b"")

    def _framed(self, data: bytes) -> bytes:
        return _frame(_TEXT, data)

    def _message(self) -> bytes | None:
        """The payload of the next frame (RFC 6455 §5.2); none comes in pieces or masked from a server of ours."""
        if len(self._input) < 2:
            return None
        kind, length, start = self._input[0] & 15, self._input[1] & 127, 2
        if length == 126:
            if len(self._input) < 4:
                return None
            length, start = struct.unpack_from("!H", self._input, 2)[0], 4
        if len(self._input) < start + length:
            return None
        payload = bytes(self._input[start : start + length])
        del self._input[: start + length]
        return payload if kind in (_TEXT, _BINARY) else b""


def _frame(kind: int, payload: bytes) -> bytes:
    """One frame of a client, masked (RFC 6455 §5.3)."""
    mask = os.urandom(4)
    length = len(payload)
    head = bytes((0x80 | kind, 0x80 | length)) if length < 126 else struct.pack("!BBH", 0x80 | kind, 0xFE, length)
    return head + mask + bytes(octet ^ mask[n % 4] for n, octet in enumerate(payload))
