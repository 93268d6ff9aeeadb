"""What the main route changes of a request is seen by the next line, by the routes after it, and by the other side."""

from __future__ import annotations

import pytest

from sbc.routing import Branch, Failure, Reply, Request, RouteError, Routes
from sbc.routing.headers import Headers
from tests.support.ladder import OUR_B
from tests.unit.routing.stage import BOTH, Stage, heard


def test_headers_changed_on_the_request_are_seen_at_once_and_go_to_every_branch() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        headers = request.headers
        headers.set("X-Account", "4711")
        headers.remove("Subject")
        assert headers.get("x-account") == "4711"
        assert "Subject" not in request.headers
        await request.call.dial(BOTH, on_branch=look, on_failure=hunt)

    @routes.branch_route
    async def look(branch: Branch) -> None:
        assert branch.headers.get("X-Account") == "4711"
        branch.headers.add("X-Seen", "yes")

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        await failure.call.dial("carrier-c")

    stage = Stage(routes)
    stage.call_in(extra=[("Subject", "hello")])
    invite = stage.b.expect("INVITE")
    assert [invite.get(name) for name in ("X-Account", "Subject", "X-Seen")] == ["4711", None, "yes"]
    stage.b.reply(503)
    invite = stage.c.expect("INVITE")
    assert [invite.get(name) for name in ("X-Account", "Subject", "X-Seen")] == ["4711", None, None]


def test_what_the_request_route_changes_is_seen_in_every_later_route_and_on_the_wire() -> None:
    seen: list[tuple[str, ...]] = []
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.called_number = "+4930999"
        request.calling_number = "4711"
        request.from_ = request.from_.replace(display="Sales")
        request.to = request.to.replace(display="Hello", uri=request.to.uri.replace(user="77"))
        request.headers.set("X-Account", "7")
        look("route", request)
        await request.call.announce("hello.wav", then=second)

    async def second(request: Request) -> None:
        look("after a prompt", request)
        await request.call.dial(BOTH, on_branch=branch_route, on_reply=reply_route, on_failure=failure_route)

    def look(where: str, request: Request) -> None:
        numbers = (request.called_number, request.call.called_number, request.call.request_uri.user or "")
        callers = (request.calling_number, request.call.calling_number, request.from_.display, request.to.display)
        seen.append((where, *numbers, *callers, request.headers.get("x-account") or ""))

    @routes.branch_route
    async def branch_route(branch: Branch) -> None:
        assert branch.call.called_number == branch.called_number == "+4930999"
        assert (branch.from_.display, branch.from_.uri.user, branch.to.uri.user) == ("Sales", "4711", "77")
        assert branch.headers.get("X-Account") == "7"
        if branch.target.peer == "carrier-b":
            branch.called_number = "0049" + branch.called_number[3:]
            branch.from_ = branch.from_.replace(display="For B", uri=branch.from_.uri.replace(user="1", host="evil"))
            branch.headers.rename("X-Account", "X-For-B")

    @routes.onreply_route
    async def reply_route(reply: Reply) -> None:
        assert (reply.call.called_number, reply.call.calling_number) == ("+4930999", "4711")

    @routes.failure_route
    async def failure_route(failure: Failure) -> None:
        look("failure_route", failure.request)
        failure.request.headers.add("X-Account", "8")
        await failure.call.dial_next()

    stage = Stage(routes)
    stage.call_in()
    stage.a.expect(183)
    heard(stage)
    as_changed = ("+4930999",) * 3 + ("4711", "4711", "Sales", "Hello", "7")
    assert seen == [("route", *as_changed), ("after a prompt", *as_changed)]
    first = stage.b.expect("INVITE")
    assert first.uri.startswith("sip:004930999@")
    assert (first.from_().display, first.from_().uri.user) == ("For B", "1")
    assert first.from_().uri.host == OUR_B  # ours, whatever the route said
    assert (first.get("X-For-B"), first.get("X-Account")) == ("7", None)
    stage.b.reply(503)
    second_invite = stage.c.expect("INVITE")
    assert second_invite.uri.startswith("sip:+4930999@")
    assert (second_invite.from_().display, second_invite.from_().uri.user) == ("Sales", "4711")
    assert (second_invite.to().display, second_invite.to().uri.user) == ("Hello", "77")
    assert second_invite.get_all("X-Account") == ["7", "8"]
    assert seen[2:] == [("failure_route", *as_changed)]


