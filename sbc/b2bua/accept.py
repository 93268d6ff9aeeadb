"""From B's replies to A's: ringing, the answer, the journal before the 200, and the ACKs that complete both sides."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sbc.b2bua import accompany, by_hand, connect, credentials, early, exchange, ping, provisional, refresh, shape
from sbc.b2bua.call import Call, Outcome
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.subjects import ReplyEvent
from sbc.b2bua.tables import CallEvent, CallState, LegEvent, LegState
from sbc.dialog.reliable import rseq_of
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction
    from sbc.transaction.timers import Timer

_SENT: Final = (LegState.CALLING, LegState.EARLY)


class InviteUser:
    """Takes the replies to the INVITE of a branch, in order: one that needs media or a route holds up the next."""

    __slots__ = ("core", "leg")

    def __init__(self, core: Core, leg: Leg) -> None:
        self.core = core
        self.leg = leg

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """Every reply above 100; 100 has no meaning beyond the transaction."""
        if msg.status < 200:
            if msg.status == 100:
                return
            rseq = rseq_of(msg)
            if rseq and self.leg.state in _SENT and not provisional.received(self.core, self.leg, msg, rseq, now):
                return
            if msg.status == 199:
                early.terminated(self.core, self.leg, msg, now)
                return
        if self.leg.busy:
            self.core.wait(self.leg, partial(_reply, self.core, self.leg, msg))
        else:
            _reply(self.core, self.leg, msg, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Timers B and C, and a peer that answers CANCEL but never the INVITE."""
        self.core.count("LEG_TIMEOUTS")
        self.core.step_leg(self.leg, LegEvent.FAILURE if tx.terminated else LegEvent.TIMEOUT, now, 408)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """RFC 3261 §8.1.3.1: as if 503 had come."""
        self.core.step_leg(self.leg, LegEvent.FAILURE, now, 503)


def _reply(core: Core, leg: Leg, msg: Message, now: float) -> None:
    status = msg.status
    attempt = leg.attempt
    if attempt is not None and attempt.pdd_ms < 0:
        attempt.pdd_ms = int((now - attempt.started) * 1000)
        if leg.call.saved:
            core.touch(leg.call)
    if status >= 300 and leg.state in _SENT and connect.again(core, leg, msg, now):
        return
    if status >= 200:
        leg.modifying = False
        leg.sent = leg.received = None
        if leg.timer is not None:
            leg.timer.cancel()
            leg.timer = None
    if 200 <= status < 300 and leg.state not in _SENT:
        _late_success(core, leg, msg, now)
        return
    call = leg.call
    headers = shape.pass_headers(core, msg, call.a) + shape.asserted_identity(core, msg, leg, call.a)
    event = ReplyEvent(call, leg, msg, headers, shape.description(msg) or msg.body, "")
    asked = call.on_reply is not None or leg.on_reply is not None or RouteKind.REPLY in call.route_kinds
    if asked and leg.state in _SENT:
        leg.busy = True
        core.run_route(call, RunRoute(RouteKind.REPLY, event, call.on_reply))
    else:
        replied(core, event, now)


def replied(core: Core, event: ReplyEvent, now: float) -> None:
    """A reply as the routes leave it."""
    if event.dropped:
        return
    status = event.received.status
    if status < 200:
        core.step_leg(event.leg, LegEvent.PROVISIONAL, now, event)
    elif status < 300 and event.leg.state not in _SENT:  # given up while a route ran
        _late_success(core, event.leg, event.received, now)
    elif status < 300:
        core.step_leg(event.leg, LegEvent.SUCCESS, now, event)
    else:
        core.step_leg(event.leg, LegEvent.FAILURE, now, event)


def _late_success(core: Core, leg: Leg, msg: Message, now: float) -> None:
    """A 2xx to a leg that is no longer ringing: repeated, crossed with our CANCEL, or of another fork downstream."""
    if leg.state is LegState.CANCELLED:
        core.count("CANCEL_CROSSED")
        early.confirm(leg, msg)
        leg.unacked = True
    elif msg.to_tag != leg.dialog.remote_tag:
        early.end_fork(core, leg, msg, now)
        return
    core.step_leg(leg, LegEvent.SUCCESS, now, b"")


