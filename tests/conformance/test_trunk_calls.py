"""Calls of trunks that register: by which way they go (RFC 3608), and whether they do."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.b2bua.call import Target
from sbc.b2bua.trunk import UNREGISTERED
from sbc.sip.digest import challenges
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, C_HOST, OUR_B, Ladder, dial_b, hunt, sdp
from tests.support.trunks import CONTACT, OURS, B, Trunks, accept, answer, registered

# Calls


def invite(f: Trunks) -> Message:
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    return f.b.expect("INVITE")


ROUTES = f"<sip:edge@{B_HOST}:5070;lr>, <sip:core.carrier.example;lr>"


def test_calls_go_by_the_service_route() -> None:
    """RFC 3608 §6.1, until a Record-Route says otherwise."""
    f = Trunks(B)
    accept(f.b, f.b.expect("REGISTER"), extra=[("Service-Route", ROUTES)])
    request = invite(f)
    assert request.get_all("Route") == ROUTES.split(", ")
    f.b.reply(486)
    assert f.b.expect("ACK").get_all("Route") == ROUTES.split(", ")
    f.a.refused(486)


def test_the_server_that_has_the_registration_goes_before_others_of_its_name() -> None:
    """And when it fails, the call goes on to them, without the route that it gave."""
    servers = (Flow(1, "udp", C_HOST, 5070), Flow(1, "udp", B_HOST, 5070))
    target = Target("sip:1@carrier.example", "outside", peer="carrier-b", servers=servers)
    f = Trunks(B, route=lambda ladder, call: ladder.core.dial(call, [target], ladder.now))
    f.peers.sources[1, C_HOST] = f.peers.sources[1, B_HOST]
    accept(f.b, f.b.expect("REGISTER"), extra=[("Service-Route", ROUTES)])
    assert invite(f).get_all("Route") == ROUTES.split(", ")
    f.c.nothing()
    f.b.reply(503)
    f.b.expect("ACK")
    assert f.c.expect("INVITE").get("Route") is None


def test_a_dialog_has_its_own_route() -> None:
    f = Trunks(B, credentials={"carrier-b": OURS})
    accept(f.b, f.b.expect("REGISTER"), extra=[("Service-Route", ROUTES)])
    request = invite(f)
    values = challenges(OURS.realm, "n", algorithms=("MD5",))
    f.b.reply(401, to=request, extra=[("WWW-Authenticate", value) for value in values])
    assert f.b.expect("ACK").get_all("Route") == ROUTES.split(", ")
    again = f.b.expect("INVITE")
    assert again.get_all("Route") == ROUTES.split(", ")
    assert again.to_tag == ""
    f.b.reply(200, body=sdp(B_HOST), extra=[("Record-Route", f"<sip:{B_HOST}:5070;lr>")])
    f.a.expect(200)
    f.a.ack()
    assert f.b.expect("ACK").get_all("Route") == [f"<sip:{B_HOST}:5070;lr>"]
    assert b"core.carrier.example" not in b"".join(f.a.all)


def test_without_service_route_calls_are_as_ever() -> None:
    f = registered()
    assert invite(f).get("Route") is None


@pytest.mark.parametrize("required", [False, True])
def test_calls_to_a_peer_at_which_we_are_not_registered(required: bool) -> None:
    f = Trunks(B, registration_required=frozenset({"carrier-b"} if required else ()))
    register = f.b.expect("REGISTER")
    answer(f.b, register, 503, [])
    if required:
        f.core.trunks.setdefault("carrier-b", UNREGISTERED)
        f.a.request("INVITE", body=sdp(A_HOST))
        f.a.expect(100)
        f.a.refused(503)
        f.b.nothing()
        assert f.cdrs[-1]["attempts"][0]["status"] == 503
    else:
        invite(f)


def test_the_next_gateway_serves_while_one_is_not_registered() -> None:
    f = Trunks(B, registration_required=frozenset({"carrier-b"}), route=hunt)
    f.core.trunks["carrier-b"] = UNREGISTERED
    f.b.expect("REGISTER")
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.c.expect("INVITE")
    f.b.nothing()


def test_a_call_to_our_contact_is_from_the_peer() -> None:
    seen = []

    def route(ladder: Ladder, call: Any) -> None:  # Any: a Call
        seen.append((call.a.peer, call.ruri))
        dial_b(ladder, call)

    f = registered(route=route)
    f.b.request("INVITE", body=sdp(B_HOST), uri=CONTACT.strip("<>"))
    f.b.dialog = (f"call-of-b@{B_HOST}", f"<sip:caller@{B_HOST}>;tag=b", f"<sip:4930700@{OUR_B}>", CONTACT.strip("<>"))
    assert seen == [("carrier-b", CONTACT.strip("<>"))]
