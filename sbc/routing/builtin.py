"""The routes that serve where none are configured: each peer's calls go to the peer that its ``calls_to`` names."""

from __future__ import annotations

from sbc.routing.facade import BadMessage, Failure, Request
from sbc.routing.routes import Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    """Anchor the media under the caller's profile and call the other peer's gateway; 404 where there is none."""
    call = request.call
    other = call.node.peers.get(request.peer.calls_to)
    if other is None or not other.gateway:
        return await request.reject(404)
    call.media.engage(profile=request.peer.profile)
    await call.dial(other, on_failure=hunt)
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
