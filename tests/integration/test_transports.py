"""Which transport and which connection carries a message: long requests, dead connections, several workers."""

from __future__ import annotations

import re
import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.integration.test_streams import finished, stream_site
from tests.integration.test_tls import TlsStream, tls_site, trusting
from tests.support.agents import Agent
from tests.support.certificates import Authority
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, Loopback
from tests.support.raw import Raw, status_of
from tests.support.sbc import eventually, running
from tests.support.tcp import Stream
from tests.support.tcp_server import TcpServer, answer

SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"
LONG = SDP + b"".join(b"a=x-filler:%s\r\n" % (b"y" * 100) for _ in range(20))


def udp_gateway(**changes: str) -> Loopback:
    """The stream site whose callee is called as UDP by default: the gateway names no transport."""
    net = stream_site(callee="udp", more=changes.get("more", ""))
    return Loopback(net.text.replace(";transport=udp", ""), net.port, net.core_port, net.callee_port)


def outcome(caller: Raw, net: Loopback, body: bytes) -> tuple[int, float]:
    """The final status of a call, and after how many seconds."""
    start = time.monotonic()
    caller.send(caller.request("INVITE", (OUTSIDE, net.port), body=body), (OUTSIDE, net.port))
    while (message := caller.next(5.0)) and status_of(message) < 200:
        pass
    return status_of(message), time.monotonic() - start


class Callee(Raw):
    """The same far end by UDP; it answers 486 as well."""

    def answer_all(self) -> list[bytes]:
        taken = self.take()
        for message, source in taken:
            if reply := answer("486 Busy Here")(message):
                self.send(reply, source)
        return [message for message, _ in taken]


def test_a_long_invite_leaves_by_tcp_and_its_answer_comes_back_by_it(tmp_path: Path) -> None:
    net = udp_gateway()
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        TcpServer(CALLEE, net.callee_port) as server,
        Callee(CALLEE, net.callee_port) as udp,
        Raw(CALLER) as caller,
    ):
        for _ in range(3):
            assert outcome(caller, net, LONG)[0] == 486
        assert len(server.peers) == 1
        invites = [message for message in server.received if message.startswith(b"INVITE")]
        assert len(invites) == 3
        for invite in invites:
            assert f"\r\nVia: SIP/2.0/TCP {CORE}:{net.core_port};rport;branch=".encode() in invite
            assert b";transport=tcp" not in invite.split(b"\r\nContact: ", 1)[1].split(b"\r\n", 1)[0]
        eventually(lambda: len(server.received) == 6, 3, "the ACKs")
        assert not udp.take()
        assert sbc.total("OVERSIZE_TCP") == 3
        finished(sbc, 3)


@pytest.mark.parametrize("how", ["refused", "no answer"])
def test_where_no_connection_can_be_made_it_leaves_as_a_datagram(tmp_path: Path, how: str) -> None:
    """The first call pays for the attempt, the next one does not."""
    net = udp_gateway(more="connections: { connect_timeout_s: 0.6 }\n")
    held: list[socket.socket] = []
    if how == "no answer":  # a full queue: the kernel drops what would connect
        full = socket.create_server((CALLEE, net.callee_port), backlog=0)
        held.append(full)
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex((CALLEE, net.callee_port))
            held.append(waiting)
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        Callee(CALLEE, net.callee_port) as udp,
        Raw(CALLER) as caller,
    ):
        times = []
        for _ in range(2):
            caller.take()
            start = time.monotonic()
            caller.send(caller.request("INVITE", (OUTSIDE, net.port), body=LONG), (OUTSIDE, net.port))
            status = 0
            while status < 200 and time.monotonic() - start < 5:
                udp.answer_all()
                status = status_of(caller.next(0.02)) or status
            assert status == 486
            times.append(time.monotonic() - start)
        assert times[0] < 1.5
        assert times[1] < 0.4
        assert (times[0] > 0.6) == (how == "no answer")
        assert sbc.log.count("cannot connect") == 1
        assert sbc.total("OVERSIZE_FALLBACKS") == 1
        finished(sbc, 2)
    for sock in held:
        sock.close()


