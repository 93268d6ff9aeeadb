"""The registry of route functions: nine decorators, one object for each routes module.

A decorator registers a function and returns it unchanged, so that it can be armed as an object
(``dial(..., on_failure=hunt)``) and called as a plain sub-route. Branch, reply and failure routes run for the calls
that arm them; with ``always=True`` a branch and a failure route also serve the calls that arm none, and a reply route
sees every reply. Any number of functions may
be sub-routes: they need no decorator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from sbc.b2bua.effects import RouteKind
from sbc.errors import Fault, SbcError

if TYPE_CHECKING:
    from sbc.routing.messages import BadMessage, Branch, Failure, LocalRequest, Reply
    from sbc.routing.node import Node
    from sbc.routing.request import Request

# Any: asyncio's coroutines yield futures and are sent None; nothing here depends on it.
Work = Coroutine[Any, Any, None]
StartupRoute = Callable[["Node"], Work]
RequestRoute = Callable[["Request"], Work]
BranchRoute = Callable[["Branch"], Work]
FailureRoute = Callable[["Failure"], Work]
ReplyRoute = Callable[["Reply"], Work]
LocalRoute = Callable[["LocalRequest"], Work]
ErrorRoute = Callable[["BadMessage"], Work]
TimerRoute = Callable[["Node"], Work]
EventRoute = Callable[[Any], Work]  # Any: each event has a class of its own
AnyRoute = Callable[[Any], Work]  # Any: one of the above, told apart by its RouteKind

# The events of which the core tells, by what it calls them.
EVENTS_OF_CORE: Final[dict[RouteKind, str]] = {
    RouteKind.ANSWERED: "call.answered",
    RouteKind.ENDED: "call.ended",
    RouteKind.OUTLIVED: "call.lifetime",
    RouteKind.REGISTERED: "phone.registered",
}
EVENT_NAMES: Final = (*EVENTS_OF_CORE.values(), "media.dtmf", "media.timeout", "node.draining", "trunk.state")
_FAMILIES: Final = frozenset({name.partition(".")[0] for name in EVENT_NAMES})

_Route = TypeVar("_Route", bound=AnyRoute)


class RouteError(SbcError):
    """A routes module uses the API in a way that cannot work; raised where it does so."""

    fault = Fault.CONFIG


class RouteFailed(SbcError):
    """A route raised something that is no error of ours; its cause is what was raised."""

    fault = Fault.US
    status = 500


class RouteTimedOut(SbcError):
    """A route waited longer than its budget."""

    fault = Fault.US
    status = 500


class RouteOverran(SbcError):
    """A route held its worker for longer than its budget, and was ended by :mod:`sbc.routing.watchdog`.

    ``function`` and ``where`` (``file:line``) are the operator's; ``took_s`` 0: it was not let begin again there.
    """

    fault = Fault.US
    status = 500

    def __init__(self, what: str, function: str, where: str, took_s: float) -> None:
        super().__init__(f"{function} {what} ({where})")
        self.function = function
        self.where = where
        self.took_s = took_s

    @property
    def was_held_off(self) -> bool:
        """Whether it was ended before it blocked, because others had blocked there."""
        return not self.took_s


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer route: first run after one interval, never two at a time."""

    every_s: float
    route: TimerRoute


