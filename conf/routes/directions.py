"""Routes that ask who sends a request: this node itself, a media server, the voice server, or somebody else.

Who has which direction is said in the configuration, by address: ../directions.yaml. A chain of conditions on source
addresses is not needed, and a new media server is a change of the configuration alone.

A media server behind the firewall writes the firewall's public address into its descriptions; its media do not pass
through this node.
"""

from sbc.routing import Failure, Request, Routes

routes = Routes()
PUBLIC = "204.1.7.4"  # of the firewall


@routes.route
async def main(request: Request) -> None:
    match request.direction:
        case "from_self" if request.method == "NOTIFY":
            request.log.info("reboot", sender=str(request.from_.uri), to=str(request.uri))
            await rebooted(request)
        case "from_mg":
            await from_media_server(request)
        case "from_ivr_voiceserver":
            await to_carrier(request)
        case _:
            await request.reject(403)


async def rebooted(request: Request) -> None:
    """A program on this node says that it starts anew."""
    await request.reply(200)


async def from_media_server(request: Request) -> None:
    if request.method == "INVITE":
        request.log.info("call of a media server", sender=str(request.from_.uri), to=str(request.uri))
    else:
        request.log.info("request of a media server", method=request.method, user=request.from_.uri.user)
    await to_carrier(request)


async def to_carrier(request: Request) -> None:
    if request.makes_call:
        request.call.flags.add("1")  # seen by every route of this call
        if request.direction == "from_mg":
            request.fix_sdp("active", "media-ip", "origin-ip", address=PUBLIC)
        await request.call.dial("carrier", on_failure=failed)
    else:
        await request.relay("carrier")


@routes.failure_route
async def failed(failure: Failure) -> None:
    """The best answer goes to the caller by itself."""
    if "1" in failure.call.flags:
        failure.call.log.info("a call from the core failed", status=failure.best_status)
