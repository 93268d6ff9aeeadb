"""How a call ends: CANCEL, BYE, failure of every branch, release by us; then media, CDR and journal, once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from media.protocol import Delete, Reply
from sbc.b2bua import cdr, connect, credentials, early, local, ping, refresh, replies, shape
from sbc.b2bua.call import Call, Outcome
from sbc.b2bua.effects import FinishCall, RouteKind, RunRoute
from sbc.b2bua.leg import GONE
from sbc.b2bua.subjects import Ended, ReplyEvent
from sbc.b2bua.tables import OPEN, CallEvent, CallState, LegEvent, LegState
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

ANSWERED_ELSEWHERE: Final = ("Reason", 'SIP;cause=200;text="Call completed elsewhere"')


def cancel(core: Core, msg: Message, tx: ServerTransaction, peer: str, now: float) -> None:
    """CANCEL (RFC 3261 §9.2): 200 to itself always, 487 to an INVITE without final answer."""
    target = core.layer.invite_for_cancel(msg)
    if target is None:
        core.count("STRAY_CANCEL")
        core.refuse(tx, 481, now)
        return
    user = target.user
    if isinstance(user, Call):
        if user.a.peer != peer:  # a guessed branch from somewhere else
            core.count("WRONG_SOURCE_REFUSED")
            core.refuse(tx, 481, now)
            return
        core.respond(tx, 200, now, to_tag=user.a.dialog.local_tag)
        if target.last_status < 200:
            core.count("CALLS_CANCELLED")
            user.cancel_reason = tuple(shape.reasons(msg))
            core.step(user, CallEvent.CANCEL, now, Outcome(487, "a", _cause(shape.q850_reason(msg))))
    else:
        core.respond(tx, 200, now, to_tag=core.ids.tag())
        if target.last_status < 200 and isinstance(user, core.modification):
            user.cancel(now)


def _cause(reason: shape.Headers) -> int:
    """The Q.850 cause of such a header, 0 for none."""
    return int(reason[0][1].rpartition("=")[2]) if reason else 0


def bye(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    """BYE from one side: answered at once, the other side is told (§15.1.2)."""
    core.respond(tx, 200, now)
    tx.let_go()
    call = leg.call
    transfer = call.moving or call.joining
    if transfer is not None and transfer.leaves(leg, now):
        return
    side = "a" if leg is call.a else "b"
    reason = shape.q850_reason(msg)
    cause = _cause(reason) or cdr.NORMAL_CLEARING
    if leg is call.a:
        leg.state = LegState.ENDED
        if leg.accepted is not None:
            leg.accepted.stop()
            leg.accepted = None
        core.forget(leg)
        core.step(call, CallEvent.A_BYE, now, Outcome(487, side, cause))
    else:
        core.step_leg(leg, LegEvent.BYE, now, 480)
        if leg is call.b:
            core.step(call, CallEvent.B_BYE, now, Outcome(480, side, cause))


def branch_failed(core: Core, call: Call, now: float) -> None:
    """A branch has failed. When it was the last one out: what is left of a redirect is tried; else the failure route
    decides; without one the next target is tried where it may do better, or the best answer goes to A."""
    if call.state is not CallState.RINGING or call.pending_route is not None:
        return
    if any(leg.state in OPEN for leg in call.branches):
        return
    if call.further:
        connect.start(core, call, call.further.pop(0), now)
    elif call.on_failure is not None or RouteKind.FAILURE in call.route_kinds:
        hook, call.on_failure = call.on_failure, None  # consumed: armed again by the next dial
        call.decided = False
        core.run_route(call, RunRoute(RouteKind.FAILURE, call, hook))
    elif not call.may_fail_over or not connect.next_branch(core, call, now):
        give_up(core, call, now)


def give_up(core: Core, call: Call, now: float) -> None:
    """Relay the best failure (§16.7 step 6) to A, without what would show B."""
    status = call.best_status or 480
    best, headers = call.best_reply
    said = best == status  # by B; otherwise it stands for a silence or a fault that we noticed
    kept = tuple(headers) if said else ()
    cause = _cause([item for item in kept if item[0] == "Reason"])
    outcome = Outcome(shape.relayed_status(status), "b" if said else "sbc", cause, headers=kept)
    if core.settings.replies is not None:
        outcome = replies.from_peer(core.settings.replies, call, status, outcome)
    core.step(call, CallEvent.REFUSE, now, outcome)


def fail(core: Core, leg: Leg, now: float, event: object) -> None:
    """LegAction.FAIL: note what became of the branch. ``event``: its reply, or the status that stands for none."""
    call, attempt = leg.call, leg.attempt
    assert attempt is not None
    msg = None
    if isinstance(event, ReplyEvent):
        msg = event.received
        attempt.status = event.status
        headers = shape.q850_reason(event.received)
        retry_after = event.received.get("Retry-After")
        if retry_after is not None and retry_after.partition(";")[0].partition("(")[0].strip().isdigit():
            headers.append(("Retry-After", retry_after.partition(";")[0].partition("(")[0].strip()))
        headers += shape.without_content(event.headers)
        if call.best_status == attempt.status:
            call.best_reply = (attempt.status, headers)
    else:
        attempt.status = event if isinstance(event, int) else 500
    if call.saved:
        core.touch(call)
    if call.state is CallState.RINGING:
        if attempt.status >= 600:
            _declined(core, leg, now)
        elif connect.another(core, leg, msg, now):
            return
    branch_failed(core, call, now)


def _declined(core: Core, leg: Leg, now: float) -> None:
    """6xx: the user wants the call nowhere (RFC 3261 §16.7 step 5); no further target is tried."""
    call = leg.call
    call.next_target = len(call.targets)
    call.further.clear()
    for other in call.branches:
        core.step_leg(other, LegEvent.END, now)


def cancel_leg(core: Core, leg: Leg, now: float, _: object = None) -> None:
    """LegAction.CANCEL."""
    if leg.timer is not None:
        leg.timer.cancel()
        leg.timer = None
    if leg.attempt is not None and not leg.attempt.status:
        leg.attempt.status = 487
    if leg.uac is not None:
        leg.uac.cancel(None, now, _why(leg.call))
    if leg.call.state < CallState.ENDING:
        early.leave(core, leg, now)


def _why(call: Call) -> Sequence[tuple[str, str]]:
    """The Reason of a CANCEL (RFC 3326): what A gave, that another phone has answered or declined, or our own cause."""
    if call.state is CallState.ANSWERING:
        return (ANSWERED_ELSEWHERE,)
    if call.state is CallState.RINGING and call.best_status >= 600:
        return (("Reason", f"SIP;cause={call.best_status}"),)
    if call.cancel_reason or call.hung_up_by != "sbc" or not call.cause:
        return call.cancel_reason
    return (("Reason", f"Q.850;cause={call.cause}"),)


def forget_leg(core: Core, leg: Leg, now: float, _: object = None) -> None:
    """LegAction.FORGET: no request inside its dialog will be expected any more."""
    if leg.timer is not None:
        leg.timer.cancel()
        leg.timer = None
    core.forget(leg)
    call = leg.call
    if call.state is CallState.RINGING or (call.state < CallState.ENDING and leg is not call.b):
        early.leave(core, leg, now)


def refuse_a(core: Core, call: Call, now: float, outcome: Outcome) -> None:
    """CallAction.REFUSE_A: the final answer to A's INVITE."""
    a = call.a
    tx = a.invite
    if core.settings.replies is not None:
        outcome = replies.for_caller(core.settings.replies, call, outcome)
    if a.accepted is not None:  # was prepared, never sent
        a.accepted = None
        call.answered_at = call.answer_wall = 0.0
    if a.uas is tx:  # else an UPDATE or PRACK, which close() answers
        a.uas = None
    if a.provisionals is not None:
        a.provisionals.stop()
    a.state = LegState.ENDED
    call.status = outcome.status
    core.forget(a)
    if call.joining is not None:
        call.joining.ended(call, outcome.status, now)
    if tx is None:
        return
    headers = outcome.headers
    if call.media_lacking and outcome.status == 503 and outcome.by == "sbc":
        headers = (*headers, shape.RETRY_AFTER)
    try:
        core.respond(tx, outcome.status, now, headers, b"", a.dialog.local_tag, outcome.reason)
    except SipSyntaxError as error:  # a route gave a header or a phrase that cannot be written
        core.note("error", "refusal cannot be written", call, reason=error.reason)
        core.respond(tx, outcome.status, now, to_tag=a.dialog.local_tag)


