"""An HTTP server of a test in a thread of its own: each path behaves in its own way, well or badly."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections import Counter

HANG_S = 20.0  # longer than any test waits
_OK = b"HTTP/1.1 200 OK\r\n"


class HttpServer:
    """Answers by path. ``requests`` and ``connections`` count; ``bodies`` are what came; ``stop`` kills it."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._stopped = threading.Event()
        self._released = threading.Event()
        self.asked = threading.Event()  # the first request is here
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Close everything: the port refuses from now on."""
        self._stopped.set()
        self._released.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        """Requests that hang end without an answer."""
        self._released.set()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True)
            file = sock.makefile("rb")
            while head := self._head(file):
                method, path, *_ = head[0].split()
                self.requests[path] += 1
                self.asked.set()
                self.heads.append("\n".join(head))
                length = next((int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0)
                self.bodies.append(file.read(length))
                if not self._answer(sock, method, path):
                    break
        self._open.discard(raw)
        with contextlib.suppress(OSError):
            sock.close()
        raw.close()

    @staticmethod
    def _head(file: object) -> list[str]:
        lines = []
        for line in file:  # type: ignore[attr-defined]  # a buffered reader
            if line == b"\r\n":
                break
            lines.append(line.decode().strip())
        return lines

    def _answer(self, sock: socket.socket, method: str, path: str) -> bool:
        """Answer one request; False ends the connection."""
        where = path.partition("?")[0]
        if where == "/slow":
            self._released.wait(HANG_S)
            return False
        if where == "/drip":  # an octet now and then, never the end of it
            sock.sendall(_OK + b"Content-Length: 1000\r\n\r\n")
            until = time.monotonic() + HANG_S
            while time.monotonic() < until and not self._stopped.wait(0.05):
                sock.sendall(b"x")
            return False
        if where == "/garbage":
            sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            return False
        if where == "/huge":
            sock.sendall(_OK + b"Content-Length: 50000000\r\n\r\n" + b"x" * 65536)
            return False
        if where == "/endless":
            sock.sendall(_OK + b"Transfer-Encoding: chunked\r\n\r\n")
            while not self._stopped.is_set():
                sock.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            return False
        if where == "/cut":
            sock.sendall(_OK + b"Content-Length: 100\r\n\r\nhalf")
            return False
        if where == "/redirect":
            sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: /json\r\nContent-Length: 0\r\n\r\n")
            return True
        if where == "/once":  # says that it keeps the connection, and closes it
            body = b"{}"
            sock.sendall(_OK + b"Content-Length: 2\r\n\r\n" + body)
            return False
        if where.startswith("/status/"):
            sock.sendall(f"HTTP/1.1 {where[8:]} So\r\nContent-Length: 4\r\n\r\nwhy?".encode())
            return True
        if where == "/chunked":
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"Transfer-Encoding: chunked\r\n\r\n")
            sock.sendall(b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")
            return True
        body = json.dumps({"method": method, "path": path}).encode()
        sock.sendall(_OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return True
