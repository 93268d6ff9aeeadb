"""local_route: what this node asks for itself, before it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.b2bua import local
from sbc.b2bua.effects import RunRoute
from sbc.dialog.session_timer import Policy as SessionTimers
from sbc.routing import LocalRequest, RouteError, Routes
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


def established(routes: Routes, **changes: Any) -> Stage:  # Any: fields of CoreSettings
    stage = Stage(routes_dialling(routes), **changes)
    stage.set_up()
    return stage


def stamping(methods: list[str]) -> Routes:
    """Routes whose local route marks every request, and notes it."""
    routes = Routes()

    @routes.local_route
    async def stamp(request: LocalRequest) -> None:
        methods.append(f"{request.method} {request.peer.name} {request.realm}")
        assert request.in_call
        assert request.call.key
        request.headers.set("X-By", "node")
        if request.method in ("INVITE", "UPDATE"):
            with pytest.raises(RouteError, match="stays as it is"):
                request.body = b""
        with pytest.raises(RouteError):
            request.headers.set("Supported", "100rel")

    return routes


@pytest.mark.parametrize(("method", "sent"), [("options", "OPTIONS"), ("reinvite", "INVITE")])
def test_a_ping_passes_the_local_route(method: str, sent: str) -> None:
    methods: list[str] = []
    stage = established(stamping(methods), ping_interval_s=30.0, ping_method=method)
    stage.after(31)
    assert stage.a.expect(sent).get("X-By") == "node"
    assert stage.b.expect(sent).get("X-By") == "node"
    assert methods == [f"{sent} phones inside", f"{sent} carrier-b outside"]


def test_a_session_refresh_passes_the_local_route() -> None:
    methods: list[str] = []
    stage = established(stamping(methods), session_timers=SessionTimers(interval_s=1800, min_se_s=90))
    stage.after(901)
    refreshed = stage.a.inbox.popleft()
    assert refreshed.get("X-By") == "node"
    assert methods[0] == f"{refreshed.method} phones inside"


def test_a_request_that_is_over_when_its_route_has_ended_is_not_sent() -> None:
    routes = Routes()
    waiting: list[LocalRequest] = []

    @routes.local_route
    async def slow(request: LocalRequest) -> None:
        waiting.append(request)

    stage = established(routes, ping_interval_s=30.0, ping_method="options")
    held: list[RunRoute] = []
    run = stage.run
    stage.run = held.append  # type: ignore[assignment]  # a route that waits
    stage.after(31)
    assert [effect.subject.method for effect in held] == ["OPTIONS", "OPTIONS"]
    stage.run = run  # type: ignore[method-assign]
    stage.a.request("BYE")
    stage.a.expect(200)
    stage.b.expect("BYE")
    for effect in held:
        run(effect)
    stage.drain()
    stage.a.nothing()
    stage.b.nothing()
    assert len(waiting) == 2


def test_what_crosses_from_the_other_side_is_not_ours() -> None:
    methods: list[str] = []
    stage = established(stamping(methods))
    stage.a.request("INFO", body=b"x", content_type="text/plain")
    assert stage.b.expect("INFO").get("X-By") is None
    stage.a.request("BYE")
    stage.a.expect(200)
    assert stage.b.expect("BYE").get("X-By") is None
    assert methods == []


def test_a_register_of_ours_belongs_to_no_call_and_passes_the_local_route_too() -> None:
    seen: list[tuple[str, str, bool]] = []
    routes = Routes()

    @routes.local_route
    async def stamp(request: LocalRequest) -> None:
        seen.append((request.method, request.peer.name, request.in_call))
        request.headers.set("X-By", "node")
        if len(seen) > 1:
            request.call.log.info("a route that serves calls only may end here")

    stage = Stage(routes_dialling(routes))
    sent: list[tuple[list[tuple[str, str]], bytes]] = []
    for _ in range(2):
        local.ask_alone(
            stage.core,
            "REGISTER",
            "carrier-b",
            "outside",
            [],
            b"",
            lambda own, body, now: sent.append((own, body)),
            0.0,
        )
        stage.drain()
    assert seen == [("REGISTER", "carrier-b", False)] * 2
    assert sent == [([("X-By", "node")], b"")] * 2
    assert stage.counts.get("ROUTE_ERRORS", 0) == 0
