"""route: what it sees, what it may decide, and what follows when it does not."""

from __future__ import annotations

import pytest

from sbc.routing import Failure, Peer, Reply, Request, RouteError, Routes, Target
from tests.support.ladder import A_HOST, B_HOST, C_HOST
from tests.unit.routing.stage import OFFER, Stage


def test_what_a_request_shows() -> None:
    seen: dict[str, object] = {}
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        seen.update(
            method=request.method,
            user=request.uri.user,
            called=request.called_number,
            calling=request.call.calling_number,
            display=request.from_.display,
            to=request.to.uri.user,
            direction=request.direction,
            peer=request.peer.name,
            realm=request.realm,
            source=request.source,
            body=request.body,
            subject=request.headers.get("s"),
        )
        await request.reject(486, "Busy Here And Now", headers=[("X-Why", "test")])

    stage = Stage(routes)
    stage.call_in(extra=[("Subject", "hello")])
    assert seen == {
        "method": "INVITE",
        "user": "+4930123",
        "called": "+4930123",
        "calling": "alice",
        "display": "Alice A",
        "to": "+4930123",
        "direction": "from_phones",
        "peer": "phones",
        "realm": "inside",
        "source": (A_HOST, 5070),
        "body": OFFER,
        "subject": "hello",
    }
    answer = stage.a.refused(486)
    assert (answer.reason, answer.get("X-Why")) == ("Busy Here And Now", "test")


def test_a_redirection() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.redirect("sip:+4930123@203.0.113.4")

    stage = Stage(routes)
    stage.call_in()
    assert stage.a.refused(302).get("Contact") == "<sip:+4930123@203.0.113.4>"


def test_a_route_that_does_not_decide_answers_500() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.call.log.debug("nothing to say")

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(500)
    assert stage.counts["ROUTE_UNDECIDED"] == 1


def test_a_route_that_raises_costs_its_own_call_only() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if "X-Bad" in request.headers:
            raise KeyError("tariff")
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.call_in(extra=[("X-Bad", "1")])
    stage.a.refused(500)
    assert stage.counts["ROUTE_ERRORS"] == 1
    stage.after(60)
    stage.a.dialog = None
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.b.expect("INVITE")


def test_a_number_of_the_routes_choice_and_other_targets() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial(
            [
                request.call.node.peer("carrier-b"),
                f"sip:here@{C_HOST}:5070",
                Target(f"sip:raw@{B_HOST}:5070", "outside", gateway="gw"),
            ],
            number="0049",
            on_failure=hunt,
        )

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        await failure.call.dial_next()

    stage = Stage(routes)
    stage.call_in()
    for phone, uri in ((stage.b, f"sip:0049@{B_HOST}:5070;x=y"), (stage.c, f"sip:here@{C_HOST}:5070")):
        assert phone.expect("INVITE").uri == uri
        phone.reply(503)
        phone.expect("ACK")
    assert stage.b.expect("INVITE").uri == f"sip:raw@{B_HOST}:5070"
    assert [attempt.gateway for attempt in stage.call.attempts] == ["carrier-b", "carrier-c", "gw"]


@pytest.mark.parametrize("to", ["nobody", "phones", "sip:x@203.0.113.5", "sip:", []])
def test_targets_that_lead_nowhere_are_errors_of_the_route(to: str | list[str]) -> None:
    errors: list[BaseException] = []
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        try:
            await request.call.dial(to)
        except RouteError as error:
            errors.append(error)
            raise

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(500)
    assert len(errors) == 1


def test_variables_flags_and_lifetime_stay_with_the_call() -> None:
    seen: list[object] = []
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        call = request.call
        call.variables["rate"] = 7
        call.flags.add("charged")
        call.lifetime_s = 30
        with pytest.raises(RouteError):
            call.lifetime_s = -1
        await call.dial("carrier-b", on_reply=look)

    @routes.onreply_route
    async def look(reply: Reply) -> None:
        seen.append((reply.status, reply.call.variables["rate"], "charged" in reply.call.flags, reply.call.key))

    stage = Stage(routes)
    stage.set_up()
    key = stage.call.key
    assert seen == [(180, 7, True, key), (200, 7, True, key)]
    stage.after(31)
    stage.a.expect("BYE")
    stage.b.expect("BYE")


def test_a_peers_uri() -> None:
    assert Peer("p", "r", gateway="sip:10.0.0.1:5060;transport=udp").uri_for("1") == "sip:1@10.0.0.1:5060;transport=udp"
    assert Peer("p", "r", gateway="sip:box@10.0.0.1").uri_for("1") == "sip:box@10.0.0.1"
    assert Peer("p", "r", gateway="sip:10.0.0.1").uri_for("") == "sip:10.0.0.1"
    with pytest.raises(RouteError):
        Peer("p", "r").uri_for("1")
