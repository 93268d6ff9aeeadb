"""Which port pairs calls get, how long a pair rests between two calls, and when its sockets are closed."""

from __future__ import annotations

import contextlib
import errno
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.config import RealmInterface
from media.endpoint import read_host
from media.ports import FRESH_EVERY, SPARE, NoPortError, PortPool
from media.state import Arena
from tests.support.fake_sockets import FakeSockets


class Bench:
    """A pool over fake sockets; ``lend`` and ``release`` by rule."""

    def __init__(self, low: int, high: int, *, keep: int = 512, room: int = 10_000) -> None:
        self.sockets = FakeSockets(Arena(-1, 256), room)
        at = read_host("192.0.2.1").at
        self.pool = PortPool(at, (low, high), 2.0, Random(3), self.sockets, keep)
        self.now = 0.0

    def lend(self, index: int = 0) -> int:
        """The port that the rule got."""
        self.pool.lend(index, self.now)
        return self.sockets.bound[index]

    def release(self, index: int = 0) -> None:
        self.pool.release(index, self.now)

    def call(self) -> int:
        """A call that ends at once, and the quarantine after it."""
        port = self.lend()
        self.release()
        self.now += 2.0
        return port


def test_pairs_are_even_and_each_is_lent_once() -> None:
    bench = Bench(30001, 30021)
    drawn = [bench.lend(index) for index in range(10)]
    assert sorted(drawn) == list(range(30002, 30022, 2))
    assert drawn != sorted(drawn), "the order is random"
    with pytest.raises(NoPortError, match="in use") as refused:
        bench.lend(10)
    assert not refused.value.wanting


def test_the_pair_whose_rtcp_port_lies_outside_is_left_out() -> None:
    assert Bench(30000, 30002).pool.free == 1


def test_release_twice_and_rules_without_a_pair_change_nothing() -> None:
    bench = Bench(30000, 30003)
    bench.lend()
    bench.release()
    bench.release()
    bench.release(9)
    assert (bench.pool.free, bench.pool.quarantined, bench.pool.bound) == (1, 1, 1)


@given(st.lists(st.integers(0, 5), max_size=200), st.integers(0, 10), st.integers(4, 10))
def test_no_pair_is_lent_twice_or_within_its_quarantine(steps: list[int], keep: int, room: int) -> None:
    bench = Bench(30000, 30019, keep=keep, room=room)
    held, released = list[int](), dict[int, float]()
    for index, step in enumerate(steps):
        bench.now += 0.3
        if step == 5:
            bench.pool.shed(3)
        elif step:
            with contextlib.suppress(NoPortError):
                bench.lend(index)
            port = bench.sockets.bound.get(index)
            if port is None:
                assert bench.pool.free == 0 or bench.pool.bound == room
                continue
            assert bench.now - released.get(port, -9.0) >= 2.0
            held.append(index)
        elif held:
            released[bench.sockets.bound[held[0]]] = bench.now
            bench.release(held.pop(0))
        assert len(held) + bench.pool.free + bench.pool.quarantined == 10
        assert bench.pool.bound == len(bench.sockets.open_ports) <= room


def test_sockets_stay_open_between_calls() -> None:
    bench = Bench(30000, 49999)
    for _ in range(1000):
        bench.call()
    assert bench.sockets.shuts == 0
    assert bench.sockets.opens < SPARE + 1000 // FRESH_EVERY + 2


def test_few_calls_after_one_another_get_many_different_ports() -> None:
    """Whoever knows the ports of past calls knows little of the next one."""
    bench = Bench(30000, 49999)
    ports = [bench.call() for _ in range(SPARE)]
    assert len(set(ports)) == SPARE
    later = [bench.call() for _ in range(10 * FRESH_EVERY)]
    assert len(set(later) - set(ports)) >= 10, "those in use wander through the range"


def test_what_a_peak_leaves_behind_is_closed_a_little_at_a_time() -> None:
    bench = Bench(30000, 39999, keep=10)
    for index in range(100):
        bench.lend(index)
    for index in range(100):
        bench.release(index)
    bench.now += 2.0
    bench.pool.ripen(bench.now, 30)
    assert bench.pool.bound == 70
    for _ in range(3):
        bench.pool.ripen(bench.now, 30)
    assert bench.pool.bound == 10
    assert (bench.pool.free, bench.pool.quarantined) == (5000, 0)


def test_ports_of_other_programs_are_passed_over_and_not_lost() -> None:
    bench = Bench(30000, 30009)
    bench.sockets.taken = {30000, 30002, 30004, 30006}
    assert bench.lend(0) == 30008
    with pytest.raises(NoPortError, match="in use"):
        bench.lend(1)
    bench.sockets.taken = set()
    assert {bench.lend(index) for index in range(1, 5)} == {30000, 30002, 30004, 30006}


def test_a_flooded_pair_goes_back_into_quarantine() -> None:
    bench = Bench(30000, 30005)
    bench.sockets.flooded = {30000, 30004}
    assert bench.lend(0) == 30002
    with pytest.raises(NoPortError, match=r"in use|flooded"):
        bench.lend(1)
    assert bench.pool.quarantined == 2
    bench.sockets.flooded = set()
    bench.now += 2.0
    assert {bench.lend(1), bench.lend(2)} == {30000, 30004}


