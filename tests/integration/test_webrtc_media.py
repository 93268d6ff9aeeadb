"""A browser's leg through a media worker in a process of its own: ICE, DTLS-SRTP, and a plain leg on the other side."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Delete, Endpoint, Offer, Reply, Stream
from tests.support.browser import Browser
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.secure import rtcp, rtp
from tests.support.stun import Agent, error_code

REALMS: dict[str, dict[str, object]] = {
    "core": {"address": "127.0.0.1", "ports": [24000, 24099]},
    "outside": {"address": "127.0.0.1", "ports": [24100, 24199]},
}


class Call:
    """A browser that calls, and a phone with RTP and RTCP sockets that is called; or the other way round."""

    def __init__(self, control: MediaControl, browser: Browser, name: str = "s") -> None:
        self.control, self.browser, self.name = control, browser, name
        self.phone, self.phone_rtcp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.phone, self.phone_rtcp):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(0.05)
        self.plain = Stream("127.0.0.1", self.phone.getsockname()[1], rtcp_port=self.phone_rtcp.getsockname()[1])
        self.facing_phone = Endpoint("", 0, 0)

    def offer(self, streams: list[Stream] | None = None, **more: str) -> Reply:
        described = streams or [self.browser.stream()]
        request = Offer(self.name, "a", "b1", "outside", "core", described, from_srtp="dtls", from_ice="lite")
        for name, value in more.items():
            setattr(request, name, value)
        return self.control.ask(request)

    def answer(self) -> Reply:
        return self.control.ask(Answer(self.name, "b1", "a", [self.plain]))

    def begin(self) -> Endpoint:
        """Both descriptions have crossed; what the browser was shown."""
        offered = self.offer()
        assert offered.ok, offered.reason
        self.facing_phone = offered.endpoints[0]
        answered = self.answer()
        assert answered.ok, answered.reason
        self.browser.see(answered.endpoints[0])
        return answered.endpoints[0]

    def to_browser(self, sequence: int) -> bytes:
        self.phone.sendto(rtp(sequence, ssrc=7), ("127.0.0.1", self.facing_phone.port))
        return self.browser.hear()

    def to_phone(self, sequence: int) -> bytes:
        self.browser.send(rtp(sequence, ssrc=8))
        return heard(self.phone)

    def both_ways(self, sequence: int) -> None:
        """Within some packets from this one on: no index is used twice."""
        assert any(self.to_phone(n) == rtp(n, ssrc=8) for n in range(sequence, sequence + 60))
        assert any(self.to_browser(n) == rtp(n, ssrc=7) for n in range(sequence, sequence + 60))

    def close(self) -> None:
        self.control.ask(Delete(self.name))
        for sock in (self.phone, self.phone_rtcp, self.browser.socket):
            sock.close()


def heard(sock: socket.socket) -> bytes:
    try:
        return sock.recv(2048)
    except TimeoutError:
        return b""


def soon(true: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaProcess]:
    endpoint = f"ipc://{tmp_path_factory.mktemp('media')}/m"
    process = MediaProcess(endpoint, REALMS, quarantine_s=0.1)
    process.start()
    yield process
    process.close()


@pytest.fixture
def call(control: MediaControl) -> Iterator[Call]:
    made = Call(control, Browser())
    yield made
    made.close()


def test_audio_and_rtcp_cross_both_ways(call: Call) -> None:
    shown = call.begin()
    assert (shown.protocol, shown.setup, shown.rtcp_port) == ("UDP/TLS/RTP/SAVPF", "passive", shown.port)
    assert shown.fingerprint.startswith("sha-256 ")
    assert (call.facing_phone.protocol, call.facing_phone.ice, call.facing_phone.fingerprint) == ("RTP/AVP", None, "")
    assert call.facing_phone.rtcp_port == call.facing_phone.port + 1
    assert call.to_browser(1) == b""  # nobody has said yet that he is there
    call.browser.connect()
    certificate = call.browser.connection.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    call.both_ways(2)
    call.browser.send(rtcp(8), rtcp=True)  # on the one port; the phone has two
    assert soon(lambda: heard(call.phone_rtcp) == rtcp(8), 2)
    call.phone_rtcp.sendto(rtcp(7), ("127.0.0.1", call.facing_phone.port + 1))
    assert soon(lambda: call.browser.hear(rtcp=True) == rtcp(7), 2)


@pytest.mark.parametrize("profile", [b"SRTP_AES128_CM_SHA1_80", b"SRTP_AEAD_AES_128_GCM"])
def test_the_suite_is_one_of_the_browsers(control: MediaControl, profile: bytes) -> None:
    call = Call(control, Browser(profiles=profile))
    call.begin()
    call.browser.connect()
    assert call.browser.connection.get_selected_srtp_profile() == profile
    call.both_ways(1)
    call.close()


def test_a_browser_that_is_called_and_says_hello_before_its_answer(control: MediaControl) -> None:
    browser = Browser()
    call = Call(control, browser)
    offered = control.ask(
        Offer("s", "b1", "a", "core", "outside", [call.plain], to_srtp="dtls", to_ice="lite")
    ).endpoints[0]
    assert (offered.protocol, offered.setup, offered.rtcp_port) == ("UDP/TLS/RTP/SAVPF", "actpass", offered.port)
    browser.see(offered)
    browser.connect()
    browser.send(rtp(1))
    assert heard(call.phone) == b""  # it has proved nothing yet
    call.facing_phone = control.ask(Answer("s", "a", "b1", [browser.stream("active")])).endpoints[0]
    assert call.facing_phone.protocol == "RTP/AVP"
    call.both_ways(2)
    call.close()


def test_a_certificate_that_was_not_described_gets_no_media(worker: MediaProcess, call: Call) -> None:
    before = worker.count(MediaCounter.DTLS_WRONG_CERTIFICATE)
    described = call.browser.stream()
    described.fingerprints = ["sha-256 " + ":".join(["AB"] * 32)]
    call.facing_phone = call.offer([described]).endpoints[0]
    call.browser.see(call.answer().endpoints[0])
    call.browser.connect()
    assert soon(lambda: worker.count(MediaCounter.DTLS_WRONG_CERTIFICATE) == before + 1)
    assert call.to_browser(1) == call.to_phone(1) == b""


@pytest.mark.parametrize("value", ["md5 " + ":".join(["AB"] * 16), "sha-1 " + ":".join(["AB"] * 20)])
def test_a_hash_that_proves_nothing_is_refused(control: MediaControl, value: str) -> None:
    stream = Stream("0.0.0.0", 9, protocol="UDP/TLS/RTP/SAVPF", fingerprints=[value], setup="actpass")
    reply = control.ask(Offer("x", "a", "b1", "outside", "core", [stream], from_srtp="dtls", from_ice="lite"))
    assert (reply.ok, reply.code) == (False, "unsupported")
    assert "sha-256" in reply.reason


def test_a_worker_that_is_killed_leaves_keys_credentials_and_certificate(worker: MediaProcess, call: Call) -> None:
    shown = call.begin()
    call.browser.connect()
    call.both_ways(1)
    worker.kill()
    worker.start()
    for sequence in range(200, 210):  # indices that may have been under way are left out
        call.to_phone(sequence)
        call.to_browser(sequence)
    call.both_ways(300)
    assert call.browser.check()[:2] == b"\1\1"
    again = call.offer().endpoints
    assert again[0].port == call.facing_phone.port
    assert call.answer().endpoints[0] == shown
    call.both_ways(400)


def test_a_worker_that_is_killed_before_the_handshake_takes_it_then(worker: MediaProcess, call: Call) -> None:
    call.begin()
    call.browser.check()
    worker.kill()
    worker.start()
    assert call.browser.handshake()
    call.both_ways(1)


def test_whoever_is_not_the_leg_changes_nothing(worker: MediaProcess, call: Call) -> None:
    """Forged checks and 5,000 datagrams from elsewhere, of which the first octets are of every kind."""
    call.begin()
    call.browser.connect()
    call.both_ways(1)
    draw = random.Random(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.settimeout(0.2)
        forged = Agent(call.browser.agent.ufrag, "x" * 24)
        assert error_code(call.browser.check(forged, sock=stranger)) == 401
        for turn in range(5000):
            first = draw.choice((0, 1, 20, 22, 63, 128, 144, 255))
            stranger.sendto(bytes((first,)) + os.urandom(draw.choice((0, 11, 30, 200))), call.browser.far)
            if turn % 100 == 0:
                stranger.sendto(forged.check(nominate=True), call.browser.far)
                assert call.to_phone(2 + turn) == rtp(2 + turn, ssrc=8)
    call.both_ways(6000)
    stats = call.control.ask(Delete("s")).stats["a"][0]
    assert stats.remote == f"127.0.0.1:{call.browser.socket.getsockname()[1]}"


def test_hellos_from_elsewhere_do_not_keep_the_leg_out(call: Call) -> None:
    call.begin()
    other = Browser()
    other.far = call.browser.far
    assert not other.handshake(0.3)
    call.browser.connect()
    call.both_ways(1)
    other.close()


def test_a_leg_that_ends_its_association_hears_no_more(worker: MediaProcess, call: Call) -> None:
    before = worker.count(MediaCounter.DTLS_CLOSED)
    call.begin()
    call.browser.connect()
    call.both_ways(1)
    call.browser.connection.shutdown()
    call.browser.socket.sendto(call.browser.connection.bio_read(4096), call.browser.far)
    assert soon(lambda: worker.count(MediaCounter.DTLS_CLOSED) == before + 1)
    assert call.to_browser(2) == call.to_phone(2) == b""


def test_from_browser_to_browser(control: MediaControl) -> None:
    near, far = Browser(), Browser("efgh")
    call = Call(control, near)
    shown = call.offer(to_srtp="dtls", to_ice="lite").endpoints[0]
    far.see(shown)
    answered = control.ask(Answer("s", "b1", "a", [far.stream("active")])).endpoints[0]
    near.see(answered)
    assert shown.ice is not None
    assert answered.ice is not None
    assert shown.ice.password != answered.ice.password
    near.connect()
    far.connect()
    near.send(rtp(1))
    assert soon(lambda: far.hear() == rtp(1), 2)
    far.send(rtcp(), rtcp=True)
    assert soon(lambda: near.hear(rtcp=True) == rtcp(), 2)
    far.close()
    call.close()


def test_a_gateway_without_ice_is_asked_for_its_cookie_first(control: MediaControl) -> None:
    gateway = Browser()
    call = Call(control, gateway)
    stream = gateway.stream("active")
    stream.ice, stream.address, stream.port = None, "127.0.0.1", gateway.socket.getsockname()[1]
    call.facing_phone = call.offer([stream], from_ice="off").endpoints[0]
    shown = call.answer().endpoints[0]
    assert (shown.ice, shown.setup) == (None, "passive")
    gateway.far = ("127.0.0.1", shown.port)
    assert gateway.handshake()
    call.both_ways(1)
    call.close()
