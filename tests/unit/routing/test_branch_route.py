"""branch_route: once for each branch, complete, before it is sent."""

from __future__ import annotations

import pytest

from sbc.routing import Branch, Failure, Request, RouteError, Routes
from tests.support.ladder import B_HOST
from tests.unit.routing.stage import BOTH, Stage, routes_dialling


def test_a_branch_route_dresses_the_branch_that_it_is_armed_for() -> None:
    routes = Routes()

    @routes.branch_route
    async def dress(branch: Branch) -> None:
        assert branch.headers.get("s") == "hello"
        assert branch.headers.remove("subject") == 1
        assert "Subject" not in branch.headers
        branch.headers.add("X-Trunk", "7")
        branch.headers.set("x-trunk", "8")
        assert branch.headers.get_all("X-Trunk") == ["8"]
        branch.uri = f"sip:changed@{B_HOST}"
        branch.body += b"a=x:mine\r\n"
        for name in ("Via", "f", "Contact", "Content-Length"):
            with pytest.raises(RouteError):
                branch.headers.set(name, "x")
        with pytest.raises(RouteError):
            branch.headers.set("X-Evil", "a\r\nContact: b")
        with pytest.raises(RouteError):
            branch.headers.set("X Evil", "a")
        with pytest.raises(RouteError):
            branch.uri = "not a uri"

    stage = Stage(routes_dialling(routes, on_branch=dress))
    stage.call_in(extra=[("Subject", "hello")])
    invite = stage.b.expect("INVITE")
    assert (invite.uri, invite.get("Subject"), invite.get("X-Trunk")) == (f"sip:changed@{B_HOST}", None, "8")
    assert invite.body.endswith(b"a=x:mine\r\n")


def test_a_dropped_branch_has_failed_with_480() -> None:
    routes = Routes()

    @routes.branch_route(always=True)
    async def veto(branch: Branch) -> None:
        if branch.target.peer == "carrier-b":
            branch.drop()

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        assert failure.attempts[-1].status == 480
        await failure.call.dial_next()

    stage = Stage(routes_dialling(routes, BOTH, on_failure=hunt))
    stage.call_in()
    stage.c.expect("INVITE")
    stage.b.nothing()


def test_an_always_route_serves_calls_that_arm_none() -> None:
    routes = Routes()
    ran: list[str] = []

    @routes.branch_route(always=True)
    async def default(branch: Branch) -> None:
        ran.append("default")

    @routes.branch_route
    async def armed(branch: Branch) -> None:
        ran.append("armed")

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("carrier-b", on_branch=armed if "X-Arm" in request.headers else None)

    stage = Stage(routes)
    stage.call_in()
    stage.b.expect("INVITE")
    assert ran == ["default"]


def test_the_call_of_a_branch_cannot_be_decided() -> None:
    calls: list[object] = []
    routes = Routes()

    @routes.branch_route
    async def look(branch: Branch) -> None:
        calls.append(branch.call)

    stage = Stage(routes_dialling(routes, on_branch=look))
    stage.call_in()
    assert [name for name in ("dial", "reject", "release", "media") if hasattr(calls[0], name)] == []


def test_when_all_branches_are_dropped_the_caller_hears_480() -> None:
    routes = Routes()

    @routes.branch_route
    async def veto(branch: Branch) -> None:
        branch.drop()

    stage = Stage(routes_dialling(routes, [BOTH], on_branch=veto))  # type: ignore[list-item]  # a group of two
    stage.call_in()
    stage.a.refused(480)
    stage.b.nothing()
    stage.c.nothing()


def test_a_branch_route_that_raises_costs_its_branch_only() -> None:
    routes = Routes()

    @routes.branch_route
    async def broken(branch: Branch) -> None:
        if branch.target.peer == "carrier-b":
            raise KeyError("x")

    stage = Stage(routes_dialling(routes, [BOTH], on_branch=broken))  # type: ignore[list-item]  # a group of two
    stage.call_in()
    stage.c.expect("INVITE")
    stage.b.nothing()
    assert stage.counts["ROUTE_ERRORS"] == 1
