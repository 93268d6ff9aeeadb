"""Session timers on each leg (RFC 4028): agreed in INVITE and UPDATE, refreshed by us, and BYE when nobody did.

The arithmetic and the headers are :mod:`sbc.dialog.session_timer`; here are the requests, the clock and the call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sbc.b2bua import accept, credentials, exchange, local, shape
from sbc.b2bua.call import Outcome
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.dialog.session_timer import SessionTimer, is_too_short
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.ids import is_ours
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

BUSY_RETRY_S = 5.0  # another transaction changes the session: look again then; it may be a refresh itself
_ESTABLISHED: Final = (CallState.ANSWERED, CallState.UP)
_GONE: Final = frozenset({408, 481})  # §10: the session is over


def request_headers(core: Core, leg: Leg, *, reliable: bool = False) -> shape.Headers:
    """What a session refresh request to this leg says of extensions and of its timer."""
    headers = list(core.supported[leg.realm][reliable])
    if leg.session is not None:
        headers += leg.session.request_headers()
    return headers


def propose(core: Core, leg: Leg) -> None:
    """The leg is about to get its first INVITE: ask for a timer, where they are in use."""
    policy = core.settings.session_timers
    if policy.interval_s:
        leg.session = SessionTimer(policy.interval_s, policy.min_se_s)


def too_short(core: Core, msg: Message) -> shape.Headers:
    """The Min-SE of the 422 that an INVITE or UPDATE deserves (§9); empty: none."""
    policy = core.settings.session_timers
    if policy.interval_s and is_too_short(policy, msg):
        core.count("SESSION_INTERVAL_REFUSED")
        return [("Min-SE", str(policy.min_se_s))]
    return []


def agree(core: Core, leg: Leg, request: Message, now: float) -> shape.Headers:
    """The leg's INVITE or UPDATE is accepted: what our 2xx says of extensions and of the timer."""
    headers = list(core.supported[leg.realm][request is leg.call.request])
    policy = core.settings.session_timers
    if leg.session is None and policy.interval_s:
        leg.session = SessionTimer(policy.interval_s, policy.min_se_s)
    if leg.session is not None:
        headers += leg.session.accepted(policy, request, now)
        arm(core, leg, now)
    return headers


def confirm(core: Core, leg: Leg, response: Message, now: float) -> None:
    """The leg has accepted our INVITE or UPDATE."""
    if leg.session is not None:
        leg.session.confirmed(response, now)
        arm(core, leg, now)


def arm(core: Core, leg: Leg, now: float) -> None:
    """Watch the leg's session from now on; before the call is answered there is nothing to watch."""
    stop(leg)
    if leg.session is not None and lives(leg):
        delay_s = max(leg.session.acts_at - now, 0.0)
        leg.session_watch = core.timers.start(delay_s, partial(_due, core, leg), now)


def lives(leg: Leg) -> bool:
    """Whether this leg is one of an established call, and is to stay so."""
    return leg.call.state in _ESTABLISHED and leg.state < LegState.CANCELLED


def stop(leg: Leg) -> None:
    """The session is over, or watched anew."""
    if leg.session_watch is not None:
        leg.session_watch.cancel()
        leg.session_watch = None


def _due(core: Core, leg: Leg, now: float) -> None:
    leg.session_watch = None
    session, call = leg.session, leg.call
    if session is None or not lives(leg):
        return
    if now >= session.gives_up_at:
        core.count("SESSION_EXPIRED")
        core.step(call, CallEvent.RELEASE, now, Outcome(408, "sbc", 102, note=f"session expired on leg {leg.name}"))
    elif session.ours and now >= session.acts_at:
        _refresh(core, leg, session, now)
    else:
        arm(core, leg, now)


def _refresh(core: Core, leg: Leg, session: SessionTimer, now: float) -> None:
    """UPDATE without a body where the other side allows it, else INVITE with the description in force (§7.4)."""
    update = session.update or not leg.sdp_out
    if not update and not may_reinvite(leg):
        session.retry_at = now + BUSY_RETRY_S
        arm(core, leg, now)
        return
    core.count("SESSION_REFRESHES")
    # What nobody answers must not be asked again before it has timed out.
    session.retry_at = now + 64 * core.settings.t1_s
    Refresh(core, leg, "UPDATE" if update else "INVITE").send(now)
    arm(core, leg, now)


def may_reinvite(leg: Leg) -> bool:
    """Whether an INVITE of ours on this leg could repeat what is in force, and would meet no other change of it."""
    return bool(leg.sdp_out) and is_quiet(leg)


def is_quiet(leg: Leg) -> bool:
    """Whether no change of the session is under way on this leg, or waits to cross to it."""
    other = leg.call.other(leg)
    quiet = leg.uas is None and not leg.modifying and not leg.unacked and leg.accepted is None
    return quiet and leg.call.offer_from is None and other is not None and other.uas is None


def glare_delay_s(core: Core, leg: Leg) -> float:
    """RFC 3261 §14.1: 2.1 to 4 s at random for whoever chose the Call-ID, 0 to 2 s for the other side."""
    number = core.session_id()
    return 2.1 + number % 191 / 100 if is_ours(leg.dialog.call_id) else number % 201 / 100


