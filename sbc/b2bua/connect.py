"""From A's INVITE to B's: what is refused at the door, the call with its A leg, and the branches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import accept, changes, credentials, exchange, forking, provisional, refresh, shape, trunk
from sbc.b2bua.call import FAIL_OVER_STATUSES, Attempt, Call, Group, Outcome, Target
from sbc.b2bua.cdr import printable
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import Leg, flow_to
from sbc.b2bua.subjects import Branch
from sbc.b2bua.tables import OPEN, CallEvent, CallState, LegEvent, LegState
from sbc.dialog.dialog import Dialog, without_tag
from sbc.errors import SbcError, SipSyntaxError
from sbc.policy import identity
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.sip.shard import shard_of
from sbc.sip.uri import parse_uri
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source

SCHEMES = ("sip:", "tel:")  # sips would promise a security that UDP cannot give (RFC 3261 §26.2.2)


def invite(core: Core, msg: Message, tx: ServerTransaction, source: Source, now: float) -> Call | None:
    """An INVITE without To tag: refuse it, or make a call of it that somebody else decides about."""
    settings = core.settings
    if core.draining:
        core.count("DRAINING_REFUSED")
        core.refuse(tx, 503, now, [("Retry-After", str(settings.drain_retry_after_s))])
        return None
    if core.unprotected:
        core.count("UNPROTECTED_REFUSED")
        core.refuse(tx, 503, now, [shape.RETRY_AFTER])
        return None
    if msg.uri[:4].lower() not in SCHEMES:
        core.refuse(tx, 416, now)
        return None
    if not shape.is_readable(msg):
        core.refuse(tx, 415, now, shape.READABLE)
        return None
    if identity.impossible(identity.privacy_of(msg)):  # RFC 3323 §5
        core.refuse(tx, 500, now)
        return None
    if minimum := refresh.too_short(core, msg):
        core.refuse(tx, 422, now, minimum)
        return None
    try:
        contact = msg.contact()
        from_uri, to_uri = str(msg.from_().uri), str(msg.to().uri)
    except SipSyntaxError:
        contact = None
    if contact is None or not msg.from_tag:
        core.refuse(tx, 400, now)
        return None
    if msg.from_tag in core.legs and forking.is_loop(core, msg, source.peer):
        core.count("LOOP_REFUSED")
        core.refuse(tx, 482, now)
        return None
    refusal = settings.admission.open_call(source.peer, now)
    if refusal is not None:
        core.count("MAX_CALLS_REFUSED")
        core.refuse(tx, refusal, now, [("Retry-After", "1")])
        return None

    flow = tx.flow
    tag = core.ids.tag()
    to, from_ = msg.came.get("To") or "", msg.came.get("From") or ""
    dialog = Dialog(msg.call_id, without_tag(to), tag, without_tag(from_), "")
    dialog.contact = core.contact(flow.listener, tag)
    dialog.accept(msg)
    leg = Leg("a", dialog, flow, source.realm, source.peer, source.direction)
    leg.invite = leg.uas = tx
    leg.state = LegState.CONFIRMED
    leg.see_via(core, msg)
    shard = shard_of(msg.call_id, settings.shard_key)
    call = Call(core.ids.call_id(shard), shard, leg, now, core.wall(now))
    leg.call = call
    call.request = msg
    call.body = shape.description(msg)
    call.from_uri, call.to_uri, call.ruri = printable(from_uri), printable(to_uri), printable(msg.uri)
    call.admitted_peers = (source.peer,)
    tx.user = call
    core.add(call)
    core.setups.begun(call, now)
    core.count("CALLS_STARTED")
    core.count("CALLS_ACTIVE")
    core.respond(tx, 100, now)
    return call


def next_branch(core: Core, call: Call, now: float) -> bool:
    """Try the next target, or all of the next group at once; False when there is none."""
    if call.next_target >= len(call.targets):
        return False
    if call.joining is not None:
        call.joining.dialled(now)
    group = call.targets[call.next_target]
    call.next_target += 1
    start(core, call, group, now)
    return True


def start(core: Core, call: Call, group: Group, now: float) -> None:
    """Try these targets at once, as a group of its own."""
    if call.attempts:
        core.count("FAILOVERS")
    call.group += 1
    breadth = forking.breadth_of(call)
    if breadth < 0:
        core.step(call, CallEvent.REFUSE, now, Outcome(440, "sbc"))
        return
    if isinstance(group, Target):
        legs = add(core, call, group, breadth, now)
    else:
        at_once, share = forking.share(len(group), breadth)
        if at_once < len(group):
            call.further.insert(0, group[at_once:])
        legs = [leg for target in group[:at_once] for leg in add(core, call, target, share, now)]
    if legs:
        offer(core, call, legs, now)
    else:
        core.branch_failed(call, now)


def add(core: Core, call: Call, target: Target, breadth: int, now: float) -> list[Leg]:
    """A branch to ``target``, to be sent by :func:`offer`; none when it cannot be dialled, which counts as 503."""
    name = f"b{len(call.attempts) + 1}"
    gateway = target.gateway or target.peer or target.uri
    attempt = Attempt(gateway, target.uri, name, started=now, group=call.group)
    if (replies := core.settings.replies) is not None:
        attempt.fail_over = replies.failover.get(target.peer, FAIL_OVER_STATUSES)
    call.attempts.append(attempt)
    try:
        leg = _make_leg(core, call, target, name)
    except (SbcError, KeyError, StopIteration) as error:
        core.note("error", "target cannot be dialled", call, uri=target.uri, reason=str(error))
        attempt.status = 503
        return []
    leg.attempt, leg.breadth = attempt, breadth
    call.branches.append(leg)
    call.b = leg
    core.legs[leg.dialog.local_tag] = leg
    return [leg]


def offer(core: Core, call: Call, legs: list[Leg], now: float) -> None:
    """Make A's offer to these branches; each has endpoints of its own."""
    while legs and call.state is CallState.RINGING:
        leg = legs.pop(0)
        if leg.state is not LegState.IDLE:
            continue
        if not call.body:
            _dress(core, call, leg, b"", now)
            continue
        pinned = bool(call.media_node) or call.media_profile is None
        then = partial(_offered, core, call, leg, [] if pinned else legs)
        exchange.offer(core, call, call.a, leg, call.body, then, now)
        if not pinned:
            return  # the reply tells which media worker has the session of this call


