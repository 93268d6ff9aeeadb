"""Replaces (RFC 3891): finding the dialog that is meant, and the INVITE that takes its place.

A dialog is found as its own side knows it, by the Call-ID and both tags that it sees, and by that side's peer alone.
Where a REFER passes through us to the other side, which may know neither, the dialog goes by an :func:`alias` of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sbc.b2bua import pickup, transfer
from sbc.b2bua.call import Outcome
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.dialog.replaces import Replaces, parse_replaces
from sbc.errors import SipSyntaxError

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.sip.message import Message

Found = Callable[["Leg | None", float], None]


def alias(leg: Leg) -> Replaces:
    """A name for this leg's dialog that tells nothing of its side."""
    return Replaces(leg.call.key, leg.name, leg.name)


def find(core: Core, wanted: Replaces, peer: str, shard: int, then: Found, now: float) -> None:
    """``then(leg, now)``: our side of the dialog that ``peer`` means; None where it may mean none. The call may come
    from another worker for that, to be one of ``shard``."""
    leg = here(core, wanted, peer)
    if leg is not None or core.settings.slots == 1:
        then(leg, now)
    else:
        core.lodging.fetch(wanted, peer, shard, then, now)


def here(core: Core, wanted: Replaces, peer: str) -> Leg | None:
    """The same, among the calls of this worker."""
    call = core.calls.get(wanted.call_id)
    if call is not None:  # an alias: who has it was told by us
        return next((leg for leg in (call.a, call.b) if leg is not None and leg.name == wanted.to_tag), None)
    leg = core.legs.get(wanted.to_tag)
    if leg is None or leg.dialog.call_id != wanted.call_id or leg.dialog.remote_tag != wanted.from_tag:
        return None
    return leg if leg.peer == peer else None


def receive(core: Core, call: Call, msg: Message, now: float) -> None:
    """An INVITE with Replaces has made ``call``: it takes the place of the dialog that is meant, or is refused."""
    if core.settings.transfers.get(call.a.peer, "refuse") == "refuse":
        _refuse(core, call, 481, now)  # as if there were no such dialog: no oracle
        return
    try:
        wanted = parse_replaces(msg.get("Replaces") or "")
    except SipSyntaxError as error:
        _refuse(core, call, error.status, now)
        return

    def found(leg: Leg | None, now: float) -> None:
        if call.state is CallState.SETUP:  # else given up meanwhile
            status = _refusal(leg, wanted)
            if status or leg is None:
                _refuse(core, call, status or 481, now)
            elif leg.call.state is CallState.RINGING:
                pickup.begin(core, call, leg, now)
            else:
                transfer.take_over(core, call, leg, now)

    find(core, wanted, call.a.peer, call.shard, found, now)


def _refusal(leg: Leg | None, wanted: Replaces) -> int:
    """The status by which such an INVITE must be refused (RFC 3891 §3); 0: none."""
    if leg is None:
        return 481
    call = leg.call
    if call.state >= CallState.ENDING:
        return 603
    if call.state is CallState.RINGING:  # an early dialog that we have not begun ourselves is not to be replaced
        return 0 if leg.state is LegState.EARLY and leg is not call.a and call.joining is None else 481
    if call.state is not CallState.UP:
        return 491
    if wanted.early_only:
        return 486
    return 491 if call.moving is not None or call.joining is not None else 0


def _refuse(core: Core, call: Call, status: int, now: float) -> None:
    core.count("TRANSFERS_REFUSED")
    core.step(call, CallEvent.REFUSE, now, Outcome(status, "sbc", note="Replaces"))
