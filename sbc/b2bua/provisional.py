"""Reliable provisionals on each leg (RFC 3262): B's get a PRACK of ours, A's are repeated until its PRACK.

The legs are independent: one may speak 100rel and the other not. They meet where a description is at stake: a reliable
18x with an answer answers for good, so A's 200 carries none and waits for the PRACK; a PRACK with an offer becomes an
UPDATE on the other leg; and the PRACK to an offer of B's waits for A's answer.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import credentials, early, exchange, modify, shape
from sbc.b2bua.call import Outcome
from sbc.b2bua.tables import OPEN, CallEvent, CallState
from sbc.dialog.reliable import MAX_FIRST_RSEQ, Received, Sent, rack_of
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.dialog.dialog import Dialog
    from sbc.transaction.timers import Timer

MAX_WAITING = 8  # provisionals that wait for the PRACK of the one before; more are dropped


def asks(core: Core, leg: Leg, tag_header: str) -> bool:
    """Whether A's INVITE has 100rel in this header (Require or Supported), in a realm that may use it."""
    request = leg.call.request
    if request is None or core.settings.realms[leg.realm].reliable == "never":
        return False
    return any(tag.lower() == "100rel" for tag in request.get_all(tag_header))


def offers(core: Core, leg: Leg) -> bool:
    """Whether the INVITE to this branch offers 100rel.

    Not where B might then make an offer in its 18x that A could not answer before B's 200, nor where several might.
    """
    call, policy = leg.call, core.settings.realms[leg.realm].reliable
    a = call.a
    if policy == "never":
        return False
    if not call.body and any(other is not leg and other.state in OPEN for other in call.branches):
        return False
    wanted = asks(core, a, "Supported") or asks(core, a, "Require")
    return wanted or (policy == "always" and bool(call.body))


# B: we are the UAC


def received(core: Core, leg: Leg, msg: Message, rseq: int, now: float) -> bool:
    """A reliable provisional of a branch: False for one that comes again or too early, which is to be ignored."""
    if leg.received is None:
        leg.received = Received()
    if not leg.received.take(msg, rseq):
        return False
    fork = early.fork_of(leg, msg)
    described = shape.is_sdp(msg)
    if fork is not None and described and not leg.prack and leg.call.heard is None:
        early.turn_to(leg, fork)
        fork = None
    holder = fork or leg
    offered = described and not leg.call.body and not holder.described_early
    holder.described_early = holder.described_early or described
    if not offered:
        _send_prack(core, leg, holder.dialog, rseq, b"", now)
    elif fork is None:
        leg.prack = rseq  # its offer wants an answer first; the offer of another fork is left without one
    return True


def send_prack(core: Core, leg: Leg, rseq: int, body: bytes, now: float) -> None:
    """Acknowledge a reliable provisional (§4). What becomes of the PRACK is B's concern: it repeats the response."""
    leg.prack = 0
    _send_prack(core, leg, leg.dialog, rseq, body, now)


def _send_prack(core: Core, leg: Leg, dialog: Dialog, rseq: int, body: bytes, now: float) -> None:
    flow = early.path(core, leg, dialog)
    branch = core.ids.branch()
    try:
        uri, headers = dialog.headers("PRACK", dialog.next_cseq(), core.via(flow.listener, branch))
        headers.append(("RAck", f"{rseq} {leg.invite_cseq} INVITE"))
        if body:
            headers.append(shape.SDP_TYPE)
        headers += credentials.headers(leg, "PRACK", uri, body)
        data = build_request("PRACK", uri, headers, body)
    except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
        core.note("warning", "PRACK cannot be written", leg.call, leg=leg.name, reason=error.reason)
        return
    core.layer.send("PRACK", branch, data, flow, core.nobody, now)


# A: we are the UAS


