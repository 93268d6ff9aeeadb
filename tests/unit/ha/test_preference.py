"""A node that is preferred: where both start and where it is ordered, and nowhere else."""

from __future__ import annotations

import pytest

from sbc.ha.election import State
from tests.unit.ha.pair import Pair

ACTIVE, STANDBY = State.ACTIVE, State.STANDBY


@pytest.mark.parametrize("lease", [True, False])
@pytest.mark.parametrize("prefers", ["a", "b"])
@pytest.mark.parametrize("late_s", [0.0, 0.4])
def test_of_two_that_start_the_preferred_one_serves(lease: bool, prefers: str, late_s: float) -> None:
    """Also where it starts a moment later, or is ready later."""
    pair = Pair(lease=lease, prefers=prefers)
    pair.start("b" if prefers == "a" else "a")
    pair.advance(late_s)
    pair.start(prefers)
    pair.election(prefers).ready = False
    pair.advance(4)
    assert pair.owners == []
    pair.election(prefers).ready = True
    pair.advance(3)
    assert pair.owners == [prefers]
    assert pair.both_s == 0


@pytest.mark.parametrize("lease", [True, False])
def test_one_that_never_becomes_ready_is_not_waited_for_for_ever(lease: bool) -> None:
    pair = Pair(lease=lease, prefers="a")
    pair.start("a", "b")
    pair.election("a").ready = False
    pair.advance(9)
    assert pair.owners == []
    pair.advance(3)
    assert pair.owners == ["b"]


@pytest.mark.parametrize("lease", [True, False])
def test_it_preempts_nobody_and_is_given_what_is_its_own_by_order(lease: bool) -> None:
    pair = Pair(lease=lease, prefers="a")
    pair.start("a", "b")
    pair.advance(7)
    assert pair.owners == ["a"]
    pair.kill("a")
    pair.until(lambda: pair.state("b") is ACTIVE, 3)
    pair.advance(1)
    pair.start("a")
    pair.advance(30)
    assert pair.owners == ["b"]
    assert pair.order("a", "call_for") == ""
    assert pair.until(lambda: pair.owners == ["a"], 2) < 0.6
    assert pair.both_s == 0
    pair.advance(5)
    assert pair.owners == ["a"]
    assert len(pair.nodes["a"].takes) == 2, "the order is over"


def test_a_call_for_what_cannot_be_is_refused_in_words() -> None:
    pair = Pair(prefers="a")
    pair.start("a")
    assert "not heard to be active" in pair.election("a").call_for(pair.now)
    pair.start("b")
    pair.advance(7)
    assert pair.owners == ["a"]
    pair.election("b").ready = False
    assert "not ready" in pair.election("b").call_for(pair.now)
    assert pair.election("a").preferred == pair.election("b").preferred == "a"


def test_a_call_that_the_active_node_cannot_follow_is_forgotten() -> None:
    """It thinks that the other one is not ready, as a heartbeat says that was under way."""
    pair = Pair(prefers="b")
    pair.start("a")
    pair.until(lambda: pair.state("a") is ACTIVE, 3)
    pair.start("b")
    pair.advance(2)
    pair.election("b").call_for(pair.now)
    pair.election("b").ready = False
    pair.advance(5)
    pair.election("b").ready = True
    pair.advance(5)
    assert pair.owners == ["a"]