class Refresh:
    """One refresh of ours on its way."""

    __slots__ = ("core", "done", "leg", "method", "tries")

    def __init__(self, core: Core, leg: Leg, method: str) -> None:
        self.core = core
        self.leg = leg
        self.method = method
        self.done = False
        self.tries = 0

    def send(self, now: float) -> None:
        """Send it, as the local route leaves it; until then no other change of the session begins on this leg."""
        core, leg = self.core, self.leg
        invite = self.method == "INVITE"
        body = leg.sdp_out if invite else b""
        headers = [shape.ALLOWED_HEADER, *request_headers(core, leg)]
        if agent := core.settings.realms[leg.realm].user_agent:
            headers.append(("User-Agent", agent))
        if body:
            headers.append(shape.SDP_TYPE)
        leg.modifying = leg.modifying or invite
        local.ask(core, leg, self.method, headers, body, self._transmit, now)

    def _transmit(self, own: shape.Headers, body: bytes, now: float) -> None:
        """With the next CSeq."""
        core, leg = self.core, self.leg
        invite = self.method == "INVITE"
        if not lives(leg):
            self._finish()
            return
        flow = leg.out(core)
        branch = core.ids.branch()
        cseq = leg.dialog.next_cseq()
        try:
            uri, headers = leg.dialog.headers(self.method, cseq, core.via(flow.listener, branch))
            headers.append(("Contact", leg.dialog.contact))
            headers += own
            answers = credentials.headers(leg, self.method, uri, body)
            data = build_request(self.method, uri, headers + answers, body)
        except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
            core.note("warning", "refresh cannot be written", leg.call, leg=leg.name, reason=error.reason)
            self._finish()
            return
        if invite:
            leg.invite_cseq = cseq
            leg.invite_credentials = answers
            leg.modifying = True
        core.layer.send(self.method, branch, data, flow, self, now)

    @property
    def _alive(self) -> bool:
        return lives(self.leg)

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer; a 2xx to INVITE gets its ACK at once, each time that it comes."""
        status, core, leg = msg.status, self.core, self.leg
        if status < 200:
            return
        invite = self.method == "INVITE"
        if self.done:
            if invite and status < 300:
                accept.ack_again(core, leg, now)
            return
        if self._alive and credentials.accept(core, leg, msg, self.tries):
            self.tries += 1
            self.send(now)
            return
        self._finish()
        if status < 300:
            if invite:
                accept.send_ack(core, leg, now)
            if self._alive:
                leg.refresh_target(msg)
                confirm(core, leg, msg, now)
                self._learn(msg, now)
                core.touch(leg.call)
        elif self._alive:
            self._refused(msg, now)

    def _learn(self, msg: Message, now: float) -> None:
        """The answer to what we sent before should be the one we had; media follows where it is not (RFC 3264 §8)."""
        leg = self.leg
        other = leg.call.other(leg)
        sdp = shape.description(msg)
        if self.method == "INVITE" and other is not None and sdp and leg.repaired(sdp) != leg.sdp_in:
            exchange.learn(self.core, leg.call, leg, other, sdp, now)

    def _refused(self, msg: Message, now: float) -> None:
        core, leg, status = self.core, self.leg, msg.status
        session = leg.session
        if status in _GONE:
            self._gone(status, now)
        elif session is None:
            return
        elif status in (405, 501) and self.method == "UPDATE" and leg.sdp_out:
            session.update = False
            session.retry_at = now
        elif status == 422 and session.raised(msg):
            session.retry_at = now
        elif status == 491:
            session.retry_at = now + glare_delay_s(core, leg)
        else:
            session.failed(now)
        if self._alive:
            arm(core, leg, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """§10: nobody is there any more. Timer C only wants a CANCEL."""
        if not tx.terminated:
            tx.cancel(None, now)
        elif not self.done:
            self._finish()
            self._gone(408, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """It may pass before the session expires."""
        if not self.done:
            self._finish()
            if self._alive and self.leg.session is not None:
                self.leg.session.failed(now)
                arm(self.core, self.leg, now)

    def _finish(self) -> None:
        self.done = True
        if self.method == "INVITE":
            self.leg.modifying = False

    def _gone(self, status: int, now: float) -> None:
        if self._alive:
            what = "ping" if self.leg.session is None else "session refresh"
            note = f"{status} to {what} on leg {self.leg.name}"
            self.core.step(self.leg.call, CallEvent.RELEASE, now, Outcome(408, "sbc", 102, note=note))


def is_refresh(leg: Leg, msg: Message) -> bool:
    """Whether an UPDATE only refreshes this leg's own session: the other leg has a timer of its own."""
    return leg.session is not None and not msg.body and msg.get("Session-Expires") is not None


def receive(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    """Answer such an UPDATE here."""
    minimum = too_short(core, msg)
    if minimum:
        core.refuse(tx, 422, now, minimum, established=True)
        return
    leg.refresh_target(msg)
    headers = [("Contact", leg.dialog.contact), shape.ALLOWED_HEADER, *agree(core, leg, msg, now)]
    core.respond(tx, 200, now, headers)
    core.touch(leg.call)
