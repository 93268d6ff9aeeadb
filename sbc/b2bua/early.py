"""Early dialogs beside each other: whom A hears while several ring, and the dialogs that one INVITE of ours opened.

A has one early dialog, whatever rings. What it hears is the first description that came, of one branch and one early
dialog (``call.heard``); the descriptions of the others are kept, for their 2xx or until the first one is out.

Somebody downstream may fork an INVITE of ours, which opens an early dialog for each To tag (RFC 3261 §13.2.2.4, RFC
5407 §3.3). ``leg.dialog`` is the first of them, or the one that A hears, or the one that answered; the others are in
``leg.forks``. Each has its own sequence numbers, route set and target.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import accept, exchange, local, relay, shape
from sbc.b2bua.leg import path_to
from sbc.b2bua.tables import OPEN, CallState, LegState
from sbc.dialog.dialog import Dialog, Sequence
from sbc.dialog.reliable import MAX_DIALOGS
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.b2bua.subjects import ReplyEvent


class Fork:
    """An early dialog of a branch while it is not ``leg.dialog``; the fields are those of the leg."""

    __slots__ = ("ack", "described_early", "dialog", "sdp_in", "withheld")

    def __init__(
        self, dialog: Dialog, described_early: bool = False, sdp_in: bytes = b"", withheld: ReplyEvent | None = None
    ) -> None:
        self.dialog = dialog
        self.described_early = described_early
        self.sdp_in = sdp_in
        self.withheld = withheld
        self.ack: tuple[Flow, bytes] | None = None  # of its 2xx, which came too late


def fork_of(leg: Leg, msg: Message) -> Fork | None:
    """The early dialog of a response, which it may open; None where that is ``leg.dialog``."""
    dialog, tag = leg.dialog, msg.to_tag
    if not tag or tag == dialog.remote_tag:
        return None
    if not dialog.remote_tag:
        dialog.establish(msg)
        leg.forget_path()
        return None
    if leg.forks is None:
        leg.forks = {}
    fork = leg.forks.get(tag)
    if fork is None:
        other = Dialog(dialog.call_id, dialog.local, dialog.local_tag, dialog.remote, dialog.contact)
        other.local_cseq = leg.invite_cseq
        other.establish(msg)
        fork = Fork(other)
        if len(leg.forks) < MAX_DIALOGS:  # whoever makes more is served, and not remembered
            leg.forks[tag] = fork
    return fork


def turn_to(leg: Leg, fork: Fork) -> None:
    """``leg.dialog`` is this one from now on."""
    assert leg.forks is not None  # fork_of() made it
    leg.forks.pop(fork.dialog.remote_tag, None)
    leg.forks[leg.dialog.remote_tag] = Fork(leg.dialog, leg.described_early, leg.sdp_in, leg.withheld)
    leg.dialog, leg.described_early = fork.dialog, fork.described_early
    leg.sdp_in, leg.withheld = fork.sdp_in, fork.withheld
    leg.prack = 0
    leg.forget_path()


def confirm(leg: Leg, msg: Message) -> None:
    """A 2xx: its dialog is the leg's (RFC 3261 §13.2.2.4)."""
    if msg.to_tag != leg.dialog.remote_tag:
        fork = fork_of(leg, msg)
        if fork is not None:
            turn_to(leg, fork)
    leg.dialog.establish(msg)
    leg.forget_path()


def path(core: Core, leg: Leg, dialog: Dialog) -> Flow:
    """Where requests of an early dialog of this leg go."""
    if dialog is leg.dialog:
        return leg.out(core)
    try:
        return path_to(core, dialog.next_hop, leg.flow, leg.realm)
    except SipSyntaxError:
        return leg.flow


def may_be_heard(leg: Leg, event: ReplyEvent, fork: Fork | None) -> bool:
    """Whether A gets the description of this provisional reply: it does while it hears nobody else. What it does not
    get is kept."""
    call = leg.call
    if call.heard is None:
        if fork is not None:
            turn_to(leg, fork)
        call.heard, call.b = leg.dialog, leg
        return True
    if fork is not None:
        fork.withheld = event
        return False
    if call.heard is leg.dialog:
        return True
    leg.withheld = event
    return False


