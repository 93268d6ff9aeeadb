"""A real media worker: RTP between real sockets, kill -9 and resumption, clean end."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Delete, Endpoint, ListSessions, Offer, Query, Stream
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.sbc import eventually

REALMS: dict[str, dict[str, object]] = {
    "core": {"address": "127.0.0.1", "ports": [31000, 31199]},
    "outside": {"address": "127.0.0.1", "advertise": "203.0.113.7", "ports": [31200, 31399]},
}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[MediaProcess]:
    process = MediaProcess(f"ipc://{tmp_path}/media.sock", REALMS, media_timeout_s=1.0)
    process.start()
    yield process
    process.close()


class Phone:
    """An RTP and an RTCP socket that count sequence numbers up."""

    def __init__(self, ssrc: int) -> None:
        self.rtp, self.rtcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        for end in (self.rtp, self.rtcp):
            end.bind(("127.0.0.1", 0))
            end.settimeout(1)
        self.ssrc = ssrc
        self.sequence = 65530  # wraps soon

    def stream(self) -> Stream:
        return Stream("127.0.0.1", self.rtp.getsockname()[1], rtcp_port=self.rtcp.getsockname()[1])

    def send(self, to: Endpoint) -> bytes:
        packet = struct.pack("!BBHII", 0x80, 8, self.sequence & 0xFFFF, self.sequence * 160, self.ssrc) + b"\x55" * 160
        self.sequence += 1
        self.rtp.sendto(packet, ("127.0.0.1", to.port))
        return packet

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()


@pytest.fixture
def phones() -> Iterator[tuple[Phone, Phone]]:
    a, b = Phone(0xA), Phone(0xB)
    yield a, b
    a.close()
    b.close()


def connect(control: MediaControl, a: Phone, b: Phone, session: str = "call-1") -> tuple[Endpoint, Endpoint]:
    """Offer and answer; returns where a and b are to send."""
    offered = control.ask(Offer(session, "a", "b1", "outside", "core", [a.stream()]))
    assert offered.ok, offered
    answered = control.ask(Answer(session, "b1", "a", [b.stream()]))
    assert answered.ok, answered
    return answered.endpoints[0], offered.endpoints[0]


def test_relays_rtp_and_rtcp_unchanged(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    for_a, for_b = connect(control, a, b)
    assert for_a.address == "203.0.113.7"
    assert for_b.address == "127.0.0.1"
    assert for_a.port % 2 == 0
    assert for_a.rtcp_port == for_a.port + 1
    for _ in range(20):
        sent = a.send(for_a)
        got, source = b.rtp.recvfrom(2048)
        assert got == sent
        assert source == ("127.0.0.1", for_b.port)
        sent = b.send(for_b)
        assert a.rtp.recvfrom(2048) == (sent, ("127.0.0.1", for_a.port))
    report = struct.pack("!BBHI5I", 0x80, 200, 6, 0xA, 0, 0, 0, 20, 3200)
    a.rtcp.sendto(report, ("127.0.0.1", for_a.rtcp_port))
    assert b.rtcp.recvfrom(2048) == (report, ("127.0.0.1", for_b.rtcp_port))
    stats = control.ask(Query("call-1")).stats
    assert (stats["a"][0].packets_in, stats["a"][0].packets_out, stats["a"][0].rtcp_in) == (20, 20, 1)
    assert (stats["b1"][0].bytes_in, stats["b1"][0].lost, stats["b1"][0].rtcp_out) == (20 * 172, 0, 1)
    assert stats["a"][0].latched
    assert stats["a"][0].mos > 4.3
    assert worker.count(MediaCounter.PACKETS_RELAYED) == 40
    ended = control.ask(Delete("call-1"))
    assert ended.stats["a"][0].packets_in == 20
    assert control.ask(Query("call-1")).code == "unknown_session"


def test_a_stranger_is_not_relayed_and_counted(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    for_a, _ = connect(control, a, b)
    a.send(for_a)
    b.rtp.recv(2048)
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        for _ in range(50):
            stranger.sendto(struct.pack("!BBHII", 0x80, 8, 1, 160, 0xBAD) + bytes(160), ("127.0.0.1", for_a.port))
            stranger.sendto(b"\xff" * 5, ("127.0.0.1", for_a.port))
    b.rtp.settimeout(0.2)
    with pytest.raises(TimeoutError):
        b.rtp.recv(2048)
    assert worker.count(MediaCounter.DROP_WRONG_SOURCE) == 50
    assert worker.count(MediaCounter.DROP_SHORT) == 50
    assert control.ask(Query("call-1")).stats["a"][0].refused == 100


def test_noise_from_both_sides_changes_nothing(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    for_a, _ = connect(control, a, b)
    a.send(for_a)
    b.rtp.recv(2048)
    draw = random.Random(11)
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        for turn in range(10_000):
            noise = draw.randbytes(draw.choice((0, 1, 7, 8, 11, 12, 60, 200, 1400, 2047, 3000)))
            end = (stranger, a.rtcp)[turn % 2]
            end.sendto(noise, ("127.0.0.1", (for_a.port, for_a.rtcp_port)[turn // 2 % 2]))
            if turn % 25 == 24:  # what the receive queue holds
                time.sleep(0.003)
    b.rtp.settimeout(0.5)
    sent = a.send(for_a)
    assert b.rtp.recv(2048) == sent
    stats = control.ask(Query("call-1")).stats
    assert stats["a"][0].remote == f"127.0.0.1:{a.rtp.getsockname()[1]}"
    assert stats["a"][0].refused > 500
    assert worker.count(MediaCounter.DROP_TOO_LONG) > 100


def test_the_same_id_gets_the_same_reply(control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    from media.protocol import encode

    offer = encode(Offer("call-1", "a", "b1", "outside", "core", [phones[0].stream()]))
    first = control.send(b"\1" * 8, offer)
    assert control.send(b"\1" * 8, offer) == first
    assert control.ask(ListSessions()).sessions == ["call-1"]


def test_killed_and_started_again_it_goes_on(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    for_a, for_b = connect(control, a, b)
    for _ in range(10):
        a.send(for_a)
        b.rtp.recv(2048)
        b.send(for_b)
        a.rtp.recv(2048)
    control.ask(Query("call-1"))  # what has left is counted by now
    worker.kill()
    worker.page[MediaCounter.SESSIONS_ACTIVE] = 99  # whatever it left behind
    died = time.monotonic()
    worker.start()
    b.rtp.settimeout(0.02)
    for _ in range(100):
        a.send(for_a)
        try:
            b.rtp.recv(2048)
            break
        except TimeoutError:
            continue
    gap = time.monotonic() - died
    assert gap < 2.0, f"audio was away for {gap:.3f} s"  # most of it for the start of Python, on a busy machine
    stats = control.ask(Query("call-1")).stats
    assert stats["a"][0].packets_in >= 11
    assert stats["a"][0].packets_out == 10
    assert stats["a"][0].lost <= 100
    assert stats["a"][0].latched, "the latch was lost"
    assert worker.count(MediaCounter.SESSIONS_RESUMED) == 1
    assert worker.count(MediaCounter.SESSIONS_ACTIVE) == 1
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(struct.pack("!BBHII", 0x80, 8, 1, 160, 0xBAD) + bytes(160), ("127.0.0.1", for_a.port))
    eventually(lambda: worker.count(MediaCounter.DROP_WRONG_SOURCE) == 1, 2, "the stranger is turned away")
    assert control.ask(Delete("call-1")).ok
    print(f"gap after kill -9, process start included: {gap * 1000:.0f} ms")


def test_silence_is_reported_to_the_owner(control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    connect(control, *phones)
    event = control.wait_notification(3)
    assert event is not None
    assert (event["event"], event["session"]) == ("timeout", "call-1")
    assert event["silent_s"] >= 1.0  # type: ignore[operator]  # a JSON number


def test_sigterm_ends_it_cleanly(worker: MediaProcess) -> None:
    assert worker.stop() == 0


def test_packets_bear_the_mark_that_the_offer_asked_for(control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    a, b = phones
    facing_b = control.ask(Offer("s", "a", "b1", "core", "outside", [a.stream()], to_dscp=46)).endpoints[0]
    facing_a = control.ask(Answer("s", "b1", "a", [b.stream()])).endpoints[0]
    for sender, to, receiver, tos in ((a, facing_a, b, 46 << 2), (b, facing_b, a, 0)):
        receiver.rtp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sender.send(to)
        _, ancillary, _, _ = receiver.rtp.recvmsg(2048, 64)
        assert [(level, kind, data[0]) for level, kind, data in ancillary] == [(socket.IPPROTO_IP, socket.IP_TOS, tos)]
