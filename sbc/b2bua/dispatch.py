"""Which transaction, dialog and call a message is for, in that order (RFC 3261 §8.2, §12.2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua import (
    accept,
    connect,
    digits,
    early,
    end,
    extensions,
    forward,
    modify,
    provisional,
    refer,
    refresh,
    refuse,
    relay,
    replaces,
    shape,
    strays,
    subscription,
)
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.tables import CallState, LegState
from sbc.dialog.dialog import Sequence
from sbc.errors import SipSyntaxError
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.b2bua.settings import Source


def request(core: Core, msg: Message, flow: Flow, source: Source, now: float) -> None:
    """A request from a known source."""
    seen = flow
    flow = core.answer_path(msg, flow)
    method = msg.method
    layer = core.layer
    if method == "ACK":
        if not layer.match_ack(msg, now):
            _ack(core, msg, flow, source, now)
        return
    if core.lodging.away and not layer.knows(msg) and core.lodging.forwards(msg.to_tag, msg, flow):
        return
    if now < core.awaits_until and _is_awaited(core, msg):
        core.count("DIALOG_AWAITED")
        return
    overload = core.overload
    loaded = overload.share or overload.late or overload.closed
    if loaded and method == "INVITE" and not msg.to_tag and not layer.knows(msg) and overload.refuses():
        refuse.overloaded(core, msg, flow)
        return
    tx = layer.receive_request(msg, flow, now)
    if tx is None:
        return
    if seen is not flow:
        tx.seen = seen
    if method == "CANCEL":
        end.cancel(core, msg, tx, source.peer, now)
    elif msg.to_tag:
        _in_dialog(core, msg, tx, source, now)
    elif refuse.unacceptable(core, msg, tx, now):
        return
    elif method == "INVITE":
        call = connect.invite(core, msg, tx, source, now)
        if call is None:
            return
        if msg.get("Replaces") is None:
            core.run_route(call, RunRoute(RouteKind.REQUEST, call))
        else:
            replaces.receive(core, call, msg, now)
    else:
        forward.receive(core, msg, tx, source, now)


def _is_awaited(core: Core, msg: Message) -> bool:
    """Whether this may be for a call that the journal has: a refusal would end that call."""
    tag = msg.to_tag
    return bool(tag) and tag not in core.legs and tag not in core.requests.sides and not core.layer.knows(msg)


def _ack(core: Core, msg: Message, flow: Flow, source: Source, now: float) -> None:
    """The ACK to a 2xx; one that belongs nowhere is dropped (RFC 3261 §17: it has no answer)."""
    leg = core.legs.get(msg.to_tag)
    if leg is None and core.lodging.forwards(msg.to_tag, msg, flow):
        return
    if leg is None or not leg.dialog.matches(msg):
        core.count("STRAY_ACK")
    elif not _from_peer(leg, source):
        core.count("WRONG_SOURCE_REFUSED")
    else:
        accept.acked(core, leg, msg, now)


def _in_dialog(core: Core, msg: Message, tx: ServerTransaction, source: Source, now: float) -> None:
    leg = core.legs.get(msg.to_tag)
    if leg is None and (side := core.requests.sides.get(msg.to_tag)) is not None:
        subscription.receive(core, side, msg, tx, source, now)
        return
    if leg is None or not leg.dialog.matches(msg):
        if leg is not None and leg.forks and _from_peer(leg, source) and early.receive(core, leg, msg, tx, now):
            return
        core.count("DIALOG_UNKNOWN")
        core.refuse(tx, 481, now, established=True)
        return
    if not _from_peer(leg, source):
        core.count("WRONG_SOURCE_REFUSED")
        core.refuse(tx, 481, now, established=True)  # as if there were none: no oracle for guessed tags
        return
    if msg.max_forwards == 0:
        core.count("MAX_FORWARDS_REFUSED")
        core.refuse(tx, 483, now, established=True)
        return
    if leg.dialog.check_sequence(msg.cseq_number) is Sequence.OLD:
        core.count("CSEQ_REFUSED")
        core.refuse(tx, 500, now, established=True)
        return
    flow = tx.seen if leg.nat_given else tx.flow
    if leg.flow != flow:  # NAT gave it another port
        leg.flow = flow
        leg.forget_path()
    method = msg.method
    if method == "BYE":
        end.bye(core, leg, msg, tx, now)
    elif method == "PRACK":
        provisional.prack(core, leg, msg, tx, now)
    elif leg.busy:
        core.wait(leg, lambda later: _serve(core, leg, msg, tx, later))
    else:
        _serve(core, leg, msg, tx, now)


def _serve(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    method = msg.method
    required = extensions.unsupported(core.settings, leg.realm, msg)
    if leg.call.state >= CallState.ENDING or leg.state >= LegState.CANCELLED:  # RFC 5407 §3.2: it crosses our BYE
        core.refuse(tx, 481, now, established=True)
    elif required:
        core.count("EXTENSION_REFUSED")
        core.refuse(tx, 420, now, [("Unsupported", ", ".join(required))], established=True)
    elif modify.is_modification(msg):
        modify.receive(core, leg, msg, tx, now)
    elif method == "UPDATE" and refresh.is_refresh(leg, msg):
        refresh.receive(core, leg, msg, tx, now)
    elif method == "SUBSCRIBE" and leg.call.moving is not None and refer.resubscribe(core, leg, msg, tx, now):  # noqa: SIM114
        pass
    elif method == "INFO" and digits.receive(core, leg, msg, tx, now):
        pass
    elif method in shape.RELAYED_METHODS or method in ("UPDATE", "REFER"):
        try:
            (refer if method == "REFER" else relay).receive(core, leg, msg, tx, now)
        except SipSyntaxError:  # a header that may cross holds what nobody may write
            core.refuse(tx, 400, now, established=True)
    else:
        core.count("METHOD_REFUSED")
        status = 405 if method in refuse.KNOWN_METHODS else 501
        core.refuse(tx, status, now, [shape.ALLOWED_HEADER], established=True)


def _from_peer(leg: Leg, source: Source) -> bool:
    """A message inside a dialog must come from the dialog's peer, wherever in its addresses that is."""
    if leg.peer:
        return source.peer == leg.peer
    return source.realm == leg.realm


def stray(core: Core, msg: Message, flow: Flow, now: float) -> None:
    """A response without a transaction. A 2xx to INVITE that comes again after a resume still wants its ACK."""
    if core.lodging.forwards(msg.from_tag, msg, flow):
        return
    if msg.cseq_method == "BYE":
        strays.hung_up(core, msg, flow, now)
    elif msg.cseq_method == "INVITE" and 200 <= msg.status < 300:
        leg = core.legs.get(msg.from_tag)
        if leg is not None and leg.dialog.call_id == msg.call_id and leg.dialog.remote_tag == msg.to_tag:
            if not leg.unacked and leg.ack is None and msg.cseq_number == leg.invite_cseq:
                asked = leg.call.unsettled and leg is leg.call.a  # for an offer: see sbc.b2bua.reanchor
                accept.send_ack(core, leg, now, leg.sdp_out if asked else b"")
            elif not leg.unacked:
                accept.ack_again(core, leg, now)
        else:
            core.strays.answered(msg, flow, now)
