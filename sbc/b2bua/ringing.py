"""A call that rings goes on in another process where that is planned: which calls can, and what is handed on of them.

Nothing is kept for it while a call rings. When a worker is about to go by order, the record of each call in setup gets
a part more (:mod:`sbc.b2bua.ringing_snapshot`), and the call is let go in silence. Whoever takes the record up goes on
with the transactions of A's INVITE and of each branch's; one that cannot read that part ends the call as after a death
(:mod:`sbc.b2bua.setup_snapshot`).

Only what is data can go: no route that is still running, no request but the INVITEs that waits for its answer, no
connection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from sbc.b2bua import part, ringing_snapshot
from sbc.b2bua.effects import SaveCall
from sbc.b2bua.snapshot import MAX_RECORD_BYTES
from sbc.b2bua.tables import OPEN, CallState, LegState

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.b2bua.scope import Scope
    from sbc.sip.flow import Flow

_BEFORE_ANSWER = (CallState.SETUP, CallState.RINGING, CallState.ANSWERING)
_OUT = (LegState.CALLING, LegState.EARLY, LegState.CANCELLED)


class RouteNames(Protocol):
    """What the routes that a call has armed are called, in this process and in others with the same routes."""

    def name(self, call: Call, route: Any) -> str:  # Any: a route function, which the core only carries
        """'' for one that has no name by which it could be found again."""

    def find(self, name: str) -> Any | None:  # Any: as above
        """The route of this name; None: there is none."""


def hand_on(core: Core, now: float) -> Iterator[SaveCall]:
    """See :meth:`sbc.b2bua.core.Core.hand_on`."""
    if not core.journalled:
        return
    pending = core.layer.call_ids(pending=True, besides="INVITE")
    for call in list(core.calls.values()):
        if call.state not in _BEFORE_ANSWER:
            continue
        why = obstacle(core, call, pending)
        effect = None if why else core.setups.save(call, ringing_snapshot.encode(core, call, now))
        if effect is not None and len(effect.record) > MAX_RECORD_BYTES:
            why, effect = "its record is too long", None
        if effect is None:
            core.note("warning", "a call in setup ends with its worker", call, reason=why)
        else:
            part.lost(core, call.key, now)
            yield effect


def obstacle(core: Core, call: Call, pending: Collection[bytes] = ()) -> str:
    """Why a call cannot go on elsewhere as it is now; '' where it can. ``pending`` are the Call-IDs of requests other
    than INVITE that wait for their answer."""
    if call.state is not CallState.RINGING or call.pending_route is not None or call.media_pending:
        return "its route is running, or media or an answer are under way"
    if call.announcing is not None or call.moving is not None or call.joining is not None:
        return "it is part of a transfer, or hears an announcement"
    if not any(leg.state in OPEN for leg in call.branches):
        return "no branch rings"
    a, tx = call.a, call.a.invite
    if tx is None or call.request is None or a.uas is not tx or tx.last_status >= 200:
        return "another request of the caller's is under way"
    if a.provisionals is not None and (a.provisionals.sent.open or a.provisionals.waiting):
        return "the caller has not acknowledged a provisional response yet"
    if not (_is_datagram(a.flow) and _is_datagram(tx.flow)):
        return "the caller is at a connection of this process"
    hooks = [call.on_branch, call.on_reply, call.on_failure]
    for leg in call.branches:
        if leg.state is LegState.IDLE:
            return "a branch is not sent yet"
        if leg.state in _OUT and (why := _held_back(leg)):
            return why
        hooks.append(leg.on_reply)
    for hook in hooks:
        if hook is not None and (core.hooks is None or not core.hooks.name(call, hook)):
            return "it has armed a route that is no function of the routes module"
    if not all(_is_json(scope) for scope in (call.transaction, *(attempt.scope for attempt in call.attempts))):
        return "its route keeps what is no JSON value"
    if any(leg.dialog.call_id.encode("utf-8", "surrogateescape") in pending for leg in call.legs()):
        return "a request inside one of its dialogs is under way"
    return ""


def _held_back(leg: Leg) -> str:
    """What keeps a branch that was sent from going on elsewhere."""
    tx = leg.uac
    if tx is None or not tx.sent:
        return "a branch has its final answer, which is being dealt with"
    if not (_is_datagram(leg.flow) and _is_datagram(tx.flow)):
        return "a branch is at a connection of this process"
    if leg.busy or leg.waiting or leg.uas is not None:
        return "a reply is being dealt with"
    if leg.forks or leg.withheld is not None:
        return "a branch has several early dialogs, or one that the caller does not hear"
    if leg.prack or leg.refers or leg.seat_of is not None:
        return "an offer of a branch has no answer yet"
    return ""


def _is_datagram(flow: Flow) -> bool:
    return flow.transport == "udp" and not flow.connection


def _is_json(scope: Scope | None) -> bool:
    if scope is None:
        return True
    try:
        orjson.dumps(scope.variables)
    except TypeError:
        return False
    return True
