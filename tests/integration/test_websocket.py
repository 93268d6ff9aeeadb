"""SIP over WebSocket (RFC 7118) through a real SBC, by a client library that shares no code with it."""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.certificates import Authority
from tests.support.loopback import CALLER, OUTSIDE, Loopback, loopback
from tests.support.raw import status_of
from tests.support.sbc import Sbc, eventually, free_port, running
from tests.support.tcp import Stream

SIP = [Subprotocol("sip")]
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"


class Site:
    """The SBC with WebSocket listeners outside."""

    def __init__(self, net: Loopback, ws: int, wss: int, sbc: Sbc, trust: ssl.SSLContext) -> None:
        self.net, self.ws, self.wss, self.sbc, self.trust = net, ws, wss, sbc, trust

    def connect(self, transport: str) -> ClientConnection:
        port, trust = (self.ws, None) if transport == "ws" else (self.wss, self.trust)
        return connect(f"{transport}://{OUTSIDE}:{port}/", subprotocols=SIP, ssl=trust, source_address=(CALLER, 0))


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("ws")
    authority = Authority(directory / "ca", "authority")
    pair = authority.sign("sbc", f"IP:{OUTSIDE}")
    net, ws, wss = loopback(sip=request.param), free_port(OUTSIDE), free_port(OUTSIDE)
    (directory / "sbc").mkdir()
    shutil.copy(pair.certificate, directory / "sbc" / "sbc.pem")
    shutil.copy(pair.key, directory / "sbc" / "sbc.key")
    text = net.text.replace(
        f"[udp:{OUTSIDE}:{net.port}]",
        f"[udp:{OUTSIDE}:{net.port}, ws:{OUTSIDE}:{ws}, wss:{OUTSIDE}:{wss}]\n"
        "    tls: { certificate: sbc.pem, key: sbc.key }",
    )
    with running(directory / "sbc", text) as sbc:
        yield Site(net, ws, wss, sbc, ssl.create_default_context(cafile=str(authority.certificate)))


def request(method: str, *, cseq: int = 1, branch: str, to: str = "<sip:1001@sbc.example>", body: str = "") -> str:
    lines = [
        f"{method} sip:{'' if method == 'OPTIONS' else '1001@'}sbc.example SIP/2.0",
        f"Via: SIP/2.0/WS abc.invalid;branch=z9hG4bK{branch}",
        "Max-Forwards: 70",
        "From: <sip:browser@sbc.example>;tag=browser",
        f"To: {to}",
        f"Call-ID: ws-{branch.partition('-')[0]}",
        f"CSeq: {cseq} {method}",
        "Contact: <sip:browser@abc.invalid;transport=ws>",
        *(["Content-Type: application/sdp"] if body else []),  # no Content-Length: RFC 7118 §5
    ]
    return "\r\n".join([*lines, "", body])


def header(message: str, name: str) -> str:
    return next(line.partition(": ")[2] for line in message.split("\r\n") if line.startswith(f"{name}: "))


@pytest.mark.peer("sipp")
@pytest.mark.parametrize("transport", ["ws", "wss"])
def test_a_call_from_a_browser_that_the_callee_ends(site: Site, tmp_path: Path, transport: str) -> None:
    """The BYE finds the browser by its connection, since its Contact leads nowhere (RFC 7118 §5)."""
    with site.net.callee(tmp_path, "-m", "1", scenario="uas_bye") as uas, site.connect(transport) as ws:
        assert ws.subprotocol == "sip"
        branch = f"{transport}{time.monotonic_ns()}"
        ws.send(request("INVITE", branch=branch, body=SDP))
        while True:
            message = str(ws.recv(5))
            if message.startswith("SIP/2.0 200 "):
                break
            assert message.startswith("SIP/2.0 1")
        assert f"SIP/2.0/WS abc.invalid;received={CALLER}" in message
        assert f";transport={'ws'}>" in header(message, "Contact")
        ws.send(request("ACK", branch=f"{branch}-ack", to=header(message, "To")))
        bye = str(ws.recv(10))
        assert bye.startswith("BYE sip:browser@abc.invalid;transport=ws SIP/2.0\r\n")
        assert header(bye, "Via").startswith(f"SIP/2.0/{transport.upper()} {OUTSIDE}:")
        kept = [f"{name}: {header(bye, name)}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
        ws.send("\r\n".join(["SIP/2.0 200 OK", *kept, "", ""]))
        assert uas.finish().successful == 1
    eventually(lambda: not site.sbc.calls(), 5, "no call left")


@pytest.mark.parametrize("transport", ["ws", "wss"])
def test_pings_fragments_and_both_kinds_of_message(site: Site, transport: str) -> None:
    with site.connect(transport) as ws:
        assert ws.ping().wait(3)
        ws.send("\r\n\r\n")
        assert ws.recv(3) == "\r\n"
        text = request("OPTIONS", branch=f"a{time.monotonic_ns()}")
        ws.send([text[:10], text[10:200], text[200:]])  # three frames, one message
        assert str(ws.recv(3)).startswith("SIP/2.0 200 ")
        ws.send(request("OPTIONS", branch=f"b{time.monotonic_ns()}").encode())  # binary
        assert str(ws.recv(3)).startswith("SIP/2.0 200 ")
        ws.send("nothing of ours")
        ws.send(request("OPTIONS", branch=f"c{time.monotonic_ns()}"))
        assert str(ws.recv(3)).startswith("SIP/2.0 200 ")


def test_a_client_must_offer_sip(site: Site) -> None:
    with pytest.raises(InvalidStatus, match="400"):
        connect(f"ws://{OUTSIDE}:{site.ws}/", source_address=(CALLER, 0))
    with pytest.raises(InvalidStatus, match="400"):
        connect(f"ws://{OUTSIDE}:{site.ws}/", subprotocols=[Subprotocol("chat")], source_address=(CALLER, 0))


def test_a_message_beyond_64_kb_ends_the_connection(site: Site) -> None:
    with site.connect("ws") as ws:
        with suppress(ConnectionClosed):
            ws.send("x" * 66_000)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(3)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    "octets",
    [b"GET / HT", b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" * 4, b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"\x00" * 100],
)
def test_what_is_no_handshake_gets_nothing(site: Site, octets: bytes) -> None:
    """An unfinished one within 5 s, anything else at once; a frame of 2^63 octets reserves nothing."""
    with Stream(CALLER, (OUTSIDE, site.ws)) as stream:
        stream.send(octets)
        assert stream.closed_after(6) < 5.1
        assert status_of(stream.octets) == 0


def test_nothing_went_wrong_inside(site: Site) -> None:
    assert site.sbc.total("CORE_ERRORS") == site.sbc.total("CORE_FAULTS") == 0
    assert "Traceback" not in site.sbc.log
