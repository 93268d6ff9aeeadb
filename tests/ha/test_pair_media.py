"""Media of a pair of nodes: the active one dies, or hands over, while people talk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.audio import Stream
from tests.support.callers import spread
from tests.support.pair import Duo, duo
from tests.support.sbc import eventually

CALLS = int(os.environ.get("SBC_PAIR_CALLS", "20"))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Duo]:
    """A pair of which ``a`` is active."""
    if os.geteuid() or shutil.which("nft") is None:
        pytest.skip("needs root, ip of iproute2 and nft")
    with duo(tmp_path, audio=True) as made:
        made.start("a")
        eventually(lambda: made.roles() == {"a": "active"}, 15, f"a is active: {made.status('a')}")
        made.start("b")
        made.ready()
        yield made


def test_audio_goes_on_when_a_node_hands_over_and_when_it_dies(two: Duo) -> None:
    """RTP on one side, SRTP in its third rollover on the other: after an ordered switch, and after the death of every
    process and the link of the node that is active then, audio goes on both ways in every call, on the same ports;
    libsrtp takes every packet. BYE works, and each call has one record."""
    pairs = two.establish(CALLS)
    streams: list[Stream] = []
    for pair in pairs:
        a, b = two.near.streams[pair.a.audio_port], two.far.streams[pair.b.audio_port]
        a.far, b.far = pair.a.far_audio, pair.b.far_audio
        b.secure(pair.b.key, pair.b.far_key)
        streams += (a, b)
    for audio in (two.near, two.far):
        audio.talking = False
        audio.talk()
    for stream in streams:
        stream.age(2)
    time.sleep(0.1)
    for stream in streams:
        stream.heard.clear()
    two.near.talking = two.far.talking = True
    eventually(lambda: all(len(stream.heard) > 50 for stream in streams), 10, "audio both ways in each call")
    two.ready()
    time.sleep(1.5)

    for what, other in (("switch", "b"), ("death", "a")):
        start = time.monotonic()
        if what == "switch":
            two.order("a", "switch")
        else:
            two.die("b")
        eventually(lambda: two.status(other).get("role") == "active", 15, f"{other} is active")  # noqa: B023
        took_s = time.monotonic() - start
        try:
            eventually(lambda: all(s.heard[-1][0] > start + took_s for s in streams), 10, "audio again")  # noqa: B023
        except AssertionError as error:
            raise AssertionError(f"{error}\n{two.logs()}") from None
        time.sleep(0.5)
        end = time.monotonic()
        print(f"{what}: active after {took_s:.2f} s")
        for side, ends in (("RTP to SRTP", two.far), ("SRTP to RTP", two.near)):
            gaps = [stream.longest_silence(start, end) for stream in ends.streams.values()]
            print(f"{what}, {side}: silence {spread(gaps)}")
            assert max(gaps) < 6  # 2 s are the aim; a busy machine is not to fail this
        assert not any(stream.forged for stream in streams)
        if what == "switch":
            two.ready()
    for stream in streams:
        numbers = [number for _, number, _ in stream.heard]
        assert len(set(numbers)) == len(numbers)
        assert len({source for _, _, source in stream.heard}) == 1
    two.near.talking = two.far.talking = False
    asked = [two.caller.hang_up(p.a) if n % 2 else two.callee.hang_up(p.b) for n, p in enumerate(pairs)]
    eventually(lambda: all(one.status for one in asked), 20, "an answer to each BYE")
    assert {one.status for one in asked} == {200}, two.logs()
    eventually(lambda: len(two.cdrs()) >= CALLS, 15, f"{CALLS} records: {len(two.cdrs())}")
    assert len(set(two.cdrs())) == len(two.cdrs()) == CALLS
