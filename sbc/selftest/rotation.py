"""Row G2: the certificate of a listener is replaced, by good ones and by others, while somebody is connected."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sbc.selftest.certificate import self_signed
from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import CALLER, OUTSIDE, wait
from sbc.selftest.row import Row
from sbc.selftest.settings import REFUSED, TAKEN
from sbc.selftest.site import Setup, Site
from sbc.selftest.traffic import Traffic

LOOKS = 6  # new connections, which come to any of the workers
KEY_ENDS = b"-----END PRIVATE KEY-----\n"
# What is put in place of the first one: when it begins and ends, in days from now, and what the node must say of it.
OTHERS = (
    ("another good one", -1.0, 300.0, ""),
    ("one that ends soon", -1.0, 6.5, "ends in 6 days"),
    ("one that has ended", -9.0, -1.0, "ended on"),
    ("one that is not valid yet", 2.0, 300.0, "is not valid before"),
    ("the last one", -1.0, 300.0, ""),
)


class Client:
    """One connection by TLS that believes every certificate, and keeps the one that it was shown."""

    def __init__(self, port: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.socket()
        raw.settimeout(5)
        raw.bind((CALLER, 0))
        try:
            raw.connect((OUTSIDE, port))
            self._tls = context.wrap_socket(raw)
        except OSError as error:
            raw.close()
            raise Failed(f"no connection by TLS: {error}") from error
        self.certificate = self._tls.getpeercert(binary_form=True)
        self._asked = 0

    def answers(self) -> bool:
        """Whether an OPTIONS by this connection is answered with 200."""
        self._asked += 1
        host, port = self._tls.getsockname()
        request = (
            f"OPTIONS sip:{OUTSIDE} SIP/2.0\r\nVia: SIP/2.0/TLS {host}:{port};branch=z9hG4bK{port}x{self._asked}\r\n"
            f"From: <sip:probe@{host}>;tag={port}\r\nTo: <sip:{OUTSIDE}>\r\nCall-ID: {port}@{host}\r\n"
            f"CSeq: {self._asked} OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        try:
            self._tls.sendall(request.encode())
            return self._tls.recv(65_536).startswith(b"SIP/2.0 200")
        except OSError:
            return False

    def close(self) -> None:
        with suppress(OSError):
            self._tls.close()


@contextmanager
def connected(port: int) -> Iterator[Client]:
    """A client, until the end of the block."""
    client = Client(port)
    try:
        yield client
    finally:
        client.close()


def shown(port: int) -> bytes | None:
    """The certificate that a new connection gets."""
    with connected(port) as client:
        return client.certificate


def in_der(pem: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.read_bytes().partition(KEY_ENDS)[2].decode())


def certificates_change(site: Site, measures: Measures) -> None:
    """Each is taken over within a second by new connections; the open one goes on, and so does everything else."""
    node, fresh = site.node, site.folder / "fresh.pem"
    calls = site.establish(site.calls)
    site.control(calls, measures)
    fault_at = time.time()
    with connected(node.tls_port) as open_one, Traffic(site) as traffic:
        for what, begins, ends, said in OTHERS:
            self_signed(fresh, OUTSIDE, begins_days=begins, ends_days=ends)
            key, certificate = fresh.read_bytes().split(KEY_ENDS)
            former_key = node.certificate.read_bytes().partition(KEY_ENDS)[0]
            if key == former_key:
                raise Failed("two certificates have the same key")

            # half of it first, as a hand in a hurry does: the new certificate with the former key
            node.certificate.write_bytes(former_key + KEY_ENDS + certificate)
            refused = len(node.logged(REFUSED))
            node.reload()
            wait(lambda refused=refused: len(node.logged(REFUSED)) > refused, 5, "a key that does not fit is refused")  # type: ignore[misc]
            told = " ".join(node.logged(REFUSED)[-1]["faults"])
            measures.expect("do not fit" in told, f"the log does not say that the key does not fit but {told!r}")
            measures.expect(shown(node.tls_port) != in_der(fresh), "a refused certificate is shown")

            node.certificate.write_bytes(fresh.read_bytes())
            taken, asked_s = len(node.logged(TAKEN)), time.monotonic()
            node.reload()
            wait(lambda: all(shown(node.tls_port) == in_der(fresh) for _ in range(LOOKS)), 5, f"all show {what}")
            measures.add("shown after", [time.monotonic() - asked_s], max_s=1.0)
            wait(lambda taken=taken: len(node.logged(TAKEN)) > taken, 5, "a word that it was taken over")  # type: ignore[misc]
            if said:
                wait(lambda said=said: _says(site, said), 5, f"sbc status says that it {said}")  # type: ignore[misc]
            measures.expect(open_one.answers(), f"the open connection is not answered after {what}")
    measures.expect(not traffic.failed, f"{len(traffic.failed)} of {len(traffic.placed)} new calls failed")
    site.measure_gap(calls, fault_at, measures, max_s=0.15)
    site.end(calls, measures)
    site.settled(measures)


def _says(site: Site, words: str) -> bool:
    return any(words in row["state"] for row in site.node.patient("status")["certificates"])


ROWS = (
    Row(
        "G2",
        "certificates change: a key that does not fit, then good ones and ones out of their time",
        "what does not fit is refused; the others are shown within 1 s, and the node says what is wrong with them; "
        "connections and calls go on",
        certificates_change,
        Setup(settings={"tls": True}),
        limit_s=120.0,
    ),
)
