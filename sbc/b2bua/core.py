"""The front door of the B2BUA: octets and completions in, effects out. Sans-IO: time and identifiers are arguments.

A map for those who are new here, in the order of a call:

- :mod:`~sbc.b2bua.settings`, :mod:`~sbc.b2bua.effects`, :mod:`~sbc.b2bua.subjects`: what we are told, what we
  ask of the shell, what routes act on.
- :mod:`~sbc.b2bua.dispatch`: which call a message is for.
- :mod:`~sbc.b2bua.refuse`: strangers, broken messages, methods that are not for us.
- :mod:`~sbc.b2bua.tables`: the two state machines, call and B leg, as data. Everything that may cross is a row there.
- :mod:`~sbc.b2bua.call`, :mod:`~sbc.b2bua.leg`: what the machines are about.
- :mod:`~sbc.b2bua.connect`: A's INVITE, the route, the branches. :mod:`~sbc.b2bua.forking`: which at once, which next.
- :mod:`~sbc.b2bua.early`: several early dialogs beside each other, and the one that A hears.
- :mod:`~sbc.b2bua.accept`: B's replies, the 200 to A, the ACKs.
- :mod:`~sbc.b2bua.modify`: re-INVITE and UPDATE. :mod:`~sbc.b2bua.refresh`: session timers.
  :mod:`~sbc.b2bua.relay`: INFO and its kin.
- :mod:`~sbc.b2bua.forward`, :mod:`~sbc.b2bua.subscription`: other requests outside a dialog, and what they open.
- :mod:`~sbc.b2bua.end`: CANCEL, BYE, failure, release; media, CDR and journal at the end.
- :mod:`~sbc.b2bua.refer`, :mod:`~sbc.b2bua.replaces`, :mod:`~sbc.b2bua.transfer`, :mod:`~sbc.b2bua.pickup`: transfers;
  :mod:`~sbc.b2bua.lodging`: calls that another worker takes over for one.
- :mod:`~sbc.b2bua.reanchor`: media that leave the relay, or come back, while the call is up.
- :mod:`~sbc.b2bua.exchange`: every offer and answer passes the media plane here.
- :mod:`~sbc.b2bua.shape`, :mod:`~sbc.b2bua.facing`: what the other side gets to see, and what we look like there.
- :mod:`~sbc.b2bua.wire`: header rules, on everything that comes and leaves.
- :mod:`~sbc.b2bua.output`: whatever the core asks of its shell, the media workers and the peers leaves by it.
- :mod:`~sbc.b2bua.snapshot`, :mod:`~sbc.b2bua.cdr`: what is kept of a call while it lives, and after;
  :mod:`~sbc.b2bua.setup_snapshot` of one that nobody has answered yet, :mod:`~sbc.b2bua.ringing` where it is to go on
  elsewhere; :mod:`~sbc.b2bua.strays` of which nothing was.

This module owns the registries (calls by key, legs by our tag), dispatches, and runs the tables. The modules above call
back into :class:`Core` for whatever touches those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final

from media.protocol import Reply
from sbc.b2bua import (
    accept,
    cdr,
    connect,
    dispatch,
    end,
    exchange,
    forking,
    forward,
    lodging,
    modify,
    part,
    reanchor,
    records,
    refuse,
    ringing,
    snapshot,
    strays,
)
from sbc.b2bua.call import Call, Outcome, Redirects, Target
from sbc.b2bua.effects import RouteKind, RunRoute, SaveCall
from sbc.b2bua.leg import Leg
from sbc.b2bua.output import Output
from sbc.b2bua.settings import CoreSettings
from sbc.b2bua.setup_journal import IN_SETUP, SetupJournal
from sbc.b2bua.subjects import BadMessage, Branch, LocalRequest, Outlived, OutOfDialogRequest, ReplyEvent
from sbc.b2bua.tables import B_LEG, CALL, CallAction, CallEvent, CallState, LegAction, LegEvent
from sbc.b2bua.trunk import Trunk
from sbc.b2bua.wire import Wire
from sbc.errors import SipSyntaxError
from sbc.policy.overload import Overload
from sbc.sip.flow import Flow
from sbc.sip.ids import Ids
from sbc.sip.message import Message
from sbc.transaction.client import NOBODY, ClientUser
from sbc.transaction.layer import TransactionLayer
from sbc.transaction.timers import Settings as TimerSettings

# Any: what an action gets depends on its event: an Outcome, a Reply, a Branch, a ReplyEvent or the body of an ACK
CALL_ACTIONS: dict[CallAction, Callable[[Core, Call, float, Any], None]] = {
    CallAction.ACCEPT_A: lambda core, call, now, _: accept.accept(core, call, now),
    CallAction.REFUSE_A: end.refuse_a,
    CallAction.END_A: end.end_a,
    CallAction.END_B: end.end_b,
    CallAction.CLOSE: end.close,
    CallAction.FINISH: end.finish,
}
LEG_ACTIONS: dict[LegAction, Callable[[Core, Leg, float, Any], None]] = {
    LegAction.SEND_INVITE: connect.send_invite,
    LegAction.RELAY: accept.relay,
    LegAction.ANSWER: accept.answer,
    LegAction.FAIL: end.fail,
    LegAction.CANCEL: end.cancel_leg,
    LegAction.ACK: accept.send_ack,
    LegAction.ACK_AGAIN: accept.ack_again,
    LegAction.BYE: end.send_bye,
    LegAction.FORGET: end.forget_leg,
}
FRAMED: Final = frozenset({"tcp", "tls"})  # streams on which Content-Length ends a message (RFC 3261 §18.3)
_STRIDE: Final = 16  # more than there are events
_CALL_ROWS: Final = {
    state * _STRIDE + event: (target, tuple(CALL_ACTIONS[action] for action in actions))
    for (state, event), (target, actions) in CALL.items()
}
_LEG_ROWS: Final = {
    state * _STRIDE + event: (target, tuple(LEG_ACTIONS[action] for action in actions))
    for (state, event), (target, actions) in B_LEG.items()
}


class Core(Output):
    """All calls of one SIP worker. After every method that takes ``now``, drain :meth:`poll` and look at
    :meth:`next_timer`."""

    modification: ClassVar[type[modify.Modification]] = modify.Modification
    nobody: ClassVar[ClientUser] = NOBODY

    def __init__(self, settings: CoreSettings, ids: Ids) -> None:
        super().__init__(ids)
        self.draining = False
        self.journalled = True  # False: nobody keeps the records of calls, so none are made
        self.unprotected = False  # new calls would not survive this worker, and are not wanted then
        self.incomplete = False  # calls of ours may still be in the journal alone
        self.awaits_until = 0.0  # then their requests are not refused: the other side will repeat them
        self.overload = Overload()
        self.legs: dict[str, Leg] = {}  # by our tag in their dialog
        self.trunks: dict[str, Trunk] = {}  # peers at which this node registers, whichever worker does it
        self._calls: dict[str, Call] = {}
        self.calls: Mapping[str, Call] = MappingProxyType(self._calls)
        self._dirty: dict[str, Call] = {}
        self.stateless_tag = ids.tag()  # RFC 3261 §8.2.7: the same for every stateless answer
        self.requests = forward.Requests(self)
        self.lodging = lodging.Lodging(self)
        self.setups = SetupJournal(self)
        self.hooks: ringing.RouteNames | None = None  # what routes that calls have armed are called elsewhere
        self.strays = strays.Strays(self)
        timers = TimerSettings(settings.t1_s, settings.t2_s, settings.t4_s, settings.timer_c_s)
        self.layer = TransactionLayer(self.timers, timers, self.transmit, self.count, self.oversize)
        self.reconfigure(settings)

    def reconfigure(self, settings: CoreSettings) -> None:
        """Serve by new settings from now on. Listeners keep their order; timers of transactions stay as they were."""
        self.face(settings)
        self.requests.reconfigure(settings)
        self.wire = Wire(self) if settings.wire else None
        self.layer.dress = self.wire.request if self.wire is not None else None

    # Input

    def receive(self, data: bytes, flow: Flow, now: float, wall: float) -> None:
        """One datagram, or one message of a stream. Nothing that it holds can make this raise."""
        self._wall_offset = wall - now
        source = self.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
        if source is None:
            refuse.stranger(self, data, flow)
            return
        try:
            msg = Message.parse(data, stream=flow.connection != 0 and flow.transport in FRAMED)
        except SipSyntaxError as error:
            refuse.malformed(self, data, flow, source, error, now)
            return
        try:
            if self.wire is not None:
                self.wire.receive(msg, flow, source, now)
            elif msg.is_request:
                dispatch.request(self, msg, flow, source, now)
            elif not self.layer.receive_response(msg, flow, now):
                dispatch.stray(self, msg, flow, now)
        except Exception as error:  # a fault of ours costs this message, never the worker
            self._fault(error, msg, now)
        self._flush(now)

    def next_timer(self) -> float | None:
        """When :meth:`fire` is wanted, monotonic seconds."""
        return self.timers.next_deadline()

    def fire(self, now: float, wall: float) -> None:
        """Run what is due."""
        self._wall_offset = wall - now
        try:
            self.timers.fire(now)
        except Exception as error:  # as in receive
            self._fault(error, None, now)
        self._flush(now)

    # Completions

    def route_done(self, effect: RunRoute, error: BaseException | None, now: float) -> None:
        """A route has ended; ``error`` is what it raised."""
        subject = effect.subject
        call = subject if isinstance(subject, Call) else getattr(subject, "call", None)
        try:
            self._route_done(effect, call, error, now)
        except Exception as fault:  # as in receive
            self._fault(fault, None, now, call)
        self._flush(now)

    def _route_done(self, effect: RunRoute, call: Call | None, error: BaseException | None, now: float) -> None:
        subject = effect.subject
        if call is not None and call.pending_route is effect:
            call.pending_route = None
        if error is not None:
            self.count("ROUTE_ERRORS")
            self.note("error", "route raised", call, route=effect.kind.value, error=repr(error))
        if isinstance(subject, ReplyEvent):
            subject.leg.busy = False
            accept.replied(self, subject, now)
            self.free(subject.leg, now)
        elif isinstance(subject, Branch):
            if error is not None:
                subject.dropped = True
            connect.send(self, subject, now)
        elif isinstance(subject, LocalRequest):
            subject.then(subject.headers, subject.body, now)
        elif isinstance(subject, Outlived):
            self.outlived(subject, error, now)
        elif isinstance(subject, OutOfDialogRequest):
            forward.route_done(self, subject, error, now)
        elif isinstance(subject, BadMessage):
            if error is not None:
                self.reply_bad(subject, subject.error.status, now)
        elif call is not None and call.state in (CallState.SETUP, CallState.RINGING):
            if effect.kind is RouteKind.REQUEST:
                if error is not None or not call.decided:
                    if error is None:
                        self.count("ROUTE_UNDECIDED")
                        self.note("error", "route ended without a decision", call)
                    self.step(call, CallEvent.REFUSE, now, Outcome(500, "sbc", note="route failed or did not decide"))
                else:
                    end.branch_failed(self, call, now)
            elif effect.kind is RouteKind.FAILURE:
                if not call.decided:
                    end.give_up(self, call, now)
                else:
                    end.branch_failed(self, call, now)

    def media_done(self, request_id: int, reply: Reply, now: float) -> None:
        """A media worker has answered, or the client gave it up; a second answer is ignored."""
        entry = self._media.pop(request_id, None)
        if entry is None:
            self.count("MEDIA_LATE")
            return
        call, then = entry
        call.media_pending -= 1
        if reply.ok and reply.worker:
            call.media_node = reply.worker
        elif not reply.ok:
            self.count("MEDIA_TIMEOUTS" if reply.code == "timeout" else "MEDIA_REFUSED")
        try:
            then(reply, now)
            if call.state is CallState.ENDING and not call.media_pending:
                if call.has_media:
                    end.delete_media(self, call, now)
                else:
                    self.step(call, CallEvent.FINISHED, now)
        except Exception as error:  # as in receive
            self._fault(error, None, now, call)
        self._flush(now)

    def saved(self, key: str, version: int, ok: bool, now: float) -> None:
        """The journal has a record, has refused it, or ``commit_timeout`` has passed: either way the call goes on."""
        call = self._calls.get(key)
        committed = call is not None and call.state is CallState.ANSWERING and call.a.accepted is not None
        if call is not None and committed and version == call.version:
            try:
                self.step(call, CallEvent.COMMITTED, now)
            except Exception as error:  # as in receive
                self._fault(error, None, now, call)
        elif call is None:
            self.lodging.saved(key)
        self._flush(now)

    def transport_failed(self, flow: Flow, now: float) -> None:
        """Nothing can be sent along this flow."""
        try:
            self.layer.transport_failed(flow, now)
        except Exception as error:  # as in receive
            self._fault(error, None, now)
        self._flush(now)

    # Decisions of routes

    def reject(
        self, call: Call, status: int, now: float, *, reason: str = "", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Refuse A's INVITE (300..699; ValueError otherwise). Without effect once the call is answered or over.

        The bare status of the best failure passes that failure on, as if no route had been asked: B refused, not we.
        """
        if not 300 <= status <= 699:
            raise ValueError(f"{status} is no refusal")
        call.decided = True
        if status == call.best_status and not reason and not headers:
            end.give_up(self, call, now)
        else:
            self.step(call, CallEvent.REFUSE, now, Outcome(status, "sbc", 0, reason, tuple(headers)))
        self._flush(now)

    def dial(
        self,
        call: Call,
        targets: Sequence[Target | Sequence[Target]],
        now: float,
        *,
        follow_redirects: Redirects | None = None,
        on_branch: Any = None,  # Any: route functions that the core only carries
        on_reply: Any = None,
        on_failure: Any = None,
    ) -> None:
        """Try ``targets``: the first now, the others by :meth:`dial_next`, those of a sequence within at once. Without
        effect once the call is answered or over (A may have given up meanwhile). ``follow_redirects`` None: as each
        peer is configured. ValueError without a target, or for too many at once."""
        groups = forking.groups_of(targets)
        call.decided = True
        if not self.step(call, CallEvent.DIAL, now):
            return
        call.targets, call.next_target, call.follow_redirects = groups, 0, follow_redirects
        call.further.clear()
        call.on_branch, call.on_reply, call.on_failure = on_branch, on_reply, on_failure
        connect.next_branch(self, call, now)
        self._flush(now)

    def dial_next(self, call: Call, now: float, *, on_failure: Any = None) -> bool:  # Any: see dial
        """Try the next target; False: there is none, or the call is past that. ``on_failure`` arms the failure route
        for this attempt; None arms the one that has just run."""
        if not call.has_next or not self.step(call, CallEvent.DIAL, now):
            return False
        call.decided = True
        route = call.pending_route
        if on_failure is not None:
            call.on_failure = on_failure
        elif call.on_failure is None and route is not None and route.kind is RouteKind.FAILURE:
            call.on_failure = route.hook
        connect.next_branch(self, call, now)
        self._flush(now)
        return True

    def drop(self, call: Call, now: float) -> None:
        """Answer A's INVITE no more: :func:`sbc.b2bua.end.drop`. Without effect once the call is answered or over."""
        end.drop(self, call, now)
        self._flush(now)

    def release(
        self, call: Call, now: float, *, reason: str, cause: int = 16, status: int = 500, at: float = 0.0
    ) -> None:
        """End a call on both sides: BYE, or CANCEL and ``status`` before it is answered. ``at``: it was over then."""
        call.decided = True
        if self.step(call, CallEvent.RELEASE, now, Outcome(status, "sbc", cause, note=reason, at=at)):
            self.count("CALLS_RELEASED")
        self._flush(now)

    def move_media(self, call: Call, profile: str | None, then: Callable[[str, float], None], now: float) -> str:
        """Let the media of a call go directly (``profile`` None) or relay them: :func:`sbc.b2bua.reanchor.begin`."""
        refusal = reanchor.begin(self, call, profile, then, now)
        self._flush(now)
        return refusal

    def reply_bad(self, bad: BadMessage, status: int, now: float, *, reason: str | None = None) -> None:
        """Answer what did not parse; once, and only where ``bad.answerable``."""
        refuse.reply_bad(self, bad, status, reason)

    # Life

    def resume(self, record: bytes, now: float, wall: float) -> records.Resumed | None:
        """Take up a call, or what else is in the journal, from its record. None: hostile, truncated, or a call that
        is here already; Left: of a later release."""
        self._wall_offset = wall - now
        found = records.resume(self, record, now, wall)
        self._flush(now)
        return found

    def records(self, now: float) -> Iterator[SaveCall]:
        """The record of every call that has one anew, for a store that came back without what it held."""
        return records.of_all(self, now)

    def hand_on(self, now: float) -> Iterator[SaveCall]:
        """This worker ends by order, and hears and says nothing more: the records by which another process goes on with
        the calls that ring. They are not ours any more then (:mod:`sbc.b2bua.ringing`)."""
        return ringing.hand_on(self, now)

    def lost(self, key: str, now: float) -> None:
        """A later owner has this call: it is let go in silence (:mod:`sbc.b2bua.part`)."""
        part.lost(self, key, now)
        self._flush(now)

    def set_draining(self, on: bool) -> None:
        """Refuse new calls (503 with Retry-After), serve the others to their end."""
        self.draining = on

    # The machines

    def step(self, call: Call, event: CallEvent, now: float, context: Any = None) -> bool:  # Any: see CALL_ACTIONS
        """Run a row of CALL; False: this event means nothing in this state."""
        row = _CALL_ROWS.get(call.state * _STRIDE + event)
        if row is None:
            return False
        state, actions = row
        if state is CallState.ENDING and isinstance(context, Outcome):
            call.hung_up_by = context.by
            call.cause = context.cause or cdr.cause_of(context.status)
            call.status_text = context.note
        call.state = state
        for action in actions:
            try:
                action(self, call, now, context)
            except Exception as error:
                if state < CallState.ENDING:
                    raise
                # Whatever goes wrong with one side, the other is told, media ends and the CDR goes out.
                self.count("CORE_FAULTS")
                self.note("error", "fault while ending a call", call, error=repr(error))
        return True

    def step_leg(self, leg: Leg, event: LegEvent, now: float, context: Any = None) -> None:  # Any: see LEG_ACTIONS
        """Run a row of B_LEG, if there is one."""
        row = _LEG_ROWS.get(leg.state * _STRIDE + event)
        if row is None:
            return
        leg.state, actions = row
        for action in actions:
            action(self, leg, now, context)

    def fail_leg(self, leg: Leg, status: int, now: float) -> None:
        """A branch fails without ever having been sent."""
        self.step_leg(leg, LegEvent.FAILURE, now, status)

    def branch_failed(self, call: Call, now: float) -> None:
        """See :func:`sbc.b2bua.end.branch_failed`."""
        end.branch_failed(self, call, now)

    def send_bye(self, leg: Leg, now: float) -> None:
        """See :func:`sbc.b2bua.end.send_bye`."""
        end.send_bye(self, leg, now)

    def send_ack(self, leg: Leg, now: float) -> None:
        """See :func:`sbc.b2bua.accept.send_ack`."""
        accept.send_ack(self, leg, now)

    def drop_branch(self, leg: Leg, now: float) -> None:
        """See :func:`sbc.b2bua.exchange.drop_branch`."""
        exchange.drop_branch(self, leg.call, leg, now)

    def ack_missing(self, leg: Leg, now: float) -> None:
        """64*T1 without an ACK to our 2xx (RFC 3261 §13.3.1.4)."""
        self.count("ACK_MISSING")
        if leg.bye_wanted:
            end.send_bye(self, leg, now)
        else:
            self.step(leg.call, CallEvent.RELEASE, now, Outcome(408, "sbc", 102, note="no ACK"))

    def start_lifetime(self, call: Call, lifetime_s: float, now: float) -> None:
        """End the call when it has lived that long."""

        def expire(now: float) -> None:
            if RouteKind.OUTLIVED in call.route_kinds:
                self.run_route(call, RunRoute(RouteKind.OUTLIVED, Outlived(call)))
            else:
                self.outlived(Outlived(call), None, now)

        call.lifetime_s = lifetime_s
        call.lifetime_timer = self.timers.start(lifetime_s, expire, now)

    def outlived(self, subject: Outlived, error: BaseException | None, now: float) -> None:
        """A call has lived as long as it may: it ends, unless its route has given it more time."""
        call = subject.call
        if call.state >= CallState.ENDING:
            return
        if subject.extend_s and error is None:
            self.start_lifetime(call, subject.extend_s, now)
            self.touch(call)
            return
        self.count("DIALOG_EXPIRED")
        self.step(call, CallEvent.RELEASE, now, Outcome(408, "sbc", 102, note="lifetime"))

    # Order within a leg

    def hold(self, leg: Leg) -> None:
        """An operation for this leg begins: what comes from it waits until :meth:`free`."""
        leg.busy = True

    def wait(self, leg: Leg, work: Callable[[float], None]) -> None:
        """Do this when the leg is free."""
        if leg.waiting is None:
            leg.waiting = deque()
        leg.waiting.append(work)

    def free(self, leg: Leg, now: float) -> None:
        """The operation is over: what has waited goes on, in order, until something holds the leg again."""
        leg.busy = False
        while leg.waiting and not leg.busy:
            leg.waiting.popleft()(now)

    # Registries

    def add(self, call: Call) -> None:
        """A new call, with the legs that it has."""
        self._calls[call.key] = call
        call.route_kinds = self.settings.routes
        for leg in call.legs():
            self.legs[leg.dialog.local_tag] = leg

    def remove(self, call: Call) -> None:
        """The call is over."""
        self._calls.pop(call.key, None)
        self._dirty.pop(call.key, None)

    def forget(self, leg: Leg) -> None:
        """No message will find this leg any more."""
        if self.legs.pop(leg.dialog.local_tag, None) is not None and leg.call.state is CallState.ENDED:
            end.let_go(self, leg.call)

    # Journal

    def commit(self, call: Call, now: float) -> None:
        """Write the record of an answered call and wait for it: :meth:`saved` goes on."""
        self._save(call, True, now)

    def touch(self, call: Call) -> None:
        """Something changed that a resumed call must know: written once this input is done, however often called."""
        self._dirty[call.key] = call

    def keep(self, call: Call, now: float) -> None:
        """As :meth:`touch`, from outside any input: it is written as soon as :meth:`fire` is called, which is due."""
        if call.key not in self._dirty:
            self.touch(call)
            self.timers.start(0.0, _nothing, now)

    def _flush(self, now: float) -> None:
        if self._dirty:
            for call in self._dirty.values():
                if call.state in (CallState.ANSWERED, CallState.UP):
                    self._save(call, False, now)
                elif call.saved and call.state in IN_SETUP and (effect := self.setups.save(call)) is not None:
                    self.emit(effect)
            self._dirty.clear()

    def _save(self, call: Call, wait: bool, now: float) -> None:
        if self.journalled:
            self.emit(self.saving(call, now, wait))
        else:
            call.version += 1
            if wait:
                self.emit(SaveCall(call.key, call.shard, call.version, b"", wait))

    def saving(self, call: Call, now: float, wait: bool = False) -> SaveCall:
        """The record of an answered call, a version above the last."""
        call.version += 1
        call.saved = True
        return SaveCall(call.key, call.shard, call.version, snapshot.encode(self, call, now), wait, call.lodged)

    # Faults of ours

    def _fault(self, error: Exception, msg: Message | None, now: float, call: Call | None = None) -> None:
        """An exception where none should be: note it, and let one call pay at most."""
        self.count("CORE_FAULTS")
        if call is None and msg is not None:
            leg = self.legs.get(msg.to_tag) if msg.is_request else self.legs.get(msg.from_tag)
            call = leg.call if leg is not None else None
        self.note("error", "fault in the core", call, error=repr(error), method=msg.method if msg is not None else "")
        if call is not None and call.state < CallState.ENDING:
            try:
                self.step(call, CallEvent.RELEASE, now, Outcome(500, "sbc", 41, note="fault in the core"))
            except Exception as second:  # the call is lost; say so and keep the others
                self.note("error", "fault while ending a call", call, error=repr(second))
        elif msg is not None and msg.is_request:
            tx = self.layer.invite_for_cancel(msg) if msg.method == "INVITE" else None
            if tx is not None and tx.last_status < 200:
                self.refuse(tx, 500, now)


def _nothing(now: float) -> None:
    """Whoever fires timers writes what waits for the journal."""
