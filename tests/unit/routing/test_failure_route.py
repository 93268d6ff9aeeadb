"""failure_route: every branch has failed, and the caller still waits."""

from __future__ import annotations

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