def relay(core: Core, leg: Leg, now: float, event: object) -> None:
    """LegAction.RELAY: a provisional reply to A; its description is the answer, a preview of it, or B's offer."""
    assert isinstance(event, ReplyEvent)
    call, msg = leg.call, event.received
    if call.state is not CallState.RINGING:
        return
    a = call.a
    fork = early.fork_of(leg, msg)
    if call.joining is not None:  # its A is busy in another call yet
        call.joining.progressed(event.status, now)
        return
    described = bool(event.body) and shape.is_sdp(msg)
    if described and (call.body or leg.prack or a.described_early):
        described = early.may_be_heard(leg, event, fork)
    elif call.heard is None:
        call.b = leg
    if not described:
        _relay(core, leg, event, b"", now)
    elif a.described_early:  # A has its answer for good: only media follow
        if leg.repaired(event.body) != leg.sdp_in:
            exchange.learn(core, call, leg, a, event.body, now)
        _relay(core, leg, event, b"", now)
    elif call.body:
        core.hold(leg)
        exchange.answer(core, call, leg, a, event.body, partial(_relay_described, core, leg, event), now)
    elif leg.prack:
        core.hold(leg)
        exchange.offer(core, call, leg, a, event.body, partial(_relay_offer, core, leg, event), now)
    else:
        _relay(core, leg, event, b"", now)


def _relay_described(core: Core, leg: Leg, event: ReplyEvent, body: bytes, status: int, now: float) -> None:
    # Without media there is no early media either; the 200 will show whether it was only a moment.
    _relay(core, leg, event, b"" if status else body, now)
    # Where A did not get it reliably the offer stays open: such a provisional answers nothing yet (§13.2.1).
    call = leg.call
    if call.offer_from is None and not call.a.described_early and call.state is CallState.RINGING:
        call.offer_from = call.a
    core.free(leg, now)


def _relay_offer(core: Core, leg: Leg, event: ReplyEvent, body: bytes, status: int, now: float) -> None:
    """B's offer in a reliable provisional (RFC 3262 §5); A's PRACK will answer it."""
    if status:
        core.step(leg.call, CallEvent.REFUSE, now, Outcome(status, "sbc", note="media refused the offer"))
    else:
        _relay(core, leg, event, body, now)
    core.free(leg, now)


def _relay(core: Core, leg: Leg, event: ReplyEvent, body: bytes, now: float) -> None:
    call = leg.call
    a = call.a
    tx = a.invite
    if call.state is not CallState.RINGING or tx is None:
        return
    headers = _dialog_headers(call, event, body, core.supported[a.realm][True])
    reliable = provisional.relayed(core, a, tx, reliably=rseq_of(event.received) != 0)
    if reliable is not None:
        reliable.respond(event.status, headers, body, event.reason, now)
    else:
        core.respond(tx, event.status, now, headers, body, a.dialog.local_tag, event.reason)


def _dialog_headers(call: Call, event: ReplyEvent, body: bytes, extra: shape.Headers) -> shape.Headers:
    """What a reply that makes a dialog carries (RFC 3261 §12.1.1)."""
    dialog = call.a.dialog
    headers = [("Record-Route", route) for route in dialog.route_set]
    headers += (("Contact", dialog.contact), shape.ALLOWED_HEADER)
    headers += shape.without_content(event.headers)
    headers += extra
    if body:
        headers.append(shape.SDP_TYPE)
    return headers