class Routes:
    """What one routes module defines. ``by_kind`` holds what the core asks for by kind when a call armed nothing;
    ``known`` is whatever the module has, by name."""

    __slots__ = ("by_kind", "events", "known", "startup", "timers", "version")

    def __init__(self) -> None:
        self.startup: list[StartupRoute] = []
        self.timers: list[Timer] = []
        self.events: dict[str, list[EventRoute]] = {}
        self.by_kind: dict[RouteKind, AnyRoute] = {}
        self.known: Mapping[str, Any] = {}  # Any: a module's own names
        self.version = 0  # of the operator's routes (sbc.routing.versions); 0: of no number

    @property
    def kinds(self) -> frozenset[RouteKind]:
        """The kinds for which the core must ask in every call (``CoreSettings.routes``)."""
        told = [kind for kind, name in EVENTS_OF_CORE.items() if name in self.events]
        return frozenset(self.by_kind) | {RouteKind.REQUEST} | frozenset(told)

    def startup_route(self, route: StartupRoute) -> StartupRoute:
        """Runs once per worker, before the first request; in order of definition. What it raises stops the worker."""
        self.startup.append(_checked(route))
        return route

    def route(self, route: RequestRoute) -> RequestRoute:
        """The one that meets every request outside a dialog."""
        return self._only(RouteKind.REQUEST, route)

    @overload
    def branch_route(self, route: BranchRoute) -> BranchRoute: ...
    @overload
    def branch_route(self, *, always: bool) -> Callable[[BranchRoute], BranchRoute]: ...
    def branch_route(
        self, route: BranchRoute | None = None, *, always: bool = False
    ) -> BranchRoute | Callable[[BranchRoute], BranchRoute]:
        """Runs for each outgoing branch, complete, before it is sent: armed by ``dial(on_branch=...)``."""
        return self._armed(RouteKind.BRANCH, route, always)

    @overload
    def failure_route(self, route: FailureRoute) -> FailureRoute: ...
    @overload
    def failure_route(self, *, always: bool) -> Callable[[FailureRoute], FailureRoute]: ...
    def failure_route(
        self, route: FailureRoute | None = None, *, always: bool = False
    ) -> FailureRoute | Callable[[FailureRoute], FailureRoute]:
        """Runs when every branch has failed and the caller still waits: armed by ``dial(on_failure=...)``.

        Undecided, the best final answer goes to the caller.
        """
        return self._armed(RouteKind.FAILURE, route, always)

    @overload
    def onreply_route(self, route: ReplyRoute) -> ReplyRoute: ...
    @overload
    def onreply_route(self, *, always: bool) -> Callable[[ReplyRoute], ReplyRoute]: ...
    def onreply_route(
        self, route: ReplyRoute | None = None, *, always: bool = False
    ) -> ReplyRoute | Callable[[ReplyRoute], ReplyRoute]:
        """Runs for each reply above 100 before it is relayed: armed by ``dial(on_reply=...)``, or in a branch route by
        ``branch.on_reply = ...``; with ``always`` for each reply of every call. All that apply run, until one drops it:
        that of all replies, that of the branch, that of the dial."""
        return self._armed(RouteKind.REPLY, route, always)

    def local_route(self, route: LocalRoute) -> LocalRoute:
        """Runs for each request that this node originates itself, before it is sent."""
        return self._only(RouteKind.LOCAL, route)

    def error_route(self, route: ErrorRoute) -> ErrorRoute:
        """Runs for what did not parse and can be answered, and for a request whose route raised."""
        return self._only(RouteKind.ERROR, route)

    def timer_route(self, *, every_s: float) -> Callable[[TimerRoute], TimerRoute]:
        """Runs every ``every_s`` seconds, first after one interval, never two at a time."""
        if not every_s > 0:
            raise RouteError(f"timer_route(every_s={every_s}): the interval must be above 0")

        def register(route: TimerRoute) -> TimerRoute:
            self.timers.append(Timer(every_s, _checked(route)))
            return route

        return register

    def event_route(self, name: str) -> Callable[[_Route], _Route]:
        """Runs for each event of this name (:mod:`sbc.routing.events`), or of a name of your own that
        ``node.raise_event`` is called with; several routes of one name run side by side."""
        family = name.partition(".")[0]
        if family in _FAMILIES and name not in EVENT_NAMES:
            raise RouteError(f"event_route({name!r}): there is no such event; there are: {', '.join(EVENT_NAMES)}")

        def register(route: _Route) -> _Route:
            self.events.setdefault(name, []).append(_checked(route))
            return route

        return register

    def _only(self, kind: RouteKind, route: _Route) -> _Route:
        former = self.by_kind.get(kind)
        if former is not None:
            raise RouteError(f"{kind.value}: {_name(route)} is the second one after {_name(former)}")
        self.by_kind[kind] = _checked(route)
        return route

    def _armed(self, kind: RouteKind, route: _Route | None, always: bool) -> _Route | Callable[[_Route], _Route]:
        if route is None:
            return lambda given: self._only(kind, given) if always else _checked(given)
        return _checked(route)


def _checked(route: _Route) -> _Route:
    """Refuse at import time what would fail at the first call."""
    if not inspect.iscoroutinefunction(route):
        raise RouteError(f"{_name(route)}: a route must be an 'async def' function")
    return route


def _name(route: object) -> str:
    return getattr(route, "__qualname__", repr(route))
