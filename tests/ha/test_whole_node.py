"""Every process of a node is killed at once, and the node starts again on the same machine."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sbc.config.models import Config
from sbc.supervisor.segments import place
from tests.support.agents import Agent
from tests.support.audio import Audio, Stream
from tests.support.baresip import amplitude, spoken
from tests.support.callers import Pair, Site, agents, spread
from tests.support.certificates import Authority
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, Loopback, loopback
from tests.support.rtc_peer import LOUD, RtcPeer
from tests.support.sbc import Sbc, eventually, free_port, has_ended, running
from tests.support.store import StoreServer
from tests.support.tone import Tone

CALLS = 24
ENDED_MEANWHILE = 4  # of them: their BYE meets nobody
TIMERS = "timers: { media_silence_s: 2 }\n"


def kill_everything(sbc: Sbc) -> float:
    """kill -9 of every process at once; returns when."""
    pids = [sbc.main_pid, sbc.supervisor_pid, *sbc.pids().values()]
    at = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(has_ended(pid) for pid in pids), 10, "the end of all processes")
    return at


def net_of(store: StoreServer, *, secure: bool) -> Loopback:
    net = loopback(sip=2, media=2, store=f"unix://{store.path}", more=TIMERS)
    return replace(net, text=net.text.replace("29999 }", "29999, srtp: required }")) if secure else net


def connect(pairs: list[Pair], near: Audio, far: Audio, *, secure: bool) -> list[tuple[Stream, Stream]]:
    """Both ends of the audio of each call, talking."""
    ends = []
    for pair in pairs:
        a, b = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
        a.far, b.far = pair.a.far_audio, pair.b.far_audio
        if secure:
            b.secure(pair.b.key, pair.b.far_key)
        ends.append((a, b))
    near.talk()
    far.talk()
    return ends


def aged(ends: list[tuple[Stream, Stream]], near: Audio, far: Audio, rollovers: int) -> None:
    near.talking = far.talking = False
    time.sleep(0.05)
    for end in ends:
        for stream in end:
            stream.age(rollovers)
            stream.heard.clear()
    near.talking = far.talking = True


@pytest.mark.parametrize("rollovers", [-1, 2])
def test_calls_and_their_media_outlive_every_process(tmp_path: Path, store: StoreServer, rollovers: int) -> None:
    """24 calls, RTP on both sides or SRTP on one in its third rollover; the store is elsewhere. After kill -9 of
    everything and a start: audio on the same ports and under the same keys (libsrtp takes every packet, and none a
    second time), BYE works, one record each. Calls that ended meanwhile end with their last packet."""
    secure = rollovers >= 0
    net = net_of(store, secure=secure)
    with (
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        agents(net, near.open, far.open, secure="b" if secure else "") as (caller, callee),
    ):
        with running(tmp_path / "sbc", net.text) as sbc:
            at = Site(sbc, net, caller, callee)
            pairs = at.establish(CALLS)
            ends = connect(pairs, near, far, secure=secure)
            streams = [stream for end in ends for stream in end]
            eventually(lambda: all(len(stream.heard) > 20 for stream in streams), 10, "audio both ways in each call")
            if secure:
                aged(ends, near, far, rollovers)
                eventually(lambda: all(len(s.heard) > 20 for s in streams), 10, "audio after the rollovers")
            time.sleep(1.2)  # the journal has everything
            for end in ends[-ENDED_MEANWHILE:]:
                for stream in end:
                    stream.far = None
            killed, killed_wall = kill_everything(sbc), time.time()
        with running(tmp_path / "sbc", net.text) as sbc:
            serving_s = time.monotonic() - killed
            at = Site(sbc, net, caller, callee)
            live = [stream for end in ends[:-ENDED_MEANWHILE] for stream in end]
            eventually(
                lambda: all(stream.heard[-1][0] > killed + serving_s for stream in live), 10, "audio in each call again"
            )
            time.sleep(0.5)
            gaps = [stream.longest_silence(killed, time.monotonic()) for stream in live]
            print(f"rollover {rollovers}: serving again {serving_s:.3f} s after the kill, silence {spread(gaps)}")
            assert max(gaps) < serving_s + 1.0
            assert [stream.forged for stream in streams] == [0] * len(streams)
            for stream in streams:
                assert len({source for _, _, source in stream.heard}) == 1
                numbers = [number for _, number, _ in stream.heard]
                assert len(set(numbers)) == len(numbers)
            eventually(lambda: len(sbc.cdrs()) == ENDED_MEANWHILE, 20, "the records of calls that ended meanwhile")
            for cdr in sbc.cdrs():
                assert abs(cdr["end"] - killed_wall) < 1.0
                assert cdr["resumed"]
            at.end(pairs[:-ENDED_MEANWHILE])
            at.settled(CALLS)
    node = Config.model_construct(realms={}, run_dir=str(tmp_path / "sbc" / "run"))
    assert not any(place(node, slot).exists() for slot in range(2))


WEBRTC = """\
workers: {{ sip: 1, media: 1 }}
store: {store}
media: {{ recordings: {recordings} }}
realms:
  outside:
    listen: [wss:{outside}:{wss}]
    tls: {{ certificate: {certificate}, key: {key} }}
    media: {{ address: {outside}, ports: 26400-26499 }}
  core:
    listen: [udp:{core}:{sip}]
    media: {{ address: {core}, ports: 26500-26599 }}
    trusted: true