def another(core: Core, leg: Leg, msg: Message | None, now: float) -> bool:
    """Take up what the failure of a branch leads to, besides those that still ring: the next server of its name, or
    the Contacts of its redirect, ``msg``. False: to nothing."""
    call, attempt = leg.call, leg.attempt
    assert attempt is not None
    target = forking.next_server(core, leg)
    if target is not None:
        core.count("FAILOVERS")
        legs = add(core, call, target, leg.breadth, now)
    else:
        groups = forking.redirected(core, leg, msg) if msg is not None and msg.status < 400 else []
        if not groups:
            return False
        core.count("REDIRECTS_FOLLOWED")
        attempt.followed = True
        first = groups.pop(0)
        at_once, share = forking.share(min(len(first), forking.room(call)), leg.breadth)
        call.further[:0] = [tuple(group) for group in (first[at_once:], *groups) if group]
        legs = [other for one in first[:at_once] for other in add(core, call, one, share, now)]
    offer(core, call, legs, now)
    return bool(legs)


def _make_leg(core: Core, call: Call, target: Target, name: str) -> Leg:
    """The leg that this target needs: its own Call-ID, tag and Contact; From and To with the hosts of that side."""
    request = call.request
    assert request is not None  # only a resumed call has none, and that one was answered
    uri = parse_uri(target.uri)
    if core.trunks:
        target = trunk.placed(core, target)
    flow = target.path or flow_to(core, uri, target.realm)
    hidden = identity.hides_user(identity.privacy_of(request), core.trust[target.realm])
    tag = core.ids.tag()
    ours = core.hosts[flow.listener]
    dialog = Dialog(
        core.ids.call_id(call.shard),
        identity.ANONYMOUS if hidden else shape.rehomed(request.from_(), ours),
        tag,
        shape.rehomed(request.to(), uri.host or flow.host),
        core.contact(flow.listener, tag),
    )
    leg = Leg(name, dialog, flow, target.realm, target.peer)
    leg.call = call
    leg.target = target
    return leg


def _offered(core: Core, call: Call, leg: Leg, others: list[Leg], body: bytes, status: int, now: float) -> None:
    """The media plane has endpoints for this branch, or has refused."""
    if call.state is not CallState.RINGING or leg.state is not LegState.IDLE:  # given up in the meantime
        if call.state < CallState.ENDING:
            core.drop_branch(leg, now)
    elif not status:
        _dress(core, call, leg, body, now)
    elif any(other is not leg and other.state in OPEN for other in call.branches):
        core.fail_leg(leg, status, now)
    else:
        exchange.withdraw(core, call, now)
        core.step(call, CallEvent.REFUSE, now, Outcome(status, "sbc"))
    if others:
        offer(core, call, others, now)


