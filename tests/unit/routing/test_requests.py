"""Routes for requests that make no call: relayed, answered, or left to the default."""

from __future__ import annotations

import pytest

from sbc.routing import BadMessage, Request, Routes
from sbc.routing.builtin import routes as builtin
from tests.support.ladder import A_HOST, B_HOST, OUR_A, OUR_B
from tests.unit.routing.stage import OFFER, Stage


def staged(routes: Routes) -> Stage:
    return Stage(routes)


def test_a_route_sees_the_request_and_relays_it_as_it_says() -> None:
    routes = Routes()
    seen: dict[str, object] = {}

    @routes.route
    async def main(request: Request) -> None:
        seen.update(
            method=request.method,
            number=request.called_number,
            sender=str(request.from_.uri),
            receiver=str(request.to.uri),
            peer=request.peer.name,
            direction=request.direction,
            realm=request.realm,
            source=request.source,
            body=request.body,
            subject=request.headers.get("s"),
            ours=request.is_for_us,
            binding=request.binding,
        )
        request.headers.set("Subject", "changed")
        request.headers.add("X-Trunk", "7")
        await request.relay("carrier-b", number="4711")

    f = staged(routes)
    f.a.request("MESSAGE", body=b"hello", content_type="text/plain", extra=[("Subject", "greeting")])
    sent = f.b.expect("MESSAGE")
    assert sent.uri == f"sip:4711@{B_HOST}:5070;x=y"
    assert (sent.get("Subject"), sent.get("X-Trunk"), sent.body) == ("changed", "7", b"hello")
    f.b.reply(202, to=sent)
    f.a.expect(202)
    assert seen == {
        "method": "MESSAGE",
        "number": "+4930123",
        "sender": f"sip:alice@{A_HOST}",
        "receiver": f"sip:+4930123@{OUR_A}",
        "peer": "phones",
        "direction": "from_phones",
        "realm": "inside",
        "source": (A_HOST, 5070),
        "body": b"hello",
        "subject": "greeting",
        "ours": True,
        "binding": None,
    }
    f.over()


def test_a_route_answers_itself() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if request.method == "MESSAGE":
            await request.reply(200, "Kept", headers=[("X-Box", "1")], body=b"thanks")
        elif request.method == "PUBLISH":
            await request.redirect("sip:else@example.com")
        else:
            await request.reject(403, "Not Here")

    f = staged(routes)
    f.a.request("MESSAGE")
    answer = f.a.expect(200)
    assert (answer.reason, answer.get("X-Box"), answer.body) == ("Kept", "1", b"thanks")
    f.a.request("PUBLISH")
    assert f.a.expect(302).get("Contact") == "<sip:else@example.com>"
    f.a.request("REGISTER")
    assert f.a.expect(403).reason == "Not Here"
    f.b.nothing()
    f.over()


def test_a_route_for_calls_only_leaves_the_rest_to_the_default() -> None:
    """It need not look at the method: nothing is logged, nothing counts as a fault."""
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("carrier-b")

    f = staged(routes)
    for method, status in (("MESSAGE", 405), ("REGISTER", 405), ("INFO", 481), ("OPTIONS", 200)):
        f.a.request(method)
        f.a.expect(status)
    assert "ROUTE_ERRORS" not in f.counts
    f.call_in()
    f.b.expect("INVITE")
    f.a.cancel()
    f.after(200)


def test_what_a_route_may_not_do() -> None:
    routes = Routes()
    errors: list[BaseException] = []

    @routes.route
    async def main(request: Request) -> None:
        match request.headers.get("X-Do"):
            case "relay":
                await request.relay("carrier-b")
            case "reply":
                await request.reply(200)
            case "provisional":
                await request.reply(180)
            case "accept":
                await request.reject(200)
            case "smuggle":
                request.headers.set("Via", "x")
            case "nowhere":
                await request.relay("no-such-peer")

    @routes.error_route
    async def noted(bad: BadMessage) -> None:
        errors.append(bad.error)
        assert bad.data == b""
        assert bad.source == (A_HOST, 5070)
        await bad.reply(488)

    f = staged(routes)
    for method, what in (
        *(("MESSAGE", what) for what in ("provisional", "accept", "smuggle", "nowhere")),
        *(("INVITE", what) for what in ("relay", "reply")),
    ):
        f.a.request(method, body=OFFER if method == "INVITE" else b"", extra=[("X-Do", what)])
        if method == "INVITE":
            f.a.expect(100)
            f.a.refused(488)
        else:
            f.a.expect(488)
    assert len(errors) == 6
    f.b.nothing()


# The built-in routes


@pytest.mark.parametrize("method", ["MESSAGE", "INFO", "PUBLISH", "SUBSCRIBE", "REGISTER"])
def test_builtin_relays_where_calls_go(method: str) -> None:
    f = staged(builtin)
    f.a.request(method)
    sent = f.b.expect(method)
    assert sent.uri == (f"sip:{B_HOST}:5070;x=y" if method == "REGISTER" else f"sip:+4930123@{B_HOST}:5070;x=y")
    f.b.reply(489, to=sent)
    f.a.expect(489)
    f.over()


def test_builtin_answers_pings_itself_and_passes_options_for_others() -> None:
    f = staged(builtin)
    f.a.request("OPTIONS")
    f.a.expect(200)
    f.b.nothing()
    f.a.request("OPTIONS", uri="sip:bob@example.com")
    f.b.reply(200, to=f.b.expect("OPTIONS"))
    f.a.expect(200)
    f.over()


def test_builtin_refuses_what_is_for_nobody() -> None:
    f = staged(builtin)
    for method, status in (("MESSAGE", 405), ("REGISTER", 405), ("NOTIFY", 481), ("OPTIONS", 200)):
        f.b.request(method)  # a carrier whose calls go nowhere
        f.b.expect(status)
    f.a.nothing()
    f.over()


def test_builtin_registers_and_calls_the_phone() -> None:
    f = staged(builtin)
    f.a.request("REGISTER", extra=[("Expires", "60")])
    sent = f.b.expect("REGISTER")
    contact = sent.contact()
    assert contact is not None
    assert contact.uri.host == OUR_B
    f.b.reply(200, to=sent)
    f.a.expect(200)
    for method in ("MESSAGE", "NOTIFY", "OPTIONS"):
        f.b.request(method, uri=str(contact.uri))
        f.a.reply(200, to=f.a.expect(method))
        f.b.expect(200)
    f.b.request("INVITE", uri=str(contact.uri), body=OFFER)
    f.b.expect(100)
    assert f.a.expect("INVITE").uri == f"sip:a@{A_HOST}:5070"
    f.a.reply(486)
    f.a.expect("ACK")
    f.b.refused(486)
    f.over()
