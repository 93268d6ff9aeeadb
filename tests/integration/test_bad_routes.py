"""Routes that block, spin, raise or never end, in a real worker under calls: they cost their own calls and no other."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.support.agents import UaCall
from tests.support.callers import Site, site
from tests.support.loopback import OUTSIDE, loopback
from tests.support.sbc import eventually

ROUTES = """\
import asyncio
import time

from sbc.routing import BadMessage, Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    number = request.called_number
    if number.startswith("91"):
        while True:
            pass
    if number.startswith("92"):
        look_up(number)
    if number.startswith("93"):
        raise LookupError("no such number")
    if number.startswith("94"):
        while True:
            await asyncio.sleep(0)
    if number.startswith("95"):
        await asyncio.Event().wait()
    if number.startswith("96"):
        raise SystemExit("of a script that was pasted")
    await request.call.dial("pbx")


def look_up(number: str) -> None:
    time.sleep(10)


@routes.error_route
async def refuse(bad: BadMessage) -> None:
    await bad.reply(bad.error.status)
"""
MORE = "routes: bad.py\nroutes_budget: { total_s: 1 }\n"
KINDS = 6
PACE_S = 0.03  # 33 calls a second
ALONE, BESIDE = 100, 400  # good calls
EVERY = 15  # good calls, then one that is not
FLOOR_S = 0.02  # below which a setup time says more of the machine than of us


def _place(it: Site, good: int, bad_every: int = 0) -> tuple[list[UaCall], list[UaCall]]:
    """So many good calls at a steady rate, and after each ``bad_every`` of them a bad one."""
    placed: list[UaCall] = []
    bad: list[UaCall] = []
    gateway = (OUTSIDE, it.net.port)
    for number in range(good):
        placed.append(it.caller.call(gateway, f"1{len(it.caller.calls):05}"))
        if bad_every and number % bad_every == bad_every - 1:
            bad.append(it.caller.call(gateway, f"9{1 + len(bad) % KINDS}{len(bad):04}"))
        time.sleep(PACE_S)
    eventually(lambda: all(call.asked["INVITE"].status for call in [*placed, *bad]), 60, "an answer to each call")
    return placed, bad


def _setup_s(calls: list[UaCall]) -> tuple[float, float]:
    """Half and 99 of 100 of them were answered after so long."""
    took = sorted(call.asked["INVITE"].took_s for call in calls)
    return took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]


def _longest_s(it: Site) -> float:
    """How long a route held the worker at most. Time that the machine gave to others is not the route's, so on a busy
    one this is more than the budget, and others may wait as long."""
    return max([int(ms) for ms in re.findall(r"blocked for (\d+) ms", it.sbc.log)]) / 1000


def test_bad_routes_cost_their_own_calls(tmp_path: Path) -> None:
    directory = tmp_path / "sbc"
    directory.mkdir()
    (directory / "bad.py").write_text(ROUTES)
    with site(tmp_path, loopback(sip=1, store="none", more=MORE)) as it:
        workers = it.sbc.pids()
        alone, _ = _place(it, ALONE)
        beside, bad = _place(it, BESIDE, EVERY)
        assert [call.asked["INVITE"].status for call in [*alone, *beside]] == [200] * (ALONE + BESIDE)
        assert [call.asked["INVITE"].status for call in bad] == [500] * len(bad)
        assert it.sbc.pids() == workers
        (p50, p99), (bad_p50, bad_p99) = _setup_s(alone), _setup_s(beside)
        print(f"setup alone: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms; ", end="")
        print(f"beside bad routes: p50 {bad_p50 * 1000:.1f} ms, p99 {bad_p99 * 1000:.1f} ms")
        assert bad_p99 < max(2 * p99, FLOOR_S, 2 * _longest_s(it))
        ended = it.sbc.total("ROUTE_OVERRUNS") + it.sbc.total("ROUTES_HELD_OFF")
        blocking = sum(call.number[1] in "124" for call in bad)
        assert ended == blocking
        assert it.sbc.total("ROUTE_ERRORS") == len(bad)
        assert it.sbc.total("WORKER_HUNG") == 0
        log = it.sbc.log
        assert "look_up blocked for" in log
        assert "main blocked for" in log
        lines = ROUTES.splitlines()
        assert f"bad.py:{lines.index('    time.sleep(10)') + 1})" in log
        assert "500" not in {str(cdr["status"]) for cdr in it.sbc.cdrs() if cdr["ruri"].startswith("sip:1")}
        it.end(it.pairs([*alone, *beside]))


@pytest.mark.slow
def test_a_bad_route_that_all_the_calls_of_one_kind_meet(tmp_path: Path) -> None:
    """As many bad calls as good ones: the function that blocks is held off, and the others are served."""
    directory = tmp_path / "sbc"
    directory.mkdir()
    (directory / "bad.py").write_text(ROUTES)
    with site(tmp_path, loopback(sip=1, store="none", more=MORE)) as it:
        gateway = (OUTSIDE, it.net.port)
        alone, _ = _place(it, ALONE)
        good: list[UaCall] = []
        bad: list[UaCall] = []
        for number in range(BESIDE):
            bad.append(it.caller.call(gateway, f"92{number:04}"))
            good.append(it.caller.call(gateway, f"1{len(it.caller.calls):05}"))
            time.sleep(PACE_S)
        eventually(lambda: all(call.asked["INVITE"].status for call in [*good, *bad]), 60, "an answer to each call")
        assert {call.asked["INVITE"].status for call in bad} == {500}
        assert {call.asked["INVITE"].status for call in good} == {200}
        assert it.sbc.total("ROUTES_HELD_OFF") > BESIDE / 2
        late = good[BESIDE // 2 :]
        (_, p99), (p50, late_p99) = _setup_s(alone), _setup_s(late)
        print(f"setup beside as many that block: p50 {p50 * 1000:.1f} ms, p99 {late_p99 * 1000:.1f} ms; alone {p99}")
        assert late_p99 < max(2 * p99, FLOOR_S, 2 * _longest_s(it))
        it.end(it.pairs([*alone, *good]))
