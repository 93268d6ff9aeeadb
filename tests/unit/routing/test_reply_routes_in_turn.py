"""Whom a reply meets: the route of all replies, that of its branch, that of the dial, until one drops it."""

from __future__ import annotations

from sbc.routing import Branch, Reply, Request, Routes
from tests.support.ladder import B_HOST, sdp
from tests.unit.routing.stage import Stage


def test_all_replies_then_the_branch_then_the_dial() -> None:
    ran: list[tuple[str, str]] = []
    routes = Routes()

    @routes.onreply_route(always=True)
    async def every(reply: Reply) -> None:
        ran.append(("every", reply.leg))
        reply.headers.set("X-Seen", "every")
        if reply.status == 181:
            reply.drop()

    @routes.onreply_route
    async def of_branch(reply: Reply) -> None:
        assert reply.target is not None
        ran.append(("branch", reply.target.peer))
        reply.headers.set("X-Seen", f"{reply.headers.get('X-Seen')} branch")  # what the former left is seen here

    @routes.onreply_route
    async def of_dial(reply: Reply) -> None:
        ran.append(("dial", reply.leg))
        reply.headers.set("X-Seen", f"{reply.headers.get('X-Seen')} dial")

    async def dress(branch: Branch) -> None:
        assert branch.on_reply is None
        if branch.target.peer == "carrier-b":
            branch.on_reply = of_branch

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial([["carrier-b", "carrier-c"]], on_branch=dress, on_reply=of_dial)

    stage = Stage(routes)
    stage.call_in()
    stage.b.expect("INVITE")
    stage.c.expect("INVITE")
    stage.b.reply(181)
    stage.a.nothing()
    assert ran == [("every", "b1")]
    ran.clear()
    stage.b.reply(180)
    assert stage.a.expect(180).get("X-Seen") == "every branch dial"
    assert ran == [("every", "b1"), ("branch", "carrier-b"), ("dial", "b1")]
    ran.clear()
    stage.c.reply(200, body=sdp(B_HOST))
    assert stage.a.expect(200).get("X-Seen") == "every dial"
    assert ran == [("every", "b2"), ("dial", "b2")]


def test_a_branch_that_arms_one_needs_no_other() -> None:
    routes = Routes()

    @routes.branch_route(always=True)
    async def arm(branch: Branch) -> None:
        branch.on_reply = mark

    async def mark(reply: Reply) -> None:
        reply.headers.set("X-Mark", "1")

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(180)
    assert stage.a.expect(180).get("X-Mark") == "1"


def test_one_that_raises_ends_the_turn_and_the_reply_goes_on() -> None:
    ran: list[str] = []
    routes = Routes()

    @routes.onreply_route(always=True)
    async def broken(reply: Reply) -> None:
        raise KeyError("x")

    async def never(reply: Reply) -> None:
        ran.append("never")

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("carrier-b", on_reply=never)

    stage = Stage(routes)
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(180)
    stage.a.expect(180)
    assert ran == []
    assert stage.counts["ROUTE_ERRORS"] == 1
