"""NATs of every kind (RFC 4787), made of the kernel's own, the phones behind them, and a probe that proves each kind.

A router has its LAN at ``lan`` and the world at ``public``. What it does with a mapping is nftables and conntrack; what
a gateway of an application layer does to SIP, :class:`Alg`.
"""

from __future__ import annotations

import hashlib
import re
import selectors
import socket
import struct
import time
import uuid
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from sbc.selftest.background import Background
from sbc.selftest.netns import Lab
from tests.support.agents import Address, Agent, Asked, Received, UaCall
from tests.support.audio import Audio, Stream
from tests.support.sbc import eventually
from tests.support.sniff import ETH_P_ALL, Datagram, datagram

INDEPENDENT, BY_ADDRESS, BY_PORT = "endpoint-independent", "address-dependent", "address-and-port-dependent"


class Behaviour(NamedTuple):
    """RFC 4787 §4.1 and §5."""

    mapping: str
    filtering: str


class Kind(NamedTuple):
    """A NAT by what its rules do with the first packet of a flow, and what that makes of it."""

    inwards: str
    outwards: str
    behaviour: Behaviour


_NOTED = "update @mapped { udp sport : ip saddr } update @met { ip daddr . udp sport } snat to PUBLIC"
KINDS = {
    "full-cone": Kind("dnat to udp dport map @mapped", _NOTED, Behaviour(INDEPENDENT, INDEPENDENT)),
    "restricted": Kind(
        "ip saddr . udp dport @met dnat to udp dport map @mapped", _NOTED, Behaviour(INDEPENDENT, BY_ADDRESS)
    ),
    "port-restricted": Kind("", "snat to PUBLIC", Behaviour(INDEPENDENT, BY_PORT)),
    "symmetric": Kind("", "snat to PUBLIC fully-random", Behaviour(BY_PORT, BY_PORT)),
}
# What is not of a flow that conntrack knows is dropped: a refusal would leave a flow of its own behind.
_RULES = """
table ip nat {
    map mapped { type inet_service : ipv4_addr; flags dynamic,timeout; timeout 60s; size 4096; }
    set met { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 60s; size 4096; }
    chain inwards { type nat hook prerouting priority -100; ALG ip daddr PUBLIC meta l4proto udp INWARDS; }
    chain outwards { type nat hook postrouting priority 100; ip saddr LAN ip daddr != LAN meta l4proto udp OUTWARDS; }
}
table ip filter {
    chain input { type filter hook input priority 0; ip daddr PUBLIC ct state new drop; }
}
"""
ALG_PORT = 7060


def translate(lab: Lab, router: str, kind: str, public: str, lan: str, *, alg_for: str = "") -> None:
    """Make ``router`` a NAT of a kind. ``alg_for``: SIP to this address is for an :class:`Alg`."""
    lab.forward(router)
    words = {
        "INWARDS": KINDS[kind].inwards or "accept",
        "OUTWARDS": KINDS[kind].outwards,
        "ALG": f"ip saddr LAN ip daddr {alg_for} udp dport 5060 redirect to :{ALG_PORT};" if alg_for else "",
    }
    rules = _RULES
    for name, text in {**words, "PUBLIC": public, "LAN": lan}.items():
        rules = rules.replace(name, text)
    lab.firewall(router, rules)


def forget_mappings(lab: Lab, router: str) -> None:
    """As after a restart of the router, or once its mappings have timed out (IPCTNL_MSG_CT_DELETE for all)."""
    with lab.open_socket(router, socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
        netlink.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, 0, 0, 0))
        answer = netlink.recv(4096)
    assert struct.unpack_from("=i", answer, 16)[0] == 0, "conntrack forgets nothing"


def mapping_timeout(lab: Lab, router: str, seconds: int) -> None:
    """How long a mapping of UDP lives after its last packet."""
    for name in ("udp_timeout", "udp_timeout_stream"):
        lab.kernel(router, f"net/netfilter/nf_conntrack_{name}", seconds)


