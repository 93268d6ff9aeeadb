"""The routes that serve where the operator wrote none."""

from __future__ import annotations

from sbc.routing import builtin
from tests.support.ladder import B_HOST, sdp
from tests.unit.routing.stage import Stage


def test_the_builtin_routes_connect_two_peers() -> None:
    stage = Stage(builtin.routes)
    stage.set_up()
    assert stage.call.media_profile == "office"
    assert stage.b.invite is not None
    assert stage.b.invite.uri == f"sip:+4930123@{B_HOST}:5070;x=y"
    stage.a.request("BYE")
    stage.a.expect(200)
    stage.b.expect("BYE")
    stage.b.reply(200, to=stage.b.invite)


def test_the_builtin_routes_answer_404_where_no_calls_go() -> None:
    stage = Stage(builtin.routes)
    stage.b.request("INVITE", body=sdp(B_HOST))
    stage.b.expect(100)
    stage.b.expect(404)


def test_the_builtin_routes_pass_the_failure_on() -> None:
    stage = Stage(builtin.routes)
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(486)
    stage.b.expect("ACK")
    stage.a.refused(486)
