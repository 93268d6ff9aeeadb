"""Routes: CPU that running one adds to an INVITE, in this process: runner, watchdog, facade and the route itself.

What the core does for it (dialling, refusing) is not in it: its decisions come to nothing, while what routes
look up (bindings, peers) is the real code. Calls are made beforehand, a fresh one for each.
"""

from __future__ import annotations

import gc
import os
import time
from functools import partial
from typing import Any, Final

import uvloop

from bench.figures import Samples
from bench.plan import Plan, attempt
from sbc.b2bua import subjects
from sbc.b2bua.core import Core
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.forward import Requests
from sbc.b2bua.leg import GONE, Leg
from sbc.clock import SystemClock
from sbc.config.models import Config
from sbc.policy.admission import Admission
from sbc.routing import Request, Routes, builtin
from sbc.routing.node import Node
from sbc.routing.runner import Runner
from sbc.sip.ids import Ids
from sbc.sip.message import Message
from sbc.worker.settings import core_settings

CALLS: Final = 5000  # of one batch
BATCHES: Final = 7  # the first warms up; the best of the others counts

CONFIG = Config.model_validate(
    {
        "realms": {
            "outside": {"listen": ["udp:192.0.2.1:5060"], "media": {"address": "192.0.2.2"}},
            "core": {"listen": ["udp:198.51.100.1:5060"], "media": {"address": "198.51.100.2"}},
        },
        "peers": {
            "carrier": {"realm": "outside", "addresses": "192.0.2.10", "calls_to": "pbx"},
            "pbx": {"realm": "core", "addresses": "198.51.100.10", "gateway": "sip:198.51.100.10"},
        },
    }
)
INVITE = (
    "INVITE sip:+4930123456@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK-{n}\r\n"
    'From: "Anna Caller" <sip:+4989{n}@192.0.2.10>;tag=7a{n}\r\nTo: <sip:+4930123456@192.0.2.1:5060>\r\n'
    "Call-ID: {n}-7@192.0.2.10\r\nCSeq: 1 INVITE\r\nContact: <sip:anna@192.0.2.10>\r\nMax-Forwards: 70\r\n"
    "Content-Length: 0\r\n\r\n"
)


class _Undecided:
    """:class:`sbc.routing.node.Decisions` that come to nothing. ``taken`` counts them, ``errors`` raised routes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.taken = 0
        self.ended = 0
        self.errors = 0

    @property
    def calls(self) -> Any:  # Any: the core's own
        return self._core.calls

    @property
    def requests(self) -> Requests:
        return self._core.requests

    def listener_of(self, realm: str, transport: str, host: str) -> int:
        return self._core.listener_of(realm, transport, host)

    def dial(self, *_: Any, **__: Any) -> None:  # Any: of the core's methods, in these eight
        self.taken += 1

    def drop(self, *_: Any, **__: Any) -> None:
        self.taken += 1

    def reject(self, *_: Any, **__: Any) -> None:
        self.taken += 1

    def dial_next(self, *_: Any, **__: Any) -> bool:
        return False

    def release(self, *_: Any, **__: Any) -> None:
        self.taken += 1

    def move_media(self, *_: Any, **__: Any) -> str:
        return ""

    def reply_bad(self, *_: Any, **__: Any) -> None:
        self.taken += 1

    def route_done(self, _: RunRoute, error: BaseException | None, __: float) -> None:
        self.ended += 1
        self.errors += error is not None


def empty() -> Routes:
    """Routes that do nothing."""
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        pass

    return routes


def measure(plan: Plan) -> list[Samples]:
    """All wanted figures of this family."""
    figures = [(Samples("routes.empty.us", "us/INVITE"), empty()), (Samples("routes.builtin.us", "us/INVITE"), None)]
    wanted = [(samples, routes) for samples, routes in figures if plan.wants(samples.name)]
    for _ in range(plan.runs):
        for samples, routes in wanted:
            attempt(plan, [samples], partial(_run, samples, routes or builtin.routes))
    return [samples for samples, _ in wanted]


def _run(samples: Samples, routes: Routes) -> None:
    samples.add(cost_us(routes))


def cost_us(routes: Routes, *, calls: int = CALLS, watched: bool = True) -> float:
    """CPU microseconds that a route adds to a call."""
    clock = SystemClock()
    settings = core_settings(CONFIG, b"a key of no node", Admission(CONFIG.peers, CONFIG.realms), routes.kinds)
    desk = _Undecided(Core(settings, Ids(os.urandom)))
    loop = uvloop.new_event_loop()
    runner = Runner(routes, Node(CONFIG, desk, clock), loop=loop, count=_count)
    spent: list[float] = []
    try:
        for batch in range(BATCHES):
            effects = [RunRoute(RouteKind.REQUEST, _call(batch * calls + n)) for n in range(calls)]
            gc.collect()
            gc.disable()
            began = time.thread_time_ns()
            if watched:
                with runner.watchdog.installed():
                    for effect in effects:
                        runner.perform(effect)
            else:
                for effect in effects:
                    runner.perform(effect)
            spent.append((time.thread_time_ns() - began) / calls / 1000)
            gc.enable()
    finally:
        runner.close()
        loop.close()
    if desk.errors or desk.ended != BATCHES * calls or (routes is builtin.routes and desk.taken != desk.ended):
        raise AssertionError(f"of {BATCHES * calls} routes {desk.ended} ended, {desk.errors} by an error")
    return min(spent[1:])


def _count(_: str) -> None:
    pass


def _call(number: int) -> subjects.Call:
    message = Message.parse(INVITE.format(n=number).encode())
    leg = Leg("a", GONE.dialog, GONE.flow, "outside", "carrier", "")
    call = subjects.Call(str(number), 1, leg, 0.0, 0.0)
    call.request, call.ruri, call.from_uri = message, message.uri, f"sip:+4989{number}@192.0.2.10"
    return call
