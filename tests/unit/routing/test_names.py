"""Routes that calls have armed, by name: what another process with the same routes can go on with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sbc.routing import builtin
from sbc.routing.loader import load_routes
from sbc.routing.names import Names

TEXT = b"""
from sbc.routing import Routes

routes = Routes()

@routes.route
async def main(request):
    pass

@routes.failure_route
async def other(failure):
    pass

async def maker():
    async def inner(failure):
        pass
    return inner

def plain(failure):
    pass

also = other
"""


def names_of(routes: Any) -> Names:  # Any: of a runner, what is looked at
    runner: Any = SimpleNamespace(routes=routes, routes_of=lambda call: routes)
    return Names(runner)


def test_a_function_of_the_module_is_found_in_another_version_of_it(tmp_path: Path) -> None:
    call: Any = None  # Any: what runner there is does not look at it
    first, second = (load_routes(str(tmp_path / "routes.py"), TEXT) for _ in range(2))
    name = names_of(first).name(call, first.known["other"])
    assert name == "other"
    found = names_of(second).find(name)
    assert found is second.known["other"] is not first.known["other"]


def test_what_has_no_name_or_is_no_route_is_not_found(tmp_path: Path) -> None:
    call: Any = None  # Any: as above
    routes = load_routes(str(tmp_path / "routes.py"), TEXT)
    names = names_of(routes)
    waits = routes.known["maker"]()
    with pytest.raises(StopIteration) as made:
        waits.send(None)
    assert names.name(call, made.value.value) == ""
    assert names.name(call, lambda failure: None) == ""
    assert [names.find(name) for name in ("plain", "routes", "missing", "inner", "", "__builtins__")] == [None] * 6


def test_the_built_in_routes_have_names() -> None:
    call: Any = None  # Any: as above
    names = names_of(load_routes(""))
    assert names.name(call, builtin.hunt) == "hunt"
    assert names.find("hunt") is builtin.hunt
