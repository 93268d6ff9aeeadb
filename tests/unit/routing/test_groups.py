"""Several targets at once, as routes say it: lists within lists, preferences, names, and what may not be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sbc.b2bua.forking import MAX_AT_ONCE
from sbc.policy.server_location import Server
from sbc.routing import Failure, Request, RouteError, Routes, Target, by_q
from tests.support.ladder import B_HOST, C_HOST, D_HOST, sdp
from tests.unit.routing.stage import Stage
from tests.unit.routing.test_named_gateways import NamedStage

TARGET_D = Target(f"sip:d@{D_HOST}:5070", "outside", gateway="d")


def dialling(to: Any, **options: Any) -> Routes:  # Any: what dial takes
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial(to, **options)

    return routes


def refuse(phone: Any, status: int) -> None:  # Any: a Phone of the stage
    phone.reply(status)
    phone.expect("ACK")


def test_a_list_within_the_list_rings_at_once() -> None:
    seen = []

    async def hunt(failure: Failure) -> None:
        seen.append((failure.best_status, failure.may_fail_over, [one.group for one in failure.attempts]))
        assert failure.call.has_next is (len(seen) == 1)
        if not await failure.call.dial_next():
            await failure.call.reject(failure.best_status)

    stage = Stage(dialling([["carrier-b", f"sip:here@{C_HOST}:5070"], TARGET_D], on_failure=hunt))
    stage.call_in()
    assert stage.b.expect("INVITE").uri == f"sip:+4930123@{B_HOST}:5070;x=y"
    assert stage.c.expect("INVITE").uri == f"sip:here@{C_HOST}:5070"
    refuse(stage.b, 486)
    assert not seen
    refuse(stage.c, 480)
    stage.d.expect("INVITE")
    refuse(stage.d, 503)
    assert seen == [(486, False, [1, 1]), (486, True, [1, 1, 2])]
    stage.a.refused(486)


def test_what_is_preferred_comes_first() -> None:
    voicemail = replace(TARGET_D, q=0.1)
    b, c = (Target(f"sip:x@{host}:5070", "outside", q=0.8) for host in (B_HOST, C_HOST))
    stage = Stage(dialling(by_q([voicemail, b, c])))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.c.expect("INVITE")
    stage.d.nothing()
    refuse(stage.b, 503)
    refuse(stage.c, 480)
    stage.d.expect("INVITE")  # by itself: no failure route is armed, and another may do better
    stage.d.reply(200, body=sdp(D_HOST))
    stage.a.expect(200)


def test_a_name_with_two_servers_beside_another_target() -> None:
    """Its servers are tried one after the other while the other rings; the route hears of the whole."""
    heard = []

    async def hunt(failure: Failure) -> None:
        heard.append(failure.best_status)
        await failure.call.reject(failure.best_status)

    stage = NamedStage(
        dialling([["carrier-b", TARGET_D]], on_failure=hunt), [Server("udp", host, 5070) for host in (B_HOST, C_HOST)]
    )
    stage.call_in()
    stage.b.expect("INVITE")
    stage.d.expect("INVITE")
    refuse(stage.b, 503)
    stage.c.expect("INVITE")
    assert stage.names.avoided == [Server("udp", B_HOST, 5070)]
    refuse(stage.c, 404)
    assert not heard
    refuse(stage.d, 486)
    assert heard == [486]
    stage.a.refused(486)


@pytest.mark.parametrize(
    ("to", "fault"),
    [
        ([["carrier-b"] * (MAX_AT_ONCE + 1)], f"a group has from 1 to {MAX_AT_ONCE}"),
        ([[]], "0 targets at once"),
        ([["carrier-b", "nobody"]], "no peer 'nobody' is configured"),
    ],
)
def test_groups_that_cannot_be_dialled(to: Any, fault: str) -> None:  # Any: what dial takes
    errors: list[str] = []
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        try:
            await request.call.dial(to)
        except RouteError as error:
            errors.append(str(error))
            raise

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(500)
    stage.b.nothing()
    assert len(errors) == 1
    assert fault in errors[0]


def test_a_route_lets_a_redirect_be_followed() -> None:
    stage = Stage(dialling("carrier-b", follow_redirects="realm"))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(302, extra=[("Contact", f"<sip:away@{C_HOST}:5070>")])
    stage.b.expect("ACK")
    assert stage.c.expect("INVITE").uri == f"sip:away@{C_HOST}:5070"
    assert [(one.gateway, one.followed) for one in stage.call.attempts] == [("carrier-b", True), ("carrier-c", False)]
