"""Limits that the SIP workers of a node count together."""

from __future__ import annotations

import pytest

from sbc.config.models import Config
from sbc.policy.admission import Admission
from sbc.policy.call_tally import COLUMNS, CallTally, size_of


class Node:
    """Some workers, each with a tally of its own in the same memory."""

    def __init__(self, workers: int, memory: bytearray | None = None, **limits: float) -> None:
        self.memory = memoryview(memory or bytearray(size_of(workers)))
        self.config = Config.model_validate(
            {
                "realms": {"core": {"listen": ["udp:10.0.0.5:5060"], "media": {"address": "10.0.0.5"}}},
                "peers": {"p": {"realm": "core", "addresses": "10.0.0.1", **limits}},
            }
        )
        self.count = workers
        self.dead: set[int] = set()
        self.tally().claim(["p"])
        self.workers = [self.start(number) for number in range(workers)]

    def tally(self) -> CallTally:
        return CallTally(self.count, self.memory)

    def start(self, number: int, *, goes_on: bool = True) -> Admission:
        tally = self.tally()
        tally.enrol(number, lambda other: other not in self.dead, goes_on=goes_on)
        return Admission(self.config.peers, self.config.realms, workers=self.count, tally=tally)

    def open(self, *numbers: int, now: float = 1.0) -> list[int | None]:
        return [self.workers[number].open_call("p", now) for number in numbers]


@pytest.mark.parametrize("turns", [(0, 1, 2, 3) * 5, (0,) * 20, (3, 3, 3, 1) * 5])
def test_a_limit_is_one_of_the_node(turns: tuple[int, ...]) -> None:
    node = Node(4, max_calls=10)
    assert node.open(*turns).count(None) == 10
    node.workers[turns[0]].close_call("p")
    assert node.open(2, 2) == [None, 503]


def test_a_limit_below_the_number_of_workers_is_for_any_of_them() -> None:
    node = Node(4, max_calls=1)
    assert node.open(3, 0, 1, 2) == [None, 503, 503, 503]
    node.workers[3].close_call("p")
    assert node.open(1, 3) == [None, 503]


def test_a_rate_is_one_of_the_node() -> None:
    node = Node(4, max_cps=4)
    assert node.open(*range(4), *range(4), now=100.0).count(None) == 4
    assert node.open(0, 1, 2, 3, now=100.5).count(None) == 2


def test_the_calls_of_a_dead_worker_count_until_its_successor_knows_which_went_on() -> None:
    node = Node(2, max_calls=6)
    assert node.open(0, 0, 0, 0, 1) == [None] * 5
    node.workers[0] = node.start(0)
    assert node.open(1, 0, 1) == [None, 503, 503]  # six, of which four wait
    for _ in range(3):
        node.workers[0].count_call("p")
    assert node.open(0, 1) == [503, 503]
    node.workers[0].all_here()  # one was in setup
    assert node.open(0, 1) == [None, 503]
    for _ in range(4):
        node.workers[0].close_call("p")
    assert node.open(*(1,) * 5) == [None] * 4 + [503]


def test_who_has_ended_counts_no_more_and_who_relieves_begins_at_nothing() -> None:
    node = Node(3, max_calls=4)
    assert node.open(2, 2, 2, 0) == [None] * 4
    node.dead.add(2)
    assert node.open(1) == [None]
    node.dead.clear()
    node.workers[2] = node.start(2, goes_on=False)
    assert node.open(2, 2, 2) == [None, None, 503]


def test_a_reload_keeps_the_counts() -> None:
    node = Node(2, max_calls=3)
    assert node.open(0, 0) == [None, None]
    new = node.start(0)
    new.inherit(node.workers[0])
    node.workers[0] = new
    assert node.open(1, 0) == [None, 503]
    new.close_call("p")
    new.close_call("p")
    assert node.open(0, 1, 0) == [None, None, 503]


def test_while_a_worker_does_not_count_each_has_its_share() -> None:
    node = Node(2, max_calls=3)
    node.count, node.memory = 3, memoryview(bytearray(node.memory).ljust(size_of(3), b"\0"))
    node.workers = [node.start(0), node.start(1)]
    assert node.open(0, 0, 1, 1) == [None, 503, None, 503]


def full(workers: int = 1) -> bytearray:
    """Memory in which all columns belong to others."""
    memory = bytearray(size_of(workers))
    memory[: COLUMNS * 8] = b"\xff" * COLUMNS * 8
    return memory


def test_peers_beyond_the_columns_have_shares() -> None:
    node = Node(2, full(2), max_calls=3, max_cps=4)
    assert node.tally().find("p") == -1
    assert node.open(0, 0, 0, 1, 1, 1) == [None, None, 503, None, None, 503]
    assert node.open(0, now=1.1) == [503]


def test_columns_stay_with_their_peers_and_run_out() -> None:
    memory = full()
    memory[8:32] = bytes(24)  # three are free
    tally = CallTally(1, memoryview(memory))
    tally.claim(["a", "b"])
    columns = [tally.find(name) for name in "ab"]
    assert sorted(columns) == [1, 2]
    tally.claim("abcd")
    assert [tally.find(name) for name in "abcd"] == [*columns, 3, -1]
