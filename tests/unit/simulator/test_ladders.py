"""Tests of routes as their authors write them: the fixture of ``sbc.testing``."""

from __future__ import annotations

import pytest

from sbc.routing import Failure, Node, Request, Routes
from sbc.testing import Sbc, staged
from tests.unit.simulator.world import CONFIG, GIVEN

routes = Routes()
ticks: list[float] = []


@routes.route
async def main(request: Request) -> None:
    if request.direction != "from_office":
        return await request.reject(403)
    request.call.media.engage()
    await request.call.dial(["carrier-a", "carrier-b"], on_failure=hunt)
    return None


@routes.failure_route
async def hunt(failure: Failure) -> None:
    if not (failure.may_fail_over and await failure.call.dial_next()):
        await failure.call.reject(failure.best_status)


@routes.timer_route(every_s=30)
async def tick(node: Node) -> None:
    ticks.append(node.clock.monotonic())


sbc = staged(CONFIG, routes)
bridge = staged(GIVEN, "../../../conf/routes/bridge.py", at="2026-12-24T18:00")


def test_the_second_carrier_is_tried_when_the_first_is_down(sbc: Sbc) -> None:
    office, first, second = sbc.party("office"), sbc.party("carrier-a"), sbc.party("carrier-b")
    office.calls("+4930123")
    first.gets("INVITE")
    first.answers(503)
    assert second.gets("INVITE").uri == "sip:+4930123@203.0.113.77:5080"
    second.answers(180)
    office.gets(180)
    second.answers(200)
    office.gets(200)
    second.gets("ACK")
    office.hangs_up()
    second.gets("BYE")
    office.gets(200)
    sbc.is_over()


def test_a_caller_who_gives_up_while_it_rings(sbc: Sbc) -> None:
    office, first = sbc.party("office"), sbc.party("carrier-a")
    office.calls("1")
    first.gets("INVITE")
    first.answers(180)
    office.gets(180)
    office.cancels()
    first.gets("CANCEL")
    office.gets(200)
    office.gets(487)
    office.gets_nothing()
    sbc.is_over()


def test_the_called_side_holds_and_hangs_up(sbc: Sbc) -> None:
    office, first = sbc.party("office"), sbc.party("carrier-a")
    office.calls("1")
    first.gets("INVITE")
    first.answers(200)
    office.gets(200)
    first.sends("INVITE", body=first.description().replace(b"sendrecv", b"sendonly"))
    held = office.gets("INVITE")
    assert b"a=sendonly" in held.body
    office.answers(200)
    assert b"a=sendonly" not in first.gets(200).body
    first.hangs_up()
    office.gets("BYE")
    sbc.is_over()


def test_a_failed_expectation_tells_what_has_happened(sbc: Sbc) -> None:
    office, first = sbc.party("office"), sbc.party("carrier-a")
    office.calls("1")
    first.gets("INVITE")
    with pytest.raises(AssertionError, match=r"office got nothing, expected 180(.|\n)*The route main runs"):
        office.gets(180)
    first.answers(486)
    with pytest.raises(AssertionError, match=r"office got 486 \(INVITE\), not 200"):
        office.gets(200)
    office.calls("2")
    with pytest.raises(AssertionError, match=r"carrier-a got \['INVITE'\]"):
        first.gets_nothing()
    first.gets("INVITE")
    first.answers(200)
    with pytest.raises(AssertionError, match="calls are left"):
        sbc.is_over()


def test_carriers_may_not_call(sbc: Sbc) -> None:
    assert sbc.dry_run("1", "carrier-b").status == 403


def test_timer_routes_run_as_time_passes(sbc: Sbc) -> None:
    ticks.clear()
    sbc.after(100)
    assert [round(at - ticks[0]) for at in ticks] == [0, 30, 60]


def test_a_module_beside_the_test_and_a_time(bridge: Sbc) -> None:
    report = bridge.dry_run("+4930123", "office", answers={"carrier-a": "181+200"})
    assert report.is_answered
    assert b"181" not in b"".join(m.data[:20] for m in report.messages if m.receiver == "office")
    assert "conf/routes/bridge.py:" in next(step.where for step in report.steps if step.kind == "decision")
    assert bridge.clock.wall() - bridge.clock.now == pytest.approx(bridge.clock.wall_offset)
