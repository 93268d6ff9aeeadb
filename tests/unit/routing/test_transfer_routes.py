"""A REFER as the request route sees it, and what the built-in routes make of one."""

from __future__ import annotations

import pytest

from sbc.routing import Request, RouteError, Routes, builtin
from tests.support.ladder import A_HOST, B_HOST, C_HOST, OUR_A, sdp
from tests.unit.routing.stage import Stage

TERMINATE = dict.fromkeys(("phones", "carrier-b", "carrier-c"), "terminate")


def staged(routes: Routes) -> Stage:
    stage = Stage(routes, transfers=TERMINATE)
    stage.set_up()
    return stage


def refer(stage: Stage, number: str = "+4930999") -> None:
    extra = [("Refer-To", f"<sip:{number}@{OUR_A}>"), ("Referred-By", f"<sip:boss@{A_HOST}>")]
    stage.a.request("REFER", extra=extra)


def test_the_builtin_routes_dial_as_for_a_call_of_the_transferor() -> None:
    stage = staged(builtin.routes)
    refer(stage)
    stage.a.expect(202)
    stage.a.expect("NOTIFY")
    assert stage.b.expect("INVITE").uri == f"sip:+4930999@{B_HOST}:5070;x=y"
    new = next(call for call in stage.core.calls.values() if call.joining is not None)
    assert new.media_profile == "default"  # of the party that is moved: what it speaks has not changed


def test_the_builtin_routes_lead_nowhere_without_calls_to() -> None:
    """A carrier whose calls go nowhere transfers nobody anywhere."""
    stage = staged(builtin.routes)
    stage.b.request("REFER", extra=[("Refer-To", f"<sip:+4930999@{C_HOST}>")])
    stage.b.expect(404)
    stage.a.nothing()
    stage.c.nothing()


def test_what_a_transfer_shows() -> None:
    seen: dict[str, object] = {}
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if request.method == "REFER":
            transfer = request.transfer
            seen.update(
                number=request.called_number,
                who=(request.peer.name, request.direction, request.realm, request.source[0]),
                call=transfer.call.called_number,
                moved=transfer.moved_peer.name,
                by=str(transfer.referred_by),
                caller=request.call.peer.name,
            )
            return await request.call.dial("carrier-c")
        with pytest.raises(RouteError, match="asks for no transfer"):
            _ = request.transfer
        await request.call.dial("carrier-b")
        return None

    stage = staged(routes)
    refer(stage, "117")
    stage.a.expect(202)
    assert stage.c.expect("INVITE").uri == f"sip:117@{C_HOST}:5070"
    assert seen == {
        "number": "117",
        "who": ("phones", "from_phones", "inside", A_HOST),
        "call": "+4930123",
        "moved": "carrier-b",
        "by": f"<sip:boss@{A_HOST}>",
        "caller": "carrier-b",
    }


def test_a_route_may_pass_it_on() -> None:
    """No call is made and none recorded; the other side gets the REFER."""
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if request.method == "REFER":
            await request.transfer.pass_on()
            await request.transfer.pass_on()  # decided: once is all
        else:
            await request.call.dial("carrier-b")

    stage = staged(routes)
    refer(stage)
    request = stage.b.expect("REFER")
    stage.b.nothing()
    stage.b.reply(202, to=request)
    stage.a.expect(202)
    stage.a.nothing()
    assert len(stage.core.calls) == 1
    stage.a.request("BYE")
    stage.a.expect(200)
    stage.b.reply(200, to=stage.b.expect("BYE"))
    stage.over()
    assert len(stage.cdrs) == 1


def test_a_route_that_raises_refuses_it() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if request.method == "REFER":
            raise LookupError
        await request.call.dial("carrier-b")

    stage = staged(routes)
    refer(stage)
    stage.a.expect(500)
    stage.a.request("INVITE", body=sdp(A_HOST, version=2))
    stage.a.expect(100)
    stage.b.expect("INVITE")
