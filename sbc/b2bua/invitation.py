"""An INVITE of ours inside a dialog that nobody else asked for: with an offer, or to get one (RFC 3261 §14.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sbc.b2bua import accept, credentials, local, refresh, shape
from sbc.b2bua.tables import LegState
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

Then = Callable[[int, Message | None, float], None]


class Invitation:
    """One such INVITE to ``leg``; ``then(status, message, now)`` hears of its end, once.

    ``message`` is None where no answer came (408, 503). The ACK to a 2xx is the caller's to send.
    """

    __slots__ = ("_body", "_cancelled", "_core", "_done", "_leg", "_then", "_tries", "_tx")

    def __init__(self, core: Core, leg: Leg, body: bytes, then: Then) -> None:
        self._core = core
        self._leg = leg
        self._body = body
        self._then = then
        self._tries = 0
        self._done = False
        self._cancelled = False
        self._tx: ClientTransaction | None = None

    def send(self, now: float) -> None:
        """Send it, as the local route leaves it; until then no other change of the session begins on this leg."""
        core, leg, body = self._core, self._leg, self._body
        headers = [shape.ALLOWED_HEADER, *refresh.request_headers(core, leg)]
        if agent := core.settings.realms[leg.realm].user_agent:
            headers.append(("User-Agent", agent))
        if body:
            headers.append(shape.SDP_TYPE)
        leg.modifying = True
        local.ask(core, leg, "INVITE", headers, body, self._transmit, now)

    def _transmit(self, own: shape.Headers, body: bytes, now: float) -> None:
        """With the next CSeq."""
        core, leg = self._core, self._leg
        if self._cancelled or leg.state >= LegState.CANCELLED:
            self._end(487, None, now)
            return
        flow = leg.out(core)
        branch = core.ids.branch()
        cseq = leg.dialog.next_cseq()
        try:
            uri, headers = leg.dialog.headers("INVITE", cseq, core.via(flow.listener, branch))
            headers.append(("Contact", leg.dialog.contact))
            headers += own
            answers = credentials.headers(leg, "INVITE", uri, body)
            data = build_request("INVITE", uri, headers + answers, body)
        except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
            core.note("warning", "INVITE cannot be written", leg.call, leg=leg.name, reason=error.reason)
            self._end(500, None, now)
            return
        leg.invite_cseq = cseq
        leg.invite_credentials = answers
        leg.modifying = True
        self._tx = core.layer.send("INVITE", branch, data, flow, self, now)

    def cancel(self, now: float) -> None:
        """It is no longer wanted; its final answer still comes."""
        self._cancelled = True
        if self._tx is not None and not self._done:
            self._tx.cancel(None, now)

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer; a 2xx that comes again gets its ACK again."""
        core, leg, status = self._core, self._leg, msg.status
        if status < 200:
            return
        if self._done:
            if status < 300:
                accept.ack_again(core, leg, now)
            return
        if credentials.accept(core, leg, msg, self._tries):
            self._tries += 1
            self.send(now)
            return
        if status == 422 and leg.session is not None and leg.session.raised(msg):
            self.send(now)
            return
        if status < 300:
            leg.unacked = True
            leg.refresh_target(msg)
            refresh.confirm(core, leg, msg, now)
        self._end(status, msg, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody is there any more. Timer C only wants a CANCEL."""
        if not tx.terminated:
            tx.cancel(None, now)
        elif not self._done:
            self._end(408, None, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """As a timeout, without the wait."""
        if not self._done:
            self._end(503, None, now)

    def _end(self, status: int, msg: Message | None, now: float) -> None:
        self._done = True
        self._leg.modifying = False
        self._then(status, msg, now)
