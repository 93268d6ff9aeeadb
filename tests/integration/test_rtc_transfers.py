"""A peer with WebRTC (aiortc) that is transferred by a real SBC, or is the target: it keeps its ICE agent and its DTLS
association, for it knows no way to make others (RFC 8842)."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_rtc_peer import until
from tests.support.agents import Agent, UaCall
from tests.support.baresip import amplitude, spoken
from tests.support.certificates import Authority
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE
from tests.support.rtc_peer import LOUD, RtcPeer
from tests.support.sbc import Sbc, free_port, running
from tests.support.tone import Tone

CLEAR = LOUD * 0.8
PEER_HZ, CARRIER_HZ = 440, 1000

CONFIG = """\
workers: {{ sip: 2, media: 1 }}
realms:
  outside:
    listen: [wss:{outside}:{wss}]
    tls: {{ certificate: sbc.pem, key: sbc.key }}
    media: {{ address: {outside}, ports: 26400-26499 }}
  core:
    listen: [udp:{core}:{sip}]
    media: {{ address: {core}, ports: 26500-26599 }}
    trusted: true
peers:
  browsers: {{ realm: outside, addresses: {caller}, calls_to: carrier, profile: webrtc }}
  carrier: {{ realm: core, addresses: {callee}, calls_to: carrier, gateway: "sip:{callee}:{carrier}" }}
"""


class Site:
    """The SBC, and an agent that is everybody of the carrier, with one end for the audio of all calls."""

    def __init__(self, directory: Path, wss: int, sip: int, sbc: Sbc, carrier: Agent, tone: Tone) -> None:
        self.url, self.sbc, self.carrier, self.tone = f"wss://{OUTSIDE}:{wss}/", sbc, carrier, tone
        self.core = (CORE, sip)
        self.trust = ssl.create_default_context(cafile=str(directory / "ca" / "authority.pem"))

    def peer(self) -> RtcPeer:
        self.tone.far = None
        self.carrier.calls.clear()
        return RtcPeer(self.url, self.trust, codec="PCMU", hz=PEER_HZ, source=CALLER)

    async def call(self, number: str) -> UaCall:
        """The carrier's side of a call to this number, once it is up."""
        await until(
            lambda: any(c.number == number and c.up for c in self.carrier.all_calls()), 10, f"a call to {number}"
        )
        return next(c for c in self.carrier.all_calls() if c.number == number and c.up)

    async def calls(self, number: str) -> UaCall:
        """The carrier calls."""
        call = self.carrier.call(self.core, number)
        await until(lambda: call.up, 10, f"an answer of {number}")
        return call

    async def talk(self, peer: RtcPeer, call: UaCall) -> None:
        """The peer and this end hear each other."""
        self.tone.far = call.far_audio
        peer.heard.clear()
        self.tone.heard.clear()
        await until(lambda: amplitude(list(peer.heard)[-2000:], CARRIER_HZ) > CLEAR, 10, "a tone at the peer")
        await until(lambda: amplitude(spoken(self.tone.heard[-50:]), PEER_HZ) > CLEAR, 10, "a tone at the carrier")

    async def transferred(self, call: UaCall, *others: UaCall) -> None:
        """The transferor is told that it went well, and is hung up on."""
        self.tone.far = None
        await until(lambda: call.notified[-1:] == [200], 10, "200 by NOTIFY")
        await until(lambda: all(one.ended_by_far for one in (call, *others)), 10, "a BYE to the transferor")

    async def over(self, peer: RtcPeer) -> None:
        assert await peer.hang_up() == 200
        self.tone.far = None
        await until(lambda: not self.sbc.calls(), 10, "no call left")
        assert self.sbc.total("CORE_ERRORS") == self.sbc.total("CORE_FAULTS") == self.sbc.total("MEDIA_REFUSED") == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rtc")
    pair = Authority(directory / "ca", "authority").sign("sbc", f"IP:{OUTSIDE}")
    (directory / "sbc").mkdir()
    shutil.copy(pair.certificate, directory / "sbc" / "sbc.pem")
    shutil.copy(pair.key, directory / "sbc" / "sbc.key")
    wss, sip = free_port(OUTSIDE), free_port(CORE)
    with Tone(CALLEE, CARRIER_HZ) as tone, Agent(CALLEE, audio_port=lambda: tone.port) as carrier:
        text = CONFIG.format(
            **{"outside": OUTSIDE, "core": CORE, "caller": CALLER, "callee": CALLEE},
            **{"wss": wss, "sip": sip, "carrier": carrier.port},
        )
        with running(directory / "sbc", text) as sbc:
            yield Site(directory, wss, sip, sbc, carrier, tone)


def transport(description: str) -> set[str]:
    """What a description says of our port, ICE and certificate."""
    names = ("m=audio", "a=ice-ufrag", "a=ice-pwd", "a=fingerprint")
    return {" ".join(line.split()[:2]) for line in description.split("\r\n") if line.startswith(names)}


async def test_it_is_transferred_blindly_and_once_more(site: Site) -> None:
    async with site.peer() as peer:
        assert await peer.call("1001") == 200
        first = await site.call("1001")
        await site.talk(peer, first)
        before = transport(peer.pc.remoteDescription.sdp)
        site.carrier.refer(first, "1002")
        await site.transferred(first)
        second = await site.call("1002")
        assert transport(peer.offers[-1]) == before
        await site.talk(peer, second)
        site.carrier.refer(second, "1003")
        await site.transferred(second)
        await site.talk(peer, await site.call("1003"))
        await site.over(peer)


async def test_it_is_transferred_to_a_call_that_its_transferor_has_made(site: Site) -> None:
    async with site.peer() as peer:
        assert await peer.call("1011") == 200
        first = await site.call("1011")
        await site.talk(peer, first)
        asks = await site.calls("1012")
        target = next(c for c in site.carrier.all_calls() if c.number == "1012" and c is not asks)
        site.carrier.refer(first, "1012", instead_of=asks)
        await site.transferred(first, asks)
        await site.talk(peer, target)
        assert await peer.offer("sendrecv") == 200, "a change of its own, by its own profile"
        await site.talk(peer, target)
        await site.over(peer)


async def test_it_is_who_a_call_is_transferred_to(site: Site) -> None:
    async with site.peer() as peer:
        assert await peer.register() == 200
        number = site.carrier.registered[-1].partition("sip:")[2].partition("@")[0]
        caller = await site.calls("1021")
        called = next(c for c in site.carrier.all_calls() if c.number == "1021" and c is not caller)
        site.carrier.refer(called, number)
        await site.transferred(called)
        await site.talk(peer, caller)
        await site.over(peer)


async def test_it_has_a_call_that_another_one_is_transferred_into(site: Site) -> None:
    async with site.peer() as peer:
        assert await peer.register() == 200
        number = site.carrier.registered[-1].partition("sip:")[2].partition("@")[0]
        asks = await site.calls(number)
        await site.talk(peer, asks)
        waits = await site.calls("1031")
        called = next(c for c in site.carrier.all_calls() if c.number == "1031" and c is not waits)
        site.carrier.refer(waits, number, instead_of=asks)
        await site.transferred(waits, asks)
        await site.talk(peer, called)
        await site.over(peer)
