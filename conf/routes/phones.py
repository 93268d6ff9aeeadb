"""Routes for phones behind NAT: they register through this node at a registrar in the core, and call through it.

To use this file, begin with ../phones.yaml. The registrar knows who is who: it challenges phones, decides whom a number
means, and calls back through this node, either a phone by the Contact that it was given, or a number outside.

NAT is the business of the realm (`nat: auto`) and of the profile `phone-behind-nat`: nothing is done about it here.
"""

from dataclasses import replace

from sbc.routing import Call, Failure, Request, Routes, Target

routes = Routes()

EMERGENCY = {"110", "112", "911"}
RING_S = 25.0  # then the voicemail answers
# Who is to be reached on a mobile phone, too. A table in the database of the registrar would do as well: node.database
MOBILES = {"100": "+491700000100"}
FOR_THE_REGISTRAR = {"REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "NOTIFY"}


@routes.route
async def main(request: Request) -> None:
    match request.direction:
        case "from_phone":
            await from_phone(request)
        case "from_core":
            await from_core(request)
        case "from_carrier" if request.makes_call:
            request.call.media.engage()
            await request.call.dial("registrar")
        case _:
            await request.reject(403)


async def from_phone(request: Request) -> None:
    """Everything goes to the registrar, which challenges it; an emergency call goes without asking who it is."""
    if request.makes_call:
        call = request.call
        call.media.engage()
        if call.called_number in EMERGENCY:
            call.flags.add("emergency")
            call.log.warning("emergency call", number=call.called_number)
            request.headers.set("Priority", "emergency")
            # Somebody must take it: what does not answer within seconds is not waited for.
            targets = [replace(call.node.target(name, call.called_number), timeout_s=8) for name in TAKE_EMERGENCIES]
            return await call.dial(targets, on_failure=anybody)
        await call.dial("registrar")
    elif request.method in FOR_THE_REGISTRAR:
        await request.relay("registrar")
    return None  # what is left: a ping is answered, all else is refused


TAKE_EMERGENCIES = ["emergency", "carrier", "registrar"]


async def from_core(request: Request) -> None:
    """The registrar calls a phone by the Contact that it has of it, or a number of the carrier."""
    phone = request.binding
    if not request.makes_call:
        if phone is not None:
            await request.relay(phone)
        return
    call = request.call
    call.media.engage()
    if phone is None:
        return await call.dial("carrier")
    user = request.to.uri.user or ""  # whom the caller wanted, whatever phone that is
    call.variables["user"] = user
    await call.dial([[for_a_while(one) for one in [phone, *mobile_of(call, user)]]], on_failure=voicemail)


def mobile_of(call: Call, user: str) -> list[Target]:
    number = MOBILES.get(user)
    return [call.node.target("carrier", number)] if number else []


def for_a_while(target: Target) -> Target:
    return replace(target, timeout_s=RING_S)


@routes.failure_route
async def voicemail(failure: Failure) -> None:
    """Nobody answered: the voicemail does, unless the user wants no call anywhere (6xx)."""
    call = failure.call
    if failure.best_status >= 600:
        return await call.reject(failure.best_status)
    call.flags.add("voicemail")
    await call.dial("voicemail", number=call.variables["user"])


@routes.failure_route
async def anybody(failure: Failure) -> None:
    """An emergency call is given up when nobody is left, whatever the others have said."""
    call = failure.call
    if not await call.dial_next():
        call.log.error("emergency call failed", attempts=len(failure.attempts))
        await call.reject(failure.best_status)
