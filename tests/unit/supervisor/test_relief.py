"""How the supervisor has SIP workers relieved: nothing is signalled before all successors are ready."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from sbc.supervisor.child import Event, Group, State
from sbc.supervisor.members import Member
from sbc.supervisor.relief import GRACE_S, START_LIMIT_S, Relief
from sbc.telemetry.counters import Kind
from sbc.worker.seats import Seats

LIMIT_S = 180.0


class Node:
    """Two seats, and room for as many workers more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, signal.Signals]] = []

        def send(member: Member, number: signal.Signals) -> None:
            self.sent.append((member.name, number))

        monkeypatch.setattr(Member, "send", send)
        self.members = [Member(Group.SIP, number) for number in range(4)]
        for member in self.members:
            if member.slot < 2:
                self.serve(member)
            else:
                member.page.retire()
        self.seats = Seats(2)
        self.relief = Relief(self.members, self.seats, LIMIT_S)

    def serve(self, member: Member) -> None:
        member.page.open(Kind.SIP, 100 + member.slot)
        member.pid = 100 + member.slot
        member.child.adopt(State.READY, 0.0, 0.0)

    def die(self, number: int, now: float) -> None:
        """As the supervisor does it."""
        member = self.members[number]
        member.pid = 0
        self.relief.died(member)
        member.child.on(Event.DIED, now)

    def states(self) -> list[State]:
        return [member.child.state for member in self.members]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_one_seat_changes_hands(node: Node) -> None:
    relief, members = node.relief, node.members
    relief.begin([2, 1], 10.0)
    assert members[2].child.state is State.BACKOFF, "to be started at once"
    assert (members[2].seat, members[2].child.due_s) == (0, 10.0)
    relief.look(10.1)
    assert not node.sent
    node.serve(members[2])
    relief.look(10.2)
    assert node.sent == [("sip 0", signal.SIGUSR1)]
    assert members[0].page.is_leaving
    relief.look(10.3)
    assert relief.phase.name == "LEAVING"
    node.die(0, 12.0)
    relief.look(12.0)
    assert relief.phase.name == "DONE"
    assert node.sent[1:] == [("sip 2", signal.SIGUSR1)], "it is told that it is alone"
    assert node.seats.numbers == [2, 1]
    assert not node.seats.lives(0)
    assert not node.seats.relieves(2)
    assert members[0].page.is_spare
    assert relief.free() == [0, 3]


def test_a_successor_that_does_not_start_leaves_everything_as_it_was(node: Node) -> None:
    relief = node.relief
    relief.begin([2, 1], 0.0)
    node.members[2].child.state = State.STARTING
    node.members[2].last_words.write("no such table")
    node.die(2, 1.0)
    relief.look(1.0)
    assert relief.phase.name == "FAILED"
    assert relief.reason == "sip 2 ended before it was ready: no such table"
    assert not node.sent
    assert node.seats.numbers == [0, 1]
    assert node.states() == [State.READY, State.READY, State.STOPPED, State.STOPPED]


def test_one_that_never_gets_ready_is_ended(node: Node) -> None:
    node.relief.begin([2, 1], 0.0)
    node.members[2].child.state, node.members[2].pid = State.STARTING, 5
    node.relief.look(START_LIMIT_S + 1)
    assert node.relief.phase.name == "FAILED"
    assert node.sent == [("sip 2", signal.SIGKILL)]
    node.die(2, START_LIMIT_S + 2)
    assert node.states()[2] is State.STOPPED


def test_a_successor_that_dies_takes_those_with_it_whom_it_relieves(node: Node) -> None:
    """Nobody would bring them their messages; what they had is in the journal."""
    relief = node.relief
    relief.begin([2, 1], 0.0)
    node.serve(node.members[2])
    relief.look(0.1)
    node.die(2, 0.2)
    assert node.sent[1:] == [("sip 0", signal.SIGKILL)]
    assert not node.seats.relieves(2), "so it looks into the journal when it starts again"
    assert node.members[2].child.state is State.BACKOFF
    node.die(0, 0.3)
    relief.look(0.3)
    assert relief.phase.name == "DONE"
    assert node.seats.numbers == [2, 1]


def test_a_node_without_sip_workers_has_nothing_to_go_on_with() -> None:
    relief = Relief([], Seats(1), LIMIT_S)
    relief.resume(0.0)
    relief.look(1.0)
    assert not relief.free()


def test_who_does_not_end_in_time_is_ended(node: Node) -> None:
    node.relief.begin([2, 1], 0.0)
    node.serve(node.members[2])
    node.relief.look(0.0)
    node.relief.look(LIMIT_S + GRACE_S + 1)
    assert node.sent[-1] == ("sip 0", signal.SIGKILL)


@pytest.mark.parametrize("turned", [True, False])
def test_another_supervisor_goes_on_with_it(node: Node, turned: bool) -> None:
    node.relief.begin([2, 1], 0.0)
    node.serve(node.members[2])
    node.relief.look(0.0)
    if turned:
        node.seats.turn(node.seats.version)
    next_one: Any = Relief(node.members, Seats(2, node.seats._memory, former=True), LIMIT_S)
    next_one.resume(1.0)
    if turned:
        assert next_one.phase.name == "LEAVING"
        assert node.states()[0] is State.DRAINING
        node.die(0, 2.0)
        next_one.look(2.0)
        assert next_one.phase.name == "DONE"
        assert node.sent[-1] == ("sip 2", signal.SIGUSR1)
    else:
        node.members[0].child.state = State.READY  # as it is adopted
        next_one.look(1.0)
        assert node.sent == [("sip 0", signal.SIGUSR1)] * 2, "told again, which changes nothing"
        assert next_one.phase.name == "LEAVING"
