"""Media by hand: each way to say it, in each route that may, for early and late offers, with forks and re-INVITEs.

What a side is shown tells where its media go: an address of the relay, or the other side's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from media.protocol import Answer, Offer, Reply
from media.protocol import Request as MediaRequest
from sbc.config.models import Config
from sbc.routing import Branch, Call, Failure, MediaRefused, Request, RouteError, Routes
from sbc.routing import Reply as BranchReply
from sbc.simulator.party import Party
from sbc.simulator.virtual_loop import running
from sbc.testing import Sbc
from tests.unit.simulator.world import GIVEN

OFFICE, CARRIER = "192.0.2.10", "198.51.100.1"
FACING_OFFICE, FACING_CARRIERS = "192.0.2.2", "203.0.113.2"
CONFIG = Config.model_validate(
    {**GIVEN, "media_sets": {"far": [{"url": "tcp://127.0.0.9:7700"}], "near": [{"workers": "local"}]}}
)

Say = Callable[[Any], Awaitable[None] | None]


class World:
    """A stage, and what its media stand-in was asked."""

    def __init__(self, sbc: Sbc) -> None:
        self.sbc = sbc
        self.asked: list[tuple[MediaRequest, str]] = []
        self.office, self.carrier, self.other = (sbc.party(name) for name in ("office", "carrier-a", "carrier-b"))
        answer = sbc.media.answer

        def noted(request: MediaRequest) -> Reply:
            call = next(iter(sbc.core.calls.values()), None)
            self.asked.append((request, call.media_set if call is not None else ""))
            return answer(request)

        sbc.media.answer = noted  # type: ignore[method-assign]  # to see what is asked

    def offers(self) -> int:
        return sum(isinstance(request, Offer) for request, _ in self.asked)

    def call(self) -> Any:  # Any: the core's call
        return next(iter(self.sbc.core.calls.values()))


class Said:
    """Routes that say what a case wants where it wants it."""

    def __init__(self, **say: Say) -> None:
        self.say = say
        self.routes = Routes()
        self.routes.route(self.main)

    async def _do(self, where: str, it: Any) -> None:  # Any: the object of that route
        made = self.say[where](it) if where in self.say else None
        if made is not None:
            await made

    async def main(self, request: Request) -> None:
        await self._do("request", request.call)
        to = ["carrier-a", "carrier-b"]
        await request.call.dial(to, on_branch=self.branch, on_reply=self.reply, on_failure=self.failure)

    async def branch(self, branch: Branch) -> None:
        await self._do("branch", branch)

    async def reply(self, reply: BranchReply) -> None:
        await self._do("reply", reply)

    async def failure(self, failure: Failure) -> None:
        await self._do("failure", failure.call)
        if not await failure.call.dial_next():
            await failure.call.reject(failure.best_status)


@pytest.fixture
def made() -> Iterator[Callable[[Said], World]]:
    stages: list[Sbc] = []

    def make(said: Said) -> World:
        stages.append(Sbc(CONFIG, said.routes))
        return World(stages[-1])

    yield make
    for stage in stages:
        stage.close()


def address(body: bytes) -> str:
    """Where a description wants its media."""
    return next(line.split(b" ")[2] for line in body.splitlines() if line.startswith(b"c=")).decode()


def origin(body: bytes) -> str:
    return next(line for line in body.splitlines() if line.startswith(b"o=")).decode()


RELAYED: list[tuple[str, dict[str, Say]]] = [
    ("request engage", {"request": lambda call: call.media.engage()}),
    ("request offer", {"request": lambda call: call.media.offer()}),
    ("branch offer", {"branch": lambda branch: branch.media.offer()}),
    (
        "branch offer instead of direct",
        {"request": lambda call: call.media.direct(), "branch": lambda b: b.media.offer()},
    ),
    ("branch offer twice", {"request": lambda call: call.media.engage(), "branch": lambda b: b.media.offer("narrow")}),
    ("reply answer", {"branch": lambda branch: branch.media.offer(), "reply": lambda reply: reply.media.answer()}),
    ("engage, then answer", {"request": lambda call: call.media.engage(), "reply": lambda reply: reply.media.answer()}),
    ("failure engage", {"failure": lambda call: call.media.engage()}),
    ("failure offer", {"failure": lambda call: call.media.offer(media_set="near")}),
]
DIRECT: list[tuple[str, dict[str, Say]]] = [
    ("nothing", {}),
    ("request direct", {"request": lambda call: call.media.direct()}),
    ("branch direct", {"request": lambda call: call.media.engage(), "branch": lambda branch: branch.media.direct()}),
    ("branch delete", {"request": lambda call: call.media.offer(), "branch": lambda branch: branch.media.delete()}),
    ("failure direct", {"request": lambda call: call.media.engage(), "failure": lambda call: call.media.direct()}),
    ("failure delete", {"request": lambda call: call.media.engage(), "failure": lambda call: call.media.delete()}),
]
CASES = [(name, say, True) for name, say in RELAYED] + [(name, say, False) for name, say in DIRECT]


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize(("say", "relayed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_way_in_each_route(made: Callable[[Said], World], say: dict[str, Say], relayed: bool, late: bool) -> None:
    it = made(Said(**say))
    it.office.calls("1", body=b"" if late else None)
    called = it.carrier
    if "failure" in say:
        it.carrier.gets("INVITE")
        it.carrier.answers(503)
        called = it.other
    invite = called.gets("INVITE")
    office, carrier = (FACING_OFFICE, FACING_CARRIERS) if relayed else (called.flow.host, OFFICE)
    assert invite.body == b"" if late else address(invite.body) == carrier
    if relayed and not late:
        assert OFFICE.encode() not in invite.body  # nor in an o= line
    called.answers(180)
    it.office.gets(180)
    called.answers(200)
    assert address(it.office.gets(200).body) == office
    it.sbc.after(1.0)
    ack = called.gets("ACK")
    assert address(ack.body) == carrier if late else not ack.body
    assert bool(it.sbc.media.sessions) is relayed
    if not relayed and not any(where in say for where in ("branch", "failure")):
        assert not it.asked  # no port of the relay was ever taken

    for one, far, seen in ((it.office, called, carrier), (called, it.office, office)):  # re-INVITE from either side
        one.turns_to(one.line.call_id) if one.line is not None else None
        one.sends("INVITE", body=one.description())
        assert address(far.gets("INVITE").body) == seen
        far.answers(200)
        assert address(one.gets(200).body) == (office if one is it.office else carrier)
        it.sbc.after(1.0)
    it.office.hangs_up()
    called.gets("BYE")
    it.sbc.is_over()


def test_branches_that_ring_at_once_choose_each_for_itself(made: Callable[[Said], World]) -> None:
    """One is relayed, the other direct; A hears the one that answers, and media are those of that one."""
    for winner in ("carrier-a", "carrier-b"):

        async def main(call: Call) -> None:
            await call.dial([["carrier-a", "carrier-b"]], on_branch=dress)

        async def dress(branch: Branch) -> None:
            if branch.target.peer == "carrier-a":
                await branch.media.offer()

        routes = Said()
        routes.routes.by_kind.clear()

        @routes.routes.route
        async def first(request: Request) -> None:
            await main(request.call)

        it = made(routes)
        it.office.calls("1")
        assert address(it.carrier.gets("INVITE").body) == FACING_CARRIERS
        assert address(it.other.gets("INVITE").body) == OFFICE
        party: Party = it.carrier if winner == "carrier-a" else it.other
        loser = it.other if party is it.carrier else it.carrier
        loser.answers(180)
        it.office.gets(180)
        party.answers(200)
        told = it.office.gets(200)
        assert address(told.body) == (FACING_OFFICE if party is it.carrier else party.flow.host)
        loser.gets("CANCEL")
        it.sbc.after(1.0)
        assert bool(it.sbc.media.sessions) is (party is it.carrier)  # no relay waits for packets of a direct call
        assert (it.call().media_profile is None) is (party is it.other)
        it.office.hangs_up()
        party.gets("BYE")
        it.sbc.is_over()


def test_two_relayed_branches_have_one_session(made: Callable[[Said], World]) -> None:
    said = Said(branch=lambda branch: branch.media.offer())
    said.routes.by_kind.clear()

    @said.routes.route
    async def main(request: Request) -> None:
        await request.call.dial([["carrier-a", "carrier-b"]], on_branch=said.branch)

    it = made(said)
    it.office.calls("1")
    bodies = [address(party.gets("INVITE").body) for party in (it.carrier, it.other)]
    assert bodies == [FACING_CARRIERS] * 2
    assert len(it.sbc.media.sessions) == 1
    it.carrier.answers(183)
    assert address(it.office.gets(183).body) == FACING_OFFICE
    it.other.answers(200)
    assert address(it.office.gets(200).body) == FACING_OFFICE
    it.carrier.gets("CANCEL")
    it.office.hangs_up()
    it.other.gets("BYE")
    it.sbc.is_over()


def test_a_relay_that_was_heard_gives_way_to_a_direct_answer(made: Callable[[Said], World]) -> None:
    """A heard early media through the relay; the target after it is direct: the session of o= goes on for A."""

    async def dress(branch: Branch) -> None:
        if branch.target.peer == "carrier-a":
            await branch.media.offer()

    it = made(Said(branch=dress))
    it.office.calls("1")
    it.carrier.gets("INVITE")
    it.carrier.answers(183)
    early = it.office.gets(183).body
    it.carrier.answers(503)
    assert address(it.other.gets("INVITE").body) == OFFICE
    it.other.answers(200)
    told = it.office.gets(200).body
    assert (address(early), address(told)) == (FACING_OFFICE, it.other.flow.host)
    assert origin(early).split(" ")[1] == origin(told).split(" ")[1]
    assert not it.sbc.media.sessions
    it.office.hangs_up()
    it.other.gets("BYE")
    it.sbc.is_over()


def test_the_next_attempt_may_use_another_set_once_the_session_is_deleted(made: Callable[[Said], World]) -> None:
    refused: list[str] = []

    async def again(call: Call) -> None:
        try:
            call.media.offer(media_set="far")
        except RouteError as error:
            refused.append(str(error))
        await call.media.delete()
        assert not call.media._call.media_node
        call.media.offer(media_set="far")

    it = made(Said(request=lambda call: call.media.offer(media_set="near"), failure=again))
    it.office.calls("1")
    it.carrier.gets("INVITE")
    it.carrier.answers(503)
    it.other.gets("INVITE")
    it.other.answers(200)
    it.office.gets(200)
    sets = [chosen for request, chosen in it.asked if isinstance(request, Offer)]
    assert sets == ["near", "far"]
    assert refused == ["media set 'far': the call has a session in another one; call.media.delete ends it"]
    it.office.hangs_up()
    it.other.gets("BYE")
    it.sbc.is_over()


def test_a_branch_has_a_profile_of_its_own_also_after_the_answer(made: Callable[[Said], World]) -> None:
    """``narrow`` allows PCMA alone, towards this branch; so does a re-INVITE."""
    it = made(Said(branch=lambda branch: branch.media.offer("narrow")))
    it.office.calls("1")
    invite = it.carrier.gets("INVITE")
    assert b"PCMA" in invite.body
    assert b"PCMU" not in invite.body
    it.carrier.answers(200)
    it.office.gets(200)
    it.sbc.after(1.0)
    it.office.sends("INVITE", body=it.office.description())
    assert b"PCMU" not in it.carrier.gets("INVITE").body
    it.carrier.answers(200)
    it.office.gets(200)
    it.office.hangs_up()
    it.carrier.gets("BYE")
    it.sbc.is_over()


def test_a_refusal_of_the_relay_is_an_exception_and_leaves_the_branch_direct(made: Callable[[Said], World]) -> None:
    caught: list[int] = []

    async def dress(branch: Branch) -> None:
        try:
            await branch.media.offer()
        except MediaRefused as error:
            caught.append(error.status)

    it = made(Said(branch=dress))
    it.sbc.media.answer = lambda request: Reply(ok=False, code="full")  # type: ignore[method-assign]  # no room
    it.office.calls("1")
    assert address(it.carrier.gets("INVITE").body) == OFFICE
    assert caught == [503]
    it.carrier.answers(200)
    assert address(it.office.gets(200).body) == CARRIER
    it.office.hangs_up()
    it.carrier.gets("BYE")


def test_what_makes_no_sense_is_said(made: Callable[[Said], World]) -> None:
    said: list[str] = []

    async def noting(work: Callable[[], Any]) -> None:
        try:
            made = work()
            if made is not None:
                await made
        except RouteError as error:
            said.append(str(error))

    async def dress(branch: Branch) -> None:
        await noting(lambda: branch.media.offer("nonsense"))
        await noting(lambda: branch.media.offer("direct"))
        await noting(lambda: branch.media.offer(media_set="nowhere"))

    async def mark(reply: BranchReply) -> None:
        await noting(reply.media.answer)

    it = made(Said(branch=dress, reply=mark))
    it.office.calls("1")
    it.carrier.gets("INVITE")
    it.carrier.answers(200)
    it.office.gets(200)
    assert said == [
        "no media profile 'nonsense' that relays is configured",
        "no media profile 'direct' that relays is configured",
        "no media set 'nowhere' is configured; there are: local, far, near",
        "reply.media.answer: this branch was offered direct media; use branch.media.offer before",
    ]
    it.office.hangs_up()
    it.carrier.gets("BYE")
    it.sbc.is_over()
    assert not it.asked


def test_the_callee_s_offer_goes_where_its_reply_route_says(made: Callable[[Said], World]) -> None:
    """An INVITE without offer: answer() in the reply route is early enough to relay what the 200 offers."""
    it = made(Said(reply=lambda reply: reply.media.answer()))
    it.office.calls("1", body=b"")
    assert not it.carrier.gets("INVITE").body
    it.carrier.answers(200)
    assert address(it.office.gets(200).body) == FACING_OFFICE
    it.sbc.after(1.0)
    assert address(it.carrier.gets("ACK").body) == FACING_CARRIERS
    assert any(isinstance(request, Answer) for request, _ in it.asked)
    it.office.hangs_up()
    it.carrier.gets("BYE")
    it.sbc.is_over()


def test_statistics_in_routes(made: Callable[[Said], World]) -> None:
    found: list[Any] = []

    async def look(call: Call) -> None:
        found.append({leg: len(streams) for leg, streams in (await call.media.query()).items()})

    it = made(Said(request=look, branch=lambda branch: branch.media.offer(), failure=look))
    it.office.calls("1")
    it.carrier.gets("INVITE")
    it.carrier.answers(503)
    it.other.gets("INVITE")
    it.other.answers(200)
    it.office.gets(200)

    async def told(call: Any) -> None:
        found.append(sorted(await call.media_statistics()))

    said = it.sbc.routes
    said.event_route("look")(told)
    with running(it.sbc.loop):
        it.sbc.runner.raise_event("look", next(it.sbc.node.calls()))
    it.sbc.after(0.1)
    assert found == [{}, {"a": 0}, ["a", "b2"]]
    it.office.hangs_up()
    it.other.gets("BYE")
    it.sbc.is_over()
