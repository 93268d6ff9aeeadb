"""SIP over TLS: calls, certificates that must not be believed, mutual TLS, and a reload."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sbc.sip.framing import Framer
from tests.support.certificates import Authority, Pair
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, Loopback, loopback
from tests.support.raw import status_of
from tests.support.sbc import eventually, free_port, running
from tests.support.tcp import Stream


class TlsStream(Stream):
    """The same, encrypted."""

    def __init__(self, host: str, to: tuple[str, int], context: ssl.SSLContext, name: str = "") -> None:
        super().__init__(host, to)
        self._socket.settimeout(5)
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=name or to[0])
        except BaseException:
            self._socket.close()
            raise

    def certified(self) -> list[str]:
        """The names that the server's certificate bears."""
        assert isinstance(self._socket, ssl.SSLSocket)
        certificate = self._socket.getpeercert()
        assert certificate is not None
        names: tuple[tuple[str, str], ...] = certificate["subjectAltName"]  # type: ignore[assignment]  # typeshed is wider
        return [name for _, name in names]

    def read(self, timeout_s: float) -> bool:
        self._socket.settimeout(max(0.01, timeout_s))  # a record may wait within the TLS layer, unseen by select
        try:
            data = self._socket.recv(65_536)
        except OSError:
            return False
        self.octets += data
        self._messages += self._framer.feed(data)
        return bool(data)