def answer(core: Core, leg: Leg, now: float, event: object) -> None:
    """LegAction.ANSWER: the first 2xx. The other branches lose; A's 200 waits for media, then for the journal."""
    assert isinstance(event, ReplyEvent)
    call, msg = leg.call, event.received
    early.confirm(leg, msg)
    leg.unacked = True
    refresh.confirm(core, leg, msg, now)
    if leg.sessions is not None:
        credentials.renew(leg.sessions, msg)
    assert leg.attempt is not None
    leg.attempt.status = msg.status
    if not core.step(call, CallEvent.B_ANSWERED, now):
        core.step_leg(leg, LegEvent.END, now)
        return
    call.b = leg
    for other in call.branches:
        if other is not leg:
            core.step_leg(other, LegEvent.END, now)
    if leg.media is not None or (call.has_media and call.media_profile is None):
        by_hand.won(core, leg, now)
    core.hold(leg)
    then = partial(conclude, core, leg, event)
    body = event.body if shape.is_sdp(msg) else b""
    if not body and leg.withheld is not None:  # an 18x brought it, while A heard another branch
        body = leg.withheld.body
    leg.withheld = None
    described = bool(body)
    if call.a.described_early:
        _answered_early(core, call, leg, body, then, now)
    elif not call.body:
        if described:
            exchange.offer(core, call, leg, call.a, body, then, now)
        else:
            then(b"", 0, now)
    elif described:
        exchange.answer(core, call, leg, call.a, body, then, now)
    elif leg.sdp_in:  # the 18x brought it
        call.offer_from = None
        then(call.a.sdp_out, 0, now)
    else:
        core.note("warning", "answer without description", call, leg=leg.name)
        then(b"", 502, now)


def _answered_early(core: Core, call: Call, leg: Leg, body: bytes, then: exchange.Then, now: float) -> None:
    """Offer and answer went by reliable provisionals: A's 200 carries no description (RFC 3262 §5)."""
    if not leg.described_early:  # this branch has its own to say
        if not call.body:
            then(b"", 502, now)  # an offer that A cannot be asked any more
            return
        call.offer_from = None
    if body and leg.repaired(body) != leg.sdp_in:
        exchange.learn(core, call, leg, call.a, body, now)
    then(b"", 0, now)


def conclude(core: Core, leg: Leg, event: ReplyEvent, body: bytes, status: int, now: float) -> None:
    """The description for A is there: journal first, so that a call that A believes answered can be resumed."""
    call, a = leg.call, leg.call.a
    if call.state is not CallState.ANSWERING:
        return
    if call.joining is not None:
        call.joining.answered(body, status, now)
        return
    if status:
        core.step(call, CallEvent.REFUSE, now, Outcome(status, "sbc", note="media refused the answer"))
        return
    waiting = a.provisionals
    if waiting is not None and waiting.sent.open and waiting.described:
        waiting.then = partial(conclude, core, leg, event, body, status)
        return
    tx = a.invite
    assert tx is not None
    headers = _dialog_headers(call, event, body, refresh.agree(core, a, tx.request, now))
    data = core.response(tx, event.status, headers, body, a.dialog.local_tag, event.reason)
    a.accepted = Accepted(core, a, tx.flow, data, tx.request.cseq_number)
    call.answered_at, call.answer_wall = now, core.wall(now)
    call.status = event.status
    core.commit(call, now)


def accept(core: Core, call: Call, now: float) -> None:
    """CallAction.ACCEPT_A: the 200 leaves, and leaves again until A's ACK."""
    a, b = call.a, call.b
    tx, accepted = a.invite, a.accepted
    assert tx is not None
    assert accepted is not None
    assert b is not None
    if a.uas is tx:  # else an UPDATE that crosses the answer
        a.uas = None
    if a.provisionals is not None:
        a.provisionals.stop()
    tx.respond(call.status, accepted.data, now)
    call.forget_scopes()
    accepted.start(now)
    core.count("CALLS_ANSWERED")
    if RouteKind.ANSWERED in call.route_kinds:
        core.emit(RunRoute(RouteKind.ANSWERED, call))
    core.start_lifetime(call, call.lifetime_s or core.settings.dialog_lifetime_s, now)
    for leg in (a, b):
        refresh.arm(core, leg, now)
        ping.arm(core, leg, now)
    accompany.answered(core, call, now)
    core.free(b, now)


