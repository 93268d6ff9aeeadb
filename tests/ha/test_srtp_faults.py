"""A media worker dies while people talk over SRTP, in calls of any age."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.audio import Audio, Stream
from tests.support.callers import Site, site, spread
from tests.support.loopback import CALLEE, CALLER, Loopback, loopback
from tests.support.sbc import eventually

CALLS = 4


def secure_net() -> Loopback:
    """RTP outside, SRTP in the core."""
    net = loopback(sip=1, media=1)
    return replace(net, text=net.text.replace("ports: 20000-29999 }", "ports: 20000-29999, srtp: required }"))


def talking(at: Site, near: Audio, far: Audio, rollovers: int) -> list[Stream]:
    """Calls of that age, audio both ways in each."""
    for pair in at.establish(CALLS):
        a, b = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
        a.far, b.far = pair.a.far_audio, pair.b.far_audio
        assert pair.b.key
        assert not pair.a.far_key
        b.secure(pair.b.key, pair.b.far_key)
    near.talk()
    far.talk()
    streams = [*near.streams.values(), *far.streams.values()]
    eventually(lambda: all(len(stream.heard) > 20 for stream in streams), 5, "audio both ways in each call")
    near.talking = far.talking = False
    time.sleep(0.05)
    for stream in streams:
        stream.age(rollovers)
        stream.heard.clear()
    near.talking = far.talking = True
    eventually(lambda: all(len(stream.heard) > 50 for stream in streams), 5, f"audio at rollover {rollovers}")
    return streams


@pytest.mark.parametrize("rollovers", [0, 1, 2, 300])
def test_srtp_goes_on_after_the_death_of_a_media_worker(tmp_path: Path, rollovers: int) -> None:
    """kill -9: audio resumes both ways within a second, under the same keys and the next indices: libsrtp, at the far
    side, takes every packet, and none a second time."""
    with (
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        site(tmp_path, secure_net(), near.open, far.open, secure="b") as at,
    ):
        streams = talking(at, near, far, rollovers)
        start = time.monotonic()
        died = at.sbc.kill("media 0")
        respawn_s = at.sbc.respawned("media 0", died)
        time.sleep(1.0)
        silences = [stream.longest_silence(start, time.monotonic()) for stream in streams]
        print(f"rollover {rollovers}: there again {respawn_s:.3f} s, silence {spread(silences)}")
        assert max(silences) < 1.0
        assert [stream.forged for stream in streams] == [0] * len(streams)
        for stream in streams:
            assert len({source for _, _, source in stream.heard}) == 1
        near.talking = far.talking = False
        at.end(at.pairs(at.caller.all_calls()))
        at.settled(CALLS)


def test_bad_tags_and_replays_end_no_call(tmp_path: Path) -> None:
    """Hundreds of forged packets and replays: none is relayed, and the audio between them suffers no loss."""
    with (
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        site(tmp_path, secure_net(), near.open, far.open, secure="b") as at,
    ):
        talking(at, near, far, 0)
        heard = {stream.port: len(stream.heard) for stream in near.streams.values()}
        for first in range(0, 300, 30):  # in bursts that fit into the queue of a socket whose reader was held up
            for stream in far.streams.values():
                assert stream.far is not None
                for number in range(first, first + 30):
                    forged = bytes((0x80, 0)) + number.to_bytes(2, "big") + bytes(180)
                    stream.socket.sendto(forged, stream.far)
            time.sleep(0.02)
        far.repeats = True
        time.sleep(1.0)
        near.talking = far.talking = False
        time.sleep(0.2)
        for stream in near.streams.values():
            numbers = [number for _, number, _ in stream.heard]
            assert len(numbers) == len(set(numbers))
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert len(numbers) > heard[stream.port] + 40
        at.end(at.pairs(at.caller.all_calls()))
        at.settled(CALLS)
