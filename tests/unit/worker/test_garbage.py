"""When everything is looked at for garbage, and when only what is young."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from sbc.worker.garbage import LONGEST_S, QUIET, REST_S, Garbage


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


def test_the_old_are_looked_at_when_the_worker_is_quiet() -> None:
    garbage = Garbage(100.0)
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
    assert not garbage.measured(0.0, 100.0 + REST_S - 1)
    assert left() is not None
    assert garbage.measured(0.0, 101.0 + REST_S)
    assert left() is None
    assert not garbage.measured(0.0, 102.0 + REST_S)  # it rests again


def test_a_worker_that_is_never_quiet_looks_in_the_end() -> None:
    garbage = Garbage(0.0)
    assert not garbage.measured(1.0, LONGEST_S - 1)
    assert garbage.measured(1.0, LONGEST_S)


def test_by_itself_only_the_young_are_looked_at() -> None:
    Garbage(0.0).start()
    looked: list[int] = []
    gc.callbacks.append(watch := lambda phase, info: looked.append(info["generation"]) if phase == "start" else None)
    try:
        held = [[] for _ in range(400_000)]  # type: ignore[var-annotated]  # nothing but objects
    finally:
        gc.callbacks.remove(watch)
    assert len(held) == 400_000
    assert set(looked) == {0}
