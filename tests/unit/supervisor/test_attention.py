"""Who is silent, and who only was not looked at in time: in virtual time."""

from __future__ import annotations

import pytest

from sbc.supervisor.attention import Attention
from sbc.supervisor.child import BEAT_LIMITS_S, MEDIA_BEAT_LIMIT_S, Child, Event, Group, State

LOOK_S = 0.5


class Watch:
    """A supervisor that looks at one worker; both may be kept from running."""

    def __init__(self) -> None:
        self.now = self.beat_s = 100.0
        self.attention = Attention(self.now)
        self.child = Child()
        self.child.on(Event.START, self.now)
        self.child.on(Event.SERVES, self.now)

    def pass_by(self, seconds: float, *, beats: bool = True, late_s: float = 0.0) -> Event | None:
        """The supervisor means to sleep for ``seconds`` and sleeps ``late_s`` longer, in which nobody runs."""
        self.attention.sleep(self.now + seconds)
        if beats:
            self.beat_s = self.now + seconds - 0.05
        self.now += seconds + late_s
        self.attention.look(self.now)
        heard_s = self.attention.heard_s(0, self.beat_s)
        return self.child.look(self.now, beat_s=heard_s, serves=True, limit_s=BEAT_LIMITS_S[Group.MEDIA])


def test_a_worker_that_stops_is_found_out_within_a_second() -> None:
    watch = Watch()
    assert [watch.pass_by(LOOK_S) for _ in range(10)] == [None] * 10
    stopped_s = watch.beat_s
    assert watch.pass_by(LOOK_S, beats=False) is None
    assert watch.pass_by(0.3, beats=False) is None
    assert watch.pass_by(0.06, beats=False) is Event.HUNG
    assert watch.now - stopped_s < 1.0


@pytest.mark.parametrize("paused_s", [0.5, 0.9, 1.5, 3.0, 3600.0])
def test_a_machine_that_was_paused_ends_nobody(paused_s: float) -> None:
    watch = Watch()
    assert watch.pass_by(LOOK_S) is None
    assert watch.pass_by(LOOK_S, beats=False, late_s=paused_s) is None
    assert watch.pass_by(LOOK_S) is None


def test_who_hangs_since_a_pause_is_found_out_after_it() -> None:
    watch = Watch()
    assert watch.pass_by(LOOK_S, late_s=10.0) is None
    assert watch.pass_by(LOOK_S, beats=False) is None
    assert watch.pass_by(LOOK_S, beats=False) is Event.HUNG


def test_pauses_one_after_the_other_neither_end_those_that_beat_nor_hide_one_that_does_not() -> None:
    watch = Watch()
    assert [watch.pass_by(LOOK_S, late_s=1.0) for _ in range(20)] == [None] * 20
    found = [watch.pass_by(LOOK_S, beats=False, late_s=1.0) for _ in range(3)]
    assert Event.HUNG in found


def test_a_watcher_that_wakes_earlier_than_it_meant_has_lost_nothing() -> None:
    attention = Attention(0.0)
    for now in range(1, 10):
        attention.sleep(now + 1000.0)
        attention.look(float(now))
        assert attention.heard_s(7, 0.5) == 0.5


def test_each_worker_has_its_own_account() -> None:
    attention = Attention(0.0)
    attention.look(0.0)
    assert (attention.heard_s(0, 0.0), attention.heard_s(1, 0.0)) == (0.0, 0.0)
    attention.sleep(1.0)
    attention.look(4.0)  # three seconds too late
    assert attention.heard_s(0, 0.0) == 3.0
    assert attention.heard_s(1, 0.9) == 3.9  # it beat before the pause or after it: nobody knows
    attention.sleep(5.0)
    attention.look(5.0)
    assert attention.heard_s(1, 4.5) == 4.5


class Starved(Watch):
    """One look after the other at a worker that is silent and has run for ``share`` of the time."""

    ran_s = 0.0

    def look_closely(self, seconds: float, *, wants: bool, share: float) -> Event | None:
        self.ran_s += seconds * share
        self.attention.sleep(self.now + seconds)
        self.now += seconds
        self.attention.look(self.now)
        self.attention.heard_s(0, self.beat_s)
        heard_s = self.attention.saw(0, self.now, wants, self.ran_s)
        return self.child.look(self.now, beat_s=heard_s, serves=True, limit_s=MEDIA_BEAT_LIMIT_S)


def test_a_worker_that_gets_no_processor_is_not_taken_for_hung() -> None:
    watch = Starved()
    assert [watch.look_closely(0.4, wants=True, share=0.05) for _ in range(10)] == [None] * 10
    watch.beat_s = watch.now
    assert [watch.look_closely(0.4, wants=True, share=0.0) for _ in range(10)] == [None] * 10


@pytest.mark.parametrize(("wants", "share", "looks"), [(False, 0.0, 3), (True, 1.0, 3), (True, 0.5, 4)])
def test_a_worker_that_wants_none_or_turns_in_circles_is(wants: bool, share: float, looks: int) -> None:
    watch = Starved()
    found = [watch.look_closely(0.4, wants=wants, share=share) for _ in range(looks)]
    assert found == [None] * (looks - 1) + [Event.HUNG]


def test_a_media_worker_that_ends_may_take_as_long_as_others() -> None:
    child = Child()
    child.adopt(State.DRAINING, 0.0, 0.0)
    late_s = 10.0 + MEDIA_BEAT_LIMIT_S + 0.5
    assert child.look(late_s, beat_s=10.0, serves=True, limit_s=MEDIA_BEAT_LIMIT_S) is None
    child.adopt(State.READY, 0.0, 0.0)
    assert child.look(late_s, beat_s=10.0, serves=True, limit_s=MEDIA_BEAT_LIMIT_S) is Event.HUNG