def leave(core: Core, leg: Leg, now: float) -> None:
    """The branch is out of the race, and the call goes on: its endpoints go, and A may hear another one."""
    call = leg.call
    exchange.drop_branch(core, call, leg, now)
    if call.state is not CallState.RINGING:
        return
    if call.b is leg:
        call.b = next((other for other in call.branches if other.state in OPEN), leg)
    if call.heard is leg.dialog:
        call.heard = None
        _hear_another(core, call, now)


def _hear_another(core: Core, call: Call, now: float) -> None:
    """What was withheld first is relayed now."""
    for leg in call.branches:
        if leg.state is not LegState.EARLY:
            continue
        holders: list[Leg | Fork] = [leg, *(leg.forks or {}).values()]
        for holder in holders:
            event, holder.withheld = holder.withheld, None
            if event is not None:
                if leg.busy:
                    core.wait(leg, partial(_relay_again, core, event))
                else:
                    _relay_again(core, event, now)
                return


def _relay_again(core: Core, event: ReplyEvent, now: float) -> None:
    if event.leg.state is LegState.EARLY:
        accept.relay(core, event.leg, now, event)


def terminated(core: Core, leg: Leg, msg: Message, now: float) -> None:
    """199: one early dialog is over, the INVITE is not (RFC 6228). That concerns the side that forked; A has another
    early dialog, which is not over."""
    if leg.forks is not None and leg.forks.pop(msg.to_tag, None) is not None:
        return
    if msg.to_tag == leg.dialog.remote_tag:
        leg.withheld, leg.sdp_in, leg.described_early = None, b"", False
        if leg.call.heard is leg.dialog:
            leg.call.heard = None
            _hear_another(core, leg.call, now)


def end_fork(core: Core, leg: Leg, msg: Message, now: float) -> None:
    """A 2xx of a fork when another one has answered: ACK each time, and BYE once (RFC 3261 §13.2.2.4)."""
    fork = fork_of(leg, msg)
    if fork is None:
        return
    if fork.ack is not None:
        core.transmit(*fork.ack)
        return
    dialog = fork.dialog
    dialog.establish(msg)
    flow = path(core, leg, dialog)
    try:
        uri, headers = dialog.headers("ACK", leg.invite_cseq, core.via(flow.listener, core.ids.branch()))
        fork.ack = (flow, build_request("ACK", uri, headers + list(leg.invite_credentials)))
        core.transmit(*fork.ack)
        local.ask(core, leg, "BYE", [], b"", partial(_end_fork, core, leg, dialog, flow), now)
    except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
        core.note("warning", "a second answer cannot be ended", leg.call, leg=leg.name, reason=error.reason)


def _end_fork(core: Core, leg: Leg, dialog: Dialog, flow: Flow, own: shape.Headers, body: bytes, now: float) -> None:
    branch = core.ids.branch()
    uri, headers = dialog.headers("BYE", dialog.next_cseq(), core.via(flow.listener, branch))
    core.layer.send("BYE", branch, build_request("BYE", uri, headers + own, body), flow, core.nobody, now)


def receive(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> bool:
    """A request inside an early dialog that is not ``leg.dialog``; False: there is none.

    A has a session with another one, so that nothing here can change it: an offer has to wait (491).
    """
    fork = None if leg.forks is None else leg.forks.get(msg.from_tag)
    if fork is None or msg.call_id != fork.dialog.call_id:
        return False
    method = msg.method
    if fork.dialog.check_sequence(msg.cseq_number) is Sequence.OLD:
        core.refuse(tx, 500, now, established=True)
    elif method == "BYE":
        core.respond(tx, 200, now)
    elif leg.state is not LegState.EARLY:
        core.refuse(tx, 481, now, established=True)
    elif method == "UPDATE" and not msg.body:
        fork.dialog.refresh_target(msg)
        core.respond(tx, 200, now, [("Contact", fork.dialog.contact), shape.ALLOWED_HEADER])
    elif method in ("INVITE", "UPDATE"):
        core.count("GLARE_REFUSED")
        core.refuse(tx, 491, now, established=True)
    elif method in shape.RELAYED_METHODS:
        relay.receive(core, leg, msg, tx, now)
    else:
        core.refuse(tx, 405, now, [shape.ALLOWED_HEADER], established=True)
    return True
