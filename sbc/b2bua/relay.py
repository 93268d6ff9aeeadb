"""Requests inside a dialog that change no session: INFO and its kin, subscriptions, and UPDATE without an offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua import credentials, referral, refresh, shape
from sbc.b2bua.call import Headers, Outcome
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

# Answers to a request inside a dialog after which there is no dialog (RFC 3261 §12.2.1.2, RFC 5057 §5.1)
DIALOG_GONE = frozenset({408, 481})
# What a 2xx to such a request carries besides, with a Contact: RFC 6665 §4.2.1.1, RFC 4488 §4
_ALSO_IN_2XX: dict[str, tuple[str, ...]] = {"SUBSCRIBE": ("Expires",), "REFER": ("Refer-Sub",)}
# Requests of another usage of the dialog (RFC 6665): what becomes of that one is not the call's end (RFC 5057 §4.2).
SUBSCRIPTION = frozenset({"SUBSCRIBE", "NOTIFY"})


def receive(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    """Pass a request to the other leg, under its own CSeq; its answer comes back the same way."""
    other = leg.call.other(leg)
    if other is None or not other.dialog.remote_tag or leg.call.state >= CallState.ENDING:
        # nobody there yet: an early dialog on one side only
        core.refuse(tx, 480 if other is None or not other.dialog.remote_tag else 481, now, established=True)
        return
    _send(Relayed(core, leg, other, tx), now)
    core.touch(leg.call)


def _send(request: Relayed, now: float) -> None:
    """On its way, with the next CSeq."""
    core, other, msg = request.core, request.other, request.tx.request
    method = msg.method
    body = msg.body
    flow = other.out(core)
    branch = core.ids.branch()
    forwards = msg.max_forwards
    cseq = other.dialog.next_cseq()
    uri, headers = other.dialog.headers(
        method, cseq, core.via(flow.listener, branch), 70 if forwards is None else forwards - 1
    )
    if method in ("UPDATE", "REFER") or method in SUBSCRIPTION:
        headers.append(("Contact", other.dialog.contact))
    if method == "UPDATE":
        headers += refresh.request_headers(core, other)
    headers += shape.pass_headers(core, msg, other, also=shape.METHOD_HEADERS.get(method, ()))
    if method == "REFER":
        headers += referral.crossing(other, request.tx, cseq)
    elif method in SUBSCRIPTION:
        headers, body = referral.without_details(referral.event_across(request.leg, other, headers), body)
    headers += credentials.headers(other, method, uri, body)
    data = build_request(method, uri, headers, body)
    core.layer.send(method, branch, data, flow, request, now)


def relayed_failure(msg: Message) -> tuple[int, Headers]:
    """Status and headers by which a failure crosses."""
    retry_after = msg.get("Retry-After") or ""
    seconds = retry_after.partition(";")[0].partition("(")[0].strip()
    headers = [("Retry-After", seconds)] if seconds.isdigit() and len(seconds) < 10 else []
    return shape.relayed_status(msg.status), headers + shape.q850_reason(msg)


class Relayed:
    """One such request on its way."""

    __slots__ = ("core", "leg", "other", "tries", "tx")

    def __init__(self, core: Core, leg: Leg, other: Leg, tx: ServerTransaction) -> None:
        self.core = core
        self.leg = leg
        self.other = other
        self.tx = tx
        self.tries = 0

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer crosses."""
        status = msg.status
        if status < 200:
            return
        core = self.core
        if self.leg.call.state < CallState.ENDING and credentials.accept(core, self.other, msg, self.tries):
            self.tries += 1
            _send(self, now)
            return
        if status >= 300:
            status, headers = relayed_failure(msg)
            core.respond(self.tx, status, now, headers)
            if msg.status in DIALOG_GONE:
                self._gone(msg.status, now)
            return
        also = _ALSO_IN_2XX.get(self.tx.method, ())
        headers = shape.pass_headers(core, msg, self.leg, also=also)
        if also:
            headers.append(("Contact", self.leg.dialog.contact))
        if self.tx.method == "UPDATE":  # a target refresh request (RFC 3311 §5.2)
            self.other.refresh_target(msg)
            self.leg.refresh_target(self.tx.request)
            headers.append(("Contact", self.leg.dialog.contact))
            refresh.confirm(core, self.other, msg, now)
            headers += refresh.agree(core, self.leg, self.tx.request, now)
            core.touch(self.leg.call)
        if self.tx.method in ("UPDATE", "OPTIONS"):
            headers.append(shape.ALLOWED_HEADER)
        core.respond(self.tx, status, now, headers, msg.body)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody is there any more."""
        self.core.respond(self.tx, 408, now)
        self._gone(408, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """As a timeout, without the wait; but who has connected to us once may do so again, and has audio meanwhile."""
        self.core.respond(self.tx, 503, now)
        if not self.other.flow.connection:
            self._gone(408, now)

    def _gone(self, status: int, now: float) -> None:
        if self.tx.method in SUBSCRIPTION or self.other.state >= LegState.CANCELLED:
            return
        self.core.step(
            self.leg.call,
            CallEvent.RELEASE,
            now,
            Outcome(status, "sbc", note=f"{status} to {self.tx.method} in dialog"),
        )
