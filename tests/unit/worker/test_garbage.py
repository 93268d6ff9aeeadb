"""When everything is looked at for garbage, and when only what is young."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from sbc.worker.garbage import GIVE_BACK_S, HARDLY, LONGEST_S, QUIET, REST_S, SPARED, YOUNG, Garbage


class Node:
    other: Node


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    former = gc.get_threshold()
    yield
    gc.set_threshold(*former)
    gc.unfreeze()


def cycle() -> weakref.ref[Node]:
    one, other = Node(), Node()
    one.other, other.other = other, one
    return weakref.ref(one)


def nothing() -> None:
    pass


def test_the_old_are_looked_at_when_the_worker_is_quiet() -> None:
    garbage = Garbage(100.0, nothing)
    garbage.start()
    left = cycle()
    gc.collect(0)  # it has survived nothing yet: collected at once
    assert left() is None
    kept = Node()
    kept.other = kept
    left = weakref.ref(kept)
    gc.collect(0)
    del kept
    gc.collect(0)
    assert left() is not None  # no longer young
    for _ in range(1000):
        assert not garbage.measured(QUIET + 0.01, 100.0 + REST_S)
    garbage.measured(0.0, 100.0 + REST_S - 1)
    assert left() is not None
    assert garbage.measured(0.0, 101.0 + REST_S)
    assert left() is None
    assert not garbage.measured(0.0, 102.0 + REST_S)  # it rests again


def test_the_young_are_looked_at_as_a_sample() -> None:
    garbage = Garbage(0.0, nothing)
    garbage.start()
    kept: list[list[object]] = []

    def grow() -> bool:
        kept.extend([] for _ in range(YOUNG))
        return garbage.measured(1.0, 1.0)

    assert not garbage.measured(1.0, 1.0)  # hardly anything is young
    assert [grow() for _ in range(SPARED + 3)] == [True, *[False] * SPARED, True, False]


def test_where_there_is_garbage_all_that_is_young_is_looked_at() -> None:
    garbage = Garbage(0.0, nothing)
    garbage.start()
    kept: list[list[object]] = []
    left: list[weakref.ref[Node]] = []
    for _ in range(4):
        kept.extend([] for _ in range(YOUNG))
        left = [cycle() for _ in range(HARDLY)]
        assert garbage.measured(1.0, 1.0)
        assert {one() for one in left} == {None}


def test_what_was_set_aside_unseen_is_collected_in_a_quiet_moment() -> None:
    garbage = Garbage(0.0, nothing)
    garbage.start()
    kept: list[list[object]] = []
    for _ in range(2):
        left = cycle()
        kept.extend([] for _ in range(YOUNG))
        garbage.measured(1.0, 1.0)
    assert left() is not None
    for _ in range(1000):
        garbage.measured(0.0, 2.0)
    assert garbage.measured(0.0, REST_S)
    assert left() is None


def test_memory_is_given_back_in_quiet_moments_and_not_too_often() -> None:
    given: list[float] = []
    now = 0.0
    garbage = Garbage(now, lambda: given.append(now))
    for busy, until in ((QUIET * 2, 3 * GIVE_BACK_S), (0.0, 6.5 * GIVE_BACK_S), (1.0, 9 * GIVE_BACK_S)):
        while now < until:
            now += 0.1
            garbage.measured(busy, now)
    assert given[0] == pytest.approx(3 * GIVE_BACK_S, abs=5)
    assert [b - a for a, b in itertools.pairwise(given)] == pytest.approx([GIVE_BACK_S] * 3, abs=0.2)


def test_giving_back_shrinks_what_the_process_holds() -> None:
    """In a process of its own: whatever else holds this one's heap."""
    code = """if True:
        import ctypes
        from sbc.worker.garbage import QUIET, GIVE_BACK_S, Garbage
        def held():
            return int(open("/proc/self/statm").read().split()[1]) * 4096
        if not hasattr(ctypes.CDLL(None), "malloc_trim"):
            raise SystemExit
        garbage = Garbage(0.0)
        blocks = [bytes(2000) for _ in range(50_000)]
        kept = blocks[::1000]
        full = held()
        del blocks
        before = held()
        for look in range(400):
            garbage.measured(0.0, look / 10)
        after = held()
        assert full - after > 50e6, (full, before, after)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_worker_that_is_never_quiet_looks_in_the_end() -> None:
    garbage = Garbage(0.0, nothing)
    assert not garbage.measured(1.0, LONGEST_S - 1)
    assert garbage.measured(1.0, LONGEST_S)


def test_by_itself_nothing_is_looked_at() -> None:
    Garbage(0.0).start()
    looked: list[int] = []
    gc.callbacks.append(watch := lambda phase, info: looked.append(info["generation"]) if phase == "start" else None)
    try:
        held = [[] for _ in range(400_000)]  # type: ignore[var-annotated]  # nothing but objects
    finally:
        gc.callbacks.remove(watch)
    assert len(held) == 400_000
    assert not looked