class _Thread(Background):
    """Sockets that something is done with whenever they have a datagram, until the end of the block."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []

    def attend(self, sock: socket.socket, does: Callable[[socket.socket], None]) -> None:
        self._sockets.append(sock)
        self._selector.register(sock, selectors.EVENT_READ, does)

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select(0.05):
                key.data(key.fileobj)

    def _close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._selector.close()


class Reflector(_Thread):
    """What RFC 5780 has of STUN, in plain text: two addresses with two ports. A datagram names, by numbers, those from
    which it wants to be told where it came from: ``11 01 00`` is the other address and port, the other port, this."""

    def __init__(self, lab: Lab, host: str, addresses: tuple[str, str]) -> None:
        super().__init__()
        self.places = [[(address, port) for port in (3478, 3479)] for address in addresses]
        self._at: dict[Address, socket.socket] = {}
        for place in (place for places in self.places for place in places):
            sock = lab.open_socket(host)
            sock.bind(place)
            self._at[place] = sock
            self.attend(sock, self._reflect)

    def _reflect(self, sock: socket.socket) -> None:
        data, (host, port) = sock.recvfrom(512)
        for word in data.decode().split():
            place = self.places[int(word[0])][int(word[1])]
            self._at[place].sendto(f"{word} {host}:{port}".encode(), (host, port))

    def mapped(self, sock: socket.socket, at: str = "00", answers: str = "") -> dict[str, str]:
        """Ask at a place; where the question came from, by the places whose answers came through. ``at`` answers last,
        so nothing more is to be waited for then."""
        sock.settimeout(5)
        sock.sendto(f"{answers} {at}".encode(), self.places[int(at[0])][int(at[1])])
        found: dict[str, str] = {}
        while at not in found:
            word, where = sock.recv(512).decode().split()
            found[word] = where
        return found


def behaviour(lab: Lab, phone: str, address: str, reflector: Reflector) -> tuple[Behaviour, str]:
    """What NATs a phone is behind, seen from outside, and the address by which it is seen there."""
    with lab.open_socket(phone) as sock:
        sock.bind((address, 0))
        through = reflector.mapped(sock, "00", "11 01")  # before it spoke to any other place
        filtering = INDEPENDENT if "11" in through else BY_ADDRESS if "01" in through else BY_PORT
        first, port, both = (reflector.mapped(sock, at)[at] for at in ("00", "01", "11"))
        mapping = INDEPENDENT if first == port == both else BY_ADDRESS if first == port else BY_PORT
        return Behaviour(mapping, filtering), first.partition(":")[0]


class Alg(_Thread):
    """The application layer gateway of a home router, which means well: towards its server it writes the public address
    over the phone's own, with ports that it never mapped. It takes rport out, puts Content-Length right in requests
    and not in answers, and loses the port of a Contact there. Of one phone."""

    CLAIMED = 5060  # the port that it writes where the phone's own was

    def __init__(self, lab: Lab, router: str, public: str, phone: Address, server: Address) -> None:
        super().__init__()
        self._public, self._phone, self._server = public, phone, server
        self._inside, self._outside = lab.open_socket(router), lab.open_socket(router)
        self._inside.bind(("0.0.0.0", ALG_PORT))
        self._outside.bind((public, 0))
        self.attend(self._inside, self._leaves)
        self.attend(self._outside, self._comes)
        self.mangled = 0

    def _leaves(self, sock: socket.socket) -> None:
        data, source = sock.recvfrom(65_535)
        if source == self._phone:
            self._outside.sendto(self.mangle(data), self._server)

    def _comes(self, sock: socket.socket) -> None:
        data, source = sock.recvfrom(65_535)
        if source == self._server:
            claimed = f"{self._public}:{self.CLAIMED}".encode()
            own = f"{self._phone[0]}:{self._phone[1]}".encode()
            self._inside.sendto(data.replace(claimed, own), self._phone)

    def mangle(self, data: bytes) -> bytes:
        """A message of the phone as it leaves."""
        head, _, body = data.partition(b"\r\n\r\n")
        own, public = self._phone[0].encode(), self._public.encode()
        self.mangled += own in data
        body = re.sub(rb"m=audio (\d+)", lambda found: b"m=audio %d" % (int(found[1]) + 2), body.replace(own, public))
        is_answer = data.startswith(b"SIP/2.0")
        claimed = public if is_answer else b"%b:%d" % (public, self.CLAIMED)
        lines = head.split(b"\r\n")
        for at, line in enumerate(lines):
            if line.startswith((b"Via:", b"Contact:")):
                lines[at] = line.replace(b"%b:%d" % (own, self._phone[1]), claimed).replace(b";rport;", b";")
            elif line.startswith(b"Content-Length:") and not is_answer:
                lines[at] = b"Content-Length: %d" % len(body)
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Wire(_Thread):
    """Every UDP datagram of a host, as it crosses its cables."""

    def __init__(self, lab: Lab, host: str) -> None:
        super().__init__()
        self.datagrams: list[Datagram] = []
        self.attend(lab.open_socket(host, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)), self._note)

    def _note(self, sock: socket.socket) -> None:
        packet, link = sock.recvfrom(65_535)
        found = datagram(packet, link[1])
        if found is not None:
            self.datagrams.append(found)

    def sip(self) -> list[Datagram]:
        return [found for found in list(self.datagrams) if found.is_sip]

    def rtp_sources(self, to: str) -> list[Address]:
        """Where RTP to a host came from, in order, each once."""
        return list(dict.fromkeys(it.source for it in list(self.datagrams) if it.is_rtp and it.destination[0] == to))


class Phone(Agent):
    """A phone that registers (RFC 3261 §10, with digest) and speaks: what it says is its own, ``voice``."""

    CALLS = 4  # that it may have before it is switched off

    def __init__(
        self, lab: Lab, host: str, address: str, user: str, proxy: Address, *, port: int = 5060, domain: str
    ) -> None:
        opens = partial(lab.open_socket, host)
        self.user, self.domain, self.proxy = user, domain, proxy
        self.voice = hashlib.sha256(user.encode()).digest() * 5
        self._audio = Audio(address, opens)
        self._ports = [self._audio.open() for _ in range(self.CALLS)]
        for ssrc, stream in enumerate(self._audio.streams.values(), int.from_bytes(self.voice[:3], "big")):
            stream.payload, stream.ssrc = self.voice, ssrc
        super().__init__(address, port, audio_port=self._ports.pop, open_socket=opens)

    def __enter__(self) -> Self:
        self._audio.talk()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._audio.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    def register(self, password: str = "sesame") -> None:
        """Register, or refresh, and wait until it is done. AssertionError where it is refused."""
        if not hasattr(self, "_registration"):
            aor = f"<sip:{self.user}@{self.domain}>"
            self._registration = UaCall(f"{uuid.uuid4().hex}@{self.host}", f"{aor};tag=1", remote=aor, cseq=0)
            self._registration.target, self._registration.far = f"sip:{self.domain}", self.proxy
        asked = self._registers()
        if asked.status == 401 and asked.reply is not None:
            asked = self._registers(self._credentials(asked.reply, password))
        assert asked.status == 200, f"{self.user} is not registered: {asked.status}"

    def _registers(self, *credentials: str) -> Asked:
        with self._lock:
            self._registration.cseq += 1
            asked = self._ask(self._registration, "REGISTER", extra=["Expires: 120", *credentials])
        eventually(lambda: asked.status > 0, 10, f"an answer to the REGISTER of {self.user}")
        return asked

    def _credentials(self, challenge: Received, password: str) -> str:
        """RFC 2617 §3.2.2, with qop."""
        given = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge.one("www-authenticate")))
        uri, realm, nonce = self._registration.target, given["realm"], given["nonce"]
        sums = [f"{self.user}:{realm}:{password}", f"REGISTER:{uri}"]
        one, two = (hashlib.md5(text.encode()).hexdigest() for text in sums)
        response = hashlib.md5(f"{one}:{nonce}:00000001:c:auth:{two}".encode()).hexdigest()
        words = {"username": self.user, "realm": realm, "nonce": nonce, "uri": uri, "response": response, "cnonce": "c"}
        quoted = ", ".join(f'{name}="{value}"' for name, value in words.items())
        return f"Authorization: Digest {quoted}, qop=auth, nc=00000001, algorithm=MD5"

    def speak(self, call: UaCall, other: Phone) -> Stream:
        """Send to where the far side wants it, and hear ``other`` alone."""
        stream = self._audio.streams[call.audio_port]
        stream.expected, stream.far = other.voice, call.far_audio
        return stream

    def fall_silent(self) -> None:
        for stream in self._audio.streams.values():
            stream.far = None

    def call_of(self, other: Phone, number: str) -> tuple[UaCall, UaCall]:
        """Call ``other`` by its number; both sides of the call, once it is up."""
        before = set(other.calls)
        mine = self.call(self.proxy, number)
        eventually(lambda: mine.up or mine.asked["INVITE"].status >= 300, 10, f"{self.user} calls {number}")
        assert mine.up, f"{self.user} calls {number}: {mine.asked['INVITE'].status}"
        eventually(lambda: any(call.up for key, call in list(other.calls.items()) if key not in before), 10, "the ACK")
        (theirs,) = (call for key, call in list(other.calls.items()) if key not in before)
        return mine, theirs


def hear_each_other(streams: tuple[Stream, Stream], packets: int = 12, timeout_s: float = 8.0) -> None:
    """Wait until both ends have heard that many more packets."""
    before = [len(stream.heard) for stream in streams]

    def heard() -> list[int]:
        return [len(stream.heard) - count for stream, count in zip(streams, before, strict=True)]

    deadline = time.monotonic() + timeout_s
    while min(heard()) < packets:
        assert time.monotonic() < deadline, f"packets that the two heard of each other: {heard()}"
        time.sleep(0.02)
