"""A SIP worker dies that has the callers' TCP connections: its calls, and others by its connections, end well."""

from __future__ import annotations

import select
import socket
import time
from pathlib import Path

import pytest

from sbc.sip.framing import Framer
from tests.integration.test_streams import finished, stream_site
from tests.support.agents import Agent
from tests.support.loopback import CALLEE, CALLER, OUTSIDE
from tests.support.raw import status_of
from tests.support.sbc import eventually, running
from tests.support.tcp import Stream

CALLS = 8
SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"


class Phone(Stream):
    """A caller with a connection of its own, reachable at the port of its Contact as well when it listens there."""

    def __init__(self, to: tuple[str, int], listens: bool) -> None:
        super().__init__(CALLER, to)
        self.listening = socket.socket()
        self.listening.bind((CALLER, 0))
        if listens:
            self.listening.listen()
        self.contact = f"Contact: <sip:phone@{CALLER}:{self.listening.getsockname()[1]};transport=tcp>"

    def close(self) -> None:
        self.listening.close()
        super().close()

    def request(self, method: str, **changes: object) -> bytes:
        lines = super().request(method, **changes).split(b"\r\n")  # type: ignore[arg-type]  # passed on as they are
        return b"\r\n".join(self.contact.encode() if line.startswith(b"Contact:") else line for line in lines)

    def call(self) -> None:
        """INVITE, 200, ACK."""
        invite = self.request("INVITE", body=SDP)
        self.send(invite)
        while status_of(answer := self.next(5)) < 200:
            assert answer, "no answer"
        assert status_of(answer) == 200
        head = dict(line.split(b": ", 1) for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n")[1:])
        ack = [
            b"ACK " + head[b"Contact"].strip(b"<>") + b" SIP/2.0",
            f"Via: SIP/2.0/TCP {CALLER}:{self.port};branch=z9hG4bK{time.monotonic_ns()}".encode(),
            *(name + b": " + head[name] for name in (b"From", b"To", b"Call-ID")),
            b"CSeq: 1 ACK",
            b"Content-Length: 0",
        ]
        self.send(b"\r\n".join([*ack, b"", b""]))

    def was_told(self) -> bool:
        """A BYE came, by the old connection or a new one; it is answered."""
        bye, sock = self.next(0.05), self._socket
        if not bye and select.select([self.listening], [], [], 0.05)[0]:
            sock, _ = self.listening.accept()
            sock.settimeout(3)
            framer = Framer()
            found: list[bytes] = []
            while not found:
                found = framer.feed(sock.recv(65_536))
            bye = found[0]
        if not bye:
            return False
        assert bye.startswith(b"BYE sip:phone@"), bye
        kept = [
            line for line in bye.split(b"\r\n") if line.split(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")
        ]
        sock.sendall(b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""]))
        return True


@pytest.mark.parametrize("listens", [True, False], ids=["reachable", "unreachable"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_udp_side_ends_every_call(tmp_path: Path, workers: int, listens: bool) -> None:
    """The callee's BYE is answered, each call has one record, and a caller that can be reached is told: by its
    connection where that lives, else by a new one to its Contact."""
    net = stream_site(sip=workers, callee="udp")
    phones = []
    with running(tmp_path / "sbc", net.text) as sbc, Agent(CALLEE, net.callee_port) as callee:
        try:
            for _ in range(CALLS):
                phone = Phone((OUTSIDE, net.port), listens)
                phones.append(phone)
                phone.call()
            eventually(lambda: callee.up() == CALLS, 5, "all calls up")
            died = sbc.kill("sip 0")
            closed = sum(phone.closed_after(0.3) < 0.3 for phone in phones)
            assert closed == CALLS or workers == 2
            sbc.respawned("sip 0", died)
            asked = [callee.hang_up(call) for call in callee.all_calls()]
            eventually(lambda: all(one.status == 200 for one in asked), 10, "every BYE answered")
            if listens:
                told: set[int] = set()

                def all_told() -> bool:
                    told.update(n for n, phone in enumerate(phones) if n not in told and phone.was_told())
                    return len(told) == CALLS

                eventually(all_told, 10, f"every caller told, {told}")
            finished(sbc, CALLS)
        finally:
            for phone in phones:
                phone.close()