def test_without_descriptors_idle_pairs_serve_and_the_reason_is_told() -> None:
    bench = Bench(30000, 49999, room=3)
    assert len({bench.lend(index) for index in range(3)}) == 3
    with pytest.raises(NoPortError, match="Too many open files") as refused:
        bench.lend(3)
    assert refused.value.wanting
    bench.release(0)
    bench.now += 2.0
    bench.lend(3)


def test_what_is_shed_in_quarantine_waits_all_the_same() -> None:
    bench = Bench(30000, 30003, room=1)
    port = bench.lend()
    bench.release()
    assert bench.pool.shed(5) == 1
    assert (bench.pool.bound, bench.pool.quarantined, bench.pool.free) == (0, 1, 1)
    assert bench.lend(1) != port
    bench.release(1)
    bench.now += 2.0
    bench.pool.shed(1)
    bench.pool.ripen(bench.now, 1)
    assert (bench.pool.quarantined, bench.pool.free) == (0, 2)


def test_what_a_predecessor_had_is_taken_over_even_from_outside_the_range() -> None:
    bench = Bench(30000, 30009)
    bench.sockets.taken = {30004}
    assert [bench.pool.adopt(0, 30002), bench.pool.adopt(1, 50000)] == [0, 0]
    assert bench.pool.adopt(2, 30004) == errno.EADDRINUSE
    assert bench.pool.adopt(3, 30006) == 0
    bench.pool.disown(3)
    bench.pool.settle(bench.now)
    assert (bench.pool.free, bench.pool.bound) == (4, 2)
    bench.release(0)
    bench.release(1)
    bench.now += 2.0
    bench.pool.ripen(bench.now, 5)
    assert (bench.pool.free, bench.pool.bound) == (5, 1), "the stray one was closed"


def test_what_a_predecessor_bound_serves_its_calls_and_rests_before_others_get_it() -> None:
    bench = Bench(30000, 30009)
    at = read_host("192.0.2.1").at
    pairs = {port: bench.sockets.open(at(port)) for port in (30002, 30006, 50000, 50002)}
    opens = bench.sockets.opens
    for port, pair in pairs.items():
        assert bench.pool.claims(at(port)) == (port < 50000)
        assert bench.pool.shares(at(port))
        bench.pool.inherit(port, pair)
    assert not bench.pool.claims(read_host("192.0.2.2").at(30002))
    assert not bench.pool.shares(read_host("192.0.2.2").at(30002))
    assert [bench.pool.adopt(0, 30002), bench.pool.adopt(1, 50000)] == [0, 0]
    assert bench.sockets.opens == opens, "nothing was bound anew"
    assert bench.sockets.resumed == {30002, 50000}, "what waits there is relayed"
    bench.pool.settle(bench.now)
    assert (bench.pool.bound, bench.pool.quarantined, bench.pool.free) == (4, 2, 3)
    assert 30006 not in {bench.lend(index) for index in (2, 3, 4)}, "it is in quarantine"
    bench.now += 2.0
    assert bench.lend(5) == 30006
    assert bench.pool.bound == 6, "the one from outside the range was closed"
    assert bench.sockets.shuts == 1


def test_what_is_bound_in_advance_is_there_when_it_is_taken_over() -> None:
    bench = Bench(30000, 30009)
    for port in (30002, 30004, 30004, 50000):
        bench.pool.prepare(port)
    assert bench.sockets.opens == 3
    bench.pool.spare(30004)
    bench.pool.spare(30004)
    assert (bench.sockets.shuts, bench.pool.bound) == (1, 2)
    assert [bench.pool.adopt(0, 30002), bench.pool.adopt(1, 50000)] == [0, 0]
    assert bench.sockets.opens == 3
    bench.pool.settle(bench.now)
    assert (bench.pool.free, bench.pool.bound) == (4, 2)
    assert 30002 not in {bench.lend(index) for index in range(2, 6)}


def test_a_mark_that_a_predecessor_left_goes_nowhere() -> None:
    bench = Bench(30000, 30005)
    at = read_host("192.0.2.1").at
    kept, idle = (bench.sockets.open(at(port), 46) for port in (30000, 30002))
    bench.pool.inherit(30000, kept)
    bench.pool.inherit(30002, idle)
    bench.pool.adopt(0, 30000, 34)
    bench.pool.settle(bench.now)
    assert bench.sockets.dscp == {kept: 34, idle: 46}
    bench.now += 2.0
    for index in (1, 2):
        bench.lend(index)
    assert bench.sockets.dscp[idle] == 0


@given(st.integers(1, 9), st.integers(30000, 30005), st.integers(30040, 30060))
def test_workers_share_a_range_without_overlap(count: int, low: int, high: int) -> None:
    shares = [RealmInterface("127.0.0.1", "", (low, high)).share(slot, count).ports for slot in range(count)]
    every = [p for first, last in shares for p in range(first, last, 2)]
    assert every == list(range(low + low % 2, high, 2))