def test_the_cdr_says_what_the_caller_sent() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.called_number, request.calling_number = "1", "2"
        await request.reject(486)

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(486)
    (cdr,) = [finish.cdr for finish in stage.finished]
    assert "+4930123@" in cdr["ruri"]
    assert "alice@" in cdr["from"]


def test_edits_keep_their_order() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        headers = request.headers
        headers.add("X-One", "1")
        headers.add("X-Two", "2")
        headers.set("X-One", "3")
        headers.rename("X-Two", "X-Three")
        assert headers.rename("X-None", "X-Some") == 0
        headers.add("X-One", "4")
        assert [item for item in headers if item[0].startswith("X-")] == expected
        await request.call.dial("carrier-b")

    expected = [("X-One", "3"), ("X-Three", "2"), ("X-One", "4")]
    stage = Stage(routes)
    stage.call_in()
    assert [item for item in stage.b.expect("INVITE").items() if item[0].startswith("X-")] == expected


PROTECTED = ["Via", "v", "Max-Forwards", "From", "f", "To", "Call-ID", "CSeq", "Contact", "Content-Length", "Route"]
PROTECTED += ["Record-Route", "Require", "Supported", "k", "session-expires", "Min-SE", "RSeq", "RAck", "Max-Breadth"]


@pytest.mark.parametrize("name", PROTECTED)
def test_a_header_of_the_dialog_is_not_for_routes(name: str) -> None:
    refused = []
    routes = Routes()

    def attempts(headers: Headers) -> None:
        for change in (
            lambda: headers.set(name, "1"),
            lambda: headers.add(name, "1"),
            lambda: headers.remove(name),
            lambda: headers.rename("X-There", name),
        ):
            with pytest.raises(RouteError, match="belongs to the dialog, and a route cannot change it") as raised:
                change()
            refused.append(str(raised.value))

    @routes.route
    async def main(request: Request) -> None:
        request.headers.set("X-There", "yes")
        attempts(request.headers)
        await request.call.dial("carrier-b", on_branch=dress)

    async def dress(branch: Branch) -> None:
        attempts(branch.headers)

    stage = Stage(routes)
    stage.call_in()
    assert stage.b.expect("INVITE").get("X-There") == "yes"
    assert len(refused) == 8


@pytest.mark.parametrize("number", ["", "a b", "1@2", "1>2", "1:2"])
def test_a_number_that_is_none_is_refused_and_changes_nothing(number: str) -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        with pytest.raises(RouteError):
            request.called_number = number
        with pytest.raises(RouteError):
            request.calling_number = number
        assert (request.called_number, request.calling_number) == ("+4930123", "alice")
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.call_in()
    assert stage.b.expect("INVITE").uri.startswith("sip:+4930123@")


def test_parameters_of_the_uri_and_a_relayed_request() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.uri = request.uri.replace(user="7", params={"user": "phone"})
        request.from_ = request.from_.replace(display="Bot")
        request.set_body(b"changed", "text/plain")
        assert (request.uri.param("user"), request.called_number, request.body) == ("phone", "7", b"changed")
        assert request.content_type == request.headers.get("Content-Type") == "text/plain"
        await request.relay("carrier-b")

    stage = Stage(routes)
    stage.a.request("MESSAGE", body=b"hello", content_type="text/html")
    sent = stage.b.expect("MESSAGE")
    assert sent.uri.startswith("sip:7@")
    assert (sent.from_().display, sent.body, sent.get("Content-Type")) == ("Bot", b"changed", "text/plain")
    stage.b.reply(200, to=sent)
    assert stage.a.expect(200).from_().display == "Alice A"  # its own transaction sees what it sent


def test_a_caller_who_is_to_remain_unknown_does() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.calling_number = "4711"
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.call_in(extra=[("Privacy", "user")])
    assert stage.b.expect("INVITE").from_().uri.user == "anonymous"
