"""Media by hand in a real SBC: the relay has a session for those branches only whose route wants it."""

from __future__ import annotations

from pathlib import Path

from tests.support.callers import site
from tests.support.loopback import CALLEE, OUTSIDE, loopback
from tests.support.sbc import eventually

ROUTES = """\
from sbc.routing import Branch, Failure, Node, Reply, Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    call = request.call
    call.variables["before"] = list(await call.media.query())
    to = ["sip:486001@{callee}", "pbx"] if request.called_number.endswith("7") else ["pbx"]
    await call.dial(to, on_branch=dress, on_reply=mark, on_failure=again)


@routes.branch_route
async def dress(branch: Branch) -> None:
    if branch.call.called_number.endswith(("1", "7")):
        await branch.media.offer(media_set="local")


@routes.onreply_route
async def mark(reply: Reply) -> None:
    if reply.status == 200 and reply.call.called_number.endswith("1"):
        reply.media.answer()
        reply.call.variables["legs"] = sorted(await reply.call.media_statistics())


@routes.failure_route
async def again(failure: Failure) -> None:
    await failure.call.media.delete()
    await failure.call.dial_next()
"""


def test_a_session_for_the_branches_that_are_offered_one(tmp_path: Path) -> None:
    net = loopback(sip=1, more="routes: mine.py\n")
    directory = tmp_path / "sbc"
    directory.mkdir()
    callee = f"{CALLEE}:{net.callee_port}"
    (directory / "mine.py").write_text(ROUTES.format(callee=callee))
    with site(tmp_path, net) as at:
        direct = at.caller.call((OUTSIDE, net.port), "100000")
        at.pairs([direct])
        assert at.media_sessions() == 0
        relayed = at.caller.call((OUTSIDE, net.port), "100001")
        again = at.caller.call((OUTSIDE, net.port), "100007")
        pairs = at.pairs([relayed, again])
        eventually(lambda: at.media_sessions() == 2, 15, "two sessions")
        assert {call["media"] for call in at.sbc.calls()} == {"direct", "relayed"}
        at.end([*pairs, *at.pairs([direct])])
        at.settled(3)
        legs = [cdr["variables"] for cdr in at.sbc.cdrs()]
        assert sorted(legs, key=str) == sorted(
            [{"before": []}, {"before": [], "legs": ["a", "b1"]}, {"before": []}], key=str
        )
