"""Routes of a node between carriers: customers call by number, suppliers take the calls, the cheapest first.

To use this file, begin with ../wholesale.yaml: peers with their directions, limits and media profiles. Who may call,
how often, and whether media are relayed is said there; which supplier is tried for which number is said here.

    sbc route test 004930123456 --source alpha --answer north=503 -c wholesale.yaml
"""

from dataclasses import dataclass

from sbc.routing import Branch, Call, Failure, Node, Request, Routes, Target

routes = Routes()

SHORTEST, LONGEST = 8, 15  # digits behind the + (E.164)
LONGEST_CALL_S = 4 * 3600.0
REST_S = 30.0  # a supplier that could not serve is tried last for so long

# What a supplier says about us is none of the customer's business; he hears that there is no way just now.
REFUSALS = {401: 503, 402: 503, 403: 503, 407: 503, 408: 504, 500: 503, 502: 503}


@dataclass(frozen=True)
class Offer:
    """One supplier for numbers that begin so; ``prefix`` is what he wants before the number."""

    supplier: str
    rate: float  # a minute
    prefix: str = ""


OFFERS = {
    "+49": [Offer("north", 0.004), Offer("south", 0.006, prefix="7701")],
    "+4932": [Offer("south", 0.011, prefix="7701")],
    "+33": [Offer("east", 0.005), Offer("north", 0.007)],
}
resting: dict[str, float] = {}  # supplier: until when, by the clock of the node; each worker has its own


@routes.route
async def main(request: Request) -> None:
    if request.direction != "from_customer":
        return await request.reject(403)  # suppliers take calls, and make none
    call = request.call
    number = e164(call.called_number)
    if not SHORTEST <= len(number) - 1 <= LONGEST:
        return await request.reject(484)
    prefix, offers = best(number)
    if not offers:
        return await request.reject(404)
    call.variables.update(account=call.peer.name, number=number, prefix=prefix)  # for the bill: they are in the CDR
    call.lifetime_s = LONGEST_CALL_S
    call.media.engage()  # relayed or direct, as the profile of the customer says
    request.headers.remove("Subject")
    await call.dial(ordered(call, number, offers), on_branch=dress, on_failure=hunt)
    return None


def e164(number: str) -> str:
    """A number as it was dialled, with + and country code; '' for what is none."""
    if number.startswith("00"):
        number = "+" + number[2:]
    return number if number.startswith("+") and number[1:].isdecimal() else ""


def best(number: str) -> tuple[str, list[Offer]]:
    """The longest prefix that is offered, and by whom."""
    for length in range(len(number), 1, -1):
        offers = OFFERS.get(number[:length])
        if offers is not None:
            return number[:length], offers
    return "", []


def ordered(call: Call, number: str, offers: list[Offer]) -> list[Target]:
    """The cheapest first; those that rest last."""
    node = call.node
    now = node.clock.monotonic()
    chosen = sorted(offers, key=lambda offer: (resting.get(offer.supplier, 0.0) > now, offer.rate))
    call.variables["rates"] = {offer.supplier: offer.rate for offer in chosen}
    return [node.target(offer.supplier, offer.prefix + number.removeprefix("+")) for offer in chosen]


@routes.branch_route
async def dress(branch: Branch) -> None:
    """What a supplier gets. Nothing of the customer's own headers crosses but what the realm lets pass."""
    branch.headers.set("X-Route", branch.call.key)  # to be found again in his log
    branch.call.variables["supplier"] = branch.target.gateway


@routes.failure_route
async def hunt(failure: Failure) -> None:
    call = failure.call
    last = failure.attempts[-1]
    if last.status in (408, 500, 503):
        resting[last.gateway] = call.node.clock.monotonic() + REST_S
        call.log.warning("supplier rests", supplier=last.gateway, status=last.status)
    if failure.may_fail_over and call.has_next:
        await call.dial_next()
        return
    status = failure.best_status
    await call.reject(REFUSALS.get(status, status))


@routes.timer_route(every_s=60)
async def wake(node: Node) -> None:
    """Forget who has rested enough."""
    now = node.clock.monotonic()
    for supplier in [name for name, until in resting.items() if until <= now]:
        del resting[supplier]
