"""Strangers at a real media worker, who spray its whole port range before, during and after a call finds its ends:
nothing of theirs is relayed, nothing comes back to them, and the call is whole."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pylibsrtp
import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Delete, Endpoint, Latch, ListSessions, Offer, Query, Reply, Stream
from sbc.selftest.netns import Lab
from tests.support import sprayer
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.sprayer import EVIL, spraying

PAIRS = 20
OUTSIDE_PORTS, CORE_PORTS = (28000, 28000 + 2 * PAIRS - 1), (28100, 28100 + 2 * PAIRS - 1)
EVERY_PORT = OUTSIDE_PORTS[0], CORE_PORTS[1]
LONE_PAIRS = (28200, 28201), (28202, 28203)
QUARANTINE_S = 0.4
SUITE = "AES_CM_128_HMAC_SHA1_80"


@dataclass(slots=True)
class Network:
    """Where everybody is. ``lab``: all in its host ``box``."""

    relay: str = "127.0.0.1"
    phone: str = "127.0.0.2"
    gateway: str = "127.0.0.3"
    stranger: str = "127.0.0.66"
    private: str = "192.168.1.20"  # what a phone behind NAT describes
    elsewhere: str = "203.0.113.9"  # what a phone describes that does not know where it is
    lab: Lab | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        return tuple(self.lab.inside("box")) if self.lab is not None else ()

    def socket(self, host: str, port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self.lab.open_socket("box", family) if self.lab is not None else socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((host, port))
        sock.settimeout(2)
        return sock


@dataclass(slots=True)
class Party:
    """An RTP and an RTCP socket of one end of the call, which may speak SRTP."""

    network: Network
    host: str
    ssrc: int
    rtp: socket.socket = field(init=False)
    rtcp: socket.socket = field(init=False)
    key: str = ""
    sequence: int = 500
    heard: int = 0
    evil: int = 0
    last: bytes = b""
    _in: Any = None  # Any: pylibsrtp has no types
    _out: Any = None

    def __post_init__(self) -> None:
        self.rtp, self.rtcp = self.network.socket(self.host), self.network.socket(self.host)
        for sock in (self.rtp, self.rtcp):
            sock.setblocking(False)

    def stream(self, *, address: str = "", mux: bool = False, secure: bool = False) -> Stream:
        port, rtcp_port = self.rtp.getsockname()[1], 0 if mux else self.rtcp.getsockname()[1]
        found = Stream(address or self.host, port, rtcp_port=rtcp_port, rtcp_mux=mux)
        if secure:
            self.key = base64.b64encode(os.urandom(30)).decode()
            found.protocol = "RTP/SAVP"
            found.keys = [f"1 {SUITE} inline:{self.key}"]
        return found

    def keyed(self, theirs: Endpoint) -> None:
        """Both keys are known: ours, and that of what we were told to send to."""
        if self.key:
            far = theirs.keys[0].partition("inline:")[2]
            outbound, inbound = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
            self._out = pylibsrtp.Session(pylibsrtp.Policy(key=base64.b64decode(self.key), ssrc_type=outbound))
            self._in = pylibsrtp.Session(pylibsrtp.Policy(key=base64.b64decode(far), ssrc_type=inbound))

    def packet(self) -> bytes:
        self.sequence += 1
        plain = struct.pack("!BBHII", 0x80, 8, self.sequence, self.sequence * 160, self.ssrc) + b"\x55" * 160
        self.last = plain if self._out is None else self._out.protect(plain)
        return self.last

    def talk(self, to: Endpoint, host: str) -> None:
        self.rtp.sendto(self.packet(), (host, to.port))

    def listen(self) -> None:
        """Take all that has come, by either socket."""
        for sock in (self.rtp, self.rtcp):
            while True:
                try:
                    data = sock.recv(2048)
                except BlockingIOError:
                    break
                if self._in is not None and sock is self.rtp:
                    with contextlib.suppress(pylibsrtp.Error):
                        data = self._in.unprotect(data)
                if EVIL in data or b"\xee\xee\xee\xee" in data or struct.pack("!I", sprayer.EVIL_SSRC) in data:
                    self.evil += 1
                elif data[12:] == b"\x55" * 160:
                    self.heard += 1

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()


@dataclass(slots=True)
class Call:
    """A phone outside and a gateway in the core, by way of the worker."""

    network: Network
    worker: MediaProcess
    control: MediaControl
    phone: Party = field(init=False)
    gateway: Party = field(init=False)
    facing_phone: Endpoint = field(init=False)
    facing_gateway: Endpoint = field(init=False)
    _before: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._before = list(self.worker.page)
        self.phone = Party(self.network, self.network.phone, 0xA)
        self.gateway = Party(self.network, self.network.gateway, 0xB)

    def offer(
        self, name: str = "call", *, latch: Latch = "", described: str = "", mux: bool = False, secure: bool = False
    ) -> None:
        stream = self.phone.stream(address=described, mux=mux, secure=secure)
        srtp = "required" if secure else "off"
        signalling = self.phone.host
        reply = self.ask(
            Offer(name, "a", "b1", "outside", "core", [stream], signalling, srtp, from_latch=latch)  # type: ignore[arg-type]  # one of Srtp
        )
        self.facing_gateway = reply.endpoints[0]

    def answer(self, name: str = "call", *, mux: bool = False) -> None:
        stream = self.gateway.stream(mux=mux)
        self.facing_phone = self.ask(Answer(name, "b1", "a", [stream], self.network.gateway, "fixed")).endpoints[0]
        self.phone.keyed(self.facing_phone)

    def ask(self, request: Offer | Answer | Delete | Query | ListSessions) -> Reply:
        reply = self.control.ask(request)
        assert reply.ok, reply
        return reply

    def counted(self, counter: MediaCounter) -> int:
        """Since this call was made."""
        return self.worker.count(counter) - self._before[counter]

    def talk(self, packets: int) -> None:
        """Both ends, 50 packets/s, and both listen."""
        for _ in range(packets):
            self.phone.talk(self.facing_phone, self.network.relay)
            self.gateway.talk(self.facing_gateway, self.network.relay)
            time.sleep(0.02)
            self.listen()
        time.sleep(0.03)
        self.listen()

    def listen(self) -> None:
        self.phone.listen()
        self.gateway.listen()

    def close(self) -> None:
        for name in self.ask(ListSessions()).sessions:
            self.ask(Delete(name))
        self.control.close()
        self.phone.close()
        self.gateway.close()


@contextlib.contextmanager
def working(
    directory: Path,
    network: Network,
    outside: tuple[int, int] = OUTSIDE_PORTS,
    core: tuple[int, int] = CORE_PORTS,
) -> Iterator[MediaProcess]:
    realms: dict[str, dict[str, object]] = {
        "outside": {"address": network.relay, "ports": list(outside)},
        "core": {"address": network.relay, "ports": list(core)},
    }
    worker = MediaProcess(f"ipc://{directory}/media.sock", realms, quarantine_s=QUARANTINE_S)
    try:
        worker.start(prefix=network.prefix)
        yield worker
    finally:
        worker.close()


@contextlib.contextmanager
def call(worker: MediaProcess, network: Network | None = None) -> Iterator[Call]:
    made = Call(network or Network(), worker, MediaControl(worker.endpoint))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaProcess]:
    with working(tmp_path_factory.mktemp("media"), Network()) as made:
        yield made


def sprayed(it: Call, *, most: int, latch: Latch, described: str = "", mux: bool = False, secure: bool = False) -> None:
    """A call under fire: ``most`` packets of the stranger may come through before the phone is known, none after."""
    network = it.network
    with spraying(network.relay, EVERY_PORT, network.stranger, per_s=4000, prefix=network.prefix) as spray:
        time.sleep(0.1)
        it.offer(latch=latch, described=described, mux=mux, secure=secure)
        time.sleep(0.3)  # it rings
        it.listen()
        assert it.gateway.evil == it.phone.evil == 0
        it.answer(mux=mux)
        time.sleep(0.12)  # the phone is not quick
        it.listen()
        assert it.gateway.evil <= most
        assert it.phone.evil == 0
        before = it.gateway.evil
        it.talk(1)
        it.talk(25)
        assert it.gateway.evil == before, "after the phone's first packet"
        assert it.gateway.heard == 26
        assert it.phone.heard >= 25  # the first may cross the phone's own first
        stats = it.ask(Query("call")).stats["a"][0]
        assert stats.remote == address(network.phone, it.phone.rtp.getsockname()[1])
        assert stats.refused > 10
        assert (stats.packets_in, stats.rtcp_in) == (26 + before, 0)
        it.ask(Delete("call"))
        time.sleep(0.1)
    it.listen()
    assert it.phone.evil == 0
    assert it.gateway.evil == before
    assert spray.sent > 1000
    assert spray.received == 0, "media or RTCP came to the stranger"
    assert it.counted(MediaCounter.PACKETS_RELAYED) == 52 + before
    assert it.counted(MediaCounter.RTCP_RELAYED) == 0
    assert it.counted(MediaCounter.DROP_UNUSED_PORT) > 0


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# A phone that describes where it is; one that describes its address behind NAT; one that describes another one.
WAYS: dict[str, dict[str, Any]] = {  # Any: arguments of sprayed
    "fixed": {"latch": "fixed", "most": 0},
    "fixed-mux": {"latch": "fixed", "most": 0, "mux": True},
    "signalled": {"latch": "signalled", "most": 3, "described": "192.168.1.20"},
    "learn": {"latch": "learn", "most": 3, "described": "203.0.113.9"},
    "learn-mux": {"latch": "learn", "most": 3, "described": "203.0.113.9", "mux": True},
    "srtp-fixed": {"latch": "fixed", "most": 0, "secure": True},
    "srtp-learn": {"latch": "learn", "most": 0, "described": "203.0.113.9", "secure": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_sprayed_port_range(way: str, worker: MediaProcess) -> None:
    with call(worker) as it:
        sprayed(it, **WAYS[way])


@pytest.mark.peer("ip", "root")
@pytest.mark.parametrize("latch", ["fixed", "learn"])
def test_a_sprayed_port_range_of_ipv6(latch: Latch, tmp_path: Path) -> None:
    with Lab() as lab:
        lab.host("box")
        for last in (1, 2, 3, 66):
            lab.address("box", f"fd00::{last}/128")
        network = Network("fd00::1", "fd00::2", "fd00::3", "fd00::66", lab=lab)
        with working(tmp_path, network) as worker, call(worker, network) as it:
            sprayed(it, latch=latch, most=0 if latch == "fixed" else 3, described="" if latch == "fixed" else "fd99::9")


@pytest.mark.parametrize("secure", [False, True])
def test_a_phone_that_speaks_late_gets_its_call_back(worker: MediaProcess, secure: bool) -> None:
    """A phone behind NAT that says nothing for a while: whoever was taken for it meanwhile is put out by its first
    packet; with SRTP nobody is."""
    with call(worker) as it, it.network.socket(it.network.stranger) as stranger:
        it.offer(latch="learn", described=it.network.elsewhere, secure=secure)
        it.answer()
        for number in range(40):
            stranger.sendto(sprayer.rtp(number), (it.network.relay, it.facing_phone.port))
            time.sleep(0.01)
        it.listen()
        assert (it.gateway.evil > 3) is not secure, "40 in sequence, and no other source in 0.4 s"
        before = it.gateway.evil
        it.talk(1)
        for number in range(40, 60):
            stranger.sendto(sprayer.rtp(number), (it.network.relay, it.facing_phone.port))
            it.talk(1)
        assert it.gateway.evil == before
        assert it.gateway.heard == 21
        assert it.phone.heard >= 20


@pytest.mark.parametrize("latch", ["signalled", "learn"])
def test_media_do_not_come_to_who_sends_a_packet_and_waits(latch: Latch, worker: MediaProcess) -> None:
    """RTP bleed and RTCP bleed (CVE-2017-14099), while the phone behind NAT is silent and after it spoke."""
    with call(worker) as it, it.network.socket(it.network.stranger) as stranger:
        stranger.setblocking(False)
        described = it.network.private if latch == "signalled" else it.network.elsewhere
        it.offer(latch=latch, described=described)
        it.answer()
        report = sprayer.rtcp(0xB)[:28]
        for spoken in (False, True):
            if spoken:
                it.talk(3)
            for number in range(3):
                stranger.sendto(sprayer.rtp(number), (it.network.relay, it.facing_phone.port))
                stranger.sendto(sprayer.rtcp(), (it.network.relay, it.facing_phone.rtcp_port))
                stranger.sendto(sprayer.rtcp(), (it.network.relay, it.facing_phone.port))
            for _ in range(15):
                it.gateway.talk(it.facing_gateway, it.network.relay)
                it.gateway.rtcp.sendto(report, (it.network.relay, it.facing_gateway.rtcp_port))
                time.sleep(0.02)
            with pytest.raises(BlockingIOError):
                stranger.recv(2048)


@pytest.mark.parametrize("latch", ["fixed", "learn"])
def test_a_latch_is_not_stolen_by_a_guessed_ssrc(latch: Latch, worker: MediaProcess) -> None:
    """The right SSRC and the next sequence numbers, from another host and from another port of the phone's own."""
    with call(worker) as it:
        it.offer(latch=latch)
        it.answer()
        it.talk(5)
        for host in (it.network.stranger, it.network.phone):
            with it.network.socket(host) as thief:
                thief.setblocking(False)
                for number in range(1, 41):
                    evil = sprayer.rtp(it.phone.sequence + number, it.phone.ssrc)
                    thief.sendto(evil, (it.network.relay, it.facing_phone.port))
                    it.gateway.talk(it.facing_gateway, it.network.relay)
                    time.sleep(0.005)
                with pytest.raises(BlockingIOError):
                    thief.recv(2048)
        it.phone.talk(it.facing_phone, it.network.relay)
        time.sleep(0.05)
        it.listen()
        assert it.gateway.evil == 0
        assert it.gateway.heard == 6
        assert it.phone.heard >= 84


