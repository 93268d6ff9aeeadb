"""A media worker dies with its node, and the idle one of the standby goes on with what it was told. The addresses move
by themselves here: on loopback both workers have them."""

from __future__ import annotations

import os
import signal
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Endpoint, Offer, Query, Stream
from media.replication.frames import FrameError
from media.replication.receiver import Receiver
from media.replication.sender import Sender
from media.replication.takeover import Takeover
from sbc.selftest.background import Background
from tests.support import audio
from tests.support.audio import Audio
from tests.support.browser import Browser
from tests.support.callers import spread
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.sbc import eventually

CALLS, TALKING = 200, 3
DETECTION_S = 0.6  # three heartbeats and a little
SUITE = "AES_CM_128_HMAC_SHA1_80"
REALMS: dict[str, dict[str, object]] = {
    "outside": {"address": OUTSIDE, "ports": [32000, 32999]},
    "core": {"address": CORE, "ports": [33000, 33999]},
    "web": {"address": "127.0.0.1", "ports": [34000, 34099]},
}


class Standby(Background):
    """Two workers, and what carries frames from one to the other until the end of the block."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.active, self.idle = (
            MediaProcess(f"ipc://{directory}/{name}.sock", REALMS, capacity=512, idle=name == "idle")
            for name in ("active", "idle")
        )
        for worker in (self.active, self.idle):
            worker.start()
        self.sender = Sender(self.active.state_fd, 0, 512)
        self.receiver = Receiver(self.idle.state_fd, 0, 512)
        self.faults: list[Exception] = []

    def _run(self) -> None:
        try:
            while self._running:
                try:
                    for frame in self.sender.poll(time.monotonic_ns()):
                        self.receiver.feed(frame, time.monotonic_ns())
                except FrameError:
                    self.sender.full_sync()
                time.sleep(0.1)
        except Exception as error:
            self.faults.append(error)

    def _close(self) -> None:
        self.sender.close()
        for worker in (self.active, self.idle):
            worker.close()
        assert not self.faults

    def wait(self, sessions: int) -> None:
        """Until so many are kept ready, and a second more."""
        eventually(
            lambda: bool(self.faults) or self.receiver.sessions == sessions, 10, f"{sessions} sessions at the standby"
        )
        assert not self.faults
        time.sleep(1.0)

    def fail_over(self, sessions: int) -> Takeover:
        """The active node is dead, as far as the standby can tell after a while, and that one takes over."""
        self.active.kill()
        self.leave()
        time.sleep(DETECTION_S)
        begun = time.monotonic()
        found = self.receiver.activate(time.monotonic_ns())
        self.idle.page[511] = 1  # it is idle no more
        os.kill(self.idle.pid, signal.SIGUSR1)
        active = MediaCounter.SESSIONS_ACTIVE
        eventually(lambda: self.idle.count(active) == sessions, 10, "all sessions at the standby")
        print(f"{found}, taken over in {time.monotonic() - begun:.3f} s")
        return found


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Standby]:
    with Standby(tmp_path) as made:
        yield made


def connect(control: MediaControl, name: str, a: int, b: int) -> tuple[Endpoint, Endpoint, str, str]:
    """RTP outside, SRTP in the core; where a and b are to send, b's key and the one towards it."""
    offered = control.ask(Offer(name, "a", "b", "outside", "core", [Stream(CALLER, a)], to_srtp="required"))
    assert offered.ok, offered
    facing_b = offered.endpoints[0]
    key = b64encode(os.urandom(30)).decode()
    stream = Stream(CALLEE, b, protocol="RTP/SAVP", keys=[f"1 {SUITE} inline:{key}"])
    answered = control.ask(Answer(name, "b", "a", [stream]))
    assert answered.ok, answered
    shown = next(line for line in facing_b.keys if SUITE in line)
    return answered.endpoints[0], facing_b, key, shown.partition("inline:")[2].partition("|")[0]


