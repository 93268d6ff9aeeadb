"""What the routes that a call has armed are called, so that another process with the same routes finds them again."""

from __future__ import annotations

import inspect
from typing import Any

from sbc.b2bua.call import Call
from sbc.routing.runner import Runner


class Names:
    """The functions that the routes module of a call knows by their own name (:class:`sbc.b2bua.ringing.RouteNames`).

    A lambda or a function within another one has none, because what it remembers would be lost.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def name(self, call: Call, route: Any) -> str:  # Any: a route function
        """'' for what its module does not know by that name."""
        name = str(getattr(route, "__name__", ""))
        return name if self._runner.routes_of(call).known.get(name) is route else ""

    def find(self, name: str) -> Any | None:  # Any: as above
        """Among the routes that serve now; None for what is no route function."""
        route = self._runner.routes.known.get(name)
        return route if inspect.iscoroutinefunction(route) else None
