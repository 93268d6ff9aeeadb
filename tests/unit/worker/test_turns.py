"""When a worker under load has its turns: the whole worker against stand-ins of what is around it, in virtual time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bench.core_calls import Bench
from sbc.worker.sip_worker import ANSWER_S, TICK_S


class Watched(Bench):
    """One call; notes what leaves the worker, and when."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, full=True, rate=0.01)
        self.left: list[tuple[float, str]] = []

    def _at_caller(self, message: bytes) -> None:
        self.left.append((self.clock.now, f"A {message.split(None, 2)[1].decode()}"))
        super()._at_caller(message)

    def _at_callee(self, message: bytes) -> None:
        self.left.append((self.clock.now, f"B {message.split(None, 1)[0].decode()}"))
        super()._at_callee(message)


def test_what_was_asked_for_is_heard_between_two_ticks(tmp_path: Path) -> None:
    bench = Watched(tmp_path)
    began = bench.clock.now
    while not bench.finished:
        bench.warm(ANSWER_S)
        assert bench.clock.now < began + 1
    bench.close()
    at = {what: when - began for when, what in bench.left}
    assert list(at) == ["A 100", "B INVITE", "A 180", "A 200", "B ACK", "B BYE"]
    assert at["B INVITE"] - at["A 100"] == pytest.approx(ANSWER_S), "the media worker was asked"
    # the 200 waits for the media worker, then for the store; what peers send waits for a tick
    turns = [at["A 100"], at["A 180"], at["A 200"] - 2 * ANSWER_S, at["B ACK"], at["B BYE"]]
    gaps = [later - earlier for earlier, later in pairwise(turns) if later > earlier + ANSWER_S / 2]
    assert gaps
    assert min(gaps) >= TICK_S - 1e-6