peers:
  browsers: {{ realm: outside, addresses: {caller}, calls_to: carrier, profile: webrtc }}
  carrier: {{ realm: core, addresses: {callee}, gateway: "sip:{callee}:{carrier}" }}
"""


async def test_a_browser_keeps_its_keys_and_a_recording_goes_on(tmp_path: Path, store: StoreServer) -> None:
    """ICE, DTLS-SRTP and a recording: after kill -9 of everything audio passes both ways without another handshake,
    and what follows is recorded in a second file. Its signalling would take a new connection; the far side ends it."""
    pair = Authority(tmp_path / "ca", "authority").sign("sbc", f"IP:{OUTSIDE}")
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca" / "authority.pem"))
    wss = free_port(OUTSIDE)
    with Tone(CALLEE, 1000) as tone, Agent(CALLEE, audio_port=lambda: tone.port) as carrier:
        text = WEBRTC.format(
            **{"outside": OUTSIDE, "core": CORE, "caller": CALLER, "callee": CALLEE, "carrier": carrier.port},
            **{"wss": wss, "sip": free_port(CORE), "store": f"unix://{store.path}"},
            **{"certificate": pair.certificate, "key": pair.key, "recordings": tmp_path / "recordings"},
        )
        peer = RtcPeer(f"wss://{OUTSIDE}:{wss}/", trust, codec="PCMU", hz=440, source=CALLER)
        async with AsyncExitStack() as stack:
            with running(tmp_path / "sbc", text) as sbc:
                await stack.enter_async_context(peer)
                assert await peer.call("1001") == 200
                await until(lambda: any(call.up for call in carrier.all_calls()), "a call")
                call = carrier.all_calls()[-1]
                tone.far = call.far_audio
                await until(lambda: amplitude(list(peer.heard), 1000) > LOUD * 0.8, "a tone at the peer")
                await until(lambda: len(tone.heard) > 50, "a tone at the carrier")
                assert await asyncio.to_thread(sbc.ask, "record", key=sbc.calls()[0]["key"], on=True)
                await asyncio.sleep(1.2)  # the journal has everything
                kill_everything(sbc)
            tone.heard.clear()
            peer.heard.clear()
            with running(tmp_path / "sbc", text) as sbc:
                await until(lambda: amplitude(list(peer.heard), 1000) > LOUD * 0.8, "a tone at the peer again")
                await until(
                    lambda: amplitude(spoken(tone.heard[-50:]), 440) > LOUD * 0.8, "a tone at the carrier again"
                )
                bye = carrier.hang_up(call)
                await until(lambda: bye.status == 200 and len(sbc.cdrs()) == 1, "the record of the call")
    files = sorted((tmp_path / "recordings").rglob("*.wav"))
    assert len(files) == 2
    assert min(file.stat().st_size for file in files) > 8000


async def until(check: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(eventually, check, 10, what)
