"""A media worker dies while people talk."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from tests.support.audio import Audio, Stream
from tests.support.callers import site, spread
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.sbc import eventually

CALLS = 10


def test_audio_goes_on_after_the_death_of_a_media_worker(tmp_path: Path) -> None:
    """kill -9 of the media worker of ten talking calls, one side behind NAT: audio resumes on the same ports within a
    second, both ways, towards learned addresses too; counters go on; each record tells of the whole call."""
    net = loopback(sip=2, media=1)
    net = replace(net, text=net.text.replace("    trusted: true\n", "    trusted: true\n    nat: always\n"))
    behind_nat: dict[int, Stream] = {}  # by the port that its SDP names, which is of no use to us
    with Audio(CALLER) as near, Audio(CALLEE) as far:

        def inner_port() -> int:
            port = 1000 + len(behind_nat)
            behind_nat[port] = far.streams[far.open()]
            return port

        with site(tmp_path, net, near.open, inner_port) as at:
            pairs = at.establish(CALLS)
            streams: dict[str, dict[str, Stream]] = {}  # by number and side
            for pair in pairs:
                a, b = near.streams[pair.a.audio_port], behind_nat[pair.b.audio_port]
                a.far, b.far = pair.a.far_audio, pair.b.far_audio
                streams[pair.a.number] = {"a": a, "b": b}
            near.talk()
            far.talk()
            everyone = [*near.streams.values(), *far.streams.values()]
            eventually(lambda: all(len(stream.heard) > 50 for stream in everyone), 5, "audio both ways in each call")

            start = time.monotonic()
            died = at.sbc.kill("media 0")
            respawn_s = at.sbc.respawned("media 0", died)
            time.sleep(1.5)
            silences = [stream.longest_silence(start, time.monotonic()) for stream in everyone]
            print(f"there again {respawn_s:.3f} s, silence {spread(silences)}")
            assert max(silences) < 1.0
            for stream in everyone:
                assert len({source for _, _, source in stream.heard}) == 1  # the same port before and after

            near.talking = far.talking = False
            time.sleep(0.1)
            at.end(pairs)
            at.settled(CALLS)
            for cdr in at.sbc.cdrs():
                number = cdr["to"].partition("sip:")[2].partition("@")[0]
                for side, stream in streams[number].items():
                    told = cdr["media"][side]
                    missed = stream.sent - told["packets"]
                    assert 0 <= missed < 50, "what came before the death is not counted"
                    assert abs(told["lost"] - missed) <= 2
                    assert told["mos"] > 1
