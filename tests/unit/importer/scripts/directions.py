"""Routes made from directions.cfg. What could not be mapped is in report.txt, and said at its place."""

from dataclasses import dataclass

from sbc.routing import Failure, Request, Routes
from sbc.routing.routes import BranchRoute, FailureRoute, ReplyRoute
from sbc.sip.uri import Uri

routes = Routes()


def flags_of(request: Request) -> set[str]:
    """The flags of the script: those of a call are there for the routes of its branches, replies and failure, too."""
    return request.call.transaction.flags if request.makes_call else request.flags


@dataclass
class Way:
    """How a request goes on, as the script has said so far."""

    number: str  # the user of the Request-URI
    host: str  # and its host, with a port where one is named
    next_hop: str = ""  # where it is sent, if not to that host
    on_branch: BranchRoute | None = None
    on_reply: ReplyRoute | None = None
    on_failure: FailureRoute | None = None

    @property
    def uri(self) -> str:
        """The Request-URI."""
        return self._at(self.host)

    @property
    def target(self) -> str:
        """What is dialled: the number at the next hop, else at the host of the Request-URI."""
        return self._at(self.next_hop or self.host)

    def _at(self, place: str) -> str:
        return f"sip:{self.number}@{place}" if self.number else f"sip:{place}"


def way_of(uri: Uri) -> Way:
    """The way that a request has before anything is said."""
    return Way(uri.user or "", uri.host if uri.port is None else f"{uri.host}:{uri.port}")


async def send(request: Request, way: Way) -> None:
    """Send a request on. Where it goes must be the gateway of a peer."""
    if request.makes_call:
        await request.call.dial(way.target, on_branch=way.on_branch, on_reply=way.on_reply, on_failure=way.on_failure)
    else:
        await request.relay(way.target)


@routes.route
async def main(request: Request) -> None:
    """route, lines 15-51."""
    way = way_of(request.uri)
    if request.direction == "from_self":
        if request.method == "NOTIFY":
            request.log.info("NOTIFY reboot from $fu to $ru", fu=str(request.from_.uri), ru=str(request.uri))
            await route_10(request)
            return
    elif request.direction == "from_mg":
        flags_of(request).add("1")
        if (
            request.body
            and (request.headers.get("Content-Type") or "").startswith("application/sdp")
            and request.makes_call
        ):
            request.fix_sdp(11, address="204.1.7.4")
        if request.method == "INVITE":
            request.log.info("INVITE from $fu to $ru", fu=str(request.from_.uri), ru=str(request.uri))
        else:
            request.log.info("$rm from $fU", rm=request.method, fU=request.from_.uri.user)
    elif request.direction == "from_ivr_voiceserver":
        flags_of(request).add("1")
    if "1" not in flags_of(request):
        await request.reject(403, "Forbidden")
        return
    way.next_hop = "198.51.100.7"
    way.on_failure = failure_route_1
    await send(request, way)


async def route_10(request: Request) -> None:
    """route[10], lines 53-55."""
    await request.reply(200, "OK")


@routes.failure_route
async def failure_route_1(failure: Failure) -> None:
    """failure_route[1], lines 57-59."""
    if "1" in failure.call.transaction.flags:
        failure.call.log.info("call of a media server failed with $T_reply_code", T_reply_code=failure.best_status)
