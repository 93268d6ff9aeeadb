"""Look-ups in dry runs: what a script says is found, in virtual time; without one a dry run says what it would ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sbc.config.models import Config
from sbc.lookups.asking import HttpRequest
from sbc.routing import (
    BadMessage,
    Branch,
    Failure,
    HttpStatus,
    LocalRequest,
    LookupFailed,
    LookupTimeout,
    LookupUnknown,
    Node,
    Reply,
    Request,
    Routes,
    ServerAway,
)
from sbc.simulator import Report, Stage, Trial, command, run
from sbc.testing import Sbc
from tests.support.http_server import HttpServer
from tests.unit.simulator.world import CONFIG, GIVEN

LCR = "https://lcr.example/route"
ALL: dict[str, Any] = {  # Any: what the YAML would hold
    "http": {},
    "redis": {"rates": {}},
    "databases": {"crm": {"url": "sqlite:///crm.db"}},
}


def config(**lookups: Any) -> Config:  # Any: as above
    return Config.model_validate({**GIVEN, "lookups": {**ALL, **lookups}})


def by_http() -> Routes:
    """The carrier is what the server says; carrier-b where it says nothing."""
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        try:
            answer = await request.node.http.get(LCR, params={"to": request.called_number}, timeout_s=2.5, allow=[404])
        except HttpStatus as error:
            return await request.reject(error.answer.status)
        except (LookupTimeout, ServerAway):
            return await request.call.dial("carrier-b")
        if answer.status == 404:
            return await request.reject(404)
        return await request.call.dial(answer.json()["carrier"])

    return routes


@pytest.fixture
def stage() -> Iterator[Sbc]:
    made = Sbc(config(answers={f"GET {LCR}?to=49*": {"carrier": "carrier-a"}}), by_http())
    yield made
    made.close()


def text(report: Report) -> str:
    return "\n".join(report.sentences())


def test_what_the_configuration_scripts_is_found(stage: Sbc) -> None:
    report = run(stage, Trial("office", "4930"))
    assert report.by == "carrier-a"
    assert stage.lookups.asked == [f"GET {LCR}?to=4930"]
    assert f"Asks GET {LCR}?to=4930; the script answers {{'carrier': 'carrier-a'}}. (" in text(report)
    assert "test_lookups.py:" in text(report)


def test_without_a_script_a_dry_run_says_what_it_would_ask(stage: Sbc) -> None:
    report = run(stage, Trial("office", "1"))
    assert report.by == "carrier-b"
    assert f"Would ask GET {LCR}?to=1: nothing is asked in a dry run, and no script answers." in text(report)


@pytest.mark.parametrize(
    ("said", "status", "by", "after_s"),
    [
        ({"carrier": "carrier-b"}, 200, "carrier-b", 0.0),
        ({"status": 200, "json": {"carrier": "carrier-b"}}, 200, "carrier-b", 0.0),
        ({"status": 200, "text": '{"carrier": "carrier-b"}'}, 200, "carrier-b", 0.0),
        (404, 404, "", 0.0),
        (503, 503, "", 0.0),
        ("timeout", 200, "carrier-b", 2.5),
        ("away", 200, "carrier-b", 0.0),
    ],
)
def test_answers_of_one_dry_run(stage: Sbc, said: Any, status: int, by: str, after_s: float) -> None:
    report = run(stage, Trial("office", "4930", lookups={"GET https://lcr.example/*": said}))
    assert (report.status, report.by) == (status, by)
    invited = [step.at_s for step in report.steps if "gets INVITE" in step.text]
    assert invited == ([after_s] if by else [])
    assert run(stage, Trial("office", "4930")).by == "carrier-a"  # it was for that one


def test_a_test_says_what_is_answered_also_by_a_function(stage: Sbc) -> None:
    def carrier(request: HttpRequest) -> dict[str, str]:
        return {"carrier": "carrier-b" if request.url.endswith("1") else "carrier-a"}

    stage.lookups.answer("GET *", carrier)
    office, second = stage.party("office"), stage.party("carrier-b")
    office.calls("1")
    second.gets("INVITE")
    second.answers(200)
    office.gets(200)
    office.hangs_up()
    second.gets("BYE")
    stage.is_over()
    assert stage.dry_run("2", "office").by == "carrier-a"


def test_dry_runs_of_the_configuration_have_answers_of_their_own() -> None:
    given = {
        **GIVEN,
        "lookups": ALL,
        "dry_runs": [
            {"call": "1", "source": "office", "by": "carrier-b", "lookups": {"GET *": {"carrier": "carrier-b"}}},
            {"call": "1", "source": "office", "by": "carrier-b", "lookups": {"GET *": {"carrier": "carrier-a"}}},
        ],
    }
    tried = command.try_all(Config.model_validate(given), by_http())
    assert [one.unmet for one in tried] == ["", "expected an answer by carrier-b, got one by carrier-a"]


def test_redis_and_databases_by_script() -> None:
    routes = Routes()
    found: list[Any] = []  # Any: whatever a look-up gives

    @routes.route
    async def main(request: Request) -> None:
        rates, crm = request.node.redis("rates"), request.node.database("crm")
        found.append(await rates.get("blocked:1"))
        found.append(await rates.incr("seen", expire_s=60))
        found.append(await rates.hgetall("h"))
        found.append(await rates.set("a", "b", only_if_absent=True))
        found.append(await crm.query("SELECT name\n  FROM numbers WHERE n = :n", n=1))
        found.append(await crm.value("SELECT name FROM numbers WHERE n = :n", n=2))
        found.append(await crm.execute("UPDATE numbers SET n = 1"))
        await request.reject(480)

    answers = {
        "redis rates GET blocked:*": "yes",
        "redis rates EVAL *": 7,
        "redis rates HGETALL h": {"x": "1"},
        "redis rates SET a b NX": None,
        'database crm SELECT name FROM numbers WHERE n = :n {"n":1}': [{"name": "one"}],
        "database crm SELECT name FROM numbers WHERE n = :n": [],
        "database crm UPDATE *": 3,
    }
    stage = Stage(config(answers=answers), routes)
    try:
        assert run(stage, Trial("office", "1")).status == 480
    finally:
        stage.close()
    assert found == ["yes", 7, {"x": "1"}, False, [{"name": "one"}], None, 3]


def test_every_route_type_may_ask() -> None:
    routes = Routes()
    asked: list[str] = []

    async def ask(node: Node, who: str) -> None:
        asked.append(str(await node.redis("rates").get(who)))

    @routes.startup_route
    async def start(node: Node) -> None:
        await ask(node, "startup")

    @routes.timer_route(every_s=10)
    async def tick(node: Node) -> None:
        await ask(node, "timer")

    @routes.route
    async def main(request: Request) -> None:
        await ask(request.node, "request")
        if request.called_number == "0":
            raise RuntimeError("no")
        await request.call.dial("carrier-b", on_branch=dress, on_reply=mark, on_failure=hunt)

    @routes.branch_route
    async def dress(branch: Branch) -> None:
        await ask(branch.call.node, "branch")

    @routes.onreply_route
    async def mark(reply: Reply) -> None:
        await ask(reply.call.node, "reply")

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        await ask(failure.call.node, "failure")
        await failure.call.reject(480)

    @routes.local_route
    async def stamp(request: LocalRequest) -> None:
        await ask(request.call.node, "local")

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        await ask(bad.node, "error")
        await bad.reply(500)

    @routes.event_route("test")
    async def told(node: Node) -> None:
        await ask(node, "event")

    stage = Stage(config(answers={"redis rates GET *": "startup"}), routes, timers=True)
    try:
        stage.lookups.answer("redis rates GET *", lambda command: command.command[1])
        stage.after(30)
        assert run(stage, Trial("office", "1", answers={"carrier-b": "180+486"})).status == 480
        assert run(stage, Trial("office", "0")).status == 500
        stage.begin()
        office, second = stage.party("office"), stage.party("carrier-b")
        office.calls("1")
        second.gets("INVITE")
        second.answers(200)
        office.gets(200)
        stage.runner.raise_event("test", stage.node)
        stage.core.release(next(iter(stage.core.calls.values())), stage.clock.now, reason="test")
        stage.after(1)
    finally:
        stage.close()
    assert set(asked) == {"startup", "timer", "request", "branch", "reply", "failure", "error", "event", "local"}


def test_what_is_not_configured_is_said() -> None:
    routes = Routes()
    said: list[str] = []

    @routes.route
    async def main(request: Request) -> None:
        node = request.node
        for ask in (lambda: node.http, lambda: node.redis("x"), lambda: node.database("x")):
            try:
                ask()
            except LookupUnknown as error:
                said.append(str(error))
        await request.reject(480)

    for given in (CONFIG, config(http=None)):
        stage = Stage(given, routes)
        run(stage, Trial("office", "1"))
        stage.close()
    assert said == [
        "no HTTP look-ups are configured: write 'http: {}' under lookups",
        "no 'x' is configured under lookups.redis; there are: none",
        "no 'x' is configured under lookups.databases; there are: none",
        "no HTTP look-ups are configured: write 'http: {}' under lookups",
        "no 'x' is configured under lookups.redis; there are: rates",
        "no 'x' is configured under lookups.databases; there are: crm",
    ]


def test_an_error_that_no_route_catches_is_the_answer_of_the_error_route(stage: Sbc) -> None:
    routes = Routes()
    errors: list[LookupFailed] = []

    @routes.route
    async def main(request: Request) -> None:
        await request.node.http.get(LCR)

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        assert isinstance(bad.error, LookupFailed)
        errors.append(bad.error)
        await bad.reply(bad.error.status)

    made = Stage(config(answers={"GET *": "away"}), routes)
    assert run(made, Trial("office", "1")).status == 503
    made.close()
    assert str(errors[0]) == f"GET {LCR}: the server has not answered for some time"


def test_a_route_may_look_up_several_things_at_once(stage: Sbc) -> None:
    routes = Routes()
    found: list[Any] = []  # Any: JSON values

    @routes.route
    async def main(request: Request) -> None:
        http = request.node.http
        async with asyncio.timeout(1):
            answers = await asyncio.gather(http.get("https://a.example/"), http.get("https://b.example/"))
        found.extend(answer.json() for answer in answers)
        await request.reject(480)

    made = Stage(config(answers={"GET https://a*": [1], "GET https://b*": [2]}), routes)
    run(made, Trial("office", "1"))
    made.close()
    assert found == [[1], [2]]


def test_a_route_that_waits_too_long_for_an_answer_is_ended_by_its_budget(stage: Sbc) -> None:
    routes = Routes()
    ended: list[str] = []

    @routes.route
    async def main(request: Request) -> None:
        try:
            await request.node.http.get(LCR, timeout_s=60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    made = Stage(config(answers={"GET *": "timeout"}), routes)
    report = run(made, Trial("office", "1"))
    made.close()
    assert (report.status, ended) == (500, ["cancelled"])
    assert report.counts["ROUTE_TIMEOUTS"] == 1


def test_real_servers_answer_where_that_is_wished() -> None:
    server = HttpServer()
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        answer = await request.node.http.get(f"{server.url}/json", timeout_s=60)
        await request.reject(480, answer.json()["method"])

    stage = Stage(config(), routes, ask=True)
    try:
        report = run(stage, Trial("office", "1"))
    finally:
        stage.close()
        server.stop()
    assert (report.status, report.reason) == (480, "GET")
    assert server.requests["/json"] == 1


def test_only_what_startup_routes_ask_is_asked_before_a_reload() -> None:
    server = HttpServer()
    routes = Routes()
    loaded: list[str] = []

    @routes.startup_route
    async def load(node: Node) -> None:
        loaded.append((await node.http.get(f"{server.url}/json", timeout_s=60)).json()["method"])

    @routes.route
    async def main(request: Request) -> None:
        await request.node.http.get(f"{server.url}/json")

    given = Config.model_validate({**GIVEN, "lookups": ALL, "dry_runs": [{"call": "1", "source": "office"}]})
    with pytest.raises(ServerAway, match="a dry run asks nobody"):
        command.try_all(given, routes)
    try:
        tried = command.try_all(given, routes, ask_to_start=True)
    finally:
        server.stop()
    assert loaded == ["GET"]
    assert server.requests["/json"] == 1
    assert tried[0].unmet == "expected 200 OK, got 500 Server Internal Error"
