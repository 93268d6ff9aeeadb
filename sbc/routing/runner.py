"""Runs routes: what the core asks for, what the clock asks for, and events.

A route that raises, blocks, or waits longer than its budget costs its own call a 500 and is counted, and no other call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from sbc.b2bua import subjects
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.config.budget import RoutesBudget
from sbc.config.models import Config
from sbc.errors import SbcError
from sbc.routing.call import EstablishedCall
from sbc.routing.eager import Run, steps, task_factory
from sbc.routing.events import (
    CallAnswered,
    CallEnded,
    CallLifetime,
    MediaDtmf,
    MediaTimeout,
    NodeDraining,
    PhoneRegistered,
    TrunkState,
)
from sbc.routing.messages import BadMessage, Branch, Failure, LocalRequest, Reply
from sbc.routing.node import STRANGER, Node
from sbc.routing.request import NoCall, Request
from sbc.routing.routes import (
    EVENTS_OF_CORE,
    EventRoute,
    ReplyRoute,
    RouteFailed,
    RouteOverran,
    Routes,
    RouteTimedOut,
    Timer,
)
from sbc.routing.watchdog import Watchdog

STARTING_STEP_S: Final = 2.0  # of a step of a startup route while nobody is served yet


def in_turn(routes: Sequence[ReplyRoute]) -> ReplyRoute | None:
    """One route that runs them one after the other, until one drops the reply; None for none."""
    if len(routes) < 2:
        return routes[0] if routes else None

    async def one_after_the_other(reply: Reply) -> None:
        for route in routes:
            await route(reply)
            if reply.is_dropped:
                return

    return one_after_the_other


def _nothing() -> None:
    pass


class Runner:
    """Runs the routes of one worker.

    ``drain`` performs the core's effects: it is called after each step of a route that waited, because the shell does
    not know of those. ``count`` adds one to a counter by name. ``loop`` is the loop that waiting routes go on in; None
    (tests in virtual time) lets no route wait. ``watchdog`` is inactive until its owner installs it.
    """

    def __init__(
        self,
        routes: Routes,
        node: Node,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        drain: Callable[[], None] = _nothing,
        count: Callable[[str], None] = lambda name: None,
        budget: RoutesBudget | None = None,
    ) -> None:
        budget = budget or RoutesBudget()
        self.node = node
        self.watchdog = Watchdog(budget.step_ms / 1000, node.acts)
        self.routes = routes
        self._loop = loop
        self._drain = drain
        self._count = count
        self._budget_s = budget.total_s
        self._waiting: dict[Run, asyncio.TimerHandle | None] = {}
        self._abandoned: dict[Run, asyncio.TimerHandle] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._closed = False
        node.raising = self.raise_event

    @property
    def is_waiting(self) -> bool:
        """Whether a route waits for something."""
        return bool(self._waiting)

    def watch(self) -> None:
        """Let the watchdog watch from now on, in the main thread of a process that has no other runner."""
        self.watch_tasks()
        self.watchdog.install()

    def watch_tasks(self) -> None:
        """Let it watch the tasks that routes begin, too, as long as it watches."""
        if self._loop is not None:
            self._loop.set_task_factory(task_factory(self.watchdog, self._task_overran))

    # what the core asks for

    def perform(self, effect: RunRoute) -> None:
        """Run a route; ``core.route_done`` follows, before this returns unless the route waits."""
        kind, subject = effect.kind, effect.subject
        if kind in EVENTS_OF_CORE:
            return self._event(effect)
        route: Any = effect.hook  # Any: what the author armed, to be found out by calling it
        if kind is RouteKind.REQUEST and isinstance(subject, subjects.Call):
            subject.routes = self.routes
        if kind is RouteKind.REPLY:
            route = in_turn(self.reply_routes(effect))
        elif route is None:
            route = self.routes_of(subject).by_kind.get(kind)
        if route is None:
            return self._done(effect, None)
        self._count("ROUTES_RUN")
        self._run(route, _FACADES[kind](self.node, subject), self._route_ended, effect)

    def reply_routes(self, effect: RunRoute) -> list[ReplyRoute]:
        """What sees a reply, in this order: the route of all replies, that of its branch, that of the dial."""
        always = self.routes_of(effect.subject).by_kind.get(RouteKind.REPLY)
        return [route for route in (always, effect.subject.leg.on_reply, effect.hook) if route is not None]

    def routes_of(self, subject: object) -> Routes:
        """The routes of the call that a subject belongs to: those that it began with."""
        call = subject if isinstance(subject, subjects.Call) else getattr(subject, "call", None)
        routes = call.routes if isinstance(call, subjects.Call) else None
        return routes if isinstance(routes, Routes) else self.routes

    def versions(self) -> dict[int, int]:
        """How many calls each version of the routes has, by its number."""
        found: dict[int, int] = {}
        for call in self.node.core.calls.values():
            number = self.routes_of(call).version
            found[number] = found.get(number, 0) + 1
        return found

    def _run(
        self, route: Any, argument: object, finished: Callable[[Run, BaseException | None], None], key: Any
    ) -> None:
        """Start a route under the budget. Any: a function, checked by calling it; a key of the caller's."""
        watchdog = self.watchdog
        run = Run(route, argument, self._loop, watchdog, watchdog.ration(), finished, self._drain, key)
        if not run.start() and not run.over:
            loop = self._loop
            assert loop is not None  # it waits, so there is one
            budget_s = self._budget_s
            self._waiting[run] = loop.call_later(budget_s, self._expire, run) if budget_s else None

    def _expire(self, run: Run) -> None:
        """The route has had its time; the same again for what it does about that, then it is not driven on."""
        run.abandon(RouteTimedOut(f"a route took longer than {self._budget_s:g} s"))
        loop = self._loop
        assert loop is not None  # as above
        self._abandoned = {run: timer for run, timer in self._abandoned.items() if not run.done()}
        self._abandoned[run] = loop.call_later(self._budget_s, self._kill, run)
        self._drain()

    def _kill(self, run: Run) -> None:
        self._abandoned.pop(run, None)
        if not run.done():
            run.kill()

    def _forget(self, run: Run) -> None:
        handle = self._waiting.pop(run, None)
        if handle is not None:
            handle.cancel()

    def _route_ended(self, run: Run, error: BaseException | None) -> None:
        self._forget(run)
        effect: RunRoute = run.key
        if error is None:
            self._done(effect, None)
        else:
            self._failed(effect, error)

    def _failed(self, effect: RunRoute, error: BaseException) -> None:
        """Note the error; a request goes to the error route before the core hears of it."""
        if isinstance(error, NoCall):  # the route serves calls only
            return self._done(effect, None)
        # ROUTE_ERRORS is counted by the core, which route_done tells
        self._note(effect.kind.value, error, getattr(getattr(effect.subject, "call", effect.subject), "key", ""))
        route = self.routes_of(effect.subject).by_kind.get(RouteKind.ERROR)
        if route is None or effect.kind is not RouteKind.REQUEST:
            return self._done(effect, error)
        if not isinstance(error, SbcError):
            cause, error = error, RouteFailed(f"{type(error).__name__}: {error}")
            error.__cause__ = cause
        self._run(route, BadMessage(self.node, effect.subject, error), self._error_route_ended, (effect, error))
        return None

    def _error_route_ended(self, run: Run, error: BaseException | None) -> None:
        self._forget(run)
        effect, first = run.key
        if error is not None:
            self._count("ROUTE_ERRORS")
            self._note(RouteKind.ERROR.value, error, effect.subject.key)
        self._done(effect, first)

    def _done(self, effect: RunRoute, error: BaseException | None) -> None:
        self.node.core.route_done(effect, error, self.node.clock.monotonic())

    def _task_overran(self, error: RouteOverran) -> None:
        self._note("a task of a route", error)

    def _note(self, route: str, error: BaseException, call: str = "") -> None:
        """Count and log what ended a route."""
        log = self.node.log.bind(call=call) if call else self.node.log
        if isinstance(error, RouteTimedOut):
            self._count("ROUTE_TIMEOUTS")
            log.error("route took too long", route=route, budget_s=self._budget_s)
        elif isinstance(error, RouteOverran):
            self._count("ROUTES_HELD_OFF" if error.was_held_off else "ROUTE_OVERRUNS")
            log.error("route blocked and was ended", route=route, function=error.function, reason=str(error))
        else:
            log.exception("route raised", error, route=route)

    # what the clock asks for, and events

    async def start_up(self) -> None:
        """Run the startup routes in order, then start the timers. What a startup route raises passes on."""
        await self.prepare(self.routes, STARTING_STEP_S)
        self._start_timers()

    async def prepare(self, routes: Routes, step_s: float | None = None) -> None:
        """Run the startup routes of a module that is to serve next: before :meth:`replace` on a reload."""
        for route in routes.startup:
            ration = self.watchdog.ration(endless=True, step_s=step_s)
            await steps(route(self.node), self.watchdog, ration, _nothing)

    def _start_timers(self) -> None:
        for timer in self.routes.timers:
            self._arm(timer, self._clock() + timer.every_s)

    def _arm(self, timer: Timer, due: float) -> None:
        loop, watchdog = self._loop, self.watchdog
        if loop is None or self._closed:
            return

        def fire() -> None:
            self._timers.discard(handle)
            ration = watchdog.ration(endless=True)
            run = Run(timer.route, self.node, loop, watchdog, ration, self._timer_ended, self._drain, (timer, due))
            if not run.start():
                self._waiting[run] = None  # no budget: it may load a table for a minute, nobody waits for it
            self._drain()

        handle = loop.call_at(due, fire)
        self._timers.add(handle)

    def _timer_ended(self, run: Run, error: BaseException | None) -> None:
        self._forget(run)
        if error is not None:
            self._count("ROUTE_ERRORS")
            self._note("timer_route", error)
        timer, due = run.key
        if not any(timer is current for current in self.routes.timers):
            return  # of routes that were replaced meanwhile
        now = self._clock()
        missed = max(0, int((now - due) / timer.every_s))  # turns that fell into a long run are left out
        self._arm(timer, due + (missed + 1) * timer.every_s)

    def _clock(self) -> float:
        """The loop's own clock, which its timers follow."""
        return self._loop.time() if self._loop is not None else 0.0

    def raise_event(self, name: str, event: object, routes: Routes | None = None) -> None:
        """Run the event routes of this name, each on its own: those of ``routes``, by default that serve now."""
        self._start(name, event, routes or self.routes)
        self._drain()

    def _start(self, name: str, event: object, routes: Routes) -> None:
        for route in routes.events.get(name, ()):
            self._count("ROUTES_RUN")
            self._run(route, event, self._event_ended, name)

    def _event(self, effect: RunRoute) -> None:
        """What the core tells of; it waits only for the routes of a call that has lasted as long as it may."""
        name = EVENTS_OF_CORE[effect.kind]
        routes = self.routes_of(effect.subject)
        event = _EVENTS[effect.kind](self.node, effect.subject)
        if effect.kind is RouteKind.OUTLIVED and name in routes.events:
            self._count("ROUTES_RUN")
            return self._run(partial(_each, routes.events[name]), event, self._route_ended, effect)
        self._start(name, event, routes)
        return self._done(effect, None)

    def trunk_state(self, peer: str, registered: bool) -> None:
        """Raise ``trunk.state``."""
        if "trunk.state" in self.routes.events:
            self._start("trunk.state", TrunkState(self.node.peers.get(peer, STRANGER), registered), self.routes)

    def draining(self) -> None:
        """Raise ``node.draining``."""
        if "node.draining" in self.routes.events:
            self.raise_event("node.draining", NodeDraining(self.node, len(self.node.core.calls)))

    def media_timeout(self, call: subjects.Call, leg: str, silent_s: float) -> bool:
        """Raise ``media.timeout`` for a call; False where its routes have no route for that."""
        routes = self.routes_of(call)
        if "media.timeout" not in routes.events:
            return False
        self.raise_event("media.timeout", MediaTimeout(EstablishedCall(self.node, call), leg, silent_s), routes)
        return True

    def media_dtmf(self, call: subjects.Call, leg: str, digit: str, duration_ms: int) -> None:
        """Raise ``media.dtmf`` for a call."""
        self.raise_event("media.dtmf", MediaDtmf(EstablishedCall(self.node, call), leg, digit, duration_ms))

    def _event_ended(self, run: Run, error: BaseException | None) -> None:
        self._forget(run)
        if error is not None:
            if not isinstance(error, RouteTimedOut):
                self._count("ROUTE_ERRORS")
            self._note(f"event_route {run.key}", error)

    # life

    def replace(self, routes: Routes, config: Config) -> None:
        """Serve with other routes and another configuration from now on; what waits goes on with the old ones."""
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
        self.routes = routes
        self._budget_s = config.routes_budget.total_s
        self.watchdog.configure(config.routes_budget.step_ms / 1000)
        self.node.configure(config)
        self._start_timers()

    def close(self) -> None:
        """Stop the timers and end what still waits."""
        self._closed = True
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
        for run in tuple(self._waiting):
            run.cancel()
        for timer in self._abandoned.values():
            timer.cancel()


async def _each(routes: Sequence[EventRoute], event: object) -> None:
    """One after the other: what they decide is decided when the last has ended."""
    for route in routes:
        await route(event)


_EVENTS: Final[dict[RouteKind, Callable[[Node, Any], object]]] = {  # Any: the subject belongs to the kind
    RouteKind.ANSWERED: CallAnswered,
    RouteKind.ENDED: CallEnded,
    RouteKind.OUTLIVED: CallLifetime,
    RouteKind.REGISTERED: PhoneRegistered,
}
_FACADES: Final[dict[RouteKind, Callable[[Node, Any], Any]]] = {  # Any: subject and facade belong to the kind
    RouteKind.REQUEST: Request,
    RouteKind.BRANCH: Branch,
    RouteKind.FAILURE: Failure,
    RouteKind.REPLY: Reply,
    RouteKind.ERROR: lambda node, subject: BadMessage(node, subject, subject.error),
    RouteKind.LOCAL: LocalRequest,
}
