"""Calls between IPv4 and IPv6, each way and with sound: every address on a side is of the family of that side."""

from __future__ import annotations

import re
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.support.raw import status_of
from tests.support.sbc import Sbc, eventually, free_port, running
from tests.support.tcp_server import TcpServer, answer

HOSTS = {4: "127.0.0.1", 6: "::1"}
PACKETS = 25
_OTHER = {4: rb"IP6|::1", 6: rb"IP4|127\.0\.0\.1"}


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(slots=True)
class Party:
    """One end of the call: a SIP port and an RTP port."""

    version: int
    sip: socket.socket = field(init=False)
    rtp: socket.socket = field(init=False)
    seen: list[bytes] = field(default_factory=list)  # every message that it was sent

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if self.version == 6 else socket.AF_INET
        for name in ("sip", "rtp"):
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.bind((HOSTS[self.version], 0))
            sock.settimeout(5)
            setattr(self, name, sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sip.close()
        self.rtp.close()

    @property
    def uri(self) -> str:
        return f"sip:ua@{bracketed(HOSTS[self.version])}:{self.sip.getsockname()[1]}"

    def sdp(self) -> bytes:
        where = f"IN IP{self.version} {HOSTS[self.version]}"
        port = self.rtp.getsockname()[1]
        return (
            f"v=0\r\no=ua 1 1 {where}\r\ns=-\r\nc={where}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
            "a=rtpmap:0 PCMU/8000\r\n"
        ).encode()

    def next(self) -> tuple[bytes, tuple[str, int]]:
        data, source = self.sip.recvfrom(65_535)
        self.seen.append(data)
        return data, source[:2]

    def final(self) -> bytes:
        while status_of(data := self.next()[0]) < 200:
            pass
        return data

    def request(self, method: str, uri: str, to: tuple[str, int], inside: bytes = b"", body: bytes = b"") -> None:
        lines = {b"From": f"<{self.uri}>;tag=a".encode(), b"To": f"<{uri}>".encode(), b"Call-ID": b"families"}
        for name in (b"From", b"To", b"Call-ID") if inside else ():
            lines[name] = re.search(rb"^" + name + rb": ([^\r]*)", inside, re.M)[1]  # type: ignore[index]  # always there
        via = f"{bracketed(HOSTS[self.version])}:{self.sip.getsockname()[1]}"
        head = [
            f"{method} {uri} SIP/2.0".encode(),
            f"Via: SIP/2.0/UDP {via};rport;branch=z9hG4bK{method}".encode(),
            *(name + b": " + value for name, value in lines.items()),
            f"CSeq: {2 if method == 'BYE' else 1} {method}".encode(),
            b"Max-Forwards: 70",
            f"Contact: <{self.uri}>".encode(),
            *([b"Content-Type: application/sdp"] if body else []),
            b"Content-Length: %d" % len(body),
        ]
        self.sip.sendto(b"\r\n".join([*head, b"", b""]) + body, to)

    def reply(self, request: bytes, status: str, to: tuple[str, int], body: bytes = b"") -> None:
        head = answer(status)(request).split(b"\r\nContent-Length", 1)[0]
        more = f"\r\nContact: <{self.uri}>\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
        self.sip.sendto(head + more.encode() + body, to)

    def speak(self, to: tuple[str, int], mark: bytes) -> None:
        for number in range(PACKETS):
            head = struct.pack("!BBHII", 0x80, 0, number, number * 160, 7)
            self.rtp.sendto(head + mark * 160, to)
            time.sleep(0.005)

    def hears(self, mark: bytes, source: tuple[str, int]) -> None:
        for _ in range(PACKETS):
            data, came_from = self.rtp.recvfrom(2000)
            assert data[12:] == mark * 160
            assert came_from[:2] == source


def media_of(sdp: bytes, version: int) -> tuple[str, int]:
    """Where a description wants its sound, which must be an address of this family, in c= and in o=."""
    host = HOSTS[version]
    assert re.search(rf"^c=IN IP{version} {host}\r$".encode(), sdp, re.M), sdp
    assert re.search(rf"^o=\S+ \d+ \d+ IN IP{version} {host}\r$".encode(), sdp, re.M), sdp
    port = re.search(rb"^m=audio (\d+) ", sdp, re.M)
    assert port is not None
    return host, int(port[1])


CONFIG = """\
workers: {{ sip: 2, media: 1 }}
store: none
realms:
  from:
    listen: ["udp:{a}:{a_port}"]
    media: {{ address: "{a_host}", ports: 11000-11999 }}
  to:
    listen: ["udp:{b}:{b_port}", "tcp:{b}:{b_port}"]
    media: {{ address: "{b_host}", ports: 12000-12999 }}
peers:
  caller: {{ realm: from, addresses: ["{a_host}"], calls_to: callee }}
  callee: {{ realm: to, addresses: ["{b_host}"], gateway: "sip:{b}:{callee}{how}" }}
"""


def configured(a: int, b: int, callee: int, how: str = "") -> tuple[str, int]:
    """The configuration, and our port towards the caller."""
    a_port, b_port = free_port(HOSTS[a]), free_port(HOSTS[b])
    text = CONFIG.format(
        a=bracketed(HOSTS[a]),
        b=bracketed(HOSTS[b]),
        a_host=HOSTS[a],
        b_host=HOSTS[b],
        a_port=a_port,
        b_port=b_port,
        callee=callee,
        how=how,
    )
    return text, a_port


def clean(sbc: Sbc) -> None:
    assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == sbc.total("SEND_FAILED") == 0


@pytest.mark.parametrize(("a", "b"), [(4, 6), (6, 4), (6, 6)], ids=["4 to 6", "6 to 4", "6 to 6"])
def test_a_call_with_sound(tmp_path: Path, a: int, b: int) -> None:
    with Party(a) as caller, Party(b) as callee:
        text, port = configured(a, b, callee.sip.getsockname()[1])
        with running(tmp_path / "sbc", text) as sbc:
            gateway = (HOSTS[a], port)
            uri = f"sip:1001@{bracketed(HOSTS[a])}:{port}"
            caller.request("INVITE", uri, gateway, body=caller.sdp())
            invite, source = callee.next()
            assert f"Via: SIP/2.0/UDP {bracketed(HOSTS[b])}:".encode() in invite
            callee.reply(invite, "200 OK", source, callee.sdp())
            ok = caller.final()
            assert status_of(ok) == 200
            contact = re.search(rb"^Contact: <([^>]+)>", ok, re.M)
            assert contact is not None
            caller.request("ACK", contact[1].decode(), gateway, ok)
            assert callee.next()[0].startswith(b"ACK ")
            towards_a, towards_b = media_of(ok, a), media_of(invite, b)
            caller.speak(towards_a, b"a")
            callee.hears(b"a", towards_b)
            callee.speak(towards_b, b"b")
            caller.hears(b"b", towards_a)
            caller.request("BYE", contact[1].decode(), gateway, ok)
            bye, source = callee.next()
            callee.reply(bye, "200 OK", source)
            assert status_of(caller.final()) == 200
            eventually(lambda: not sbc.calls(), 5, "no call left")
            clean(sbc)
        if a != b:
            for party in (caller, callee):
                for message in party.seen:
                    assert not re.search(_OTHER[party.version], message), message


@pytest.mark.parametrize(("a", "b"), [(4, 6), (6, 4)], ids=["4 to 6", "6 to 4"])
def test_by_tcp(tmp_path: Path, a: int, b: int) -> None:
    with Party(a) as caller, TcpServer(HOSTS[b]) as server:
        text, port = configured(a, b, server.port, ";transport=tcp")
        with running(tmp_path / "sbc", text) as sbc:
            caller.request("INVITE", f"sip:1001@{bracketed(HOSTS[a])}:{port}", (HOSTS[a], port), body=caller.sdp())
            assert status_of(caller.final()) == 486
            assert f"Via: SIP/2.0/TCP {bracketed(HOSTS[b])}:".encode() in server.received[0]
            clean(sbc)
