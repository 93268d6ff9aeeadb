"""Picking up a call that rings elsewhere: an INVITE with Replaces that names an early dialog of ours as UAC (RFC 3891).

Both the one who calls and the one who picks up have made an offer. Each is told the other's as the answer, which is one
where they have a codec in common: an answer may list more than was offered (RFC 3264 §6.1), and says where and what its
sender wants to receive, which is what the other's offer says. Whoever rang gets CANCEL.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import accept, exchange, refresh, shape
from sbc.b2bua.call import Attempt, Call, Outcome
from sbc.b2bua.leg import Leg
from sbc.b2bua.subjects import ReplyEvent
from sbc.b2bua.tables import CallEvent, CallState, LegEvent, LegState
from sbc.errors import SdpError
from sbc.sdp.description import MediaDescription, SessionDescription

if TYPE_CHECKING:
    from sbc.b2bua.core import Core


def begin(core: Core, second: Call, rings: Leg, now: float) -> None:
    """The caller of ``second`` answers the call in which ``rings`` is a branch, in its place."""
    call = rings.call
    a = call.a
    if not call.body or not second.body or a.described_early or not have_in_common(call.body, second.body):
        core.step(second, CallEvent.REFUSE, now, Outcome(488, "sbc", note="nothing to pick up the call with"))
        return
    core.count("TRANSFERS_STARTED")
    second.decided = True
    caller = second.a
    seat = Leg(f"b{len(call.attempts) + 1}", caller.dialog, caller.flow, caller.realm, caller.peer)
    seat.call, seat.state = call, LegState.ENDED
    attempt = Attempt(caller.peer, second.ruri, seat.name, started=now, group=call.group)
    call.attempts.append(attempt)
    then = partial(_offered, core, second, rings, seat, attempt)
    exchange.offer(core, call, a, seat, call.body, then, now)


def have_in_common(one: bytes, other: bytes) -> bool:
    """Whether two offers describe the same streams, each with a format that both have."""
    try:
        ours, theirs = SessionDescription.parse(one).streams, SessionDescription.parse(other).streams
    except SdpError:
        return False
    return len(ours) == len(theirs) and all(
        x.kind == y.kind and x.protocol == y.protocol and bool(_codecs(x) & _codecs(y))
        for x, y in zip(ours, theirs, strict=True)
    )


def _codecs(stream: MediaDescription) -> set[str]:
    """The formats by what they stand for; a static payload type for itself, and events are no codec."""
    named = dict(
        line.removeprefix("a=rtpmap:").split(" ", 1)
        for line in stream.lines
        if line.startswith("a=rtpmap:") and " " in line
    )
    static = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000", "18": "G729/8000"}
    found = {named.get(number, static.get(number, number)).upper().removesuffix("/1") for number in stream.formats}
    return {name for name in found if not name.startswith("TELEPHONE-EVENT/")}


def _offered(
    core: Core, second: Call, rings: Leg, seat: Leg, attempt: Attempt, body: bytes, status: int, now: float
) -> None:
    """The media plane has endpoints for whoever picks up."""
    call = rings.call
    if status or not _goes_on(second, rings):
        _give_up(core, second, rings, seat, attempt, status or 481, now)
        return
    then = partial(_answered, core, second, rings, seat, attempt, body)
    exchange.answer(core, call, seat, call.a, second.body, then, now)


def _answered(
    core: Core,
    second: Call,
    rings: Leg,
    seat: Leg,
    attempt: Attempt,
    theirs: bytes,
    body: bytes,
    status: int,
    now: float,
) -> None:
    call, caller = rings.call, second.a
    tx = caller.invite
    if status or tx is None or not _goes_on(second, rings) or not core.step(call, CallEvent.B_ANSWERED, now):
        _give_up(core, second, rings, seat, attempt, status or 481, now)
        return
    attempt.status = 200
    for leg in call.branches:
        core.step_leg(leg, LegEvent.END, now)
    # The caller of the INVITE is the branch that has answered; what stands for it stays behind for the record.
    second.a = seat
    seat.call, caller.call = second, call
    seat.name, caller.name = caller.name, seat.name
    caller.anchored, seat.anchored = seat.anchored, False
    caller.sdp_in, caller.sdp_out, caller.sdp_text = seat.sdp_in, theirs, seat.sdp_text
    caller.session_id, caller.sdp_version, caller.origin = seat.session_id, seat.sdp_version, seat.origin
    caller.invite = caller.uas = None
    call.branches.append(caller)
    call.b = caller
    tx.user = call
    headers = [("Record-Route", route) for route in caller.dialog.route_set]
    headers += (("Contact", caller.dialog.contact), shape.ALLOWED_HEADER)
    headers += refresh.agree(core, caller, tx.request, now)
    headers.append(shape.SDP_TYPE)
    data = core.response(tx, 200, headers, theirs, caller.dialog.local_tag)
    caller.accepted = accept.Accepted(core, caller, tx.flow, data, tx.request.cseq_number)
    tx.respond(200, data, now)
    caller.accepted.start(now)
    core.count("TRANSFERS_DONE")
    second.transferred_to, call.transferred_from = call.key, second.key
    event = ReplyEvent(call, caller, tx.request, [], body, "")
    event.status = 200
    accept.conclude(core, caller, event, body, 0, now)
    second.answered_at, second.answer_wall = now, core.wall(now)
    core.step(second, CallEvent.RELEASE, now, Outcome(200, "sbc", note="picked up another call"))


def _goes_on(second: Call, rings: Leg) -> bool:
    return second.state is CallState.SETUP and rings.state is LegState.EARLY and rings.call.state is CallState.RINGING


def _give_up(core: Core, second: Call, rings: Leg, seat: Leg, attempt: Attempt, status: int, now: float) -> None:
    """It rings on."""
    call = rings.call
    core.count("TRANSFERS_FAILED")
    attempt.status = status
    if call.state < CallState.ENDING:
        core.drop_branch(seat, now)
        if call.state is CallState.RINGING:
            call.offer_from = call.a
    core.step(second, CallEvent.REFUSE, now, Outcome(status, "sbc", note="nothing to pick up any more"))