def trusting(authority: Authority, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def tls_site(directory: Path, authority: Authority, *, verify: str = "server", name: str = "") -> tuple[Loopback, int]:
    """The loopback site with TLS beside UDP; the callee is called by TLS. Returns it and our TLS port outside."""
    net = loopback()
    outside_port, core_port = free_port(OUTSIDE), free_port(CORE)
    text = net.text
    directory.mkdir(parents=True, exist_ok=True)
    for host, udp, port in ((OUTSIDE, net.port, outside_port), (CORE, net.core_port, core_port)):
        pair = authority.sign(f"sbc-{host}", f"IP:{host},DNS:sbc.example")
        for file in (pair.certificate, pair.key):
            shutil.copy(file, directory)
        tls = f"certificate: {pair.certificate.name}, key: {pair.key.name}, ca: {authority.certificate}"
        text = text.replace(
            f"[udp:{host}:{udp}]",
            f"[udp:{host}:{udp}, tls:{host}:{port}]\n    tls: {{ {tls}, verify: {verify} }}",
        )
    gateway = f"sip:{CALLEE}:{net.callee_port}"
    more = f", tls_name: {name}" if name else ""
    text = text.replace(f'"{gateway}"', f'"{gateway};transport=tls"{more}')
    return Loopback(text, net.port, net.core_port, net.callee_port), outside_port


@contextmanager
def answering(pair: Pair, port: int, asked: list[str | None] | None = None) -> Iterator[list[bytes]]:
    """A TLS server for one connection that answers each request with 486; yields what it received. ``asked`` gets the
    name that the client asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if asked is not None:
        context.sni_callback = lambda _, name, __: asked.append(name)
    context.load_cert_chain(pair.certificate, pair.key)
    received: list[bytes] = []
    listening = socket.create_server((CALLEE, port))

    def serve() -> None:
        with suppress(OSError):
            raw, _ = listening.accept()
            with context.wrap_socket(raw, server_side=True) as sock:
                framer = Framer()
                while data := sock.recv(65_536):
                    for message in framer.feed(data):
                        received.append(message)
                        if not message.startswith(b"ACK"):
                            sock.sendall(busy(message))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        listening.close()
        thread.join(2)


def busy(request: bytes) -> bytes:
    kept = [line for line in request.split(b"\r\n") if line.startswith((b"Via", b"From", b"Call-ID", b"CSeq"))]
    to = next(line for line in request.split(b"\r\n") if line.startswith(b"To"))
    return b"\r\n".join([b"SIP/2.0 486 Busy Here", *kept, to + b";tag=b", b"Content-Length: 0", b"", b""])


SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"


def call_outcome(stream: Stream) -> int:
    """The final status of a call."""
    stream.send(stream.request("INVITE", body=SDP))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        status = status_of(stream.next(1.0))
        if status >= 200:
            return status
    return 0


def test_a_call_by_tls_on_both_sides(tmp_path: Path, authority: Authority) -> None:
    """The INVITE comes by TLS and leaves by TLS, with our names of that transport."""
    net, port = tls_site(tmp_path / "sbc", authority)
    pair = authority.sign("callee", f"IP:{CALLEE}")
    with running(tmp_path / "sbc", net.text) as sbc, answering(pair, net.callee_port) as received:
        with TlsStream(CALLER, (OUTSIDE, port), trusting(authority)) as stream:
            assert call_outcome(stream) == 486
        head = received[0].decode()
        assert "Via: SIP/2.0/TLS " in head
        assert ";transport=tls>" in head
        eventually(lambda: len(received) == 2, 3, "an ACK")
        assert sbc.total("RETRANSMISSION_OUT") == 0


@pytest.mark.parametrize("fault", ["expired", "another name", "untrusted"])
def test_a_server_that_cannot_prove_who_it_is_gets_no_call(tmp_path: Path, authority: Authority, fault: str) -> None:
    """The call fails at once with 503, nothing is sent, and the log says why in one line."""
    match fault:
        case "expired":
            pair, says = authority.sign("old", f"IP:{CALLEE}", expired=True), "certificate has expired"
        case "another name":
            pair, says = authority.sign("other", "IP:192.0.2.1"), "mismatch"
        case _:
            pair, says = Authority(tmp_path / "ca", "stranger").sign("x", f"IP:{CALLEE}"), "unable to get local issuer"
    net, port = tls_site(tmp_path / "sbc", authority)
    with running(tmp_path / "sbc", net.text) as sbc, answering(pair, net.callee_port) as received:
        with TlsStream(CALLER, (OUTSIDE, port), trusting(authority)) as stream:
            start = time.monotonic()
            assert call_outcome(stream) == 503
            assert time.monotonic() - start < 3
        assert not received
        lines = [line for line in sbc.log.splitlines() if "cannot connect" in line]
        assert len(lines) == 1
        assert says in lines[0]
        assert f"{CALLEE}:{net.callee_port}" in lines[0]


@pytest.mark.parametrize(("name", "status"), [("carrier.example", 486), ("other.example", 503)])
def test_the_name_of_a_certificate_is_the_one_configured(
    tmp_path: Path, authority: Authority, name: str, status: int
) -> None:
    net, port = tls_site(tmp_path / "sbc", authority, name=name)
    pair = authority.sign("named", "DNS:carrier.example")
    with (
        running(tmp_path / "sbc", net.text),
        answering(pair, net.callee_port),
        TlsStream(CALLER, (OUTSIDE, port), trusting(authority)) as stream,
    ):
        assert call_outcome(stream) == status


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_mutual_tls_and_old_versions(tmp_path: Path, authority: Authority) -> None:
    """With ``verify: peer`` a client without a certificate of the authority is refused, with a line in the log."""
    net, port = tls_site(tmp_path / "sbc", authority, verify="peer")
    own = authority.sign("phone", "DNS:phone.example")
    foreign = Authority(tmp_path / "ca", "stranger").sign("phone", "DNS:phone.example")
    with running(tmp_path / "sbc", net.text) as sbc:
        with TlsStream(CALLER, (OUTSIDE, port), trusting(authority, own)) as stream:
            stream.send(stream.request("OPTIONS"))
            assert status_of(stream.next()) == 200
        for context in (trusting(authority), trusting(authority, foreign)):
            with suppress(OSError), TlsStream(CALLER, (OUTSIDE, port), context) as stream:
                stream.send(stream.request("OPTIONS"))
                assert stream.next() == b""
        eventually(lambda: sbc.total("HANDSHAKES_FAILED") == 2, 3, "two refused")
        assert sbc.log.count("the TLS handshake failed") == 2
        old = trusting(authority, own)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            TlsStream(CALLER, (OUTSIDE, port), old)


def test_a_handshake_that_stops_ends_after_5_s(tmp_path: Path, authority: Authority) -> None:
    """Half-open ones hold nobody up, and count for their source."""
    net, port = tls_site(tmp_path / "sbc", authority)
    with running(tmp_path / "sbc", net.text + "connections: { per_source: 20 }\n"):
        idle = [Stream(CALLER, (OUTSIDE, port)) for _ in range(19)]
        start = time.monotonic()
        with TlsStream(CALLER, (OUTSIDE, port), trusting(authority)) as stream:
            stream.send(stream.request("OPTIONS"))
            assert status_of(stream.next()) == 200
            with Stream(CALLER, (OUTSIDE, port)) as one_more:
                assert one_more.closed_after(1) < 1
        assert all(half.closed_after(7) < 7 for half in idle)
        assert time.monotonic() - start < 6
        for half in idle:
            half.close()


def test_a_reload_takes_a_new_certificate_over(tmp_path: Path, authority: Authority) -> None:
    """New connections get the new one, open ones go on; files that do not fit are refused and change nothing."""
    net, port = tls_site(tmp_path / "sbc", authority)
    later = Authority(tmp_path / "ca", "later")
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        TlsStream(CALLER, (OUTSIDE, port), trusting(authority)) as stream,
    ):
        pair = later.sign("sbc", f"IP:{OUTSIDE}", days=7)
        shutil.copy(pair.certificate, tmp_path / "sbc" / f"sbc-{OUTSIDE}.pem")
        os.kill(sbc.main_pid, signal.SIGHUP)
        eventually(lambda: "do not fit" in sbc.log, 5, "a refusal")
        with TlsStream(CALLER, (OUTSIDE, port), trusting(authority)):
            pass
        shutil.copy(pair.key, tmp_path / "sbc" / f"sbc-{OUTSIDE}.key")
        os.kill(sbc.main_pid, signal.SIGHUP)
        eventually(lambda: _accepts(port, trusting(later)), 5, "the new certificate")
        eventually(lambda: "ends in 6 days" in sbc.log, 5, "a word about its end, which is near")
        soon = {row["realm"]: row["state"] for row in sbc.ask("status")["certificates"]}
        assert soon["core"] == "valid"
        assert "ends in 6 days" in soon["outside"]
        assert not _accepts(port, trusting(authority))
        stream.send(stream.request("OPTIONS"))
        assert status_of(stream.next()) == 200


def _accepts(port: int, context: ssl.SSLContext) -> bool:
    try:
        TlsStream(CALLER, (OUTSIDE, port), context).close()
    except ssl.SSLError:
        return False
    return True


def test_each_name_has_its_certificate(tmp_path: Path, authority: Authority) -> None:
    """SNI: a client that asks for a name gets the certificate of that name, whoever asks for none the first; a reload
    takes new ones of them over, and mutual TLS holds for all."""
    net, port = tls_site(tmp_path / "sbc", authority, verify="peer")
    own = authority.sign("phone", "DNS:phone.example")
    for name, subject in (("one", "DNS:sip.one.example"), ("two", "DNS:*.two.example")):
        pair = authority.sign(name, subject)
        shutil.copy(pair.certificate, tmp_path / "sbc" / f"{name}.pem")
        shutil.copy(pair.key, tmp_path / "sbc" / f"{name}.key")
    named = (
        "by_name: [{ names: [sip.one.example], certificate: one.pem, key: one.key }, "
        '{ names: ["*.two.example"], certificate: two.pem, key: two.key }]'
    )
    text = net.text.replace("verify: peer }", f"verify: peer, {named} }}", 1)
    with running(tmp_path / "sbc", text) as sbc:

        def names(asked: str) -> list[str]:
            context = trusting(authority, own)
            context.check_hostname = False
            with TlsStream(CALLER, (OUTSIDE, port), context, asked) as stream:
                stream.send(stream.request("OPTIONS"))
                assert status_of(stream.next()) == 200
                return stream.certified()

        assert names("sip.one.example") == names("SIP.one.example") == ["sip.one.example"]
        assert names("a.two.example") == ["*.two.example"]
        for other in (OUTSIDE, "two.example", "a.b.two.example", "elsewhere.example"):
            assert names(other) == [OUTSIDE, "sbc.example"]
        with suppress(OSError), TlsStream(CALLER, (OUTSIDE, port), trusting(authority), "sip.one.example") as stream:
            stream.send(stream.request("OPTIONS"))
            assert stream.next() == b""
        eventually(lambda: sbc.total("HANDSHAKES_FAILED") == 1, 3, "a refusal")
        pair = authority.sign("one", "DNS:sip.one.example,DNS:sip.uno.example")
        shutil.copy(pair.certificate, tmp_path / "sbc" / "one.pem")
        shutil.copy(pair.key, tmp_path / "sbc" / "one.key")
        os.kill(sbc.main_pid, signal.SIGHUP)
        eventually(lambda: len(names("sip.one.example")) == 2, 5, "the new certificate")


def test_a_client_whose_certificate_has_expired_is_refused(tmp_path: Path, authority: Authority) -> None:
    net, port = tls_site(tmp_path / "sbc", authority, verify="peer")
    old = authority.sign("old-phone", "DNS:phone.example", expired=True)
    with running(tmp_path / "sbc", net.text) as sbc:
        with suppress(OSError), TlsStream(CALLER, (OUTSIDE, port), trusting(authority, old)) as stream:
            stream.send(stream.request("OPTIONS"))
            assert stream.next() == b""
        eventually(lambda: "certificate has expired" in sbc.log, 3, "a line that says why")


def test_we_ask_for_the_name_that_we_mean(tmp_path: Path, authority: Authority) -> None:
    """A server with many names learns which one is wanted (SNI)."""
    net, port = tls_site(tmp_path / "sbc", authority, name="carrier.example")
    pair = authority.sign("named", "DNS:carrier.example")
    asked: list[str | None] = []
    with (
        running(tmp_path / "sbc", net.text),
        answering(pair, net.callee_port, asked),
        TlsStream(CALLER, (OUTSIDE, port), trusting(authority)) as stream,
    ):
        assert call_outcome(stream) == 486
    assert asked == ["carrier.example"]


def test_refusals_are_told_a_few_times_and_then_counted(tmp_path: Path, authority: Authority) -> None:
    net, port = tls_site(tmp_path / "sbc", authority)
    with running(tmp_path / "sbc", net.text) as sbc:
        for _ in range(20):
            with Stream(CALLER, (OUTSIDE, port)) as stream:
                stream.send(b"this is no TLS\r\n" * 3)
                stream.closed_after(3)
        eventually(lambda: sbc.total("HANDSHAKES_FAILED") == 20, 3, "all counted")
        assert sbc.log.count("the TLS handshake failed") == 3
