"""Flags and variables by scope: message, branch, transaction and call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from sbc.b2bua.effects import SaveCall
from sbc.routing import Branch, Call, EstablishedCall, Failure, Node, Reply, Request, RouteError, Routes
from sbc.routing.scopes import FLAGS_MAX
from sbc.testing import Sbc
from tests.unit.simulator.world import CONFIG


@pytest.fixture
def routes() -> Routes:
    return Routes()


@pytest.fixture
def stage(routes: Routes) -> Iterator[Sbc]:
    """Its routes may be written after it was made: they are asked for when a call comes."""

    @routes.route
    async def main(request: Request) -> None:
        await request.reject(500)

    made = Sbc(CONFIG, routes)
    yield made
    made.close()


def deciding(routes: Routes, decide: Callable[[Call], Any]) -> None:  # Any: a coroutine
    async def main(request: Request) -> None:
        await decide(request.call)

    routes.by_kind[next(iter(routes.by_kind))] = main


def test_a_message_has_its_own_while_its_route_runs(routes: Routes, stage: Sbc) -> None:
    seen: list[tuple[set[str], dict[str, Any]]] = []

    async def sub(request: Request) -> None:
        seen.append((set(request.flags), dict(request.variables)))

    async def main(request: Request) -> None:
        await sub(request)
        request.flags.add("one")
        request.variables["any"] = object
        await sub(request)
        await request.reject(480)

    routes.by_kind[next(iter(routes.by_kind))] = main
    for _ in range(2):
        assert stage.dry_run("1", "office").status == 480
    assert seen == [(set(), {}), ({"one"}, {"any": object})] * 2


def test_each_branch_has_its_own_which_its_replies_and_the_failure_route_see(routes: Routes, stage: Sbc) -> None:
    seen: list[Any] = []

    async def dress(branch: Branch) -> None:
        assert branch.flags == set()
        branch.flags.add(f"to {branch.target.peer}")
        branch.variables["price"] = 1.5
        assert any(branch.attempt is one for one in branch.call.attempts)

    async def mark(reply: Reply) -> None:
        seen.append((reply.status, sorted(reply.attempt.flags)))
        reply.attempt.variables["heard"] = reply.status

    async def hunt(failure: Failure) -> None:
        seen.append([(sorted(one.flags), one.variables) for one in failure.attempts])
        await failure.call.reject(480)

    deciding(
        routes,
        lambda call: call.dial([["carrier-a", "carrier-b"]], on_branch=dress, on_reply=mark, on_failure=hunt),
    )
    stage.dry_run("1", "office", answers={"carrier-a": "486", "carrier-b": "503"})
    assert seen == [
        (486, ["to carrier-a"]),
        (503, ["to carrier-b"]),
        [
            (["to carrier-a"], {"price": 1.5, "heard": 486}),
            (["to carrier-b"], {"price": 1.5, "heard": 503}),
        ],
    ]


def test_a_transaction_has_its_own_until_the_final_answer(routes: Routes, stage: Sbc) -> None:
    seen: list[Any] = []
    up: list[EstablishedCall] = []

    async def main(call: Call) -> None:
        call.transaction.flags.add("request")
        call.transaction.variables["at"] = object()  # any value: nobody writes it down
        await call.dial(["carrier-a", "carrier-b"], on_branch=dress, on_reply=mark, on_failure=hunt)

    async def dress(branch: Branch) -> None:
        branch.call.transaction.flags.add("branch")

    async def mark(reply: Reply) -> None:
        reply.call.transaction.flags.add(f"reply {reply.status}")
        seen.append(sorted(reply.call.transaction.flags))

    async def hunt(failure: Failure) -> None:
        call = failure.call
        seen.append((sorted(call.transaction.flags), "at" in call.transaction.variables))
        up.append(EstablishedCall(call.node, call._call))
        await call.dial_next()

    deciding(routes, main)
    stage.dry_run("1", "office", answers={"carrier-a": "503", "carrier-b": "200"})
    assert seen == [
        ["branch", "reply 503", "request"],
        (["branch", "reply 503", "request"], True),
        ["branch", "reply 200", "reply 503", "request"],
    ]
    over = up[0].transaction
    assert (over.flags, over.variables) == (set(), {})
    assert all(not attempt.flags for attempt in up[0].attempts)
    ways: tuple[Callable[[], object], ...] = (lambda: over.flags.add("x"), lambda: over.variables.update(x=1))
    for keep in ways:
        with pytest.raises(RouteError, match="its transaction is over"):
            keep()


NO_JSON = [
    (object(), "call.variables['x'] = object: not a JSON value"),
    ({1, 2}, "call.variables['x'] = set: not a JSON value"),
    (b"octets", "call.variables['x'] = bytes: not a JSON value"),
    (float("nan"), "call.variables['x'] = nan: not a JSON value"),
    (2**70, f"call.variables['x'] = {2**70}: not a JSON value"),
    ([1, {"a": print}], "call.variables['x'][1]['a'] = builtin_function_or_method: not a JSON value"),
    ({1: 2}, "call.variables['x']: the names in a JSON object are texts, and 1 is none"),
    ("x" * 70_000, "call.variables['x']: all variables of a call have 65536 octets at most"),
]


@pytest.mark.parametrize(("value", "said"), NO_JSON, ids=[type(value).__name__ for value, _ in NO_JSON])
def test_what_is_no_json_is_refused_where_it_is_assigned(routes: Routes, stage: Sbc, value: Any, said: str) -> None:
    told: list[str] = []

    async def main(call: Call) -> None:
        ways: tuple[Callable[[], object], ...] = (
            lambda: call.variables.__setitem__("x", value),
            lambda: call.variables.update(x=value),
            lambda: call.variables.setdefault("x", value),
        )
        for assign in ways:
            try:
                assign()
            except RouteError as error:
                told.append(str(error))
        assert not call.variables
        await call.reject(480)

    deciding(routes, main)
    assert stage.dry_run("1", "office").status == 480
    assert [text[: len(said)] for text in told] == [said] * 3


def test_variables_and_flags_of_a_call_are_a_mapping_and_a_set(routes: Routes, stage: Sbc) -> None:
    async def main(call: Call) -> None:
        call.variables.update({"a": [1, "ä", None, True, 0.5], "b": {"c": ()}})
        assert call.variables == {"a": [1, "ä", None, True, 0.5], "b": {"c": ()}}
        assert call.variables.pop("b") == {"c": ()}
        assert list(call.variables) == ["a"]
        call.flags.add("one")
        call.flags.update(["two", "three"])
        call.flags.discard("three")
        assert set(call.flags) == {"one", "two"}
        assert call.flags | {"x"} == {"one", "two", "x"}
        for bad in ("", "a\nb", "x" * 300, 7):
            with pytest.raises(RouteError, match="a flag is a name"):
                call.flags.add(bad)  # type: ignore[arg-type]  # that is the test
        with pytest.raises(RouteError, match="at most"):
            call.flags.update(str(n) for n in range(FLAGS_MAX + 1))
        await call.reject(480)

    deciding(routes, main)
    report = stage.dry_run("1", "office")
    assert report.status == 480
    assert report.cdr is not None
    assert report.cdr["variables"] == {"a": [1, "ä", None, True, 0.5]}


def test_a_change_in_an_answered_call_is_written_at_once(routes: Routes, stage: Sbc) -> None:
    deciding(routes, lambda call: call.dial("carrier-a"))
    office, carrier = stage.party("office"), stage.party("carrier-a")
    office.calls("1")
    carrier.gets("INVITE")
    carrier.answers(200)
    office.gets(200)
    stage.after(1.0)
    saved: list[dict[str, Any]] = []

    async def told(node: Node) -> None:
        for call in node.calls():
            call.flags.add("later")
            call.variables["n"] = 1
            call.variables["n"] = 2

    routes.event_route("test")(told)
    drain = stage._drain

    def watched() -> None:
        saved.extend(orjson.loads(one.record) for one in stage.core._effects if isinstance(one, SaveCall))
        drain()

    stage._drain = watched  # type: ignore[method-assign]  # to see what the journal would get
    stage.runner.raise_event("test", stage.node)
    stage.after(0.1)
    assert [(one["flags"], one["vars"]) for one in saved] == [(["later"], {"n": 2})]