class Provisionals:
    """The reliable provisionals of one INVITE server transaction, in order, one under way at a time."""

    __slots__ = ("core", "described", "leg", "sent", "then", "timer", "tx", "waiting")

    def __init__(self, core: Core, leg: Leg, tx: ServerTransaction) -> None:
        self.core = core
        self.leg = leg
        self.tx = tx
        first = 1 + core.session_id() % (MAX_FIRST_RSEQ - 1)
        self.sent = Sent(first, core.settings.t1_s)
        self.described = False  # the one under way has a description
        self.timer: Timer | None = None
        self.waiting: deque[tuple[int, shape.Headers, bytes, str]] = deque()
        self.then: Callable[[float], None] | None = None  # the 2xx, which waits for the PRACK to a description (§3)

    def respond(self, status: int, headers: shape.Headers, body: bytes, reason: str, now: float) -> None:
        """Send a provisional, now or when its turn comes."""
        if self.sent.open:
            if len(self.waiting) < MAX_WAITING:
                self.waiting.append((status, headers, body, reason))
            return
        core, leg = self.core, self.leg
        rseq = self.sent.number(now)
        headers = [*headers, ("Require", "100rel"), ("RSeq", str(rseq))]
        data = core.response(self.tx, status, headers, body, leg.dialog.local_tag, reason)
        self.described = bool(body)
        leg.described_early = leg.described_early or self.described
        self.tx.respond(status, data, now)
        self.timer = core.timers.start(self.sent.next_delay_s(now), partial(self._tick, data), now)

    def _tick(self, data: bytes, now: float) -> None:
        core = self.core
        if now >= self.sent.deadline:
            self.timer = None
            core.count("PRACK_MISSING")
            core.step(self.leg.call, CallEvent.REFUSE, now, Outcome(504, "sbc", 102, note="no PRACK"))
            return
        core.count("RETRANSMISSION_OUT")
        core.transmit(self.tx.flow, data)
        self.timer = core.timers.start(self.sent.next_delay_s(now), partial(self._tick, data), now)

    def stop(self) -> None:
        """A final response is out: nothing is repeated any more, but a PRACK on its way is still welcome."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.waiting.clear()
        self.then = None

    def acknowledged(self, now: float) -> None:
        """Go on: the 2xx that waited, or the next provisional."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.then is not None:
            then, self.then = self.then, None
            self.waiting.clear()
            then(now)
        elif self.waiting:
            self.respond(*self.waiting.popleft(), now)


def relayed(core: Core, leg: Leg, tx: ServerTransaction, *, reliably: bool) -> Provisionals | None:
    """By what A's provisional is sent: None for as ever. A must ask for it, and B's was reliable or A insists."""
    if leg.provisionals is None:
        if not (asks(core, leg, "Require") or (reliably and asks(core, leg, "Supported"))):
            return None
        leg.provisionals = Provisionals(core, leg, tx)
    elif not reliably and not asks(core, leg, "Require") and not leg.provisionals.sent.open:
        return None
    return leg.provisionals


def prack(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    """A PRACK: for the response that waits, or 481."""
    sender, rack = leg.provisionals, rack_of(msg)
    if sender is None or rack is None or rack[1:] != (sender.tx.request.cseq_number, "INVITE"):
        core.refuse(tx, 481 if rack is not None else 400, now, established=True)
        return
    if not sender.sent.acknowledged_by(rack[0]):
        core.refuse(tx, 481, now, established=True)
        return
    call = leg.call
    other = call.other(leg)
    if other is not None and other.prack and call.offer_from is other:
        core.respond(tx, 200, now)
        _answered(core, leg, other, msg, now)
    elif shape.is_sdp(msg) and call.state is CallState.RINGING:
        modify.receive(core, leg, msg, tx, now)
    elif msg.body:
        core.refuse(tx, 488 if shape.is_sdp(msg) else 415, now, established=True)
    else:
        core.respond(tx, 200, now)
    sender.acknowledged(now)


def _answered(core: Core, leg: Leg, other: Leg, msg: Message, now: float) -> None:
    """A's PRACK answers the offer of B's 18x: so does ours to B (§5)."""
    rseq = other.prack

    def described(body: bytes, status: int, now: float) -> None:
        if not other.prack:
            return
        send_prack(core, other, rseq, body, now)
        if status:
            core.step(leg.call, CallEvent.REFUSE, now, Outcome(status, "sbc", note="media refused the answer in PRACK"))

    if shape.is_sdp(msg):
        exchange.answer(core, leg.call, leg, other, shape.description(msg), described, now)
    else:
        exchange.withdraw(core, leg.call, now)
        described(b"", 0, now)
