"""Routes made from residential.cfg. What could not be mapped is in report.txt, and said at its place."""

import re
from dataclasses import dataclass
from typing import Any

from sbc.routing import BadMessage, Branch, Failure, LocalRequest, Node, Reply, Request, RouteError, Routes
from sbc.routing.routes import BranchRoute, FailureRoute, ReplyRoute
from sbc.sip.uri import Uri, parse_uri

routes = Routes()


def unmapped(line: int, reason: str) -> bool:
    """A condition that could not be mapped: who gets here is refused with 500, and the log says why."""
    raise RouteError(f"line {line} of the script was not mapped: {reason}")


def flags_of(request: Request) -> set[str]:
    """The flags of the script: those of a call are there for the routes of its branches, replies and failure, too."""
    return request.call.transaction.flags if request.makes_call else request.flags


def variables_of(request: Request) -> dict[str, Any]:  # Any: whatever the script keeps
    """The variables of the script, kept like flags."""
    return request.call.transaction.variables if request.makes_call else request.variables


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
        request.call.transaction.variables["$ru"] = way.uri
        await request.call.dial(way.target, on_branch=way.on_branch, on_reply=way.on_reply, on_failure=way.on_failure)
    else:
        await request.relay(way.target)


async def send_again(failure: Failure, way: Way) -> None:
    """Send a call somewhere else after it has failed."""
    await failure.call.dial(way.target, on_branch=way.on_branch, on_reply=way.on_reply, on_failure=way.on_failure)


@routes.route
async def main(request: Request) -> None:
    """route, lines 45-164."""
    way = way_of(request.uri)
    if request.nat.test("diff-ip-src-via,private-contact"):
        if request.method == "REGISTER":
            flags_of(request).add("branch-NAT")
        else:
            flags_of(request).add("NAT")
    if request.method != "REGISTER":
        if unmapped(93, "which domains are ours is not configured; a request is for us by the address that it names"):
            if not unmapped(95, "proxy_authorize() has no counterpart"):
                # Not mapped, line 96: proxy_challenge("", "0"); (proxy_challenge() has no counterpart)
                return
        elif not request.is_for_us:
            await request.reject(403, "Relay Forbidden")
            return
    if not request.is_for_us:
        request.headers.add("P-hint", "outbound")
        if await relay(request, way) == 0:
            return
    if request.method in ("PUBLISH", "SUBSCRIBE"):
        await request.reject(503, "Service Unavailable")
        return
    if request.method == "REGISTER":
        if not unmapped(135, "save() has no counterpart"):
            request.log.info("failed to register AoR $tu", tu=str(request.to.uri))
        return
    if not way.number:
        await request.reject(484, "Address Incomplete")
        return
    if re.search(r"^(00|\+)[1-9][0-9]+$", way.number, re.IGNORECASE) and request.headers.get("X-Class") != "internal":
        way.number = way.number[1:]
        way.number = "9" + way.number
        variables_of(request)["tries"] = 1
        variables_of(request)["who"] = "user-" + (request.from_.uri.user or "")
        if not unmapped(150, "ds_select_dst() has no counterpart"):
            await request.reject(503, "No gateway")
            return
        if await pstn(request, way) == 0:
            return
    if not unmapped(158, "lookup() has no counterpart"):
        await request.reject(404, "Not Found")
        return
    if await relay(request, way) == 0:
        return


async def pstn(request: Request, way: Way) -> int:
    """route[pstn], lines 166-175. The code is 0 where the script ends here, below 0 where it is false."""
    way.next_hop = "10.1.0.20:5080"
    way.host = "10.1.0.20"
    variables_of(request)["tries"] = variables_of(request).get("tries", 0) + 1
    if len(way.number) > 15 or (variables_of(request).get("tries", 0) > 3 and "NAT" not in flags_of(request)):
        await request.reject(404, f"no such number {way.number}")
        return 0
    if await relay(request, way) == 0:
        return 0
    return 1


async def relay(request: Request, way: Way) -> int:
    """route[relay], lines 177-196. The code is 0 where the script ends here, below 0 where it is false."""
    if request.method == "INVITE":
        if (
            "NAT" in flags_of(request)
            and request.body
            and (request.headers.get("Content-Type") or "").startswith("application/sdp")
        ):
            request.call.media.engage()
        way.on_branch = branch_route_per_branch_ops
        way.on_reply = onreply_route_handle_nat
        way.on_failure = failure_route_missed_call
    # Not mapped, line 189: add_rr_param(";nat=yes"); (add_rr_param() has no counterpart)
    await send(request, way)
    return 0


async def relay_in_failure(failure: Failure, way: Way) -> int:
    """route[relay], lines 177-196. The code is 0 where the script ends here, below 0 where it is false."""
    if "NAT" in failure.call.transaction.flags:
        failure.call.media.engage()
    way.on_branch = branch_route_per_branch_ops
    way.on_reply = onreply_route_handle_nat
    way.on_failure = failure_route_missed_call
    # Not mapped, line 189: add_rr_param(";nat=yes"); (add_rr_param() has no counterpart)
    await send_again(failure, way)
    return 0


@routes.branch_route
async def branch_route_per_branch_ops(branch: Branch) -> None:
    """branch_route[per_branch_ops], lines 198-202."""
    branch.call.log.info("new branch at $ru", ru=branch.uri)
    branch.headers.remove("P-hint")
    branch.headers.add("X-From", branch.call.calling_number)


@routes.onreply_route
async def onreply_route_handle_nat(reply: Reply) -> None:
    """onreply_route[handle_nat], lines 204-211."""
    reply.call.log.info("incoming reply $rs $rr", rs=reply.status, rr=reply.reason)
    if reply.status == 183:
        if not reply.is_final:
            reply.drop()
        return


@routes.failure_route
async def failure_route_missed_call(failure: Failure) -> None:
    """failure_route[missed_call], lines 213-226."""
    way = way_of(parse_uri(failure.call.transaction.variables["$ru"]))
    if failure.best_status in (486, 408):
        way.next_hop = "10.1.0.30"
        way.on_failure = failure_route_last
        if await relay_in_failure(failure, way) == 0:
            return
    if re.search("3[0-9][0-9]", str(failure.best_status), re.IGNORECASE):
        await failure.call.reject(404, "Not found")
        return


@routes.failure_route
async def failure_route_last(failure: Failure) -> None:
    """failure_route[last], lines 228-230."""
    failure.call.log.info("voicemail failed: $T_reply_code", T_reply_code=failure.best_status)


@routes.onreply_route(always=True)
async def onreply_route_unnamed(reply: Reply) -> None:
    """onreply_route, lines 232-234."""
    reply.call.log.info("any reply $rs", rs=reply.status)


@routes.local_route
async def local_route(request: LocalRequest) -> None:
    """local_route, lines 236-241."""
    if request.method == "BYE":
        request.headers.add("X-Reason", "local")
        request.call.log.info("local BYE $rm", rm=request.method)


@routes.error_route
async def error_route(bad: BadMessage) -> None:
    """error_route, lines 243-247."""
    bad.node.log.info("error $(err.info) from $si:$sp", err_info=str(bad.error), si=bad.source[0], sp=bad.source[1])
    await bad.reply(bad.error.status)


@routes.startup_route
async def startup_route(node: Node) -> None:
    """startup_route, lines 249-251."""
    node.log.info("started")


@routes.timer_route(every_s=30)
async def timer_route_gc(node: Node) -> None:
    """timer_route[gc], lines 253-255."""
    node.log.info("tick")
