"""event_route: what it gets for each event, and that nothing is asked for where there is none."""

from __future__ import annotations

import pytest

from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.routing import (
    CallAnswered,
    CallEnded,
    CallLifetime,
    NodeDraining,
    PhoneRegistered,
    Request,
    RouteError,
    Routes,
    TrunkState,
)
from sbc.routing.events import EVENTS
from sbc.routing.routes import EVENT_NAMES, EVENTS_OF_CORE
from tests.unit.routing.stage import Stage, routes_dialling


def test_the_events_that_there_are() -> None:
    assert sorted(EVENTS) == sorted(EVENT_NAMES)
    assert set(EVENTS_OF_CORE.values()) < set(EVENTS)


def test_a_name_that_is_no_event_is_refused_at_once_and_one_of_your_own_is_not() -> None:
    routes = Routes()
    with pytest.raises(RouteError, match=r"there is no such event; there are: call.answered, "):
        routes.event_route("call.answred")
    seen: list[object] = []

    @routes.event_route("tariff.loaded")
    async def loaded(event: object) -> None:
        seen.append(event)

    stage = Stage(routes_dialling(routes))
    stage.node.raise_event("tariff.loaded", 7)
    stage.node.raise_event("tariff.lost", 8)
    assert seen == [7]


def test_a_call_is_answered_and_ends() -> None:
    routes = Routes()
    seen: list[tuple[str, object]] = []

    @routes.event_route("call.answered")
    async def answered(event: CallAnswered) -> None:
        seen.append(("answered", event.call.key))
        event.call.variables["rate"] = 7

    @routes.event_route("call.ended")
    async def ended(event: CallEnded) -> None:
        assert event.was_answered
        seen.append(("ended", event.key))
        seen.append((event.peer.name, (event.status, event.variables["rate"], event.cdr["b_peer"])))

    stage = Stage(routes_dialling(routes))
    stage.set_up()
    key = stage.call.key
    assert seen == [("answered", key)]
    stage.a.request("BYE")
    stage.a.expect(200)
    assert seen[1:] == [("ended", key), ("phones", (200, 7, "carrier-b"))]


def test_a_call_that_nobody_answered_ends_too() -> None:
    routes = Routes()
    seen: list[tuple[int, bool]] = []

    @routes.event_route("call.ended")
    async def ended(event: CallEnded) -> None:
        seen.append((event.status, event.was_answered))

    @routes.route
    async def main(request: Request) -> None:
        await request.reject(404)

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(404)
    assert seen == [(404, False)]


def test_a_route_may_let_a_call_live_longer() -> None:
    routes = Routes()
    asked: list[str] = []

    @routes.event_route("call.lifetime")
    async def more(event: CallLifetime) -> None:
        asked.append(event.call.key)
        with pytest.raises(RouteError):
            event.extend(0)
        if len(asked) < 3:
            event.extend(60)

    @routes.route
    async def main(request: Request) -> None:
        request.call.lifetime_s = 30
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.set_up()
    stage.after(31)
    stage.after(61)
    stage.a.nothing()
    assert len(asked) == 2
    assert stage.core.calls
    stage.after(61)
    stage.a.expect("BYE")
    stage.b.expect("BYE")
    assert len(asked) == 3
    assert stage.counts["DIALOG_EXPIRED"] == 1


def test_a_lifetime_route_that_raises_saves_no_call() -> None:
    routes = Routes()

    @routes.event_route("call.lifetime")
    async def broken(event: CallLifetime) -> None:
        event.extend(60)
        raise KeyError("x")

    @routes.route
    async def main(request: Request) -> None:
        request.call.lifetime_s = 30
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.set_up()
    stage.after(31)
    stage.a.expect("BYE")
    assert stage.counts["ROUTE_ERRORS"] == 1


def test_a_phone_registers_through_us() -> None:
    routes = Routes()
    seen: list[tuple[object, ...]] = []

    @routes.event_route("phone.registered")
    async def registered(event: PhoneRegistered) -> None:
        seen.append((event.aor, event.peer.name, event.realm, event.source, event.contacts))

    @routes.route
    async def main(request: Request) -> None:
        await request.relay("carrier-b")

    stage = Stage(routes)
    stage.a.request("REGISTER", extra=[("Expires", "600")])
    sent = stage.b.expect("REGISTER")
    stage.b.reply(200, to=sent, extra=[("Contact", f"{sent.get('Contact')};expires=300")])
    stage.a.expect(200)
    contact = stage.a.contact.strip("<>")
    assert seen == [("sip:+4930123@192.0.2.1", "phones", "inside", ("192.0.2.10", 5070), ((contact, 300),))]


def test_a_trunk_and_a_node_that_drains() -> None:
    routes = Routes()
    seen: list[tuple[str, object]] = []

    @routes.event_route("trunk.state")
    async def trunk(event: TrunkState) -> None:
        seen.append((event.peer.name, event.is_registered))

    @routes.event_route("node.draining")
    async def draining(event: NodeDraining) -> None:
        seen.append((event.node.name, event.calls))

    stage = Stage(routes_dialling(routes))
    stage.set_up()
    stage.runner.trunk_state("carrier-b", True)
    stage.runner.draining()
    assert seen == [("carrier-b", True), (stage.node.name, 1)]


def test_nothing_is_asked_for_where_no_route_is_for_it() -> None:
    """A call whose operator has no event routes costs the core no effect for them."""
    routes = routes_dialling(Routes())
    assert routes.kinds == {RouteKind.REQUEST}
    stage = Stage(routes)
    asked: list[RunRoute] = []
    run = stage.run

    def noted(effect: RunRoute) -> None:
        asked.append(effect)
        run(effect)

    stage.run = noted  # type: ignore[method-assign]  # what the core asks for
    stage.set_up()
    stage.a.request("BYE")
    stage.a.expect(200)
    assert [effect.kind for effect in asked] == [RouteKind.REQUEST]
