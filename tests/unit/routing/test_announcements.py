"""What a caller hears before anybody has answered."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.routing import Failure, Request, RouteError, Routes
from tests.unit.routing.stage import OFFER, Stage, heard


def test_a_route_lets_the_caller_hear_why_it_refuses() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.announce("gone.wav", then=410, reason="Moved")

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.a.expect(183)
    assert stage.call.media_profile == "office"  # engaged for it
    assert heard(stage).file == "gone.wav"
    assert stage.a.refused(410).reason == "Moved"


def test_after_an_announcement_a_route_decides_as_a_first_one_does() -> None:
    routes = Routes()
    seen = []

    @routes.route
    async def main(request: Request) -> None:
        request.call.variables["queue"] = "sales"
        await request.call.announce("wait.wav", then=connect)

    async def connect(request: Request) -> None:
        seen.append((request.method, request.call.variables["queue"], request.called_number))
        if seen[1:]:
            return
        await request.call.dial("carrier-b", on_failure=sorry)

    async def sorry(failure: Failure) -> None:
        stage.media.clear()
        await failure.call.announce("busy.wav", then=connect)

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.a.expect(183)
    heard(stage)
    stage.b.expect("INVITE")
    stage.b.reply(486)
    stage.b.expect("ACK")
    stage.a.expect(183)
    assert heard(stage).file == "busy.wav"
    stage.a.refused(500)  # that route has not decided
    assert [method for method, _, _ in seen] == ["INVITE"] * 2
    assert seen[0][1:] == ("sales", "+4930123")


@pytest.mark.parametrize(
    ("file", "arguments"),
    [("/etc/passwd", {}), ("../x.wav", {}), ("", {}), ("x.wav", {"then": 200}), ("x.wav", {"limit_s": 0})],
)
def test_what_cannot_be_announced_is_an_error_of_the_route(file: str, arguments: dict[str, Any]) -> None:
    routes, raised = Routes(), []

    @routes.route
    async def main(request: Request) -> None:
        try:
            await request.call.announce(file, **{"then": 404, **arguments})
        except RouteError as error:
            raised.append(str(error))
            await request.reject(403)

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.a.refused(403)
    assert raised
