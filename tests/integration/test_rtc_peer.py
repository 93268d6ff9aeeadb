"""A peer with WebRTC (aiortc) that calls plain RTP through a real SBC: WSS, ICE, DTLS-SRTP."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import Agent, UaCall
from tests.support.baresip import amplitude, spoken
from tests.support.certificates import Authority
from tests.support.loopback import CALLEE, CALLER, CORE, OTHER, OUTSIDE
from tests.support.rtc_peer import LOUD, RtcPeer
from tests.support.sbc import Sbc, free_port, running
from tests.support.tone import Tone

CLEAR = LOUD * 0.8
PEER_HZ, CARRIER_HZ = 440, 1000

CONFIG = """\
workers: {{ sip: 1, media: 1 }}
realms:
  outside:
    listen: [wss:{outside}:{wss}]
    tls: {{ certificate: sbc.pem, key: sbc.key }}
    media: {{ address: {outside}, ports: 26200-26299 }}
  core:
    listen: [udp:{core}:{sip}]
    media: {{ address: {core}, ports: 26300-26399 }}
    trusted: true
peers:
  browsers: {{ realm: outside, addresses: {caller}, calls_to: carrier, profile: webrtc }}
  opus: {{ realm: outside, addresses: {other}, calls_to: wide, profile: webrtc }}
  carrier: {{ realm: core, addresses: {callee}, gateway: "sip:{callee}:{carrier}" }}
  wide: {{ realm: core, addresses: {core}, gateway: "sip:{callee}:{wide}" }}
"""


class Site:
    """The SBC; a carrier of PCMU that plays a tone, and one of Opus that plays back what it hears."""

    def __init__(self, directory: Path, wss: int, sbc: Sbc) -> None:
        self.url, self.sbc = f"wss://{OUTSIDE}:{wss}/", sbc
        self.trust = ssl.create_default_context(cafile=str(directory / "ca" / "authority.pem"))
        self.records = 0

    async def ended(self) -> None:
        self.records += 1
        await until(lambda: len(self.sbc.cdrs()) == self.records, 5, "a record")
        for leg in self.sbc.cdrs()[-1]["media"].values():
            assert min(leg["packets"], leg["packets_out"]) > 50
        assert self.sbc.total("CORE_ERRORS") == self.sbc.total("CORE_FAULTS") == 0


async def until(check: Callable[[], bool], timeout_s: float, what: str) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not check():  # noqa: ASYNC110  # the check looks at a thread
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None


@pytest.fixture(scope="module")
def tone() -> Iterator[Tone]:
    with Tone(CALLEE, CARRIER_HZ) as made:
        yield made


@pytest.fixture(scope="module")
def echo() -> Iterator[Tone]:
    with Tone(CALLEE, 0) as made:
        yield made


@pytest.fixture(scope="module")
def carrier(tone: Tone) -> Iterator[Agent]:
    with Agent(CALLEE, audio_port=lambda: tone.port) as made:
        yield made


@pytest.fixture(scope="module")
def wide(echo: Tone) -> Iterator[Agent]:
    with Agent(CALLEE, audio_port=lambda: echo.port, codec="96 opus/48000/2") as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, carrier: Agent, wide: Agent) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rtc")
    pair = Authority(directory / "ca", "authority").sign("sbc", f"IP:{OUTSIDE}")
    (directory / "sbc").mkdir()
    shutil.copy(pair.certificate, directory / "sbc" / "sbc.pem")
    shutil.copy(pair.key, directory / "sbc" / "sbc.key")
    wss = free_port(OUTSIDE)
    text = CONFIG.format(
        **{"outside": OUTSIDE, "core": CORE, "caller": CALLER, "other": OTHER, "callee": CALLEE},
        **{"wss": wss, "sip": free_port(CORE), "carrier": carrier.port, "wide": wide.port},
    )
    with running(directory / "sbc", text) as sbc:
        yield Site(directory, wss, sbc)


async def connected(agent: Agent) -> UaCall:
    await until(lambda: any(call.up for call in agent.all_calls()), 3, "a call")
    return agent.all_calls()[-1]


async def test_pcmu_with_hold_and_the_carrier_hangs_up(site: Site, carrier: Agent, tone: Tone) -> None:
    async with RtcPeer(site.url, site.trust, codec="PCMU", hz=PEER_HZ, source=CALLER) as peer:
        assert await peer.call("1001") == 200
        call = await connected(carrier)
        tone.far = call.far_audio
        await until(lambda: amplitude(list(peer.heard), CARRIER_HZ) > CLEAR, 5, "a tone at the peer")
        await until(lambda: amplitude(spoken(tone.heard[-50:]), PEER_HZ) > CLEAR, 3, "a tone at the carrier")
        assert await peer.offer("inactive") == 200
        assert call.far_direction == "inactive"
        tone.far = None
        await asyncio.sleep(0.2)
        tone.heard.clear()
        await asyncio.sleep(0.4)
        assert len(tone.heard) < 5
        assert await peer.offer("sendrecv") == 200
        peer.heard.clear()
        tone.far = call.far_audio
        await until(lambda: len(tone.heard) >= 50, 3, "audio at the carrier")
        assert amplitude(spoken(tone.heard[-25:]), PEER_HZ) > CLEAR
        assert amplitude(list(peer.heard)[-2000:], CARRIER_HZ) > CLEAR
        carrier.hang_up(call)
        await until(lambda: "BYE" in peer.methods, 3, "a BYE")
    await site.ended()


async def test_opus_passes_through(site: Site, wide: Agent, echo: Tone) -> None:
    """What the peer said comes back to it."""
    async with RtcPeer(site.url, site.trust, codec="opus", hz=PEER_HZ, source=OTHER) as peer:
        assert await peer.call("1001") == 200
        await connected(wide)
        await until(lambda: len(echo.heard) >= 60, 5, "audio at the other side")
        # its encoder makes two channels of one, each of 0.7 of the level
        await until(lambda: amplitude(list(peer.heard), PEER_HZ) > CLEAR * 0.7, 6, "its own tone at the peer")
        assert amplitude(list(peer.heard), CARRIER_HZ) < CLEAR / 20
        assert {packet[1] & 127 for packet in echo.heard} == {96}
        assert {packet[0] for packet in echo.heard} == {0x80}
        assert await peer.hang_up() == 200
    await site.ended()
