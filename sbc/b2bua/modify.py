"""INVITE and UPDATE inside a dialog (RFC 3261 §14, RFC 3311): one offer at a time, its legs swapped as need be."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import accept, credentials, exchange, refresh, shape
from sbc.b2bua.call import Outcome
from sbc.b2bua.relay import DIALOG_GONE, relayed_failure
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

RETRY_AFTER = [("Retry-After", "2")]  # §14.2: 0 to 10 s, at random; a fixed value within serves as well


def refusal(leg: Leg, other: Leg | None, msg: Message) -> int:
    """The status by which this INVITE or UPDATE with an offer must be refused; 0: none.

    500 (with Retry-After) while we owe this side the answer to a former one, 491 while it owes us one: RFC 3261 §14.2,
    RFC 3311 §5.2, and RFC 5407 §3.1.4 for a 2xx whose ACK has not come yet.
    """
    call = leg.call
    if call.state is CallState.RINGING and msg.method != "INVITE":
        heard = leg is call.a or leg is call.b  # not of a branch that A has no session with
        if other is None or not heard or not (leg.described_early and other.described_early) or _awaits_prack(leg):
            return 491 if leg.uas is None else 500
    elif leg.uas is not None:
        return 500
    elif other is None or call.state not in (CallState.ANSWERED, CallState.UP):
        return 491
    else:
        for side in (leg, other):
            if side.modifying or side.accepted is not None or side.unacked:
                return 491
    if call.offer_from is not None:
        return 500 if call.offer_from is leg else 491
    return 0


def _awaits_prack(leg: Leg) -> bool:
    """Whether one of the legs has not acknowledged its answer yet, so that there is no session to change."""
    provisionals = leg.call.a.provisionals
    return provisionals is not None and provisionals.sent.open and provisionals.described


def receive(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    """An INVITE, or an UPDATE or PRACK with an offer, from one side."""
    call = leg.call
    other = call.other(leg)
    if leg.accepted is not None:
        accept.overtaken(core, leg, msg, now)
    status = refusal(leg, other, msg)
    if status:
        core.count("GLARE_REFUSED")
        core.refuse(tx, status, now, RETRY_AFTER if status == 500 else (), established=True)
        return
    if msg.body and not (shape.is_sdp(msg) and shape.is_readable(msg)):
        core.refuse(tx, 415, now, shape.READABLE, established=True)
        return
    if minimum := refresh.too_short(core, msg):
        core.refuse(tx, 422, now, minimum, established=True)
        return
    assert other is not None  # refusal() says so
    leg.uas = tx
    other.modifying = True
    if msg.method == "INVITE":
        core.respond(tx, 100, now)
    change = Modification(core, leg, other, tx)
    tx.user = change
    if msg.body:
        core.hold(leg)
        exchange.offer(core, call, leg, other, shape.description(msg), change.offered, now)
    else:
        change.forward(b"", now)


class Modification:
    """One INVITE or UPDATE on its way from ``leg`` to ``other``, and its answer back."""

    __slots__ = ("body", "core", "done", "invite", "leg", "method", "offered_sdp", "other", "tries", "tx", "uac")

    def __init__(self, core: Core, leg: Leg, other: Leg, tx: ServerTransaction) -> None:
        self.core = core
        self.leg = leg
        self.other = other
        self.tx = tx
        self.invite = tx.method == "INVITE"
        self.method = "INVITE" if self.invite else "UPDATE"
        self.offered_sdp = bool(tx.request.body)
        self.body = b""  # the offer that crossed
        self.uac: ClientTransaction | None = None
        self.done = False
        self.tries = 0

    @property
    def alive(self) -> bool:
        """Whether the call still wants this."""
        state = self.leg.call.state
        early = state in (CallState.RINGING, CallState.ANSWERING) and not self.invite
        return early or state in (CallState.ANSWERED, CallState.UP)

    def offered(self, body: bytes, status: int, now: float) -> None:
        """The media plane has the offer for the other side, or the call stays as it is."""
        if self.alive:
            if status:
                self.refuse(488 if status == 488 else 500, (), now)
            else:
                self.forward(body, now)
        self.core.free(self.leg, now)

    def forward(self, body: bytes, now: float) -> None:
        """Send it to the other side, or again when that asked for more."""
        self.body = body
        core, other, msg = self.core, self.other, self.tx.request
        flow = other.out(core)
        branch = core.ids.branch()
        cseq = other.dialog.next_cseq()
        if self.invite:
            other.invite_cseq = cseq
        forwards = msg.max_forwards
        uri, headers = other.dialog.headers(
            self.method, cseq, core.via(flow.listener, branch), 70 if forwards is None else forwards - 1
        )
        headers.append(("Contact", other.dialog.contact))
        headers += shape.without_content(shape.pass_headers(core, msg, other))
        headers += shape.asserted_identity(core, msg, self.leg, other)
        headers.append(shape.ALLOWED_HEADER)
        headers += refresh.request_headers(core, other)
        if body:
            headers.append(shape.SDP_TYPE)
        answers = credentials.headers(other, self.method, uri, body)
        headers += answers
        if self.invite:
            other.invite_credentials = answers
        data = build_request(self.method, uri, headers, body)
        self.uac = core.layer.send(self.method, branch, data, flow, self, now)

    def cancel(self, now: float) -> None:
        """The INVITE was cancelled: so is ours, and its final answer follows."""
        if self.uac is not None and self.invite:
            self.uac.cancel(None, now)

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """Provisional replies end here: the 100 that we sent covers them."""
        status = msg.status
        if status < 200:
            return
        if self.done:
            if status < 300:
                accept.ack_again(self.core, self.other, now)
            return
        if self.alive and credentials.accept(self.core, self.other, msg, self.tries):
            self.tries += 1
            self.forward(self.body, now)
            return
        if status == 422 and self.alive and self.other.session is not None and self.other.session.raised(msg):
            self.forward(self.body, now)
            return
        self.done = True
        self.other.modifying = False
        if not self.alive:
            if status < 300 and self.invite:
                self.other.unacked = True
                accept.complete(self.core, self.other, b"", now)
            return
        if status < 300:
            self._succeeded(msg, now)
        else:
            code, headers = relayed_failure(msg)
            self.refuse(code, headers, now)
            if status in DIALOG_GONE:
                self._gone(status, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """The other side is gone: so is the dialog (§12.2.1.2, RFC 5057 §5.1). Timer C only wants a CANCEL."""
        if not tx.terminated:
            tx.cancel(None, now)
        elif not self.done:
            self._lost(408, now, gone=True)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """As a timeout, without the wait; but who has connected to us once may do so again, and has audio meanwhile."""
        if not self.done:
            self._lost(503, now, gone=not self.other.flow.connection)

    def _lost(self, status: int, now: float, *, gone: bool) -> None:
        self.done = True
        self.other.modifying = False
        if self.alive:
            self.refuse(status, () if gone else RETRY_AFTER, now)
            if gone:
                self._gone(408, now)

    def _gone(self, status: int, now: float) -> None:
        if self.leg.call.state < CallState.ANSWERED or self.other.state >= LegState.CANCELLED:
            return  # the answer to the INVITE will tell; or the call goes on without that leg
        note = f"{status} to {self.method} in dialog"
        self.core.step(self.leg.call, CallEvent.RELEASE, now, Outcome(status, "sbc", note=note))

    def _succeeded(self, msg: Message, now: float) -> None:
        core, leg, other = self.core, self.leg, self.other
        call = leg.call
        other.refresh_target(msg)
        refresh.confirm(core, other, msg, now)
        other.unacked = self.invite
        described = shape.is_sdp(msg)
        then = partial(self._described, msg)
        if described and self.offered_sdp:
            core.hold(other)
            exchange.answer(core, call, other, leg, shape.description(msg), then, now)
        elif described and self.invite:
            core.hold(other)
            exchange.offer(core, call, other, leg, shape.description(msg), then, now)
        else:  # no offer at all, or one that was never answered
            exchange.withdraw(core, call, now)
            self._described(msg, b"", 0, now)

    def _described(self, msg: Message, body: bytes, status: int, now: float) -> None:
        core, leg, other = self.core, self.leg, self.other
        if self.alive:
            if status:
                exchange.withdraw(core, leg.call, now, leg if self.offered_sdp else other)
                self.refuse(488 if status == 488 else 500, (), now)
                # an offer in its 2xx is answered by what holds already
                accept.complete(core, other, b"" if self.offered_sdp else other.sdp_out, now)
            else:
                self._accept(msg, body, now)
        core.free(other, now)

    def _accept(self, msg: Message, body: bytes, now: float) -> None:
        core, leg, tx = self.core, self.leg, self.tx
        leg.uas = None
        leg.refresh_target(tx.request)
        headers = shape.without_content(shape.pass_headers(core, msg, leg))
        headers += (("Contact", leg.dialog.contact), shape.ALLOWED_HEADER)
        if tx.method != "PRACK":
            headers += refresh.agree(core, leg, tx.request, now)
        if body:
            headers.append(shape.SDP_TYPE)
        data = core.response(tx, msg.status, headers, body)
        tx.respond(msg.status, data, now)
        if self.invite:
            leg.accepted = accept.Accepted(core, leg, tx.flow, data, tx.request.cseq_number)
            leg.accepted.start(now)
        core.touch(leg.call)

    def refuse(self, status: int, headers: list[tuple[str, str]] | tuple[()], now: float) -> None:
        """The session stays as it was (§14.1)."""
        leg = self.leg
        exchange.withdraw(self.core, leg.call, now)
        leg.uas = None
        if not self.done:
            self.done = True
            self.other.modifying = False
        if self.tx.last_status < 200:
            self.core.respond(self.tx, status, now, headers)
        self.core.touch(leg.call)


def is_modification(msg: Message) -> bool:
    """Whether this request, inside a dialog, may change the session."""
    return msg.method == "INVITE" or (msg.method == "UPDATE" and bool(msg.body))
