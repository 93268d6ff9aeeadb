"""Gateways that are host names, in calls: looked up before they are dialled, one target for each server (RFC 3263)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sbc.config.models import Config
from sbc.errors import ResolveError
from sbc.policy.admission import Admission
from sbc.policy.server_location import Path, Server
from sbc.routing import Failure, Request, Routes, Target, builtin
from sbc.routing.node import flattened
from sbc.sip.uri import Uri
from sbc.worker.settings import core_settings
from tests.support.ladder import B_HOST, C_HOST, sdp
from tests.unit.routing.stage import CONFIG, Stage

B, C = Server("udp", B_HOST, 5070), Server("udp", C_HOST, 5070)


class Names:
    """The resolver's part, by heart; ``failed`` and ``asked`` in order."""

    def __init__(self, servers: dict[str, list[Server]]) -> None:
        self.servers = servers
        self.asked: list[tuple[str, tuple[Path, ...]]] = []
        self.avoided: list[Server] = []

    async def resolve(self, uri: Uri, paths: Sequence[Path]) -> list[Server]:
        self.asked.append((uri.host, tuple(paths)))
        if uri.host not in self.servers:
            raise ResolveError(f"{uri.host}: no address to reach it at")
        return self.servers[uri.host]

    def failed(self, server: Server) -> None:
        self.avoided.append(server)


class NamedStage(Stage):
    """A stage on which ``carrier-b`` is ``carrier.example``, and ``carrier-c`` still an address."""

    def __init__(self, routes: Routes, servers: list[Server] | None, gateway: str = "sip:carrier.example") -> None:
        super().__init__(routes)
        config = CONFIG.model_dump()
        config["peers"]["carrier-b"] |= {"gateway": gateway, "addresses": [B_HOST, C_HOST]}
        self.names = Names({} if servers is None else {"carrier.example": servers})
        self.node.resolver = self.names
        self.node.configure(Config.model_validate(config))

    def attempts(self) -> list[tuple[str, str, int]]:
        (cdr,) = self.cdrs
        return [(one["gateway"], one["uri"], one["status"]) for one in cdr["attempts"]]


def dialling(to: Any, **hooks: Any) -> Routes:  # Any: what dial takes
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial(to, **hooks)

    return routes


def test_the_name_stays_in_the_request_and_its_server_gets_it() -> None:
    stage = NamedStage(builtin.routes, [B])
    stage.set_up()
    invite = stage.b.invite
    assert invite is not None
    assert invite.uri == "sip:+4930123@carrier.example"
    assert invite.to().uri.host == "carrier.example"
    assert stage.names.asked == [("carrier.example", (Path("udp", 4),))]
    stage.a.request("BYE")
    stage.a.expect(200)
    stage.b.expect("BYE")
    stage.b.reply(200, to=stage.b.invite)
    assert stage.attempts() == [("carrier-b", "sip:+4930123@carrier.example", 200)]
    assert stage.names.avoided == []


def test_an_address_is_never_looked_up() -> None:
    stage = NamedStage(builtin.routes, [C], gateway=f"sip:{B_HOST}:5070")
    stage.set_up()
    assert stage.names.asked == []


def test_a_silent_server_is_followed_by_the_next_of_the_same_name() -> None:
    stage = NamedStage(builtin.routes, [B, C])
    stage.call_in()
    stage.b.expect("INVITE")
    stage.after(32)
    invite = stage.c.expect("INVITE")
    assert invite.uri == "sip:+4930123@carrier.example"
    assert stage.names.avoided == [B]
    stage.c.reply(200, body=sdp(C_HOST))
    stage.a.expect(200)


def test_so_is_one_that_answers_503() -> None:
    stage = NamedStage(builtin.routes, [B, C])
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(503)
    stage.b.expect("ACK")
    stage.c.expect("INVITE")
    stage.c.reply(503)
    stage.c.expect("ACK")
    stage.a.refused(503)
    assert stage.names.avoided == [B, C]
    assert [status for _, _, status in stage.attempts()] == [503, 503]


@pytest.mark.parametrize("status", [404, 486, 500, 603])
def test_an_answer_of_the_user_or_the_service_is_an_answer(status: int) -> None:
    stage = NamedStage(dialling("carrier-b"), [B, C])
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(status)
    stage.b.expect("ACK")
    stage.c.nothing()
    stage.a.refused(status)
    assert stage.names.avoided == []


def test_the_failure_route_hears_once_of_a_gateway_with_two_servers() -> None:
    heard = []

    async def hunt(failure: Failure) -> None:
        heard.append(failure.best_status)
        if not await failure.call.dial_next():
            await failure.call.reject(503)

    stage = NamedStage(dialling(["carrier-b", "carrier-c"], on_failure=hunt), [B, Server("udp", B_HOST, 5071)])
    stage.call_in()
    for _ in range(2):
        stage.b.expect("INVITE")
        assert heard == []
        stage.b.reply(503)
        stage.b.expect("ACK")
    assert heard == [503]
    stage.c.expect("INVITE")
    stage.c.reply(486)
    stage.c.expect("ACK")
    assert heard == [503, 486]


