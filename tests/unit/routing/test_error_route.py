"""error_route: what did not parse, and routes that raised."""

from __future__ import annotations

import pytest

from sbc.routing import BadMessage, Request, RouteError, Routes
from tests.support.ladder import A_HOST
from tests.unit.routing.stage import OFFER, Stage, routes_dialling


def test_an_error_route_answers_what_did_not_parse() -> None:
    routes = routes_dialling(Routes())
    seen: list[BadMessage] = []

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        seen.append(bad)
        await bad.reply(422)

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    broken = stage.a.sent.replace(b"Max-Forwards: 70", b"Max-Forwards: x").replace(b"z9hG4bKa1", b"z9hG4bKa9")
    stage.a.inbox.clear()
    stage.a.sent = broken
    stage.a.again()
    (bad,) = seen
    assert (bad.data, bad.source, bad.error.status) == (broken, (A_HOST, 5070), 400)
    assert any(data.startswith(b"SIP/2.0 422 ") for data in stage.a.all)


def test_an_error_route_answers_for_a_route_that_raised() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        raise ZeroDivisionError

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        assert bad.data == b""
        assert bad.source == (A_HOST, 5070)
        assert isinstance(bad.error.__cause__, ZeroDivisionError)
        with pytest.raises(RouteError):
            await bad.reply(200)
        await bad.reply(503)

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(503)


def test_an_error_route_that_raises_too_still_gets_the_call_its_500() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        raise ZeroDivisionError

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        raise ZeroDivisionError

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(500)
