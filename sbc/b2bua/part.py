"""Letting go of a call that another owner has from now on: it has not ended, so nobody is told anything.

No BYE, no answer, no CDR; its media session lives on. What the two sides still say reaches the other owner, or finds
no dialog here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua import ping, refresh
from sbc.b2bua.tables import CallState, LegState

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg


def part_with(core: Core, call: Call) -> None:
    """The call is no longer ours."""
    for leg in call.legs():
        refresh.stop(leg)
        ping.stop(leg)
        core.legs.pop(leg.dialog.local_tag, None)
    if call.lifetime_timer is not None:
        call.lifetime_timer.cancel()
        call.lifetime_timer = None
    for peer in call.admitted_peers:
        core.settings.admission.close_call(peer)
    call.state = CallState.ENDED
    core.count("CALLS_ACTIVE", -1)
    core.remove(call)


def lost(core: Core, key: str, now: float) -> None:
    """A later owner has this call, whatever was under way here. This worker does not know all calls any more either, so
    that it ends nothing from now on that it does not know."""
    core.incomplete = True
    call = core.calls.get(key)
    if call is None:
        return
    for leg in call.legs():
        _silence(leg)
    core.layer.silence({leg.dialog.call_id for leg in call.legs()}, now)
    if call.announcing is not None:
        call.announcing.stop()
        call.announcing = None
    call.moving = call.joining = call.switching = None
    part_with(core, call)
    for leg in call.legs():
        leg.state = LegState.ENDED


def _silence(leg: Leg) -> None:
    """Nothing is repeated, and nobody waits for what may come."""
    if leg.timer is not None:
        leg.timer.cancel()
        leg.timer = None
    if leg.accepted is not None:
        leg.accepted.stop()
        leg.accepted = None
    if leg.provisionals is not None:
        leg.provisionals.stop()
    leg.invite = leg.uas = leg.uac = leg.waiting = None
    leg.bye_wanted = False
