"""Reloads of routes under calls: no call fails, none meets two versions, and what is broken leaves the old one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sbc.management import client
from tests.support.agents import UaCall
from tests.support.callers import Site, site
from tests.support.loopback import OUTSIDE, loopback
from tests.support.sbc import eventually

ROUTES = """\
import asyncio

from sbc.routing import Reply, Request, Routes

VERSION = {version}
routes = Routes()


@routes.route
async def main(request: Request) -> None:
    call = request.call
    call.variables["ran"] = [VERSION]
    await asyncio.sleep(0.02)
    call.media.engage()
    {then}


@routes.onreply_route(always=True)
async def mark(reply: Reply) -> None:
    reply.call.variables["ran"].append(VERSION)
"""
GOOD = 'await call.dial("pbx")'
BROKEN = {
    "expected 200 OK, got 480": "await call.reject(480)",
    'no attribute "dail"': 'if call.peer.name == "nobody":\n        await call.dail("pbx")\n    await call.dial("pbx")',
    "NameError": 'await call.dial("pbx")\n\n\nimport_time = nothing',
}
DRY_RUNS = 'routes: mine.py\ndry_runs:\n  - { call: "1001", source: carrier, by: pbx }\n'


class Node:
    """The site, and the file of its routes."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.file = site.sbc.directory / "mine.py"
        self.versions = 1

    def write(self, then: str = GOOD) -> None:
        self.versions += 1
        self.file.write_text(ROUTES.format(version=self.versions, then=then))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:  # Any: JSON values
        path = str(self.site.sbc.directory / "run" / "control.sock")
        answer: dict[str, Any] = client.ask(path, method, params, timeout_s=100)  # Any: JSON values
        return answer

    def ran(self, number: str) -> list[int]:
        """Which versions the routes of an ended call were of."""
        found: list[dict[str, Any]] = []  # Any: JSON values

        def written() -> bool:
            found[:] = [cdr for cdr in self.site.sbc.cdrs() if f"sip:{number}@" in str(cdr["ruri"])]
            return bool(found)

        eventually(written, 15, f"the record of {number}")
        variables = found[0]["variables"]
        return list(variables["ran"])


@contextmanager
def node(folder: Path, workers: int) -> Iterator[Node]:
    directory = folder / "sbc"
    directory.mkdir()
    (directory / "mine.py").write_text(ROUTES.format(version=1, then=GOOD))
    with site(folder, loopback(sip=workers, more=DRY_RUNS)) as made:
        yield Node(made)


@pytest.mark.slow
def test_reloads_under_calls(tmp_path: Path) -> None:
    with node(tmp_path, 2) as it:
        placed: list[UaCall] = []
        over = threading.Event()

        def place() -> None:
            while not over.is_set():
                placed.append(it.site.caller.call((OUTSIDE, it.site.net.port), f"1{len(placed):05}"))
                time.sleep(0.05)

        thread = threading.Thread(target=place)
        thread.start()
        try:
            served = 1
            for reason, then in BROKEN.items():
                for broken in (False, True):
                    it.write(then if broken else GOOD)
                    answer = it.ask("routes_reload")
                    served += not broken
                    assert (answer["ok"], answer["serves"]) == (not broken, served), answer
                    assert not broken or any(reason in fault for fault in answer["refused"]), answer
        finally:
            over.set()
            thread.join()
        pairs = it.site.pairs(placed)
        rows = it.ask("routes")["routes"]
        assert [row["version"] for row in rows] == [served, served]
        assert sum(n for row in rows for n in row["calls"].values()) == len(placed)
        it.site.end(pairs)
        it.site.settled(len(placed))
        ran = [it.ran(call.number) for call in placed]
        assert all(len(set(versions)) == 1 for versions in ran), ran
        assert {versions[0] for versions in ran} >= {1, 2, 4}
        assert it.site.sbc.total("ROUTE_ERRORS") == 0


def test_a_call_that_rings_over_a_reload_a_dead_worker_and_a_rollback(tmp_path: Path) -> None:
    with node(tmp_path, 1) as it:
        (ringing,) = it.site.ringing(1)
        it.write()
        assert it.ask("routes_reload")["ok"]
        assert it.ask("routes")["routes"][0]["calls"] == {"1": 1}
        it.site.callee.answer(ringing.b)
        it.site.end(it.site.pairs([ringing.a]))
        assert it.ran(ringing.a.number) == [1, 1, 1]

        assert it.ask("routes_rollback", version=1) == {"ok": True, "serves": 3, "refused": []}
        (call,) = it.site.establish(1)
        it.site.end([call])
        assert it.ran(call.a.number) == [1, 1, 1]

        it.file.write_text("import os\n\nos._exit(3)\n")  # nobody has asked for it
        it.site.sbc.respawned("sip 0", it.site.sbc.kill("sip 0"))
        (call,) = it.site.establish(1)
        it.site.end([call])
        assert it.ran(call.a.number) == [1, 1, 1]

        assert "the process that tried them ended with exit code 3" in it.ask("routes_reload")["refused"][0]
        listed = it.ask("routes_versions")
        assert [(row["version"], row["serves"], row["by"]) for row in listed["versions"]] == [
            (3, True, "rollback to 1"),
            (2, False, "reload"),
            (1, False, "start"),
        ]
