"""Routers as the witness of a pair whose stores are its own: every row of the table in docs/ha.md, in virtual time."""

from __future__ import annotations

import pytest

from sbc.ha.election import State
from tests.unit.ha.pair import Pair, ready_pair

ACTIVE, STANDBY = State.ACTIVE, State.STANDBY


@pytest.fixture
def pair() -> Pair:
    """``a`` is active, ``b`` stands by; both reach a router."""
    return ready_pair(lease=False, witness=True)


def routers(pair: Pair, **reached: bool) -> None:
    for name, is_reached in reached.items():
        pair.nodes[name].reaches_router = is_reached


@pytest.mark.parametrize("offset_s", [0.0, 0.07, 0.13, 0.19])
def test_death_of_the_active_node(pair: Pair, offset_s: float) -> None:
    pair.advance(offset_s)
    pair.kill("a")
    assert pair.until(lambda: pair.state("b") is ACTIVE, 3) < 1.2
    assert pair.election("b").token == 2


@pytest.mark.parametrize("offset_s", [0.0, 0.07, 0.13, 0.19])
def test_paths_cut_and_only_the_standby_reaches_a_router(pair: Pair, offset_s: float) -> None:
    """The active one is silent before the other one speaks."""
    pair.advance(offset_s)
    pair.sever("a", "b")
    routers(pair, a=False)
    pair.until(lambda: pair.owners == ["b"], 2)
    assert pair.both_s == 0
    pair.advance(20)
    assert pair.owners == ["b"]
    pair.heal()
    routers(pair, a=True)
    pair.advance(5)
    assert pair.owners == ["b"]
    assert pair.both_s == 0


def test_paths_cut_and_only_the_active_node_reaches_a_router(pair: Pair) -> None:
    pair.sever("a", "b")
    routers(pair, b=False)
    pair.advance(20)
    assert pair.owners == ["a"]
    assert len(pair.nodes["a"].takes) == 1


def test_paths_cut_and_nobody_reaches_a_router(pair: Pair) -> None:
    """As when the switch between all of them starts anew: nobody serves whom nobody hears, and then one does."""
    pair.sever("a", "b")
    routers(pair, a=False, b=False)
    pair.advance(20)
    assert pair.owners == []
    pair.heal()
    pair.until(lambda: len(pair.owners) == 1, 2)
    routers(pair, a=True, b=True)
    pair.advance(5)
    assert len(pair.owners) == 1
    assert pair.both_s == 0


def test_paths_cut_and_both_reach_a_router(pair: Pair) -> None:
    """What a router cannot tell: both are active until a path is back."""
    pair.sever("a", "b")
    pair.advance(5)
    assert sorted(pair.owners) == ["a", "b"]
    pair.heal()
    pair.advance(2)
    assert pair.owners == ["b"]


def test_routers_that_are_away_change_nothing(pair: Pair) -> None:
    routers(pair, a=False, b=False)
    pair.advance(20)
    assert pair.owners == ["a"]
    assert pair.order("a", "hand_over") == ""
    pair.advance(2)
    assert pair.owners == ["b"]


def test_routers_away_and_then_the_active_node_dies(pair: Pair) -> None:
    """The other one cannot know, until a router is back or it is ordered to serve."""
    routers(pair, a=False, b=False)
    pair.advance(2)
    pair.kill("a")
    pair.advance(20)
    assert pair.owners == []
    pair.order("b", "force")
    pair.advance(20)
    assert pair.owners == ["b"]


@pytest.mark.parametrize("reached", [True, False])
def test_routers_away_and_then_the_paths_are_cut(pair: Pair, reached: bool) -> None:
    """The active one knows that the other one reached none either, and would not take over; it need not be silent."""
    routers(pair, a=False, b=reached)
    pair.advance(2)
    pair.sever("a", "b")
    pair.advance(20)
    assert pair.owners == (["b"] if reached else ["a"])
    assert pair.both_s == 0


def test_routers_away_paths_cut_and_a_router_is_back_for_the_other_one(pair: Pair) -> None:
    """The one case of three faults in which who is cut off goes on: it had been told that nobody would follow."""
    routers(pair, a=False, b=False)
    pair.advance(2)
    pair.sever("a", "b")
    pair.advance(5)
    routers(pair, b=True)
    pair.advance(5)
    assert pair.owners == ["a", "b"]
    pair.heal()
    pair.advance(2)
    assert pair.owners == ["b"]


def test_the_peer_had_gone_long_before_the_routers(pair: Pair) -> None:
    pair.kill("a")
    pair.until(lambda: pair.state("b") is ACTIVE, 3)
    pair.advance(10)
    routers(pair, b=False)
    pair.advance(20)
    assert pair.owners == ["b"]


def test_the_peer_was_stopped_in_order(pair: Pair) -> None:
    """Its last word counts, with or without a router."""
    routers(pair, a=False, b=False)
    pair.election("a").stop()
    pair.order("a", "hand_over")
    pair.advance(1)
    assert pair.owners == ["b"]
    pair.kill("a")
    pair.advance(20)
    assert pair.owners == ["b"]


def test_a_node_that_starts_alone_needs_a_router() -> None:
    pair = Pair(lease=False, witness=True)
    routers(pair, a=False)
    pair.start("a")
    pair.advance(20)
    assert pair.owners == []
    routers(pair, a=True)
    assert pair.until(lambda: pair.state("a") is ACTIVE, 2) < 1.2
    routers(pair, a=False)
    pair.advance(20)
    assert pair.owners == ["a"], "there was never anybody else"


def test_an_order_to_serve_holds_until_somebody_is_heard(pair: Pair) -> None:
    pair.sever("a", "b")
    routers(pair, a=False, b=False)
    pair.advance(3)
    assert pair.owners == []
    pair.order("b", "force")
    pair.advance(10)
    assert pair.owners == ["b"]
    pair.heal()
    pair.advance(3)
    assert pair.owners == ["b"]
    pair.sever("a", "b")
    routers(pair, a=True)
    pair.advance(3)
    assert pair.owners == ["a", "b"], "the other one had said that it reached no router"


def test_the_process_of_a_node_that_is_cut_off_is_started_anew(pair: Pair) -> None:
    """Its successor has heard nobody, and its predecessor may have."""
    pair.sever("a", "b")
    routers(pair, a=False)
    pair.advance(0.3)
    pair.restart("a")
    pair.until(lambda: pair.owners == ["b"], 3)
    assert pair.both_s < 0.5


def test_a_fault_that_comes_and_goes(pair: Pair) -> None:
    for _ in range(5):
        pair.sever("a", "b")
        routers(pair, a=False)
        pair.advance(0.4)
        pair.heal()
        routers(pair, a=True)
        pair.advance(0.4)
    pair.advance(3)
    assert pair.owners == ["a"]
    assert len(pair.nodes["a"].takes) == 1
