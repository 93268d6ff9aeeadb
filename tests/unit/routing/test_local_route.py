"""local_route: what this node asks for itself, before it is sent."""

from __future__ import annotations

import pytest

from sbc.routing import LocalRequest, Routes
from tests.unit.routing.stage import Stage, routes_dialling


def test_a_local_route_sees_our_own_bye() -> None:
    routes = Routes()
    methods: list[str] = []

    @routes.local_route
    async def stamp(request: LocalRequest) -> None:
        methods.append(request.method)
        request.headers.set("X-By", "node")

    stage = Stage(routes_dialling(routes))
    stage.set_up()
    call = stage.node.call(stage.call.key)
    assert call is not None
    assert [found.key for found in stage.node.calls()] == [call.key]
    done = call.release("maintenance", cause=31)
    with pytest.raises(StopIteration):
        done.send(None)
    stage.drain()
    assert stage.a.expect("BYE").get("X-By") == "node"
    assert stage.b.expect("BYE").get("X-By") == "node"
    assert methods == ["BYE", "BYE"]