def _dress(core: Core, call: Call, leg: Leg, body: bytes, now: float) -> None:
    """The branch is complete: its route may change it, then it is sent."""
    request, target = call.request, leg.target
    assert request is not None
    assert target is not None
    headers = shape.pass_headers(core, request, leg)
    headers.append(shape.ALLOWED_HEADER)
    headers += shape.asserted_identity(core, request, call.a, leg)
    if call.joining is not None:
        headers += call.joining.headers_for(leg)
    if call.changes is not None:
        changes.apply(call.changes.edits, headers)
    branch = Branch(call, leg, target, target.uri, headers, shape.with_description(request, body))
    if call.on_branch is not None or RouteKind.BRANCH in call.route_kinds:
        core.run_route(call, RunRoute(RouteKind.BRANCH, branch, call.on_branch))
    else:
        send(core, branch, now)


def send(core: Core, branch: Branch, now: float) -> None:
    """Send a branch as it now is; a dropped one counts as a failure with 480."""
    call, leg = branch.call, branch.leg
    if call.state is not CallState.RINGING or leg.state is not LegState.IDLE:
        return
    if branch.dropped:
        core.fail_leg(leg, 480, now)
        return
    core.step_leg(leg, LegEvent.SEND, now, branch)


def send_invite(core: Core, leg: Leg, now: float, branch: object) -> None:
    """LegAction.SEND_INVITE."""
    assert isinstance(branch, Branch)
    if core.wire is not None:
        branch.uri = core.wire.called(branch.uri, leg.flow)
    leg.sent = branch
    refresh.propose(core, leg)
    if _transmit(core, leg, branch, now) and branch.target.timeout_s:
        leg.timer = core.timers.start(branch.target.timeout_s, partial(no_answer, core, leg), now)


def again(core: Core, leg: Leg, msg: Message, now: float) -> bool:
    """Send the INVITE once more for a refusal that says what it lacks; False: that refusal stands.

    The new INVITE has the next CSeq, the same Call-ID and From tag, and no To tag (RFC 3261 §8.1.3.5).
    """
    branch = leg.sent
    if branch is None:
        return False
    if credentials.accept(core, leg, msg, leg.tries):
        leg.tries += 1
    elif msg.status != 422 or leg.session is None or not leg.session.raised(msg):
        return False
    dialog = leg.dialog
    dialog.start(())
    leg.received = leg.forks = leg.withheld = None
    if leg.call.heard is dialog:
        leg.call.heard = None
    return _transmit(core, leg, branch, now)


def _transmit(core: Core, leg: Leg, branch: Branch, now: float) -> bool:
    call, dialog = branch.call, leg.dialog
    request = call.request
    assert request is not None
    forwards = request.max_forwards
    cseq = leg.invite_cseq = dialog.next_cseq()
    dialog.remote_target = branch.uri
    if core.trunks:
        trunk.preload(core, leg)
    via_branch = core.ids.branch()
    uri, headers = dialog.headers(
        "INVITE", cseq, core.via(leg.flow.listener, via_branch), 70 if forwards is None else forwards - 1
    )
    headers.append(("Contact", dialog.contact))
    if leg.breadth:
        headers.append(("Max-Breadth", str(leg.breadth)))
    headers += branch.headers
    headers += refresh.request_headers(core, leg, reliable=provisional.offers(core, leg))
    leg.invite_credentials = credentials.headers(leg, "INVITE", uri, branch.body)
    headers += leg.invite_credentials
    try:
        data = build_request("INVITE", uri, headers, branch.body)
    except SipSyntaxError as error:
        core.note("error", "branch cannot be sent", call, leg=leg.name, reason=str(error))
        leg.state = LegState.IDLE
        core.fail_leg(leg, 500, now)
        return False
    leg.modifying = True
    leg.uac = core.layer.send("INVITE", via_branch, data, leg.flow, accept.InviteUser(core, leg), now)
    if call.saved:
        core.touch(call)
    return True


def no_answer(core: Core, leg: Leg, now: float) -> None:
    """The target's own time is up."""
    leg.timer = None
    core.count("LEG_TIMEOUTS")
    core.step_leg(leg, LegEvent.TIMEOUT, now, 408)
