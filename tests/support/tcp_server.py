"""A far end that is called by TCP or TLS: accepts any number of connections and answers each request by a rule."""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from sbc.selftest.background import Background
from sbc.sip.framing import Framer

Rule = Callable[[bytes], bytes]  # a request to its answer; b'' is none


def answer(status: str) -> Rule:
    """The same answer to everything but ACK."""

    def rule(request: bytes) -> bytes:
        if request.startswith(b"ACK "):
            return b""
        names = (b"Via", b"From", b"Call-ID", b"CSeq")
        lines = request.split(b"\r\n\r\n", 1)[0].split(b"\r\n")
        kept = [line for line in lines if line.split(b":")[0] in names]
        to = next(line for line in lines if line.startswith(b"To"))
        to += b"" if b";tag=" in to else b";tag=far"
        return b"\r\n".join([f"SIP/2.0 {status}".encode(), *kept, to, b"Content-Length: 0", b"", b""])

    return rule


@dataclass(slots=True)
class Peer:
    """One accepted connection."""

    sock: socket.socket
    received: list[bytes] = field(default_factory=list)
    framer: Framer = field(default_factory=Framer)


class TcpServer(Background):
    """Listens at ``host:port``; ``context`` makes it a TLS server."""

    def __init__(
        self, host: str, port: int = 0, rule: Rule | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__()
        self._rule = rule or answer("486 Busy Here")
        self._context = context
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=64)
        self.port = int(self._listening.getsockname()[1])
        self.peers: list[Peer] = []

    def _close(self) -> None:
        for peer in self.peers:
            peer.sock.close()
        self._listening.close()

    @property
    def received(self) -> list[bytes]:
        """All messages, of all connections in the order of these."""
        return [message for peer in list(self.peers) for message in list(peer.received)]

    def hang_up(self) -> None:
        """Close every connection."""
        for peer in self.peers:
            peer.sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            while self._running:
                for key, _ in selector.select(0.05):
                    if key.data is None:
                        sock, _ = self._listening.accept()
                        sock.settimeout(5)
                        if self._context is not None:
                            sock = self._context.wrap_socket(sock, server_side=True)
                        peer = Peer(sock)
                        self.peers.append(peer)
                        selector.register(sock, selectors.EVENT_READ, peer)
                    elif not self._serve(key.data):
                        selector.unregister(key.data.sock)

    def _serve(self, peer: Peer) -> bool:
        try:
            data = peer.sock.recv(65_536)
            while isinstance(peer.sock, ssl.SSLSocket) and peer.sock.pending():
                data += peer.sock.recv(65_536)
            for message in peer.framer.feed(data):
                peer.received.append(message)
                if reply := self._rule(message):
                    peer.sock.sendall(reply)
        except OSError:
            return False
        return bool(data)
