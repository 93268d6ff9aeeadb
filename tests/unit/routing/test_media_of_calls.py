"""Media as the main route engages them."""

from __future__ import annotations

import pytest

from sbc.routing import Request, RouteError, Routes, builtin
from tests.support.ladder import A_HOST, B_HOST, sdp
from tests.unit.routing.stage import Stage, routes_dialling


def test_the_profile_of_the_callers_peer_goes_where_the_route_names_none() -> None:
    stage = Stage(routes_dialling(Routes()))
    stage.set_up()
    assert stage.call.media_profile == "office"


def test_a_call_has_the_media_set_of_its_peer_or_realm_or_the_one_that_its_route_names() -> None:
    stage = Stage(builtin.routes)
    stage.set_up()
    assert stage.call.media_set == "far"

    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        with pytest.raises(RouteError, match="no media set 'fra' is configured; there are: local, far, near"):
            request.call.media.engage(media_set="fra")
        request.call.media.engage(media_set="local")
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.set_up()
    assert stage.call.media_set == "local"

    stage = Stage(routes_dialling(Routes(), "carrier-c"))
    stage.b.request("INVITE", body=sdp(B_HOST))
    stage.b.expect(100)
    stage.c.expect("INVITE")
    assert stage.call.media_set == "near"


def test_direct_media_leaves_the_description_alone() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.call.media.engage()
        request.call.media.direct()
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.call_in()
    assert f"c=IN IP4 {A_HOST}".encode() in stage.b.expect("INVITE").body
    assert not stage.media


def test_a_route_names_a_media_profile_that_there_is_and_direct_is_one() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        with pytest.raises(RouteError, match="no media profile 'carier' is configured; there are: default, carrier"):
            request.call.media.engage("carier")
        request.call.media.engage("direct")
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.set_up()
    assert stage.call.media_profile is None
