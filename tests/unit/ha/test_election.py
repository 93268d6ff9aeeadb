"""Who is active, in virtual time: each fault that is promised to leave one owner, and none for long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc.ha.election import TABLE, Beat, Election, Event, State, Timing
from tests.unit.ha.pair import Pair, ready_pair

ACTIVE, STANDBY = State.ACTIVE, State.STANDBY


def test_a_node_alone_becomes_active_once_it_has_listened() -> None:
    pair = Pair()
    pair.start("a")
    took = pair.until(lambda: pair.state("a") is ACTIVE, 3)
    assert 0.8 <= took < 1.1
    assert pair.election("a").token == 1


@pytest.mark.parametrize("lease", [True, False])
def test_two_that_start_at_once_agree_on_one(lease: bool) -> None:
    pair = Pair(lease=lease)
    pair.start("a", "b")
    pair.advance(7)
    assert len(pair.owners) == 1
    assert pair.both_s == 0


@pytest.mark.parametrize("offset_s", [0.0, 0.07, 0.13, 0.21])
def test_death_of_the_active_node(offset_s: float) -> None:
    """P7: within 1.5 s after the last heartbeat."""
    pair = ready_pair()
    pair.advance(offset_s)
    pair.kill("a")
    took = pair.until(lambda: pair.state("b") is ACTIVE, 3)
    assert took < 1.2
    assert pair.election("b").token == 2


def test_death_without_a_lease_is_seen_by_heartbeats() -> None:
    pair = ready_pair(lease=False)
    pair.kill("a")
    assert pair.until(lambda: pair.state("b") is ACTIVE, 3) < 0.9


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("store", [True, False])
def test_a_node_that_returns_stays_passive(store: bool, cut: bool) -> None:
    """P10, with and without the store, and also while the paths are cut."""
    pair = ready_pair()
    pair.kill("a")
    pair.until(lambda: pair.state("b") is ACTIVE, 3)
    pair.advance(2)
    pair.store_up = store
    if cut:
        pair.sever("a", "b")
    pair.start("a")
    pair.advance(10)
    assert pair.owners == ["b"]
    assert pair.both_s == 0


def test_one_path_of_two_is_enough() -> None:
    pair = ready_pair()
    pair.cut |= {("a", 0), ("b", 0)}
    pair.store_up = False
    pair.advance(10)
    assert pair.owners == ["a"]
    assert len(pair.nodes["a"].takes) == 1


def test_paths_cut_with_the_store_up_changes_nothing() -> None:
    pair = ready_pair()
    pair.sever("a", "b")
    pair.advance(10)
    assert pair.owners == ["a"]
    assert pair.both_s == 0


def test_the_store_gone_changes_nothing_and_heartbeats_decide() -> None:
    pair = ready_pair()
    pair.store_up = False
    pair.advance(5)
    assert pair.owners == ["a"]
    pair.kill("a")
    assert pair.until(lambda: pair.state("b") is ACTIVE, 3) < 1.0
    pair.store_up = True
    pair.advance(2)
    assert pair.owners == ["b"]
    assert pair.store.holder == "b"


@pytest.mark.parametrize("before_s", [0.0, 3.0])
@pytest.mark.parametrize("first", ["paths", "store"])
def test_the_active_node_cut_off_from_store_and_peer(first: str, before_s: float) -> None:
    """P8: it falls silent before the other one can have the lease; in either order."""
    pair = ready_pair()

    def cut(what: str) -> None:
        if what == "paths":
            pair.sever("a", "b")
        else:
            pair.nodes["a"].reaches_store = False

    cut(first)
    pair.advance(before_s)
    cut("store" if first == "paths" else "paths")
    pair.until(lambda: pair.owners == ["b"], 2.5)
    assert pair.both_s == 0
    pair.heal()
    pair.nodes["a"].reaches_store = True
    pair.advance(5)
    assert pair.owners == ["b"]


def test_heard_one_way_only() -> None:
    """The standby does not hear the active one, which the store has lost too: the later token wins at once."""
    pair = ready_pair()
    pair.nodes["a"].reaches_store = False
    pair.advance(1)
    pair.sever("a")
    pair.until(lambda: pair.owners == ["b"], 3)
    assert pair.both_s < 0.5


def test_the_store_restarts_while_the_standby_is_off() -> None:
    """The active one knows that there is nobody else, and does not take itself for cut off."""
    pair = ready_pair()
    pair.kill("b")
    pair.advance(5)
    pair.store_up = False
    pair.advance(20)
    assert pair.owners == ["a"]
    assert len(pair.nodes["a"].takes) == 1


def test_the_store_is_emptied() -> None:
    pair = ready_pair()
    for cut in (False, True):
        if cut:
            pair.sever("a", "b")
        pair.store.holder, pair.store.token, pair.store.seen = "", 0, {}
        pair.advance(3)
        assert len(pair.owners) == 1
        assert pair.both_s <= 0.5
    assert pair.store.token >= 1


@pytest.mark.parametrize("store", [True, False])
def test_a_planned_switch_takes_less_than_a_fifth_of_a_second(store: bool) -> None:
    pair = ready_pair()
    pair.store_up = store
    pair.advance(3)
    assert pair.order("a", "hand_over") == ""
    assert pair.until(lambda: pair.owners == ["b"], 1) < 0.2
    assert pair.both_s == 0
    pair.advance(5)
    assert pair.owners == ["b"]
    assert pair.election("b").token == 2


def test_a_switch_to_nobody_is_refused_in_words() -> None:
    pair = Pair()
    pair.start("a")
    pair.until(lambda: pair.state("a") is ACTIVE, 3)
    assert pair.order("a", "hand_over") == "the other node has never been heard"
    pair.start("b")
    pair.election("b").ready = False
    pair.advance(2)
    assert "not ready" in str(pair.order("a", "hand_over"))
    assert "not active" in str(pair.order("b", "hand_over"))
    pair.kill("b")
    pair.advance(2)
    assert pair.order("a", "hand_over") == "b is not heard"


def test_a_switch_to_a_former_release_that_cannot_read_the_records_is_refused() -> None:
    """The other way round is what an upgrade does; a death is followed either way, as new calls are to be served."""
    old, new = (
        Election(name, Timing(), 1, 0.0, has_lease=True, active=True, token=1, records=records)
        for name, records in (("a", 1), ("b", 2))
    )
    new.heard(0, Beat("a", STANDBY, 1, store=True, ready=True, records=1), 0.1)
    assert "a has a former release, which cannot read" in new.hand_over(0.2)
    assert new.state is ACTIVE
    old.heard(0, Beat("b", STANDBY, 1, store=True, ready=True, records=2), 0.1)
    assert old.hand_over(0.2) == ""
    assert "this node has a former release" in old.unreadable()
    assert new.unreadable() == ""


def test_the_peer_dies_in_the_middle_of_a_switch() -> None:
    pair = ready_pair()
    pair.order("a", "hand_over")
    pair.kill("b")
    assert pair.until(lambda: pair.state("a") is ACTIVE, 5) < 3
    assert pair.election("a").token == 3


def test_a_node_that_stops_leaves_the_field_at_once() -> None:
    pair = ready_pair()
    pair.election("b").stop()
    pair.advance(0.5)
    pair.kill("a")
    pair.advance(5)
    assert pair.owners == []


def test_a_claim_by_order_wins_over_the_lease() -> None:
    """A VRRP daemon decides: whoever it names has the later token, and the other one falls silent."""
    pair = ready_pair()
    pair.sever("a", "b")
    pair.advance(2)
    pair.order("b", "force")
    pair.until(lambda: pair.owners == ["b"], 1)
    assert pair.election("b").token == 2
    assert pair.both_s < 0.6


def test_where_a_vrrp_daemon_decides_nothing_is_handed_over_by_us() -> None:
    election = Election("a", Timing(), 1, 0.0, has_lease=True, token=1, active=True, decides=False)
    election.heard(0, Beat("b", STANDBY, 1, store=True, ready=True), 0.1)
    assert "keepalived decides" in election.hand_over(0.2)
    assert election.state is ACTIVE
    assert election.poll() is None


def test_after_a_split_without_a_store_the_later_token_wins() -> None:
    pair = ready_pair(lease=False)
    pair.sever("a", "b")
    pair.until(lambda: pair.owners == ["a", "b"], 3)  # nobody could tell them
    pair.heal()
    assert pair.until(lambda: pair.owners == ["b"], 1) < 0.5
    pair.advance(3)
    assert pair.owners == ["b"]


def test_every_state_has_a_way_out_and_active_has_two_causes_of_silence() -> None:
    reached = {state for state, _ in TABLE.values()}
    assert reached == {state for state in State if state is not State.GONE}
    assert {event for state, event in TABLE if state is ACTIVE} == {Event.TAKEN, Event.CUT_OFF, Event.ORDERED_AWAY}
    assert Timing().dead_s == pytest.approx(0.6)


WITNESSES = ["store", "store of a", "store of b", "a to b", "b to a", "paths", "heal"]
NODES = ["kill a", "kill b", "start", "power", "restart a", "restart b", "switch"]
FAULTS = st.sampled_from([*WITNESSES, *NODES])
HEARD_S = 0.3  # by then each has said something to the other one
Script = list[tuple[str, float]]
SCRIPTS = st.lists(st.tuples(FAULTS, st.sampled_from([0.1, 0.35, 0.7, 1.6, 4.0])), min_size=1, max_size=14)


def happens(pair: Pair, fault: str) -> None:
    """``power``: both machines come back at once; ``restart``: a process dies, and its successor knows the role."""
    a, b = pair.nodes["a"], pair.nodes["b"]
    match fault:
        case "store":
            pair.store_up = not pair.store_up
        case "store of a" | "store of b":
            pair.nodes[fault[-1]].reaches_store ^= True
        case "a to b" | "b to a":
            pair.sever(fault[0])
        case "paths":
            pair.sever("a", "b")
        case "heal":
            pair.heal()
        case "kill a" | "kill b":
            pair.kill(fault[-1])
        case "restart a" | "restart b":
            if pair.nodes[fault[-1]].alive:
                pair.restart(fault[-1])
        case "start":
            for node in (a, b):
                if not node.alive:
                    pair.start(node.name)
        case "power":
            pair.start("a", "b")
        case "switch":
            for node in (a, b):
                if node.alive:
                    pair.order(node.name, "hand_over")
        case _:
            pair.heal()
            pair.store_up = a.reaches_store = b.reaches_store = True
            happens(pair, "start")


def play(script: Script) -> Pair:
    """A pair after these faults and eight seconds in which all is well. ``both_s`` is what was promised never to be."""
    pair, dark = ready_pair(), False
    reached, returned_s = (True, True), 0.0
    started_s, restarted_s = ({"a": 0.0, "b": 0.0} for _ in range(2))  # while the other one was there
    for fault, pause_s in [*script, ("well", 8.0)]:
        was_alive = {name: node.alive for name, node in pair.nodes.items()}
        happens(pair, fault)
        reach = {name: pair.store_up and node.reaches_store for name, node in pair.nodes.items()}
        if any(now and not before for now, before in zip(reach.values(), reached, strict=True)):
            returned_s = pair.now
        reached = (reach["a"], reach["b"])
        for name, other in ("ab", "ba"):
            if fault in ("start", "well") and not was_alive[name]:
                started_s[name] = pair.now
            if fault == f"restart {name}":
                restarted_s[name] = pair.now
            if pair.cut and not reach[name] and pair.now - restarted_s[name] < HEARD_S:
                dark = True  # a successor knows the role, and has not heard that there is another node
            if pair.cut and not reach[other] and pair.now - started_s[name] < 1:
                dark = True  # whoever serves without the store has not been told that this one has it
        if pair.cut and (not any(reached) or pair.now - returned_s < 1):
            dark = True  # no witness at all, or one that they had no time to tell each other of
        if fault in ("start", "power") and pair.cut and not all(reached):
            dark = True  # nobody tells it of one that serves without the store, knowing to be alone
        before = pair.both_s
        pair.advance(pause_s)
        if dark:
            pair.both_s = before  # not promised
        if not pair.cut and pair.store_up and pause_s > 1:
            dark = False
    return pair


@settings(max_examples=150, deadline=None)
@given(SCRIPTS)
def test_never_two_for_longer_than_a_second(script: Script) -> None:
    """Whatever happens in whatever order: while the store or the paths are there for both, or the one that is cut off
    from everything has been so since they were and nobody has started since, two are never active for longer than a
    second; and once all is well there is exactly one."""
    pair = play(script)
    assert pair.both_s <= 1.0, f"both were active for {pair.both_s:.2f} s"
    assert len(pair.owners) == 1


FOUND: dict[str, Script] = {
    "the first word of a node that starts is not that it has no store": [
        ("store of b", 0.1), ("power", 0.35), ("a to b", 4.0)
    ],
    "a successor that has not found the store yet is as good as its predecessor, who had": [
        ("store of a", 0.1), ("restart b", 0.1), ("a to b", 0.2), ("b to a", 1.6)
    ],
}  # fmt: skip


@pytest.mark.parametrize("script", FOUND.values(), ids=FOUND)
def test_scripts_that_once_had_two_owners(script: Script) -> None:
    pair = play(script)
    assert pair.both_s <= 1.0, f"both were active for {pair.both_s:.2f} s"
    assert len(pair.owners) == 1