def test_authentic_packets_from_elsewhere_move_nothing_once_they_came(worker: MediaProcess) -> None:
    """Somebody who can listen sends each packet of a phone behind NAT again from his own address."""
    with call(worker) as it, it.network.socket(it.network.stranger) as stranger:
        stranger.setblocking(False)
        it.offer(latch="learn", described=it.network.elsewhere, secure=True)
        it.answer()
        for _ in range(20):
            it.talk(1)
            stranger.sendto(it.phone.last, (it.network.relay, it.facing_phone.port))
        it.talk(5)
        assert it.gateway.heard == 25
        assert it.phone.heard >= 24
        with pytest.raises(BlockingIOError):
            stranger.recv(2048)
        assert it.counted(MediaCounter.DROP_REPLAYED) == 20


def test_late_packets_of_an_ended_call_do_not_reach_the_next_one(tmp_path: Path) -> None:
    """A range of one pair, so that the next call gets the same port. The former phone has not heard that it is over."""
    with working(tmp_path, Network(), *LONE_PAIRS) as worker, call(worker) as it:
        it.offer("first", latch="learn")
        it.answer("first")
        it.talk(5)
        it.ask(Delete("first"))
        ended = time.monotonic()
        former, port = it.phone, it.facing_phone.port
        it.phone = Party(it.network, "127.0.0.4", 0xC)
        refused = it.control.ask(Offer("second", "a", "b1", "outside", "core", [it.phone.stream()]))
        assert refused.code == "no_ports", "a port in quarantine"
        while time.monotonic() < ended + QUARANTINE_S + 0.3:
            former.rtp.sendto(former.packet(), (it.network.relay, port))
            time.sleep(0.01)
        it.offer("second", latch="signalled")
        it.answer("second")
        assert it.facing_phone.port == port
        for _ in range(20):
            former.rtp.sendto(former.packet(), (it.network.relay, port))
            it.talk(1)
        assert it.gateway.heard == 5 + 20, "those of the next phone alone"
        former.listen()
        assert former.heard == 5, "and nothing comes to the former one"
        assert it.counted(MediaCounter.DROP_WRONG_SOURCE) == 20
        former.close()
