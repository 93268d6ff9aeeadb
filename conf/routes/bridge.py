"""Routes for a bridge between two peers: what comes from the one is called at the other.

To use this file, name it in sbc.yaml, relative to that file:

    routes: routes/bridge.py

and say which peer calls which, there as well:

    peers:
      office:  { realm: inside,  addresses: 10.0.0.20, gateway: "sip:10.0.0.20:5060", calls_to: carrier }
      carrier: { realm: outside, addresses: 198.51.100.7, gateway: "sip:198.51.100.7:5060", calls_to: office }

Try it with `sbc route test`; a running SBC takes changes over by `sbc routes reload`, and keeps the old routes if the
new ones fail.
Routes are plain Python: an `if` is an `if`, and any function may be called from any other.
"""

from sbc.routing import BadMessage, Branch, Failure, LocalRequest, MediaTimeout, Node, Reply, Request, Routes

routes = Routes()  # the SBC looks for this name


@routes.startup_route
async def greet(node: Node) -> None:
    """Runs once in each worker before the first call: the place to load what the other routes need."""
    node.log.info("bridge ready", peers=len(node.peers))


@routes.route
async def main(request: Request) -> None:
    """Decides about every new call. A route that ends without a decision answers 500."""
    call = request.call
    if not request.peer.calls_to:
        return await request.reject(403)  # a peer that may answer calls, but not make any
    other = call.node.peer(request.peer.calls_to)
    call.media.engage()  # relay the audio; without this line media flows directly
    call.variables["number"] = request.called_number  # kept with the call, in the journal too
    await call.dial(other, on_branch=dress, on_reply=mark, on_failure=hunt)
    return None


@routes.branch_route
async def dress(branch: Branch) -> None:
    """The INVITE as it will leave: what is changed here goes to the other side and nowhere else."""
    branch.headers.remove("Subject")


@routes.onreply_route
async def mark(reply: Reply) -> None:
    """Every reply above 100, before the caller gets it."""
    if reply.status == 181:  # that the call was forwarded is nobody's business
        reply.drop()


@routes.failure_route
async def hunt(failure: Failure) -> None:
    """Nobody answered: try the next target as long as it may do better, then tell the caller."""
    if failure.may_fail_over and failure.call.has_next:
        await failure.call.dial_next()
    else:
        await failure.call.reject(failure.best_status)


@routes.local_route
async def stamp(request: LocalRequest) -> None:
    """Requests that the SBC makes itself, such as the BYE of a call that lasted too long."""
    request.call.log.info("own request", method=request.method)


@routes.error_route
async def refuse(bad: BadMessage) -> None:
    """What was no SIP, and requests whose route raised."""
    await bad.reply(bad.error.status)


@routes.timer_route(every_s=300)
async def report(node: Node) -> None:
    """Runs every five minutes in each worker, first after five minutes."""
    node.log.info("calls of this worker", calls=len(list(node.calls())))


@routes.event_route("media.timeout")
async def hang_up(event: MediaTimeout) -> None:
    """No audio has come from one side for too long."""
    await event.call.release("no media", cause=102)  # Q.850: recovery on timer expiry
