"""Dry runs: the real core and routes, everybody else by script, and a report that says why."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from sbc.config.models import Config
from sbc.routing import BadMessage, Branch, Failure, Node, Request, Routes
from sbc.routing.routes import RouteOverran
from sbc.simulator import Report, Stage, Trial, run
from tests.unit.simulator.world import CONFIG, GIVEN

BOTH = ["carrier-a", "carrier-b"]


def hunting() -> Routes:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.call.media.engage()
        await request.call.dial(BOTH, on_failure=hunt)

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        if not (failure.may_fail_over and await failure.call.dial_next()):
            await failure.call.reject(failure.best_status)

    return routes


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage(CONFIG, hunting())
    yield made
    made.close()


def text(report: Report) -> str:
    return "\n".join(report.sentences())


def test_who_answers_and_what_was_tried_before(stage: Stage) -> None:
    report = run(stage, Trial("office", "+4930123", answers={"carrier-a": "180+503", "carrier-b": "180+200"}))
    assert (report.status, report.by, report.is_answered) == (200, "carrier-b", True)
    assert [(a.gateway, a.status) for a in report.attempts] == [("carrier-a", 503), ("carrier-b", 200)]
    assert report.rejected == ["carrier-a is out: 503 Service Unavailable. Another target may be tried."]
    assert report.cdr is not None
    assert (report.cdr["b_peer"], report.cdr["duration_s"], report.cdr["cause"]) == ("carrier-b", 1.0, 16)


def test_each_stage_has_its_line_and_failures_come_before_what_follows_from_them(stage: Stage) -> None:
    report = run(stage, Trial("office", "+4930123", answers={"carrier-a": "503"}))
    kinds = [step.kind for step in report.steps if step.kind in ("source", "route", "decision", "rejected", "end")]
    assert kinds == ["source", "route", "decision", "rejected", "route", "decision", "end"]
    with open(__file__) as file:
        lines = file.read().splitlines()
    for step in report.steps:
        if step.kind in ("route", "decision"):
            path, _, number = step.where.rpartition(":")
            assert __file__.endswith(path)
            line = lines[int(number) - 1]
            assert ("async def" if step.kind == "route" else "dial") in line, step


def test_one_script_for_each_attempt_and_the_last_one_stays(stage: Stage) -> None:
    answers = {"carrier-a": "302:sip:7@198.51.100.9,302:sip:8@198.51.100.9,486"}
    report = run(stage, Trial("office", "1", answers=answers))
    assert [a.uri for a in report.attempts] == [
        "sip:1@sip.carrier-a.example",
        "sip:7@198.51.100.9",
        "sip:8@198.51.100.9",
    ]
    assert report.status == 486
    assert "no fault of the target" in report.rejected[-1]


def test_silence_takes_its_time_and_no_real_time(stage: Stage) -> None:
    began = time.monotonic()
    report = run(stage, Trial("office", "1", answers={"carrier-a": "timeout"}))
    assert time.monotonic() - began < 5
    assert report.by == "carrier-b"
    assert "no answer in time (408)" in report.rejected[0]
    assert report.steps[-2].at_s > 32
    assert text(report).count("gets the INVITE again") == 6


def test_a_phone_that_rings_for_long_and_a_caller_who_gives_up(stage: Stage) -> None:
    report = run(stage, Trial("office", "1", answers={"carrier-a": "180+20s+200"}, cancel_s=5))
    assert (report.status, report.attempts[0].status) == (487, 487)
    assert len(report.sent_to("carrier-a", "CANCEL")) == 1
    report = run(stage, Trial("office", "1", answers={"carrier-a": "180+20s+200+3s+bye"}, talk_s=60))
    assert report.cdr is not None
    assert (report.cdr["setup_s"], report.cdr["duration_s"], report.cdr["hangup"]) == (20.0, 3.0, "b")


def test_messages_are_those_that_would_be_sent(stage: Stage) -> None:
    report = run(stage, Trial("office", "+4930123", caller="77", headers=[("Subject", "hello")]))
    (invite,) = report.sent_to("carrier-a")
    assert invite.startswith(b"INVITE sip:+4930123@sip.carrier-a.example SIP/2.0\r\n")
    assert b"Subject: hello\r\n" in invite
    assert b"c=IN IP4 203.0.113.2" in invite
    assert b"192.0.2.10" not in invite
    assert "           | m=audio" in "\n".join(report.sentences(messages=True))


def test_sources_that_are_nobody(stage: Stage) -> None:
    report = run(stage, Trial("192.0.2.99", "1"))
    assert (report.status, list(report.attempts)) == (0, [])
    assert report.rejected == [
        "192.0.2.99 is no peer of realm inside: what it sends is dropped without an answer (unknown_sources: drop)."
    ]
    report = run(stage, Trial("192.0.2.10", "1", listener="outside"))
    assert "(in realm inside it is peer office)" in report.rejected[0]
    assert run(stage, Trial("192.0.2.10:5062", "1")).is_answered
    report = run(stage, Trial("192.0.2.10", "1", listener="tcp:192.0.2.1:5060"))
    assert "on tcp:192.0.2.1:5060 is peer office" in report.steps[0].text


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        (Trial("nobody", "1"), "'nobody' is no peer and no address"),
        (Trial("office", "1", listener="moon"), "no listener 'moon': name a realm, or one of udp:192.0.2.1:5060"),
        (Trial("office", "1", answers={"carier": "200"}), "no peer 'carier' is configured; there are: office"),
        (Trial("office", "1", answers={"carrier-a": "ok"}), "'ok' in 'ok' is no answer: say a status"),
        (Trial("office", "1", present={"x": 1}), "no peer 'x' is configured"),
        (Trial("office"), "say a number, a URI or a message"),
    ],
)
def test_trials_that_make_no_sense(stage: Stage, trial: Trial, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        run(stage, trial)
    assert run(stage, Trial("office", "1")).is_answered


def test_limits_count_the_calls_that_a_peer_is_said_to_have(stage: Stage) -> None:
    report = run(stage, Trial("office", "1", present={"office": 2}))
    assert report.status == 503
    assert "The call is refused: its peer is at max_calls or max_cps." in report.rejected
    assert run(stage, Trial("office", "1", present={"office": 1})).is_answered
    assert run(stage, Trial("office", "1")).is_answered


def test_a_message_as_it_came(stage: Stage) -> None:
    options = (
        b"OPTIONS sip:42@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx\r\nMax-Forwards: 7\r\n"
        b"From: <sip:a@b>;tag=1\r\nTo: <sip:42@192.0.2.1>\r\nCall-ID: one\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    assert run(stage, Trial("office", message=options)).status == 200
    report = run(stage, Trial("office", message=options.replace(b"Max-Forwards: 7", b"Max-Forwards: many")))
    assert (report.status, report.counts["MALFORMED_REFUSED"]) == (400, 1)
    assert "no SIP message" in text(report)


def test_what_the_answer_of_the_core_is_explained_by() -> None:
    given = {**GIVEN, "peers": {**GIVEN["peers"]}}
    given["peers"]["carrier-b"] = {**given["peers"]["carrier-b"], "profile": "narrow"}
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.call.media.engage()
        await request.call.dial("carrier-b")

    stage = Stage(Config.model_validate(given), routes)
    report = run(stage, Trial("office", "1", codecs=["opus", "PCMU"]))
    assert report.status == 488
    assert "Sdp refused: leg a, reason no codec of the offer is allowed here." in report.rejected
    (invite,) = run(stage, Trial("office", "1", codecs=["opus", "PCMA"])).sent_to("carrier-b")
    assert b"opus" not in invite
    stage.close()


def test_a_route_that_raises_says_where_and_one_that_forgets_says_so() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if request.called_number == "1":
            raise KeyError("tariff")
        request.log.warning("nothing to do", number=request.called_number)

    stage = Stage(CONFIG, routes)
    report = run(stage, Trial("office", "1"))
    (step,) = [step for step in report.steps if step.kind == "rejected"]
    assert step.text == "The route raised: KeyError: 'tariff'."
    with open(__file__) as file:
        assert "tariff" in file.read().splitlines()[int(step.where.rpartition(":")[2]) - 1]
    report = run(stage, Trial("office", "2"))
    assert report.status == 500
    assert "The route ended without a decision, so the call is refused with 500." in report.rejected
    assert "Log, warning: nothing to do number=2" in text(report)
    stage.close()


def test_the_time_is_the_one_that_was_said() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        hour = datetime.fromtimestamp(request.node.clock.wall()).hour
        await request.reject(480 if hour < 8 else 486)

    stage = Stage(CONFIG, routes)
    for moment, status in (("2026-12-24T03:00", 480), ("2026-12-24T12:00", 486)):
        at_s = datetime.fromisoformat(moment).timestamp()
        assert run(stage, Trial("office", "1", at_s=at_s)).status == status
    stage.close()


def test_a_dropped_branch_changed_headers_and_a_target_that_cannot_be_dialled() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.headers.set("X-Rate", "7")
        await request.call.dial([BOTH, "sip:9@203.0.113.77"], on_branch=choosy)

    @routes.branch_route
    async def choosy(branch: Branch) -> None:
        if branch.target.peer == "carrier-a":
            branch.drop()

    stage = Stage(CONFIG, routes)
    report = run(stage, Trial("office", "1", answers={"carrier-b": "486,200"}))
    assert "The branch to carrier-a was dropped by its route." in report.rejected
    decision = next(step.text for step in report.steps if step.text.startswith("Dials"))
    assert "carrier-a (sip:1@sip.carrier-a.example) and carrier-b (sip:1@203.0.113.77:5080) at once, then" in decision
    assert "headers changed: X-Rate: 7; each branch: choosy" in decision
    assert not report.sent_to("carrier-a")
    stage.close()


def test_trunks_count_as_registered_and_names_are_not_looked_up() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("trunk" if request.called_number == "1" else "carrier-a")

    stage = Stage(CONFIG, routes, hosts={"sip.carrier-a.example": ["198.51.100.5", "198.51.100.6"]})
    assert run(stage, Trial("office", "1")).by == "trunk"
    report = run(stage, Trial("office", "2", answers={"carrier-a": "503,200"}))
    assert [a.status for a in report.attempts] == [503, 200]
    assert "to 198.51.100.6:5060" in text(report)
    stage.close()


# routes that wait


def waiting(wait: object) -> Routes:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await wait(request)  # type: ignore[operator]  # whatever the test waits for
        await request.call.dial("carrier-b")

    return routes


def test_what_waits_for_time_takes_virtual_time() -> None:
    async def wait(request: Request) -> None:
        async with asyncio.timeout(2):
            await asyncio.sleep(1.5)

    stage = Stage(CONFIG, waiting(wait))
    began = time.monotonic()
    report = run(stage, Trial("office", "1"))
    assert report.by == "carrier-b"
    assert time.monotonic() - began < 1
    assert next(step.at_s for step in report.steps if step.kind == "decision") == pytest.approx(1.5)
    stage.close()


def test_what_waits_for_the_world_takes_real_time() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def wait(request: Request) -> None:
        threading.Timer(0.05, theirs.send, [b"go"]).start()
        assert await asyncio.get_running_loop().sock_recv(ours, 10) == b"go"
        assert await asyncio.to_thread(lambda: 7) == 7

    stage = Stage(CONFIG, waiting(wait))
    report = run(stage, Trial("office", "1"))
    assert report.by == "carrier-b"
    assert 0.03 < next(step.at_s for step in report.steps if step.kind == "decision") < 3
    stage.close()
    ours.close()
    theirs.close()


def test_what_waits_for_ever_meets_its_budget_and_leaves_the_next_run_alone() -> None:
    async def wait(request: Request) -> None:
        if request.called_number == "1":
            await asyncio.get_running_loop().create_future()

    stage = Stage(CONFIG, waiting(wait))
    report = run(stage, Trial("office", "1"))
    assert report.status == 500
    assert "The route raised: a route took longer than 5 s." in report.rejected
    assert run(stage, Trial("office", "2")).by == "carrier-b"
    stage.close()


async def test_it_runs_inside_another_event_loop() -> None:
    async def wait(request: Request) -> None:
        await asyncio.sleep(1)

    stage = Stage(CONFIG, waiting(wait))
    assert run(stage, Trial("office", "1")).by == "carrier-b"
    assert asyncio.get_running_loop() is not stage.loop
    await asyncio.sleep(0)
    stage.close()


def test_a_route_that_blocks_is_ended_and_the_error_route_runs() -> None:
    config = Config.model_validate({**GIVEN, "routes_budget": {"step_ms": 20}})
    routes = Routes()
    errors: list[object] = []

    @routes.route
    async def main(request: Request) -> None:
        while request.called_number == "1":
            pass
        await request.call.dial("carrier-b")

    @routes.error_route
    async def refuse(bad: BadMessage) -> None:
        errors.append(bad.error)
        await bad.reply(bad.error.status)

    blocking = Stage(config, routes)
    for _ in range(5):  # each dry run is the first
        report = run(blocking, Trial("office", "1"))
        assert (report.status, report.counts["ROUTE_OVERRUNS"], report.counts["ROUTE_ERRORS"]) == (500, 1, 1)
        (step,) = [step for step in report.steps if "The route was ended: " in step.text]
        assert "main blocked for " in step.text
        path, _, number = step.where.rpartition(":")
        assert __file__.endswith(path)
        assert abs(int(number) - main.__code__.co_firstlineno - 2) <= 1
    assert [type(error) for error in errors] == [RouteOverran] * 5
    assert run(blocking, Trial("office", "2")).by == "carrier-b"
    blocking.close()


def test_a_startup_route_that_blocks_is_told_to_whoever_reloads() -> None:
    routes = hunting()

    @routes.startup_route
    async def load(node: Node) -> None:
        time.sleep(3600)  # noqa: ASYNC251  # what is tried

    with pytest.raises(RouteOverran, match=r"load blocked for \d+ ms"):
        Stage(CONFIG, routes)


def test_startup_routes_run_and_their_errors_are_told() -> None:
    routes = hunting()
    seen: list[int] = []

    @routes.startup_route
    async def load(node: Node) -> None:
        await asyncio.sleep(10)
        seen.append(len(node.peers))

    stage = Stage(CONFIG, routes)
    assert seen == [4]
    stage.close()

    @routes.startup_route
    async def fail(node: Node) -> None:
        raise OSError("no table")

    with pytest.raises(OSError, match="no table"):
        Stage(CONFIG, routes)


def test_a_caller_who_hears_an_announcement() -> None:
    """Before the refusal, and before another route goes on."""
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        if request.called_number == "112":
            return await request.call.announce("wait.wav", then=connect)
        await request.call.announce("gone.wav", then=404)

    async def connect(request: Request) -> None:
        await request.call.dial("carrier-b")

    stage = Stage(CONFIG, routes)
    try:
        report = run(stage, Trial("office", "4711"))
        assert report.status == 404
        assert "The caller hears gone.wav." in text(report)
        report = run(stage, Trial("office", "112"))
        assert (report.status, report.by) == (200, "carrier-b")
        assert "The caller hears wait.wav." in text(report)
    finally:
        stage.close()