class Accepted:
    """Our 2xx to an INVITE, repeated from T1 up to T2 until its ACK, given up after 64*T1 (RFC 3261 §13.3.1.4)."""

    __slots__ = ("core", "cseq", "data", "deadline", "flow", "interval_s", "leg", "timer")

    def __init__(self, core: Core, leg: Leg, flow: Flow, data: bytes, cseq: int) -> None:
        self.core = core
        self.leg = leg
        self.flow = flow
        self.data = data
        self.cseq = cseq
        self.interval_s = core.settings.t1_s
        self.deadline = 0.0
        self.timer: Timer | None = None

    def start(self, now: float) -> None:
        """It has just been sent."""
        self.deadline = now + 64 * self.core.settings.t1_s
        self.timer = self.core.timers.start(self.interval_s, self._tick, now)

    def stop(self) -> None:
        """The ACK came, or nobody waits any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _tick(self, now: float) -> None:
        core = self.core
        if now >= self.deadline:
            self.timer = None
            self.leg.accepted = None
            core.ack_missing(self.leg, now)
            return
        core.count("RETRANSMISSION_OUT")
        core.transmit(self.flow, self.data)
        self.interval_s = min(2 * self.interval_s, core.settings.t2_s)
        self.timer = core.timers.start(min(self.interval_s, self.deadline - now), self._tick, now)


def acked(core: Core, leg: Leg, msg: Message, now: float) -> None:
    """The ACK to a 2xx of ours: the other side's 2xx gets its own, with the answer if this one brought it."""
    accepted = leg.accepted
    if accepted is not None and accepted.cseq == msg.cseq_number and accepted.deadline:
        _arrived(core, leg, accepted, msg, now)
    # else again, of an older INVITE, or for a 2xx that still waits for the journal


def overtaken(core: Core, leg: Leg, msg: Message, now: float) -> None:
    """An offer of this side comes before its ACK, which is late or lost. It says as much: our 2xx has arrived. Where
    that 2xx made an offer, though, only the ACK has the answer (RFC 5407 §3.1.4, §3.1.5)."""
    accepted = leg.accepted
    if accepted is not None and accepted.deadline and leg.call.offer_from is None and not leg.bye_wanted:
        _arrived(core, leg, accepted, msg, now)


def _arrived(core: Core, leg: Leg, accepted: Accepted, msg: Message, now: float) -> None:
    call = leg.call
    accepted.stop()
    leg.accepted = leg.provisionals = None
    if leg.bye_wanted:
        core.send_bye(leg, now)
        return
    other = call.other(leg)
    if other is None or call.state not in (CallState.ANSWERED, CallState.UP):
        return
    if other.unacked:
        if call.offer_from is other and shape.is_sdp(msg):
            exchange.answer(core, call, leg, other, shape.description(msg), partial(_ack_described, core, other), now)
        else:
            exchange.withdraw(core, call, now)
            complete(core, other, b"", now)
    if leg is call.a:
        core.step(call, CallEvent.ACKED, now)
    core.touch(call)


def _ack_described(core: Core, leg: Leg, body: bytes, status: int, now: float) -> None:
    """A delayed offer has its answer (RFC 3261 §13.2.1)."""
    complete(core, leg, body, now)
    core.touch(leg.call)
    if status:
        core.step(leg.call, CallEvent.RELEASE, now, Outcome(status, "sbc", note="media refused the answer in ACK"))


def complete(core: Core, leg: Leg, body: bytes, now: float) -> None:
    """The 2xx of this leg may be acknowledged, once."""
    if leg.state is LegState.ANSWERED:
        core.step_leg(leg, LegEvent.ACK, now, body)
    elif leg.unacked:
        send_ack(core, leg, now, body)


def send_ack(core: Core, leg: Leg, now: float, body: object = b"") -> None:
    """LegAction.ACK: a transaction of its own, sent once and again for each 2xx that comes again (§13.2.2.4)."""
    leg.unacked = False
    flow = leg.out(core)
    description = body if isinstance(body, bytes) else b""
    try:
        uri, headers = leg.dialog.headers("ACK", leg.invite_cseq, core.via(flow.listener, core.ids.branch()))
        headers += leg.invite_credentials
        if description:
            headers.append(shape.SDP_TYPE)
        data = build_request("ACK", uri, headers, description)
    except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
        core.note("warning", "ACK cannot be written", leg.call, leg=leg.name, reason=error.reason)
        return
    leg.ack = (flow, data)
    core.layer.send_ack(data, flow, now)


def ack_again(core: Core, leg: Leg, now: float, _: object = None) -> None:
    """LegAction.ACK_AGAIN."""
    if leg.ack is not None:
        flow, data = leg.ack
        core.layer.send_ack(data, flow, now)