def test_without_a_failure_route_the_servers_are_tried_and_the_best_answer_is_passed_on() -> None:
    stage = NamedStage(dialling("carrier-b"), [B, C])
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(503)
    stage.b.expect("ACK")
    stage.c.expect("INVITE")
    stage.c.reply(486)
    stage.c.expect("ACK")
    stage.a.refused(486)


def test_an_always_failure_route_serves_named_gateways_too() -> None:
    routes = dialling("carrier-b")
    heard = []

    @routes.failure_route(always=True)
    async def last(failure: Failure) -> None:
        heard.append(failure.best_status)
        await failure.call.reject(480)

    stage = NamedStage(routes, [B, C])
    stage.call_in()
    for phone in (stage.b, stage.c):
        phone.expect("INVITE")
        phone.reply(503)
        phone.expect("ACK")
    stage.a.refused(480)
    assert heard == [503]


def test_a_name_that_leads_nowhere_fails_with_503_and_the_next_gateway_is_tried() -> None:
    async def hunt(failure: Failure) -> None:
        assert failure.best_status == 503
        assert await failure.call.dial_next()

    stage = NamedStage(dialling(["carrier-b", "carrier-c"], on_failure=hunt), None)
    stage.call_in()
    stage.c.expect("INVITE")
    stage.c.reply(200, body=sdp(C_HOST))
    stage.a.expect(200)
    stage.a.ack()
    stage.a.request("BYE")
    stage.c.expect("ACK")
    stage.c.expect("BYE")
    stage.c.reply(200)
    assert [(gateway, status) for gateway, _, status in stage.attempts()] == [("carrier-b", 503), ("carrier-c", 200)]


def test_a_forged_answer_sends_no_call_elsewhere() -> None:
    stage = NamedStage(builtin.routes, [Server("udp", "203.0.113.66", 5060), B])
    stage.set_up()
    assert stage.b.invite is not None
    stage = NamedStage(builtin.routes, [Server("udp", "203.0.113.66", 5060)])
    stage.call_in()
    stage.a.refused(503)


def test_a_name_that_leads_nowhere_alone_is_503_for_the_caller() -> None:
    stage = NamedStage(builtin.routes, None)
    stage.call_in()
    stage.a.refused(503)


def test_several_names_at_once_keep_their_order() -> None:
    uri = "sip:+49@other.example"
    stage = NamedStage(builtin.routes, [B])
    stage.names.servers["other.example"] = [B, C]
    targets = [
        stage.node.target("carrier-c", "1"),
        Target(uri, "outside"),
        Target("sip:1@nowhere.example", "outside"),
    ]
    located = asyncio.run(stage.node.located(targets))
    assert [(target.uri, [flow.host for flow in target.servers]) for target in flattened(located)] == [
        (f"sip:1@{C_HOST}:5070", []),
        (uri, [B_HOST, C_HOST]),
        ("sip:1@nowhere.example", []),
    ]


def test_the_listener_follows_transport_and_family() -> None:
    config = Config.model_validate(
        {
            "realms": {
                "inside": {"listen": ["udp:192.0.2.1:5060"], "media": {"address": "192.0.2.2"}},
                "outside": {
                    "listen": ["udp:10.0.0.5:5060", "udp:[2001:db8::5]:5060", "udp:10.0.0.6:5060"],
                    "media": {"address": "10.0.0.5"},
                },
            },
            "peers": {
                "p": {"realm": "outside", "addresses": ["2001:db8::/32", B_HOST], "gateway": "sip:Carrier.EXAMPLE"}
            },
        }
    )
    stage = NamedStage(builtin.routes, None)
    stage.node.configure(config)
    stage.core.reconfigure(
        core_settings(config, b"0" * 16, Admission(config.peers, config.realms), builtin.routes.kinds)
    )
    stage.names.servers["Carrier.EXAMPLE"] = [Server("udp", "2001:db8::9", 5080), Server("udp", B_HOST, 5060)]
    found = asyncio.run(stage.node.served(stage.node.target("sip:7@carrier.example", "")))
    assert stage.names.asked[-1][1] == (Path("udp", 4), Path("udp", 6))
    assert found.peer == "p"
    found = asyncio.run(stage.node.served(stage.node.target("p", "7")))
    assert list(found.servers) == [(2, "udp", "2001:db8::9", 5080, 0), (1, "udp", B_HOST, 5060, 0)]


def test_what_is_a_name() -> None:
    node = NamedStage(builtin.routes, None).node
    for uri in ("sip:1@host", "sip:host.example:5060", "sips:1@a.b;transport=tls", "sip:1;x=y@h.example"):
        assert node.is_named(Target(uri, "outside")), uri
    for uri in ("sip:1@192.0.2.1", "sip:192.0.2.1:5060;transport=tcp", "sip:1@[2001:db8::1]:5060", "tel:+4930", "sip:"):
        assert not node.is_named(Target(uri, "outside")), uri
