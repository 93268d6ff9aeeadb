"""Media of a real call leave the relay and come back, by the command of the operator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.audio import Audio, Stream
from tests.support.callers import site
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, loopback
from tests.support.sbc import eventually


def command(config: Path, *words: str) -> Any:  # Any: JSON
    done = subprocess.run(
        [sys.executable, "-m", "sbc", "calls", *words, "-c", str(config), "--json"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return json.loads(done.stdout)


def sources(stream: Stream, count: int = 10) -> set[str]:
    """Where the next packets come from."""
    seen = len(stream.heard)
    eventually(lambda: len(stream.heard) >= seen + count + 5, 5, "audio")
    return {source[0] for _, _, source in stream.heard[seen + 5 : seen + 5 + count]}


def test_audio_goes_directly_and_through_the_relay_again(tmp_path: Path) -> None:
    net = loopback()
    with Audio(CALLER) as near, Audio(CALLEE) as far, site(tmp_path, net, near.open, far.open) as at:
        [pair] = at.establish(1)
        ends = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]

        def follow() -> None:
            for stream, call in zip(ends, (pair.a, pair.b), strict=True):
                stream.far = call.far_audio

        follow()
        near.talk()
        far.talk()
        assert (sources(ends[0]), sources(ends[1])) == ({OUTSIDE}, {CORE})
        config = tmp_path / "sbc" / "sbc.yaml"
        key = at.sbc.calls()[0]["key"]
        for word, media, hosts in (("direct", "direct", (CALLEE, CALLER)), ("anchor", "relayed", (OUTSIDE, CORE))):
            command(config, word, key)
            eventually(lambda wanted=media: at.sbc.calls()[0]["media"] == wanted, 5, f"media {media}")  # type: ignore[misc]  # bound now
            eventually(lambda where=hosts[0]: pair.a.far_audio[0] == where, 5, "the ACK of the caller")  # type: ignore[misc]
            follow()
            assert (sources(ends[0]), sources(ends[1])) == ({hosts[0]}, {hosts[1]})
            eventually(lambda wanted=media: at.media_sessions() == (wanted == "relayed"), 5, "sessions")  # type: ignore[misc]
        at.caller.hang_up(pair.a)
        eventually(lambda: len(at.sbc.cdrs()) == 1, 10, "the record")
        assert at.sbc.cdrs()[0]["media"]["a"]["packets"] > 20
