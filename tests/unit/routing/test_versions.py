"""Versions of the routes: what is kept, what serves next, and that a call ends with those that it began with."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.routing import Failure, LocalRequest, Reply, Request, Routes
from sbc.routing.loader import KEPT as MODULES_KEPT
from sbc.routing.loader import load_routes
from sbc.routing.versions import KEPT, Versions, Wish, digest, serving
from tests.support.ladder import C_HOST, sdp
from tests.unit.routing.stage import CONFIG, OFFER, Stage
from tests.unit.simulator.world import GIVEN

TEXT = """\
from sbc.routing import Request, Routes

routes = Routes()
VALUE = {value}


@routes.route
async def main(request: Request) -> None: ...
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TEXT.format(value=1))
    return path


@pytest.fixture
def versions(tmp_path: Path, file: Path) -> Versions:
    made = Versions(str(tmp_path / "state"))
    made.adopt(str(file))
    return made


def reload(versions: Versions, file: Path, wish: Wish | None = None) -> int:
    return versions.take(versions.candidate(str(file), wish))


def test_an_edit_means_nothing_until_it_was_taken(versions: Versions, file: Path, tmp_path: Path) -> None:
    config = Config.model_validate({**GIVEN, "routes": str(file), "state_dir": str(tmp_path / "state")})
    file.write_text("this is no Python")
    assert serving(config).version == 1
    file.write_text(TEXT.format(value=2))
    assert serving(config).version == 1
    assert reload(versions, file) == 2
    routes = serving(config)
    assert (routes.version, next(iter(routes.by_kind.values())).__globals__["VALUE"]) == (2, 2)
    assert [one.by for one in versions.read().versions] == ["start", "reload"]


def test_the_same_text_is_the_same_version(versions: Versions, file: Path) -> None:
    assert not versions.candidate(str(file)).is_new
    before = versions.read()
    assert reload(versions, file) == 1
    assert (versions.read().attempt, len(versions.read().versions)) == (before.attempt + 1, 1)


def test_what_was_rolled_back_comes_again_when_it_changes_or_is_asked_for(versions: Versions, file: Path) -> None:
    file.write_text(TEXT.format(value=2))
    reload(versions, file)
    assert reload(versions, file, Wish(1)) == 3
    assert versions.text(3) == TEXT.format(value=1).encode()
    assert versions.read().versions[-1].by == "rollback to 1"
    assert reload(versions, file) == 3  # as SIGHUP does
    versions.adopt(str(file))  # as a start does
    assert versions.read().current == 3
    assert reload(versions, file, Wish()) == 4
    assert versions.text(4) == file.read_bytes()
    reload(versions, file, Wish(1))
    file.write_text(TEXT.format(value=5))
    assert versions.text(reload(versions, file)) == file.read_bytes()


def test_a_refusal_changes_nothing_but_the_reasons(versions: Versions, file: Path) -> None:
    versions.refuse(["mine.py:3: no"])
    index = versions.read()
    assert (index.current, index.refused, index.attempt) == (1, ["mine.py:3: no"], 2)
    reload(versions, file)
    assert not versions.read().refused


def test_a_version_that_is_not_kept(versions: Versions, file: Path) -> None:
    for value in range(2, KEPT + 3):
        file.write_text(TEXT.format(value=value))
        reload(versions, file)
    assert len(list(versions.folder.glob("*.py"))) == KEPT
    with pytest.raises(ConfigError, match=rf"no version 1 of {file} is kept; there are: 3, 4, "):
        versions.candidate(str(file), Wish(1))
    with pytest.raises(ConfigError, match="cannot read the file"):
        versions.candidate(str(file) + ".gone")


def test_wishes_are_taken_once(versions: Versions) -> None:
    before = versions.has_wish
    versions.wish(Wish(7))
    assert [before, versions.has_wish] == [False, True]
    assert versions.take_wish() == Wish(7)
    assert versions.take_wish() is None


def test_an_index_that_cannot_be_read_is_none(versions: Versions, file: Path) -> None:
    (versions.folder / "index.json").write_text('{"current": 1')
    assert versions.read().current == 0
    versions.adopt(str(file))
    assert versions.read().version(1) is not None
    assert versions.read().versions[0].sha256 == digest(file.read_bytes())
    assert os.stat(versions.folder / "index.json").st_mode & 0o7 == 0


def test_modules_of_old_versions_do_not_pile_up(file: Path) -> None:
    for _ in range(MODULES_KEPT + 5):
        load_routes(str(file), file.read_bytes())
    assert len([name for name in sys.modules if name.startswith("sbc_routes_")]) <= MODULES_KEPT


# calls over a reload


def numbered(number: int, *, with_failure_route: bool) -> Routes:
    routes = Routes()
    routes.version = number

    @routes.route
    async def main(request: Request) -> None:
        request.call.variables["ran"] = [number]
        await request.call.dial(["carrier-b", "carrier-c"])

    @routes.onreply_route(always=True)
    async def mark(reply: Reply) -> None:
        reply.call.variables["ran"].append(number)

    @routes.local_route
    async def stamp(request: LocalRequest) -> None:
        request.headers.set("X-Version", str(number))

    if with_failure_route:

        @routes.failure_route(always=True)
        async def stop(failure: Failure) -> None:
            failure.call.variables["ran"].append(number)
            await failure.call.reject(404)

    return routes


def replaced(stage: Stage, routes: Routes) -> None:
    """As a worker does on a reload."""
    stage.core.reconfigure(replace(stage.core.settings, routes=routes.kinds))
    stage.runner.replace(routes, CONFIG)


def test_a_call_ends_with_the_routes_that_it_began_with() -> None:
    stage = Stage(numbered(1, with_failure_route=True))
    stage.call_in()
    stage.b.expect("INVITE")
    replaced(stage, numbered(2, with_failure_route=False))
    assert stage.runner.versions() == {1: 1}
    stage.b.reply(180)
    stage.a.expect(180)
    stage.b.reply(503)
    stage.a.refused(404)  # version 2 has no failure route and would have gone on to carrier-c
    assert stage.cdr["variables"]["ran"] == [1, 1, 1, 1]


def test_a_call_that_began_without_a_failure_route_gets_none_by_a_reload() -> None:
    stage = Stage(numbered(1, with_failure_route=False))
    stage.call_in()
    stage.b.expect("INVITE")
    replaced(stage, numbered(2, with_failure_route=True))
    stage.b.reply(503)
    stage.c.expect("INVITE")
    stage.c.reply(200, body=sdp(C_HOST))
    stage.a.expect(200)
    assert stage.call.variables["ran"] == [1, 1, 1]
    stage.a.ack()
    replaced(stage, numbered(3, with_failure_route=True))
    stage.core.release(stage.call, stage.now, reason="test")
    stage.drain()
    assert stage.a.expect("BYE").get("X-Version") == "1"


def test_new_calls_get_the_new_routes() -> None:
    stage = Stage(numbered(1, with_failure_route=False))
    stage.set_up()
    replaced(stage, numbered(2, with_failure_route=False))
    line = stage.line(stage.a, "a2")
    line.request("INVITE", body=OFFER)
    assert stage.runner.versions() == {1: 1, 2: 1}
