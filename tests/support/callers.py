"""A running SBC with user agents of the tests' own on both sides: calls that are held while something is done to it."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sbc.selftest.site import PACE_S, media_sessions
from tests.support.agents import Address, Agent, Asked, UaCall
from tests.support.audio import Audio, Stream
from tests.support.loopback import CALLEE, CALLER, OUTSIDE, Loopback
from tests.support.sbc import Sbc, eventually, running


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of one call, by the number that was called."""

    a: UaCall
    b: UaCall


def place(caller: Agent, gateway: Address, count: int, *, rings: bool = False) -> list[UaCall]:
    """So many INVITEs, 125 a second; calls that only ring are to numbers with a 2 in front."""
    placed = []
    for _ in range(count):
        placed.append(caller.call(gateway, f"{2 if rings else 1}{len(caller.calls):06}"))
        time.sleep(PACE_S)
    return placed


def connected(placed: Sequence[UaCall], callee: Agent, timeout_s: float = 15.0) -> list[Pair]:
    """Wait until all these calls are answered and acknowledged."""
    eventually(lambda: all(call.up for call in placed), timeout_s, f"{len(placed)} calls answered")
    far = {call.number: call for call in callee.all_calls()}
    pairs = [Pair(call, far[call.number]) for call in placed]
    eventually(lambda: all(pair.b.up for pair in pairs), timeout_s, f"{len(placed)} calls acknowledged")
    return pairs


def establish(caller: Agent, callee: Agent, gateway: Address, count: int) -> list[Pair]:
    """So many answered and acknowledged calls."""
    return connected(place(caller, gateway, count), callee)


def talk(pairs: Sequence[Pair], near: Audio, far: Audio) -> list[Stream]:
    """Audio both ways in these calls from now on; their streams, each of which has heard some."""
    streams: list[Stream] = []
    for pair in pairs:
        a, b = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
        a.far, b.far = pair.a.far_audio, pair.b.far_audio
        streams += (a, b)
    near.talk()
    far.talk()
    eventually(lambda: all(len(stream.heard) > 20 for stream in streams), 15, "audio both ways in each call")
    return streams


@dataclass(slots=True)
class Site:
    """The SBC and both agents, which outlive it: a second SBC may take its place."""

    sbc: Sbc
    net: Loopback
    caller: Agent
    callee: Agent

    def place(self, count: int, *, rings: bool = False) -> list[UaCall]:
        """So many INVITEs, 125 a second; calls that only ring are to numbers with a 2 in front."""
        return place(self.caller, (OUTSIDE, self.net.port), count, rings=rings)

    def pairs(self, placed: Sequence[UaCall], timeout_s: float = 15.0) -> list[Pair]:
        """Wait until all these calls are answered and acknowledged."""
        return connected(placed, self.callee, timeout_s)

    def establish(self, count: int) -> list[Pair]:
        """So many answered and acknowledged calls."""
        return self.pairs(self.place(count))

    def ringing(self, count: int) -> list[Pair]:
        """So many calls that ring on both sides."""
        placed = self.place(count, rings=True)
        eventually(lambda: all(call.ringing for call in placed), 15, f"{count} calls ringing")
        far = {call.number: call for call in self.callee.all_calls()}
        return [Pair(call, far[call.number]) for call in placed]

    def media_sessions(self) -> int:
        """How many sessions the media workers hold."""
        return media_sessions(self.sbc.directory / "run")

    def end(self, pairs: Sequence[Pair], timeout_s: float = 15.0) -> list[Asked]:
        """BYE for all these calls at once, from the caller for one half and from the callee for the other; each is
        answered with 200 and reaches the other side once. Returns the requests."""
        asked = [
            self.caller.hang_up(pair.a) if n % 2 == 0 else self.callee.hang_up(pair.b) for n, pair in enumerate(pairs)
        ]
        eventually(lambda: all(one.status for one in asked), timeout_s, "an answer to each BYE")
        answers = Counter(one.status for one in asked)
        assert answers == {200: len(pairs)}, f"{answers}, {spread(one.took_s for one in asked)}"
        others = [pair.b if n % 2 == 0 else pair.a for n, pair in enumerate(pairs)]
        eventually(lambda: all(call.ended_by_far for call in others), timeout_s, "each BYE at the other side")
        assert all(call.got.count("BYE") == 1 for call in others)
        return asked

    def settled(self, cdrs: int, timeout_s: float = 15.0) -> None:
        """No call and no media session is left, and there are exactly so many records."""
        eventually(lambda: not self.sbc.calls(), timeout_s, f"no call left: {self.sbc.calls()[:2]}")
        assert self.sbc.ask("status")["calls"]["active"] == 0
        eventually(lambda: self.media_sessions() == 0, timeout_s, "no media session left")
        eventually(lambda: len(self.sbc.cdrs()) >= cdrs, timeout_s, f"{cdrs} records")
        ids = [cdr["id"] for cdr in self.sbc.cdrs()]
        assert len(ids) == len(set(ids)) == cdrs


@contextmanager
def agents(
    net: Loopback,
    a_port: Callable[[], int] | None = None,
    b_port: Callable[[], int] | None = None,
    secure: str = "",
) -> Iterator[tuple[Agent, Agent]]:
    """Caller and callee where the SBC expects them; ``a_port`` and ``b_port`` give each call its audio port.

    ``secure`` names the sides, of ``ab``, that speak SRTP.
    """
    with (
        Agent(CALLER, audio_port=a_port, secure="a" in secure) as caller,
        Agent(CALLEE, net.callee_port, audio_port=b_port, secure="b" in secure) as callee,
    ):
        yield caller, callee


@contextmanager
def site(
    directory: Path,
    net: Loopback,
    a_port: Callable[[], int] | None = None,
    b_port: Callable[[], int] | None = None,
    secure: str = "",
) -> Iterator[Site]:
    """Agents (see :func:`agents`) and an SBC until the end of the block."""
    with agents(net, a_port, b_port, secure) as (caller, callee), running(directory / "sbc", net.text) as sbc:
        yield Site(sbc, net, caller, callee)


def spread(seconds: Iterable[float]) -> str:
    """``p50 2.1 ms, max 30.4 ms``."""
    values = [value * 1000 for value in seconds]
    return f"p50 {statistics.median(values):.1f} ms, max {max(values):.1f} ms"
