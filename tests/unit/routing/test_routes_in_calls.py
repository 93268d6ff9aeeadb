"""Each route type in a real call: what it sees, what it may change, and what follows when it does not decide."""

from __future__ import annotations

from typing import Any

import pytest

from media.protocol import Play
from sbc.routing import (
    BadMessage,
    Branch,
    Failure,
    LocalRequest,
    Peer,
    Reply,
    Request,
    RouteError,
    Routes,
    Target,
    builtin,
)
from tests.support.ladder import A_HOST, B_HOST, C_HOST, sdp
from tests.unit.routing.stage import OFFER, Stage

BOTH = ["carrier-b", "carrier-c"]


def routes_dialling(routes: Routes, to: str | list[str] = "carrier-b", **hooks: object) -> Routes:
    @routes.route
    async def main(request: Request) -> None:
        request.call.media.engage()
        await request.call.dial(to, **hooks)  # type: ignore[arg-type]  # hooks of several kinds

    return routes


# the built-in routes


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


# route


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


# branch_route


def test_a_branch_route_dresses_the_branch_that_it_is_armed_for() -> None:
    routes = Routes()

    @routes.branch_route
    async def dress(branch: Branch) -> None:
        assert branch.headers.get("s") == "hello"
        assert branch.headers.remove("subject") == 1
        assert "Subject" not in branch.headers
        branch.headers.add("X-Trunk", "7")
        branch.headers.set("x-trunk", "8")
        assert branch.headers.get_all("X-Trunk") == ["8"]
        branch.uri = f"sip:changed@{B_HOST}"
        branch.body += b"a=x:mine\r\n"
        for name in ("Via", "f", "Contact", "Content-Length"):
            with pytest.raises(RouteError):
                branch.headers.set(name, "x")
        with pytest.raises(RouteError):
            branch.headers.set("X-Evil", "a\r\nContact: b")
        with pytest.raises(RouteError):
            branch.headers.set("X Evil", "a")
        with pytest.raises(RouteError):
            branch.uri = "not a uri"

    stage = Stage(routes_dialling(routes, on_branch=dress))
    stage.call_in(extra=[("Subject", "hello")])
    invite = stage.b.expect("INVITE")
    assert (invite.uri, invite.get("Subject"), invite.get("X-Trunk")) == (f"sip:changed@{B_HOST}", None, "8")
    assert invite.body.endswith(b"a=x:mine\r\n")


def test_a_dropped_branch_has_failed_with_480() -> None:
    routes = Routes()

    @routes.branch_route(always=True)
    async def veto(branch: Branch) -> None:
        if branch.target.peer == "carrier-b":
            branch.drop()

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        assert failure.attempts[-1].status == 480
        await failure.call.dial_next()

    stage = Stage(routes_dialling(routes, BOTH, on_failure=hunt))
    stage.call_in()
    stage.c.expect("INVITE")
    stage.b.nothing()


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


def test_an_always_route_serves_calls_that_arm_none() -> None:
    routes = Routes()
    ran: list[str] = []

    @routes.branch_route(always=True)
    async def default(branch: Branch) -> None:
        ran.append("default")

    @routes.branch_route
    async def armed(branch: Branch) -> None:
        ran.append("armed")

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("carrier-b", on_branch=armed if "X-Arm" in request.headers else None)

    stage = Stage(routes)
    stage.call_in()
    stage.b.expect("INVITE")
    assert ran == ["default"]


# onreply_route


def test_a_reply_route_changes_what_the_caller_gets() -> None:
    routes = Routes()

    @routes.onreply_route
    async def mark(reply: Reply) -> None:
        assert reply.received.get("X-From-B") == "1"
        assert "Server" in reply.received
        reply.headers.set("X-Marked", str(reply.status))
        if reply.status == 181:
            return reply.drop()
        if reply.is_final:
            with pytest.raises(RouteError):
                reply.drop()
            with pytest.raises(RouteError):
                reply.status = 180
        else:
            reply.status = 183
            reply.reason = "Any moment now"
        return None

    stage = Stage(routes_dialling(routes, on_reply=mark))
    stage.call_in()
    stage.b.expect("INVITE")
    extra = [("X-From-B", "1")]
    stage.b.reply(181, extra=extra)
    stage.b.reply(180, extra=extra)
    ringing = stage.a.expect(183)
    assert (ringing.reason, ringing.get("X-Marked"), ringing.get("X-From-B")) == ("Any moment now", "180", None)
    stage.b.reply(200, body=sdp(B_HOST), extra=extra)
    assert stage.a.expect(200).get("X-Marked") == "200"


# failure_route


def test_a_failure_route_hunts_until_a_user_has_answered() -> None:
    routes = Routes()
    seen: list[tuple[int, bool, bool]] = []

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        seen.append((failure.attempts[-1].status, failure.may_fail_over, failure.call.has_next))
        if failure.may_fail_over and failure.call.has_next:
            await failure.call.dial_next()
        else:
            await failure.call.reject(failure.best_status)

    stage = Stage(routes_dialling(routes, [*BOTH, "carrier-b"], on_failure=hunt))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(503)
    stage.c.expect("INVITE")
    stage.c.reply(486)
    stage.a.refused(486)
    assert seen == [(503, True, True), (486, False, True)]


def test_a_failure_route_that_does_not_decide_passes_the_best_answer_on() -> None:
    routes = Routes()

    @routes.failure_route
    async def watch(failure: Failure) -> None:
        failure.call.log.info("failed", status=failure.best_status)

    stage = Stage(routes_dialling(routes, on_failure=watch))
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(486)
    stage.a.refused(486)


# local_route


