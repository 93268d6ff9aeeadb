"""A browser (Chromium) that calls a plain RTP carrier through a real SBC, and is called by it: WSS, ICE, DTLS-SRTP."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.agents import Agent, UaCall
from tests.support.baresip import spoken
from tests.support.certificates import Authority
from tests.support.chromium import Chromium
from tests.support.loopback import CALLEE, CORE, OUTSIDE
from tests.support.sbc import Sbc, eventually, free_port, running
from tests.support.tone import Tone

pytestmark = pytest.mark.peer("chromium")
BROWSER = "127.0.0.1"  # where the kernel has it call from
TONE_HZ = 1000
BEEP = 3000  # amplitude that the beeps of Chromium's microphone reach, of 32767

CONFIG = """\
workers: {{ sip: 2, media: 1 }}
realms:
  outside:
    listen: [ws:{outside}:{ws}, wss:{outside}:{wss}]
    tls: {{ certificate: sbc.pem, key: sbc.key }}
    media: {{ address: {outside}, ports: 26000-26099 }}
  core:
    listen: [udp:{core}:{sip}]
    media: {{ address: {core}, ports: 26100-26199 }}
    trusted: true
peers:
  browsers: {{ realm: outside, addresses: {browser}, calls_to: carrier, profile: webrtc }}
  carrier: {{ realm: core, addresses: {callee}, gateway: "sip:{callee}:{carrier}", profile: narrow }}
media_profiles:
  narrow: {{ codecs: {{ allow: [PCMU, PCMA] }} }}
"""


class Site:
    """The SBC, a browser outside, and a carrier in the core that answers every call with a tone."""

    def __init__(
        self, sbc: Sbc, browser: Chromium, carrier: Agent, tone: Tone, url: str, core: tuple[str, int]
    ) -> None:
        self.sbc, self.browser, self.carrier, self.tone, self.url, self.core = sbc, browser, carrier, tone, url, core
        self.records = 0

    def phone(self, **options: Any) -> None:  # Any: JSON
        """A new phone in the browser."""
        words = ", ".join(f"{name}: {str(value).lower()}" for name, value in options.items())
        self.browser.run(f"phone = new Phone('alice', 'sbc.example', {{ {words} }})")
        self.browser.run(f"phone.connect('{self.url}')")
        self.tone.heard.clear()

    def carrier_call(self) -> UaCall:
        """The carrier's side of the only call, whose tone begins now."""
        eventually(lambda: any(call.up for call in self.carrier.all_calls()), 5, f"a call\n{self.sbc.log[-3000:]}")
        (call,) = self.carrier.all_calls()
        self.tone.far = call.far_audio
        return call

    def stats(self) -> dict[str, Any]:  # Any: JSON
        found: dict[str, Any] = self.browser.run("phone.stats()")  # Any: JSON
        return found

    def audio_both_ways(self) -> None:
        """The browser hears the tone, and the carrier the beeps of its microphone."""
        self.browser.until("phone.loudest().db > -40", 6, "a sound in the browser")
        loudest = self.browser.run("phone.loudest()")
        assert abs(loudest["hz"] - TONE_HZ) < 15, loudest
        self.tone.heard.clear()
        eventually(lambda: beeps(self.tone.heard), 3, "a beep at the carrier")
        before = self.stats()
        time.sleep(0.5)
        after = self.stats()
        assert (after["state"], after["dtls"], after["codec"]) == ("connected", "connected", "audio/PCMU")
        for name in ("sent", "received"):
            assert after[name] - before[name] > 15, (name, before, after)

    def ended(self, status: int = 200) -> None:
        """The call is over, and its record tells of packets both ways."""
        self.tone.far = None
        eventually(lambda: not self.sbc.calls(), 5, "no call left")
        self.records += 1
        eventually(lambda: len(self.sbc.cdrs()) == self.records, 5, "a record")
        self.carrier.calls.clear()
        assert self.browser.run("phone.errors") == []
        assert self.sbc.total("CORE_ERRORS") == self.sbc.total("CORE_FAULTS") == 0


def beeps(packets: list[bytes]) -> bool:
    """PCMU without extensions, and loud."""
    assert {packet[0] for packet in packets} <= {0x80}
    assert {packet[1] & 127 for packet in packets} <= {0}
    return max(map(abs, spoken(packets)), default=0) > BEEP


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("browser")
    pair = Authority(directory / "ca", "authority").sign("sbc", f"IP:{OUTSIDE}")
    (directory / "sbc").mkdir()
    shutil.copy(pair.certificate, directory / "sbc" / "sbc.pem")
    shutil.copy(pair.key, directory / "sbc" / "sbc.key")
    wss, sip = free_port(OUTSIDE), free_port(CORE)
    with Tone(CALLEE, TONE_HZ) as tone, Agent(CALLEE, audio_port=lambda: tone.port) as carrier:
        text = CONFIG.format(
            **{"outside": OUTSIDE, "core": CORE, "browser": BROWSER, "callee": CALLEE, "carrier": carrier.port},
            **{"ws": free_port(OUTSIDE), "wss": wss, "sip": sip},
        )
        with running(directory / "sbc", text) as sbc, Chromium(directory / "chromium") as browser:
            yield Site(sbc, browser, carrier, tone, f"wss://{OUTSIDE}:{wss}/", (CORE, sip))


@pytest.mark.parametrize("video", [False, True], ids=["candidates", "no candidates, and video"])
def test_a_browser_calls_holds_and_hangs_up(site: Site, video: bool) -> None:
    """Video is offered in one bundle with audio, and declined."""
    site.phone(gathers=not video, video=video)
    assert site.browser.run("phone.call('1001')") == 200
    assert site.browser.run("phone.pc.remoteDescription.sdp.includes('m=video 0 ')") == video
    call = site.carrier_call()
    site.audio_both_ways()
    assert site.browser.run("phone.offer({ direction: 'inactive' })") == 200
    assert call.far_direction == "inactive"
    site.tone.heard.clear()
    time.sleep(0.5)
    assert len(site.tone.heard) < 5
    assert site.browser.run("phone.offer({ direction: 'sendrecv', restart: true })") == 200
    site.tone.far = call.far_audio
    site.audio_both_ways()
    assert site.browser.run("phone.hangUp()") == 200
    eventually(lambda: call.ended_by_far, 3, "a BYE")
    site.ended()


def test_a_browser_is_called_held_and_hung_up_on(site: Site) -> None:
    site.phone()
    assert site.browser.run("phone.register()") == 200
    number = site.carrier.registered[-1].partition("sip:")[2].partition("@")[0]
    call = site.carrier.call(site.core, number)
    site.carrier_call()
    site.audio_both_ways()
    held = site.carrier.modify(call, "sendonly")
    eventually(lambda: held.status != 0, 3, "an answer")
    assert (held.status, call.far_direction) == (200, "recvonly")
    resumed = site.carrier.modify(call, "sendrecv")
    eventually(lambda: resumed.status != 0, 3, "an answer")
    site.audio_both_ways()
    site.carrier.hang_up(call)
    site.browser.until("phone.seen.includes('BYE')", 3, "a BYE in the browser")
    site.ended()
