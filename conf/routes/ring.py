"""Routes that let two phones ring together, and send the caller to the voicemail when neither answers.

To use this file, name it in sbc.yaml, relative to that file:

    routes: routes/ring.py

and give the peers that it dials, there as well:

    peers:
      carrier:   { realm: outside, addresses: 198.51.100.7 }
      desk:      { realm: inside, addresses: 10.0.0.20, gateway: "sip:10.0.0.20:5060" }
      mobile:    { realm: inside, addresses: 10.0.0.21, gateway: "sip:10.0.0.21:5060", follow_redirects: peer }
      voicemail: { realm: inside, addresses: 10.0.0.30, gateway: "sip:10.0.0.30:5060" }

`follow_redirects: peer` lets the mobile gateway answer with 302 and another number of its own; without it a redirect is
a failure like any other.
"""

from dataclasses import replace

from sbc.routing import Call, Failure, Request, Routes, Target

routes = Routes()

RING_S = 20.0


def for_a_while(call: Call, peer: str) -> Target:
    """The called number at a peer, which may ring for 20 seconds."""
    return replace(call.node.target(peer, call.called_number), timeout_s=RING_S)


@routes.route
async def main(request: Request) -> None:
    """A list within the list is a group: its targets ring at the same time, and the first answer wins."""
    call = request.call
    if request.peer.name != "carrier":
        return await request.reject(403)
    call.media.engage()
    await call.dial([[for_a_while(call, "desk"), for_a_while(call, "mobile")], "voicemail"], on_failure=next_group)
    return None


@routes.failure_route
async def next_group(failure: Failure) -> None:
    """Runs once when all of a group have failed. A 6xx means that the user wants no call anywhere: nothing is left."""
    if not await failure.call.dial_next():
        await failure.call.reject(failure.best_status)
