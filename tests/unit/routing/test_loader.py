"""Routes modules: registered, loaded apart, and refused with file and line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sbc.b2bua.effects import RouteKind
from sbc.errors import ConfigError
from sbc.routing import RouteError, Routes, builtin
from sbc.routing.loader import load_routes

EXAMPLES = Path(__file__).resolve().parents[3] / "conf" / "routes"
EXAMPLE = EXAMPLES / "bridge.py"
GOOD = """
from sbc.routing import Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    await request.reject(VALUE)
"""


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_no_file_means_the_builtin_routes() -> None:
    assert load_routes("") is builtin.routes


def test_the_example_defines_every_type_of_route() -> None:
    routes = load_routes(str(EXAMPLE))
    assert routes.kinds == {RouteKind.REQUEST, RouteKind.ERROR, RouteKind.LOCAL}
    assert len(routes.startup) == 1
    assert [timer.every_s for timer in routes.timers] == [300]
    assert list(routes.events) == ["media.timeout"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    assert RouteKind.REQUEST in load_routes(str(path)).kinds


def test_each_load_is_a_module_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    before = list(sys.path)
    first, second = load_routes(path), load_routes(path)
    assert first is not second
    assert first.by_kind[RouteKind.REQUEST] is not second.by_kind[RouteKind.REQUEST]
    assert sys.path == before
    assert "mine" not in sys.modules


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("routes = 1\n", "{path}: defines no routes"),
        ("", "{path}: defines no routes"),
        ("from sbc.routing import Routes\nroutes = Routes()\n", "{path}: has no function under @routes.route"),
        ("x = 1\n\ny = x / 0\n", "{path}:3: ZeroDivisionError: division by zero"),
        ("def f(:\n", "{path}:1: invalid syntax"),
        ("def f():\n    raise OSError('deep')\n\nf()\n", "{path}:2: OSError: deep"),
        ("import no_such_module\n", "{path}:1: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            GOOD.replace("async def", "def").replace("await ", ""),
            "{path}:7: RouteError: main: a route must be an 'async def' function",
        ),
        (
            GOOD + GOOD[GOOD.index("@") :].replace("main", "again"),
            "RouteError: route: again is the second one after main",
        ),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, text)
    modules = set(sys.modules)
    with pytest.raises(ConfigError) as refused:
        load_routes(path)
    (line,) = refused.value.faults
    assert fault.format(path=path) in line
    assert not [name for name in set(sys.modules) - modules if name.startswith("sbc_routes_")]


def test_files_that_are_not_there_or_no_python(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_routes(str(tmp_path / "absent.py"))
    with pytest.raises(ConfigError, match=r"name ending in \.py"):
        load_routes(written(tmp_path, GOOD, "mine.txt"))


def test_decorators_return_their_function_and_refuse_what_cannot_run() -> None:
    routes = Routes()

    async def work(subject: object) -> None: ...

    assert routes.startup_route(work) is work
    assert routes.branch_route(work) is work
    assert routes.failure_route(always=True)(work) is work
    assert routes.onreply_route(work) is work
    assert routes.timer_route(every_s=1)(work) is work
    assert routes.event_route("x")(work) is work
    assert routes.kinds == {RouteKind.REQUEST, RouteKind.FAILURE}
    with pytest.raises(RouteError, match="must be above 0"):
        routes.timer_route(every_s=0)
    with pytest.raises(RouteError, match="async def"):
        routes.event_route("x")(lambda event: None)  # type: ignore[type-var]  # what is being refused
    with pytest.raises(RouteError, match="second one"):
        routes.failure_route(always=True)(work)