def test_a_local_route_sees_our_own_bye() -> None:
    routes = Routes()
    methods: list[str] = []

    @routes.local_route
    async def stamp(request: LocalRequest) -> None:
        methods.append(request.method)
        request.headers.set("X-By", "node")

    stage = Stage(routes_dialling(routes))
    stage.set_up()
    call = stage.node.call(stage.call.key)
    assert call is not None
    assert [found.key for found in stage.node.calls()] == [call.key]
    done = call.release("maintenance", cause=31)
    with pytest.raises(StopIteration):
        done.send(None)
    stage.drain()
    assert stage.a.expect("BYE").get("X-By") == "node"
    assert stage.b.expect("BYE").get("X-By") == "node"
    assert methods == ["BYE", "BYE"]


# error_route


def test_an_error_route_answers_what_did_not_parse() -> None:
    routes = routes_dialling(Routes())
    seen: list[BadMessage] = []

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        seen.append(bad)
        await bad.reply(422)

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    broken = stage.a.sent.replace(b"Max-Forwards: 70", b"Max-Forwards: x").replace(b"z9hG4bKa1", b"z9hG4bKa9")
    stage.a.inbox.clear()
    stage.a.sent = broken
    stage.a.again()
    (bad,) = seen
    assert (bad.data, bad.source, bad.error.status) == (broken, (A_HOST, 5070), 400)
    assert any(data.startswith(b"SIP/2.0 422 ") for data in stage.a.all)


def test_an_error_route_answers_for_a_route_that_raised() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        raise ZeroDivisionError

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        assert bad.data == b""
        assert bad.source == (A_HOST, 5070)
        assert isinstance(bad.error.__cause__, ZeroDivisionError)
        with pytest.raises(RouteError):
            await bad.reply(200)
        await bad.reply(503)

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(503)


def test_an_error_route_that_raises_too_still_gets_the_call_its_500() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        raise ZeroDivisionError

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        raise ZeroDivisionError

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(500)


# what must not exist


@pytest.mark.parametrize(
    ("facade", "absent"),
    [
        (Branch, ("reject", "dial", "reply", "relay")),
        (Reply, ("reject", "dial", "redirect")),
        (Failure, ("headers", "body", "uri")),
        (LocalRequest, ("reject", "reply", "dial", "drop")),
        (BadMessage, ("call", "dial", "headers")),
    ],
)
def test_what_a_route_may_not_do_is_not_on_its_object(facade: type, absent: tuple[str, ...]) -> None:
    assert [name for name in absent if hasattr(facade, name)] == []


def test_the_call_of_a_branch_cannot_be_decided() -> None:
    calls: list[object] = []
    routes = Routes()

    @routes.branch_route
    async def look(branch: Branch) -> None:
        calls.append(branch.call)

    stage = Stage(routes_dialling(routes, on_branch=look))
    stage.call_in()
    assert [name for name in ("dial", "reject", "release", "media") if hasattr(calls[0], name)] == []


def test_a_peers_uri() -> None:
    assert Peer("p", "r", gateway="sip:10.0.0.1:5060;transport=udp").uri_for("1") == "sip:1@10.0.0.1:5060;transport=udp"
    assert Peer("p", "r", gateway="sip:box@10.0.0.1").uri_for("1") == "sip:box@10.0.0.1"
    assert Peer("p", "r", gateway="sip:10.0.0.1").uri_for("") == "sip:10.0.0.1"
    with pytest.raises(RouteError):
        Peer("p", "r").uri_for("1")


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


# announcements


def heard(stage: Stage) -> Play:
    """What the caller hears, which is then over."""
    play = next(one for one in stage.media if isinstance(one, Play))
    announcing = stage.call.announcing
    assert announcing is not None
    announcing.played(play.number, stage.now)
    stage.drain()
    return play


def test_a_route_lets_the_caller_hear_why_it_refuses() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.announce("gone.wav", then=410, reason="Moved")

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.a.expect(183)
    assert stage.call.media_profile == "office"  # engaged for it
    assert heard(stage).file == "gone.wav"
    assert stage.a.refused(410).reason == "Moved"


def test_after_an_announcement_a_route_decides_as_a_first_one_does() -> None:
    routes = Routes()
    seen = []

    @routes.route
    async def main(request: Request) -> None:
        request.call.variables["queue"] = "sales"
        await request.call.announce("wait.wav", then=connect)

    async def connect(request: Request) -> None:
        seen.append((request.method, request.call.variables["queue"], request.called_number))
        if seen[1:]:
            return
        await request.call.dial("carrier-b", on_failure=sorry)

    async def sorry(failure: Failure) -> None:
        stage.media.clear()
        await failure.call.announce("busy.wav", then=connect)

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.a.expect(183)
    heard(stage)
    stage.b.expect("INVITE")
    stage.b.reply(486)
    stage.b.expect("ACK")
    stage.a.expect(183)
    assert heard(stage).file == "busy.wav"
    stage.a.refused(500)  # that route has not decided
    assert [method for method, _, _ in seen] == ["INVITE"] * 2
    assert seen[0][1:] == ("sales", "+4930123")


@pytest.mark.parametrize(
    ("file", "arguments"),
    [("/etc/passwd", {}), ("../x.wav", {}), ("", {}), ("x.wav", {"then": 200}), ("x.wav", {"limit_s": 0})],
)
def test_what_cannot_be_announced_is_an_error_of_the_route(file: str, arguments: dict[str, Any]) -> None:
    routes, raised = Routes(), []

    @routes.route
    async def main(request: Request) -> None:
        try:
            await request.call.announce(file, **{"then": 404, **arguments})
        except RouteError as error:
            raised.append(str(error))
            await request.reject(403)

    stage = Stage(routes)
    stage.a.request("INVITE", body=OFFER)
    stage.a.expect(100)
    stage.a.refused(403)
    assert raised
