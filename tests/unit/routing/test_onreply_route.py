"""onreply_route: each reply above 100, before it is relayed."""

from __future__ import annotations

import pytest

from sbc.routing import Reply, RouteError, Routes
from tests.support.ladder import B_HOST, sdp
from tests.unit.routing.stage import Stage, routes_dialling


def test_a_reply_route_changes_what_the_caller_gets() -> None:
    routes = Routes()

    @routes.onreply_route
    async def mark(reply: Reply) -> None:
        assert reply.received.get("X-From-B") == "1"
        assert "Server" in reply.received
        reply.headers.set("X-Marked", str(reply.status))
        if reply.status == 181:
            return reply.drop()
        if reply.is_final:
            with pytest.raises(RouteError):
                reply.drop()
            with pytest.raises(RouteError):
                reply.status = 180
        else:
            reply.status = 183
            reply.reason = "Any moment now"
        return None

    stage = Stage(routes_dialling(routes, on_reply=mark))
    stage.call_in()
    stage.b.expect("INVITE")
    extra = [("X-From-B", "1")]
    stage.b.reply(181, extra=extra)
    stage.b.reply(180, extra=extra)
    ringing = stage.a.expect(183)
    assert (ringing.reason, ringing.get("X-Marked"), ringing.get("X-From-B")) == ("Any moment now", "180", None)
    stage.b.reply(200, body=sdp(B_HOST), extra=extra)
    assert stage.a.expect(200).get("X-Marked") == "200"
