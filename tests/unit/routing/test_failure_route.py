"""failure_route: every branch has failed, and the caller still waits."""

from __future__ import annotations

import pytest

from sbc.routing import Failure, Routes
from tests.unit.routing.stage import BOTH, Stage, routes_dialling


def test_a_failure_route_hunts_until_a_user_has_answered() -> None:
    routes = Routes()
    seen: list[tuple[int, bool, bool]] = []

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        seen.append((failure.attempts[-1].status, failure.may_fail_over, failure.call.has_next))
        if failure.may_fail_over and failure.call.has_next:
            await failure.call.dial_next()
        else:
            await failure.call.reject(failure.best_status)

    stage = Stage(routes_dialling(routes, [*BOTH, "carrier-b"], on_failure=hunt))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(503)
    stage.c.expect("INVITE")
    stage.c.reply(486)
    stage.a.refused(486)
    assert seen == [(503, True, True), (486, False, True)]


def test_a_failure_route_that_does_not_decide_passes_the_best_answer_on() -> None:
    routes = Routes()

    @routes.failure_route
    async def watch(failure: Failure) -> None:
        failure.call.log.info("failed", status=failure.best_status)

    stage = Stage(routes_dialling(routes, on_failure=watch))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(486)
    stage.a.refused(486)


def test_each_attempt_may_arm_a_failure_route_of_its_own_and_a_new_dial_arms_none_by_itself() -> None:
    routes = Routes()
    ran: list[str] = []

    @routes.failure_route
    async def first(failure: Failure) -> None:
        ran.append("first")
        assert await failure.call.dial_next(on_failure=second)

    @routes.failure_route
    async def second(failure: Failure) -> None:
        ran.append("second")
        assert await failure.call.dial_next()  # this one is armed again

    stage = Stage(routes_dialling(routes, [*BOTH, *BOTH], on_failure=first))
    stage.call_in()
    for phone in (stage.b, stage.c, stage.b):
        phone.expect("INVITE")
        phone.reply(503)
        phone.expect("ACK")
    stage.c.expect("INVITE")
    assert ran == ["first", "second", "second"]

    async def again(failure: Failure) -> None:
        ran.append("again")
        await failure.call.dial("carrier-c")

    ran.clear()
    stage = Stage(routes_dialling(Routes(), on_failure=again))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(503)
    stage.c.expect("INVITE")
    stage.c.reply(503)
    stage.a.refused(503)
    assert ran == ["again"]


@pytest.mark.parametrize(("said", "told"), [(0, 408), (503, 503), (401, 403), (302, 480), (603, 603)])
def test_what_a_failure_route_without_decision_tells_the_caller(said: int, told: int) -> None:
    """No answer counts as 408; 503 is not made a 500; a challenge and a redirection are not the caller's."""
    routes = Routes()
    seen: list[tuple[int, str]] = []

    @routes.failure_route
    async def watch(failure: Failure) -> None:
        seen.append((failure.best_status, failure.request.method))

    stage = Stage(routes_dialling(routes, on_failure=watch))
    stage.call_in()
    stage.b.expect("INVITE")
    if said:
        stage.b.reply(said)
    else:
        stage.after(33)
    stage.a.refused(told)
    assert seen == [(said or 408, "INVITE")]