def test_an_answer_whose_connection_is_gone_comes_by_a_new_one(tmp_path: Path) -> None:
    """RFC 3261 §18.2.2: to where the request came from, at the port of its Via."""
    net = stream_site(callee="udp")
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        Raw(CALLEE, net.callee_port) as callee,
        TcpServer(CALLER, rule=lambda _: b"") as caller,
    ):
        with Stream(CALLER, (OUTSIDE, net.port)) as stream:
            invite = stream.request("INVITE", body=SDP)
            invite = re.sub(rb"Via: SIP/2.0/TCP [^;]+", f"Via: SIP/2.0/TCP elsewhere:{caller.port}".encode(), invite)
            stream.send(invite)
            assert status_of(stream.next()) == 100
            request = callee.next()
            assert request.startswith(b"INVITE")
        time.sleep(0.1)
        callee.send(answer("486 Busy Here")(request), (CORE, net.core_port))
        eventually(lambda: [status_of(message) for message in caller.received] == [486], 3, "the answer")
        assert sbc.total("CORE_ERRORS") == 0


def test_a_phone_that_connects_anew_is_reached_there(tmp_path: Path) -> None:
    """Its connection died; its next request inside the call, by another, tells where it is now."""
    net = stream_site(callee="udp")
    with running(tmp_path / "sbc", net.text) as sbc, Agent(CALLEE, net.callee_port) as callee:
        with Stream(CALLER, (OUTSIDE, net.port)) as first:
            invite = first.request("INVITE", body=SDP, call_id=f"anew@{CALLER}")
            first.send(invite)
            while status_of(ok := first.next(5)) < 200:
                assert ok
            lines = dict(line.split(b": ", 1) for line in ok.split(b"\r\n\r\n")[0].split(b"\r\n")[1:])
            inside = [b"%s: %s" % (name, lines[name]) for name in (b"From", b"To", b"Call-ID")]
            target = lines[b"Contact"].strip(b"<>")

            def within(stream: Stream, method: str, cseq: int) -> bytes:
                head = [
                    b"%s %s SIP/2.0" % (method.encode(), target),
                    f"Via: SIP/2.0/TCP {CALLER}:{stream.port};rport;branch=z9hG4bKanew{method}{cseq}".encode(),
                    *inside,
                    f"CSeq: {cseq} {method}".encode(),
                    b"Max-Forwards: 70",
                    f"Contact: <sip:phone@{CALLER}:{stream.port};transport=tcp>".encode(),
                    b"Content-Length: 0",
                ]
                return b"\r\n".join([*head, b"", b""])

            first.send(within(first, "ACK", 1))
            eventually(lambda: callee.up() == 1, 5, "the call is up")
        with Stream(CALLER, (OUTSIDE, net.port)) as second:
            second.send(within(second, "INFO", 2))
            assert status_of(second.next()) == 200
            [call] = callee.all_calls()
            asked = callee.hang_up(call)
            bye = second.next()
            assert bye.startswith(b"BYE ")
            second.send(answer("200 OK")(bye))
            eventually(lambda: asked.status == 200, 3, "the callee is answered")
        finished(sbc, 1)


def test_three_workers_and_two_transports(tmp_path: Path) -> None:
    """One connection by TLS each way, whatever worker owns the call: every worker has its share, all answers come by
    the connection of their request, and a datagram on one side is a stream on the other."""
    authority = Authority(tmp_path / "ca", "authority")
    net, tls_port = tls_site(tmp_path / "sbc", authority)
    text = net.text.replace("workers: { sip: 1,", "workers: { sip: 3,")
    pair = authority.sign("callee", f"IP:{CALLEE}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with (
        running(tmp_path / "sbc", text) as sbc,
        TcpServer(CALLEE, net.callee_port, context=context) as server,
        TlsStream(CALLER, (OUTSIDE, tls_port), trusting(authority)) as stream,
        Raw(CALLER) as caller,
    ):
        for _ in range(60):
            stream.send(stream.request("INVITE", body=SDP))
        final = 0
        while final < 60:
            message = stream.next(5)
            assert message, f"{final} of 60"
            final += status_of(message) == 486
        for _ in range(10):
            assert outcome(caller, net, SDP)[0] == 486
        eventually(lambda: len([m for m in server.received if m.startswith(b"ACK")]) == 70, 5, "every ACK")
        assert len([m for m in server.received if m.startswith(b"INVITE")]) == 70
        assert 1 <= len(server.peers) <= 3  # at most one for each worker
        assert sbc.total("HANDED_OVER_OUT") > 20
        assert sbc.total("SEND_FAILED") == sbc.total("HAND_OVER_FAILED") == 0
        finished(sbc, 70)
