"""The routes that serve where none are configured: what comes from a peer goes to the peer that its ``calls_to`` names,
and what is for a phone that registered through us goes to that phone."""

from __future__ import annotations

from sbc.routing.messages import BadMessage, Failure
from sbc.routing.request import Request
from sbc.routing.routes import Routes

routes = Routes()

RELAYED = frozenset({"OPTIONS", "MESSAGE", "INFO", "PUBLISH", "REGISTER", "SUBSCRIBE"})


@routes.route
async def main(request: Request) -> None:
    """A call, or the target of a transfer, is dialled with its media anchored under the caller's profile, 404 where
    there is nobody to call. Other requests are relayed; where there is nobody for them, the node answers for itself."""
    phone = request.binding
    other = request.node.peers.get(request.peer.calls_to)
    target = phone or (other if other is not None and other.gateway else None)
    if request.makes_call:
        if target is None:
            return await request.reject(404)
        request.call.media.engage()
        await request.call.dial(target, on_failure=hunt)
    elif phone is not None:
        await request.relay(phone)
    elif request.method == "OPTIONS" and request.is_for_us:
        pass  # a ping of ours, whatever user it names
    elif target is not None and request.method in RELAYED:
        await request.relay(target)
    return None


@routes.failure_route
async def hunt(failure: Failure) -> None:
    """Try what is left as long as another target may do better; then the caller gets the best answer."""
    call = failure.call
    if failure.may_fail_over and call.has_next:
        await call.dial_next()
    else:
        await call.reject(failure.best_status)


@routes.error_route
async def refuse(bad: BadMessage) -> None:
    """Say what was wrong by its status."""
    await bad.reply(bad.error.status)