def drop(core: Core, call: Call, now: float) -> None:
    """A gets no final answer. Its transaction absorbs what comes again, and is forgotten after 64*T1."""
    if call.state not in (CallState.SETUP, CallState.RINGING):
        return
    call.decided = True
    a, tx = call.a, call.a.invite
    if tx is not None:
        a.invite = None
        if a.uas is tx:
            a.uas = None
        tx.forsake(now)
    core.count("REQUESTS_DROPPED")
    core.step(call, CallEvent.REFUSE, now, Outcome(403, "sbc", note="dropped by a route"))


def end_a(core: Core, call: Call, now: float, outcome: Outcome) -> None:
    """CallAction.END_A: BYE, once A has acknowledged our 2xx or never will (§15: a callee waits for the ACK)."""
    if call.a.state is LegState.ENDED:
        return
    if call.a.accepted is not None:
        call.a.bye_wanted = True
    else:
        send_bye(core, call.a, now)


def end_b(core: Core, call: Call, now: float, outcome: Outcome) -> None:
    """CallAction.END_B."""
    for leg in call.branches:
        core.step_leg(leg, LegEvent.END, now)


class ByeUser:
    """Waits for the answer to our BYE: until then a crossing BYE of the other side still finds its dialog."""

    __slots__ = ("body", "core", "headers", "leg", "tries")

    def __init__(self, core: Core, leg: Leg, headers: shape.Headers, body: bytes, tries: int) -> None:
        self.core = core
        self.leg = leg
        self.headers = headers
        self.body = body
        self.tries = tries

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """Any final answer will do, but for a challenge that we can answer."""
        if msg.status < 200:
            return
        if msg.status in (401, 407) and credentials.accept(self.core, self.leg, msg, self.tries):
            transmit_bye(self.core, self.leg, self.headers, self.body, now, self.tries + 1)
        else:
            self.core.forget(self.leg)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Gone."""
        self.core.forget(self.leg)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """Gone."""
        self.core.forget(self.leg)


def send_bye(core: Core, leg: Leg, now: float, _: object = None) -> None:
    """LegAction.BYE, after an ACK that is still owed."""
    call = leg.call
    leg.state = LegState.ENDED
    if leg.accepted is not None:  # §15: a callee waits for the ACK
        leg.bye_wanted = True
        return
    leg.bye_wanted = False
    if leg.unacked:
        core.send_ack(leg, now)
    headers = [("Reason", f"Q.850;cause={call.cause}")] if call.cause else []
    agent = core.settings.realms[leg.realm].user_agent
    if agent:
        headers.append(("User-Agent", agent))
    if call.hung_up_by == "sbc":
        local.ask(core, leg, "BYE", headers, b"", partial(transmit_bye, core, leg), now)
    else:
        transmit_bye(core, leg, headers, b"", now)


def transmit_bye(core: Core, leg: Leg, headers: shape.Headers, body: bytes, now: float, tries: int = 0) -> None:
    """The BYE itself, as the local route leaves it."""
    flow = leg.out(core)
    branch = core.ids.branch()
    try:
        uri, head = leg.dialog.headers("BYE", leg.dialog.next_cseq(), core.via(flow.listener, branch))
        data = build_request("BYE", uri, head + headers + credentials.headers(leg, "BYE", uri, body), body)
    except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
        core.note("warning", "BYE cannot be written", leg.call, leg=leg.name, reason=error.reason)
        core.forget(leg)
        return
    core.layer.send("BYE", branch, data, flow, ByeUser(core, leg, headers, body, tries), now)


def close(core: Core, call: Call, now: float, outcome: Outcome) -> None:
    """CallAction.CLOSE: nothing more is decided; media ends and tells how it was."""
    call.ended_at = max(outcome.at, call.answered_at) if outcome.at else now
    transfer = call.moving or call.joining
    if transfer is not None:
        transfer.ended(call, 0, now)
    if call.lifetime_timer is not None:
        call.lifetime_timer.cancel()
        call.lifetime_timer = None
    if call.announcing is not None:
        call.announcing.stop()
        call.announcing = None
    for leg in call.legs():  # INVITEs and UPDATEs inside the dialog that nobody will answer
        refresh.stop(leg)
        ping.stop(leg)
        tx, leg.uas = leg.uas, None
        if tx is not None and tx.last_status < 200:
            core.respond(tx, 487, now)
        core.free(leg, now)  # what has waited sees a call that is over
    if call.has_media:
        delete_media(core, call, now)
    elif not call.media_pending:
        core.step(call, CallEvent.FINISHED, now)


def delete_media(core: Core, call: Call, now: float) -> None:
    """End the session, once the node that has it is known: an offer may still be on its way."""
    if call.media_pending:
        return
    call.has_media = False

    def deleted(reply: Reply, now: float) -> None:
        core.step(call, CallEvent.FINISHED, now, reply)

    core.ask(call, Delete(call.key), deleted, now)


def finish(core: Core, call: Call, now: float, reply: object) -> None:
    """CallAction.FINISH: the CDR goes out and the record goes, both or neither."""
    stats = reply.stats if isinstance(reply, Reply) else {}
    if call.media_stats:
        stats = cdr.together(call.media_stats, stats)
    for peer in call.admitted_peers:
        core.settings.admission.close_call(peer)
    core.count("CALLS_ACTIVE", -1)
    core.count("CALLS_ENDED" if call.answered_at else "CALLS_FAILED")
    core.remove(call)
    record = cdr.record(core.settings.node, call, stats, core.wall(call.ended_at))
    core.emit(FinishCall(call.key, call.shard, record, call.saved, call.lodged))
    if RouteKind.ENDED in call.route_kinds:
        core.emit(RunRoute(RouteKind.ENDED, Ended(call, record)))
    let_go(core, call)


def let_go(core: Core, call: Call) -> None:
    """Part a call that is over from its legs, once no message can find its dialogs any more.

    Its transactions live on for 32 s and would hold all of it, memory enough at a hundred calls a second for every new
    one to run on cold caches; and call and legs would hold each other until the garbage collector comes, which is
    rarely. A leg keeps what tells a late message that the call is over, and what acknowledges a late 2xx.
    """
    if any(leg.dialog.local_tag in core.legs for leg in call.legs()):
        return
    if call.a.invite is not None:
        call.a.invite.let_go()
    for leg in call.legs():
        leg.let_go()
    call.a = GONE
    call.branches.clear()
    call.b = call.heard = call.request = call.pending_route = call.offer_from = None
