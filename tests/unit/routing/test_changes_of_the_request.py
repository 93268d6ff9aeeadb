"""What the main route changes of a request is seen by the next line, by the routes after it, and by the other side."""

from __future__ import annotations

from sbc.routing import Branch, Failure, Request, Routes
from tests.unit.routing.stage import BOTH, Stage


def test_headers_changed_on_the_request_are_seen_at_once_and_go_to_every_branch() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        headers = request.headers
        headers.set("X-Account", "4711")
        headers.remove("Subject")
        assert headers.get("x-account") == "4711"
        assert "Subject" not in request.headers
        await request.call.dial(BOTH, on_branch=look, on_failure=hunt)

    @routes.branch_route
    async def look(branch: Branch) -> None:
        assert branch.headers.get("X-Account") == "4711"
        branch.headers.add("X-Seen", "yes")

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        await failure.call.dial("carrier-c")

    stage = Stage(routes)
    stage.call_in(extra=[("Subject", "hello")])
    invite = stage.b.expect("INVITE")
    assert [invite.get(name) for name in ("X-Account", "Subject", "X-Seen")] == ["4711", None, "yes"]
    stage.b.reply(503)
    invite = stage.c.expect("INVITE")
    assert [invite.get(name) for name in ("X-Account", "Subject", "X-Seen")] == ["4711", None, None]
