"""A call that rings goes on in another process, where its worker goes by order: neither side notices."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.b2bua import setup_snapshot
from sbc.b2bua.call import Call, Target
from sbc.b2bua.core import Core
from sbc.b2bua.effects import RouteKind
from tests.support.hostile import ANYTHING
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    TARGET_B,
    TARGET_C,
    Ladder,
    Phone,
    counting_ids,
    ring_all,
    sdp,
)


class Names:
    """Routes by their names, as a routes module would have them."""

    def __init__(self, **routes: Any) -> None:  # Any: what the ladder calls
        self.routes = routes

    def name(self, call: Call, route: Any) -> str:  # Any: as above
        return next((name for name, known in self.routes.items() if known is route), "")

    def find(self, name: str) -> Any | None:  # Any: as above
        return self.routes.get(name)


def hunt_on(f: Ladder, call: Call) -> None:
    if call.attempts[-1].may_fail_over and call.has_next:
        f.core.dial_next(call, f.now)


def hunts(f: Ladder, call: Call) -> None:
    f.core.dial(call, [TARGET_B, TARGET_C], f.now, on_failure=hunt_on)


def ringing(seconds: float = 5.0, early: bytes = b"", **options: Any) -> Ladder:  # Any: of Ladder
    """A call that b has been ringing for, for so long."""
    f = Ladder(**options)
    f.core.hooks = Names(hunt_on=hunt_on)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(183 if early else 180, body=early)
    f.a.expect(183 if early else 180)
    f.after(seconds)
    return f


def is_quiet(f: Ladder) -> None:
    for phone in f.phones.values():
        phone.nothing()


def comes_up(f: Ladder, callee: Phone, host: str = B_HOST) -> None:
    """The callee answers; both are up; then A hangs up."""
    callee.reply(200, body=sdp(host))
    answer = f.a.expect(200)
    assert answer.to_tag in (f.a.dialog or ("",) * 4)[2]
    f.a.ack()
    callee.expect("ACK")
    is_quiet(f)
    f.a.request("BYE")
    f.a.expect(200)
    callee.reply(200, to=callee.expect("BYE"))
    is_quiet(f)


@pytest.mark.parametrize("early", [b"", sdp(B_HOST)])
def test_a_call_that_rings_is_answered_elsewhere(early: bytes) -> None:
    f = ringing(early=early)
    key, told = f.call.key, f.a.dialog
    f.moves()
    is_quiet(f)
    assert f.call.key == key
    f.after(10)
    is_quiet(f)
    comes_up(f, f.b)
    assert f.a.dialog is not None
    assert told is not None
    assert f.a.dialog[2] == told[2], "the tag that A knows from the 180"
    cdr = f.cdr
    assert (cdr["id"], cdr["status"], cdr["answered"], cdr["hangup"]) == (key, 200, True, "a")
    assert cdr["setup_s"] == pytest.approx(15)
    assert [(a["gateway"], a["status"], a["pdd_ms"]) for a in cdr["attempts"]] == [("gw-b", 200, 0)]
    assert (cdr["a_peer"], cdr["b_peer"], cdr["media_node"]) == ("phones", "carrier-b", "media-0")
    assert f.counts["SETUPS_CARRIED"] == 1
    assert "SETUPS_LOST" not in f.counts
    f.over()
    assert not f.records


def test_the_former_worker_says_nothing_more() -> None:
    f = ringing()
    former = f.core
    f.moves()
    former.fire(f.now + 300, f.wall + 300)
    assert former.poll() is None
    assert not former.calls
    assert not len(former.layer)


def test_media_ports_and_descriptions_stay() -> None:
    f = ringing(early=sdp(B_HOST))
    before = f.a.all[-1]
    f.moves()
    f.b.reply(200, body=sdp(B_HOST))
    answer = f.a.expect(200)
    assert answer.body == before[-len(answer.body) :], "the description of the 183, with its version"


def test_cancel_after_the_move() -> None:
    f = ringing()
    f.moves()
    f.a.cancel()
    assert f.a.expect(200).cseq_method == "CANCEL"
    cancel = f.b.expect("CANCEL")
    assert f.b.invite is not None
    assert cancel.branch == f.b.invite.branch
    f.a.refused(487)
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    assert (f.cdr["status"], f.cdr["hangup"]) == (487, "a")
    f.over()


def test_busy_after_the_move() -> None:
    f = ringing()
    f.moves()
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    assert (f.cdr["status"], f.cdr["answered"], f.cdr["setup_s"]) == (486, False, pytest.approx(5))
    f.over()


@pytest.mark.parametrize("route", [hunts, lambda f, call: f.core.dial(call, [TARGET_B, TARGET_C], f.now)])
def test_the_next_target_is_tried_after_the_move(route: Any) -> None:  # Any: a route of the ladder
    f = ringing(route=route)
    f.moves()
    f.b.reply(503)
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(180)
    f.a.expect(180)
    f.moves()
    comes_up(f, f.c, C_HOST)
    assert [a["status"] for a in f.cdr["attempts"]] == [503, 200]
    assert f.cdr["b_peer"] == "carrier-c"
    f.over()


def test_several_that_ring_go_on_ringing() -> None:
    f = Ladder(route=ring_all)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    for phone in (f.b, f.c):
        phone.expect("INVITE")
        phone.reply(180)
        f.a.expect(180)
    f.after(3)
    f.moves()
    f.b.reply(486)
    f.b.expect("ACK")
    is_quiet(f)
    comes_up(f, f.c, C_HOST)
    assert sorted(a["status"] for a in f.cdr["attempts"]) == [200, 486]
    f.over()


def test_the_loser_is_cancelled_after_the_move() -> None:
    f = Ladder(route=ring_all)
    f.a.request("INVITE", body=sdp(A_HOST))
    for phone in (f.b, f.c):
        phone.expect("INVITE")
        phone.reply(180)
    f.a.inbox.clear()
    f.moves()
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.c.reply(200, to=f.c.expect("CANCEL"))
    f.c.reply(487)
    f.c.expect("ACK")
    f.only_two_legs()


def test_what_is_repeated_after_the_move_is_known() -> None:
    f = ringing()
    f.moves()
    f.a.again()
    assert f.a.expect(180).cseq_method == "INVITE"
    f.b.nothing()
    f.b.again()
    f.a.expect(180)
    f.after(1)
    is_quiet(f)
    comes_up(f, f.b)


def test_one_that_has_not_rung_yet_is_invited_again_and_rings() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    f.after(0.4)
    f.moves()
    f.after(0.5)
    again = f.b.expect("INVITE")
    assert again.raw == invite.raw
    f.b.reply(180)
    f.a.expect(180)
    comes_up(f, f.b)
    f.over()


def test_the_time_of_a_target_goes_on() -> None:
    short = Target(f"sip:b@{B_HOST}:5070", "outside", peer="carrier-b", timeout_s=20)
    f = ringing(8, route=lambda f, call: f.core.dial(call, [short, TARGET_C], f.now))
    f.moves()
    f.after(11.5)
    is_quiet(f)
    f.after(1)
    f.b.expect("CANCEL")
    f.c.expect("INVITE")


def test_ringing_for_ever_ends_when_it_would_have() -> None:
    f = ringing(100)
    f.moves()
    f.after(79)
    is_quiet(f)
    f.after(2)
    f.b.expect("CANCEL")
    f.a.refused(408)


def test_one_that_was_given_up_stays_given_up() -> None:
    short = Target(f"sip:b@{B_HOST}:5070", "outside", peer="carrier-b", timeout_s=2)
    f = ringing(2.1, route=lambda f, call: f.core.dial(call, [short, TARGET_C], f.now))
    f.b.reply(200, to=f.b.expect("CANCEL"))
    f.c.expect("INVITE")
    f.c.reply(180)
    f.a.expect(180)
    f.moves()
    is_quiet(f)
    f.b.reply(487)
    f.b.expect("ACK")
    comes_up(f, f.c, C_HOST)
    f.over()


def test_reliable_provisionals_go_on() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Supported", "100rel")])
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(183, body=sdp(B_HOST), extra=[("Require", "100rel"), ("RSeq", "7")])
    rang = f.a.expect(183)
    f.b.reply(200, to=f.b.expect("PRACK"))
    f.a.request("PRACK", extra=[("RAck", f"{rang.get('RSeq')} 1 INVITE")])
    f.a.expect(200)
    f.after(2)
    f.moves()
    f.b.reply(183, body=sdp(B_HOST), extra=[("Require", "100rel"), ("RSeq", "7")])  # again
    is_quiet(f)
    f.b.reply(180, extra=[("Require", "100rel"), ("RSeq", "8")])
    prack = f.b.expect("PRACK")
    assert prack.get("RAck") == "8 1 INVITE"
    f.b.reply(200, to=prack)
    again = f.a.expect(180)
    assert int(again.get("RSeq") or 0) == int(rang.get("RSeq") or 0) + 1
    f.a.request("PRACK", extra=[("RAck", f"{again.get('RSeq')} 1 INVITE")])
    f.a.expect(200)
    f.b.reply(200)
    assert not f.a.expect(200).body, "the 183 had it, for good"
    f.a.ack(cseq=1)
    f.b.expect("ACK")


def test_it_may_move_again_and_then_its_worker_may_die() -> None:
    f = ringing()
    f.moves()
    f.after(1)
    f.moves()
    f.after(1)
    f.dies()
    f.a.refused(500)
    f.b.expect("CANCEL")
    assert f.counts["SETUPS_CARRIED"] == 2
    assert f.counts["SETUPS_LOST"] == 1


# What cannot go on


def ends(f: Ladder, why: str) -> None:
    f.moves()
    assert [note.fields["reason"] for note in f.notes if note.event == "a call in setup ends with its worker"] == [why]


def test_a_route_that_is_running_ends() -> None:
    f = Ladder()
    f.held_routes = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.after(1)
    f.held_routes = None
    ends(f, "its route is running, or media or an answer are under way")
    f.a.refused(500)
    f.over()


def test_a_route_without_a_name_ends() -> None:
    def nameless(f: Ladder, call: Call) -> None:
        f.core.dial(call, [TARGET_B], f.now, on_failure=lambda f, call: None)

    f = ringing(route=nameless)
    ends(f, "it has armed a route that is no function of the routes module")
    f.a.refused(500)
    f.b.expect("CANCEL")


def test_a_request_under_way_ends() -> None:
    f = ringing()
    f.b.request("INFO", cseq=1)
    f.a.expect("INFO")
    ends(f, "a request inside one of its dialogs is under way")


def test_what_routes_keep_goes_along() -> None:
    def keeps(f: Ladder, call: Call) -> None:
        call.variables["customer"] = 7
        call.flags.add("vip")
        f.core.dial(call, [TARGET_B, TARGET_C], f.now, on_failure=hunt_on)
        call.attempts[0].variables["cost"] = [1, 2]
        call.attempts[0].flags.add("cheap")

    f = ringing(route=keeps)
    f.moves()
    call = f.call
    assert (call.variables, call.flags, call.on_failure) == ({"customer": 7}, {"vip"}, hunt_on)
    assert (call.attempts[0].variables, call.attempts[0].flags) == ({"cost": [1, 2]}, {"cheap"})


def test_a_route_that_is_not_there_ends_it() -> None:
    f = ringing(route=hunts)
    assert isinstance(f.core.hooks, Names)
    names = f.core.hooks
    for effect in f.core.hand_on(f.now):
        f.perform(effect)
    names.routes.clear()
    f.dies()
    f.a.refused(500)
    assert any("hunt_on" in note.fields.get("reason", "") for note in f.notes)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_record_of_another_version_ends_as_after_a_death(version: object) -> None:
    f = ringing()
    (save,) = f.core.hand_on(f.now)
    record = orjson.loads(save.record)
    record["on"]["v"] = version
    f.records[save.key] = orjson.dumps(record)
    f.dies()
    f.a.refused(500)
    f.b.expect("CANCEL")
    assert f.counts["SETUPS_LOST"] == 1
    assert any(note.event == "a call that rings cannot go on here" for note in f.notes)


def test_the_record_while_nobody_moves_is_small() -> None:
    f = ringing()
    f.moves()
    assert setup_snapshot.is_one(f.records[f.call.key])
    assert b'"on":' not in f.records[f.call.key], "an unforeseen death ends it again"


# Records that lie

F = ringing(early=sdp(B_HOST), route=hunts)
GOOD: dict[str, Any] = orjson.loads(next(iter(F.core.hand_on(F.now))).record)  # Any: JSON values
ON = GOOD["on"]
PATHS: list[tuple[Any, ...]] = [(name,) for name in ON]  # Any: JSON keys
PATHS += [("a", name) for name in ON["a"]] + [("b", 0, name) for name in ON["b"][0]]
PATHS += [("b", 0, "leg", name) for name in ON["b"][0]["leg"]] + [("tried", 0, name) for name in ON["tried"][0]]
HOSTILE = st.one_of(
    ANYTHING,
    st.sampled_from([[ON["b"][0]] * 2, [ON["b"][0]] * 99, ON["invite"], ON["a"], ON["b"][0]]),
    st.sampled_from([ON["invite"][:40], ON["invite"].replace("INVITE", "BYE"), ON["said"], [[ON["b"][0]["target"]]]]),
)


def test_the_record_itself_is_good() -> None:
    core = Core(F.core.settings, counting_ids(8))
    core.hooks = F.core.hooks
    assert core.resume(orjson.dumps(GOOD), F.now, F.wall) is not None
    assert core.take_counts()["SETUPS_CARRIED"] == 1
    assert core.resume(orjson.dumps(GOOD), F.now, F.wall) is None, "it is here already"


@hypothesis_settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), value=HOSTILE)
def test_a_hostile_value_ends_the_call_or_does_no_harm(path: tuple[Any, ...], value: object) -> None:  # Any: JSON keys
    raw = orjson.loads(orjson.dumps(GOOD))
    holder = raw["on"]
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    core = Core(F.core.settings, counting_ids(7))
    core.hooks = F.core.hooks
    assert core.resume(orjson.dumps(raw), F.now, F.wall) is not None
    counts = core.take_counts()
    assert counts.get("SETUPS_CARRIED", 0) + counts.get("SETUPS_LOST", 0) == 1
    assert not counts.get("CORE_FAULTS")


def test_kinds_of_routes_are_asked_elsewhere() -> None:
    f = ringing(
        routes=frozenset({RouteKind.REQUEST, RouteKind.REPLY}), hooks={"onreply_route": lambda ladder, subject: None}
    )
    f.moves()
    comes_up(f, f.b)
