"""Who may ask a media worker over the network: the keys of its clients (CurveZMQ; ZAP is ZeroMQ RFC 27)."""

from __future__ import annotations

import time

import zmq
from zmq.utils import z85

from media.config import Curve, Say

ENDPOINT = "inproc://zeromq.zap.01"
TELL_AGAIN_S = 60.0  # a client that is refused tries again and again
MOST_TOLD = 256


class Gate:
    """Lets the sockets of ``context`` that have a domain accept clients with a known key only. Make it before they are
    bound; whenever ``fd`` became readable, and now and then, :meth:`answer`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], curve: Curve, name: str, say: Say) -> None:
        self._clients = curve.clients
        self._name = name
        self._say = say
        self._told: dict[tuple[str, str], float] = {}
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ENDPOINT)
        self.fd = int(self._socket.getsockopt(zmq.FD))

    def answer(self) -> None:
        """Decide about every client that waits."""
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            version, request_id, _, address, _, mechanism, *credentials = self._socket.recv_multipart(zmq.NOBLOCK)
            known = mechanism == b"CURVE" and len(credentials) == 1 and z85.encode(credentials[0]) in self._clients
            if not known:
                key = z85.encode(credentials[0]).decode() if credentials and len(credentials[0]) == 32 else "none"
                self._tell(address.decode("ascii", "replace").removeprefix("::ffff:"), key)
            verdict = (b"200", b"OK") if known else (b"400", b"unknown key")
            self._socket.send_multipart((version, request_id, *verdict, b"", b""))

    def _tell(self, address: str, key: str) -> None:
        now = time.monotonic()
        if now - self._told.get((address, key), -TELL_AGAIN_S) < TELL_AGAIN_S or len(self._told) >= MOST_TOLD:
            return
        self._told[address, key] = now
        text = f"refused media control from {address}: its key {key} is not among the clients of this node"
        self._say("warning", f"{self._name}: {text}")
