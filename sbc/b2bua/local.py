"""Requests of our own, on their way through the local route: BYE, OPTIONS, NOTIFY, INFO, UPDATE, INVITE and REGISTER.

ACK, PRACK and CANCEL belong to a request that went before, and see none; what crosses from the other side is not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua.call import Call, Headers
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.subjects import LocalRequest, Then

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg


def ask(core: Core, leg: Leg, method: str, headers: Headers, body: bytes, then: Then, now: float) -> None:
    """Let the local route change a request on ``leg``, then send it: ``then(headers, body, now)``, at once where there
    is no such route. One that waits holds up this request and no other: ``then`` looks whether it is still wanted."""
    call = leg.call
    if RouteKind.LOCAL in call.route_kinds:
        request = LocalRequest(call, method, leg.peer, leg.realm, headers, body, then)
        core.run_route(call, RunRoute(RouteKind.LOCAL, request))
    else:
        then(headers, body, now)


def ask_alone(
    core: Core, method: str, peer: str, realm: str, headers: Headers, body: bytes, then: Then, now: float
) -> None:
    """The same for a request of no call."""
    if RouteKind.LOCAL in core.settings.routes:
        call: Call | None = None
        core.emit(RunRoute(RouteKind.LOCAL, LocalRequest(call, method, peer, realm, headers, body, then)))
    else:
        then(headers, body, now)
