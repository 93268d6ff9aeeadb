"""The wall clock is set while calls are up, and a worker dies: its successor counts on by the monotonic clock, which
all processes of a boot share. On another machine only the wall clock has gone on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from sbc.b2bua import setup_snapshot, snapshot
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.dialog.session_timer import Policy
from tests.conformance import test_session_timers, test_subscriptions
from tests.support.ladder import A_HOST, B_HOST, Ladder, counting_ids, sdp

HOUR_S = 3600.0
STEPS = pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, 0.0])


def ladder(**options: Any) -> Ladder:  # Any: of Ladder
    return Ladder(boot="this boot", **options)


def up(**options: Any) -> Ladder:  # Any: of Ladder
    f = ladder(**options)
    f.set_up()
    return f


def rewritten(f: Ladder, spoil: Any) -> None:  # Any: takes the JSON object of a record
    """Change every record in the journal."""
    for key, data in f.records.items():
        record = orjson.loads(data)
        spoil(record)
        f.records[key] = orjson.dumps(record)


def elsewhere(f: Ladder, *, later_s: float, clocks_differ_s: float = 0.0) -> None:
    """Another machine takes over so much later: its monotonic clock has nothing to do with ours."""
    f.wall_offset += f.now + later_s - 20.0 + clocks_differ_s
    f.now = 20.0
    f.core.settings = replace(f.core.settings, boot="another boot")
    f.dies()


def hang_up(f: Ladder) -> dict[str, Any]:  # Any: JSON values
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()
    return f.cdr


@STEPS
def test_a_call_is_as_long_as_it_was(step_s: float) -> None:
    f = up()
    begun = f.wall
    f.after(30)
    f.wall_offset += step_s
    f.after(30)
    f.dies()
    f.after(30)
    f.wall_offset -= step_s / 2
    f.dies()  # its record was written anew by a clock that had been set, and the call was older than that
    f.after(30)
    cdr = hang_up(f)
    assert cdr["duration_s"] == pytest.approx(120, abs=0.01)
    assert cdr["start"] == cdr["answer"] == pytest.approx(begun, abs=0.01), "what the clock said then"


@STEPS
def test_a_call_ends_after_its_lifetime_and_not_before(step_s: float) -> None:
    f = up(dialog_lifetime_s=1000.0)
    f.after(300)
    f.wall_offset += step_s
    f.dies()
    f.after(690)
    assert f.core.calls
    f.after(11)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()
    assert f.cdr["duration_s"] == pytest.approx(1000, abs=0.01)


@STEPS
def test_a_session_is_refreshed_when_it_is_due(step_s: float) -> None:
    f = ladder(session_timers=Policy(1800, 90))
    test_session_timers.set_up(f, [test_session_timers.TIMER, test_session_timers.UPDATES], [])
    f.after(300)
    f.wall_offset += step_s
    f.dies()
    f.after(590)
    assert not f.a.inbox
    assert test_session_timers.waited(f, f.a, 20)
    f.a.reply(200, to=f.a.expect("UPDATE"))
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.b.expect("ACK")
    assert f.core.calls


@STEPS
def test_a_subscription_is_over_when_its_time_is(step_s: float) -> None:
    f = test_subscriptions.started(boot="this boot")
    f.after(100)
    f.wall_offset += step_s
    f.dies()
    (side, *_) = f.core.requests.sides.values()
    timer = side.subscription.timer
    assert timer is not None
    left_s = timer.deadline - f.now
    f.wall_offset -= step_s
    f.dies()
    (side, *_) = f.core.requests.sides.values()
    assert side.subscription.timer is not None
    assert side.subscription.timer.deadline - f.now == pytest.approx(left_s, abs=0.01)
    assert 400 < left_s < 900


@STEPS
def test_a_call_in_setup_began_when_it_did(step_s: float) -> None:
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.after(5)
    f.wall_offset += step_s
    f.after(1)
    record = setup_snapshot.encode(f.core, f.call)
    successor = Core(f.core.settings, counting_ids(9))
    call = setup_snapshot.decode(successor, record, f.now, f.wall)
    assert call.ended_at - call.started_at == pytest.approx(6, abs=0.01)


def test_another_machine_goes_by_the_wall_clock() -> None:
    f = up(dialog_lifetime_s=1000.0)
    f.after(300)
    elsewhere(f, later_s=2)
    f.after(10)
    assert hang_up(f)["duration_s"] == pytest.approx(312, abs=0.01)


def test_the_clock_of_another_machine_that_is_behind_takes_nothing_from_a_call() -> None:
    f = up()
    f.after(300)
    f.dies()  # written anew
    elsewhere(f, later_s=2, clocks_differ_s=-HOUR_S)
    f.after(10)
    assert hang_up(f)["duration_s"] == pytest.approx(310, abs=0.01)


def test_the_clock_of_another_machine_that_is_ahead_ends_no_session() -> None:
    """By that clock the session was over half an hour ago. We ask the side that we refresh, and wait for the other."""
    f = ladder(session_timers=Policy(1800, 90))
    test_session_timers.set_up(f, [test_session_timers.TIMER, test_session_timers.UPDATES], [])
    f.after(300)
    elsewhere(f, later_s=2, clocks_differ_s=HOUR_S)
    assert test_session_timers.waited(f, f.a, 1)
    f.a.reply(200, to=f.a.expect("UPDATE"))
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.b.expect("ACK")
    assert f.core.calls


def test_a_monotonic_clock_that_is_behind_is_another_one() -> None:
    """The name of a boot may be copied with a machine."""
    f = up()
    f.after(300)
    f.wall_offset += f.now - 20.0
    f.now = 20.0
    f.dies()
    f.after(10)
    assert hang_up(f)["duration_s"] == pytest.approx(310, abs=0.01)


def test_a_record_of_a_former_release_is_by_the_wall_clock() -> None:
    f = up()

    def former(record: dict[str, Any]) -> None:  # Any: JSON values
        del record["clock"], record["answered"]

    f.after(300)
    rewritten(f, former)
    f.dies()
    f.after(10)
    assert hang_up(f)["duration_s"] == pytest.approx(310, abs=0.01)


@pytest.mark.parametrize(
    "clock",
    [
        0,
        "",
        [],
        ["this boot"],
        [1, 2.0, 3.0],
        ["this boot", "2", 3.0],
        ["this boot", -1.0, 3.0],
        ["this boot", 2, 1e99],
    ],
)
def test_a_clock_that_is_none(clock: object) -> None:
    f = up()
    record = orjson.loads(snapshot.encode(f.core, f.call, f.now))
    record["clock"] = clock
    successor = Core(f.core.settings, counting_ids(9))
    assert successor.resume(orjson.dumps(record), f.now, f.wall) is None
    assert not successor.calls


def test_a_worker_writes_by_which_clock_it_goes() -> None:
    f = up()
    record = orjson.loads(snapshot.encode(f.core, f.call, f.now))
    assert record["clock"] == ["this boot", f.now, f.wall]
    again = Core(f.core.settings, counting_ids(9)).resume(orjson.dumps(record), f.now, f.wall)
    assert isinstance(again, Call)