@pytest.mark.parametrize("rollovers", [0, 2, 300])
def test_streams_go_on_at_the_standby(pair: Standby, rollovers: int) -> None:
    """200 calls, some of them talking, RTP on one side and SRTP of that age on the other: audio goes on both ways, on
    the same ports, and libsrtp at the far side takes every packet: no index was used twice."""
    control = MediaControl(pair.active.endpoint)
    with Audio(CALLER) as near, Audio(CALLEE) as far:
        for number in range(CALLS):
            if number >= TALKING:
                connect(control, f"call-{number}", 9, 9)
                continue
            a, b = near.streams[near.open()], far.streams[far.open()]
            for_a, for_b, key, our_key = connect(control, f"call-{number}", a.port, b.port)
            a.far, b.far = (OUTSIDE, for_a.port), (CORE, for_b.port)
            b.secure(key, our_key)
        streams = [*near.streams.values(), *far.streams.values()]
        near.talk()
        far.talk()
        eventually(lambda: all(len(stream.heard) > 20 for stream in streams), 10, "audio both ways in each call")
        near.talking = far.talking = False
        time.sleep(0.05)
        for stream in streams:
            stream.age(rollovers)
        time.sleep(0.1)
        for stream in streams:
            stream.heard.clear()
        near.talking = far.talking = True
        eventually(lambda: all(len(stream.heard) > 50 for stream in streams), 10, f"audio at rollover {rollovers}")
        pair.wait(CALLS)
        start = time.monotonic()
        found = pair.fail_over(CALLS)
        assert found.sessions == CALLS
        assert found.sources == TALKING
        eventually(lambda: all(stream.heard[-1][0] > start + DETECTION_S for stream in streams), 10, "audio again")
        time.sleep(0.5)
        near.talking = far.talking = False
        time.sleep(0.1)
        for side, ends in (("RTP to SRTP", far), ("SRTP to RTP", near)):
            gaps = [stream.longest_silence(start, time.monotonic() - 0.2) for stream in ends.streams.values()]
            print(f"rollover {rollovers}, {side}: silence {spread(gaps)}, {DETECTION_S} s of it until the order")
        for stream in streams:
            numbers = [number for _, number, _ in stream.heard]
            assert numbers == sorted(set(numbers))
            assert len({source for _, _, source in stream.heard}) == 1
            assert not stream.forged
        control.close()
        control = MediaControl(pair.idle.endpoint)
        stats = control.ask(Query("call-0")).stats
        assert stats["a"][0].latched
        assert stats["a"][0].packets_in > 100
        control.close()


def test_a_browser_goes_on_at_the_standby(pair: Standby) -> None:
    """ICE, and keys that came by DTLS, under which the far end goes on without a handshake; the idle worker was killed
    before, and its successor was told everything anew."""
    control, browser = MediaControl(pair.active.endpoint), Browser()
    with Audio(CALLEE) as far:
        b = far.streams[far.open()]
        b.expected = b"\x77" * 160
        stream = browser.stream()
        offered = control.ask(Offer("web", "a", "b", "web", "core", [stream], from_srtp="dtls", from_ice="lite"))
        assert offered.ok, offered
        answered = control.ask(Answer("web", "b", "a", [Stream(CALLEE, b.port)]))
        assert answered.ok, answered
        browser.see(answered.endpoints[0])
        browser.connect()
        head = audio._HEAD
        far.talk()
        for number in range(30):
            browser.send(head.pack(0x80, 0, number, number * 160, 7) + b.expected)
            time.sleep(0.02)
        eventually(lambda: len(b.heard) > 20, 5, "audio of the browser")
        pair.wait(1)
        pair.idle.kill()  # its successor is idle too
        pair.idle.start()
        pair.wait(1)
        assert not pair.idle.count(MediaCounter.SESSIONS_ACTIVE)
        pair.fail_over(1)
        known = len(b.heard)
        browser.check()
        for number in range(200, 230):
            browser.send(head.pack(0x80, 0, number, number * 160, 7) + b.expected)
            time.sleep(0.02)
        eventually(lambda: len(b.heard) > known + 20, 5, "audio of the browser at the standby")
    browser.close()
    control.close()
