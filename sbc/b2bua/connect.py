"""From A's INVITE to B's: what is refused at the door, the call with its A leg, and one branch after the other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import accept, credentials, exchange, provisional, refresh, shape
from sbc.b2bua.call import Attempt, Call, Outcome, Target
from sbc.b2bua.cdr import printable
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import Leg, transport_of
from sbc.b2bua.subjects import Branch
from sbc.b2bua.tables import CallEvent, CallState, LegEvent, LegState
from sbc.dialog.dialog import DEFAULT_PORTS, Dialog, without_tag
from sbc.errors import SbcError, SipSyntaxError
from sbc.policy import identity
from sbc.sdp.address import ip_literal
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.shard import shard_of
from sbc.sip.uri import Uri, parse_uri
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source

SCHEMES = ("sip:", "tel:")  # sips would promise a security that UDP cannot give (RFC 3261 §26.2.2)


def invite(core: Core, msg: Message, tx: ServerTransaction, source: Source, now: float) -> None:
    """An INVITE without To tag: refuse it, or make a call and let its route decide."""
    settings = core.settings
    if core.draining:
        core.count("DRAINING_REFUSED")
        core.refuse(tx, 503, now, [("Retry-After", str(settings.drain_retry_after_s))])
        return
    if msg.uri[:4].lower() not in SCHEMES:
        core.refuse(tx, 416, now)
        return
    if not shape.is_readable(msg):
        core.refuse(tx, 415, now, shape.READABLE)
        return
    if identity.impossible(identity.privacy_of(msg)):  # RFC 3323 §5
        core.refuse(tx, 500, now)
        return
    if minimum := refresh.too_short(core, msg):
        core.refuse(tx, 422, now, minimum)
        return
    try:
        contact = msg.contact()
        from_uri, to_uri = str(msg.from_().uri), str(msg.to().uri)
    except SipSyntaxError:
        contact = None
    if contact is None or not msg.from_tag:
        core.refuse(tx, 400, now)
        return
    refusal = settings.admission.open_call(source.peer, now)
    if refusal is not None:
        core.count("MAX_CALLS_REFUSED")
        core.refuse(tx, refusal, now, [("Retry-After", "1")])
        return

    flow = tx.flow
    tag = core.ids.tag()
    dialog = Dialog(msg.call_id, without_tag(msg.get("To") or ""), tag, without_tag(msg.get("From") or ""), "")
    dialog.contact = core.contact(flow.listener, tag)
    dialog.accept(msg)
    leg = Leg("a", dialog, flow, source.realm, source.peer, source.direction)
    leg.invite = leg.uas = tx
    leg.state = LegState.CONFIRMED
    shard = shard_of(msg.call_id, settings.shard_key)
    call = Call(core.ids.call_id(shard), shard, leg, now, core.wall(now))
    leg.call = call
    call.request = msg
    call.body = shape.description(msg)
    call.from_uri, call.to_uri, call.ruri = printable(from_uri), printable(to_uri), printable(msg.uri)
    call.admitted_peers = (source.peer,)
    tx.user = call
    core.add(call)
    core.count("CALLS_STARTED")
    core.count("CALLS_ACTIVE")
    core.respond(tx, 100, now)
    core.run_route(call, RunRoute(RouteKind.REQUEST, call))


def next_branch(core: Core, call: Call, now: float) -> bool:
    """Try the next target; False when there is none."""
    if call.next_target >= len(call.targets):
        return False
    target = call.targets[call.next_target]
    call.next_target += 1
    if call.attempts:
        core.count("FAILOVERS")
    name = f"b{len(call.branches) + 1}"
    attempt = Attempt(target.gateway or target.peer or target.uri, target.uri, name, started=now)
    call.attempts.append(attempt)
    try:
        leg = _make_leg(core, call, target, name)
    except (SbcError, KeyError, StopIteration) as error:
        core.note("error", "target cannot be dialled", call, uri=target.uri, reason=str(error))
        attempt.status = 503
        core.branch_failed(call, now)
        return True
    leg.attempt = attempt
    call.branches.append(leg)
    call.b = leg
    core.legs[leg.dialog.local_tag] = leg
    if call.body:
        exchange.offer(core, call, call.a, leg, call.body, partial(_offered, core, call, leg), now)
    else:
        _dress(core, call, leg, b"", now)
    return True


def _make_leg(core: Core, call: Call, target: Target, name: str) -> Leg:
    """The leg that this target needs: its own Call-ID, tag and Contact; From and To with the hosts of that side."""
    request = call.request
    assert request is not None  # only a resumed call has none, and that one was answered
    uri = parse_uri(target.uri)
    flow = target.flow or flow_to(core, uri, target.realm)
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


def flow_to(core: Core, uri: Uri, realm: str) -> Flow:
    """The path to a URI in a realm. Raises SipSyntaxError where its host is a name, or nothing of ours speaks its
    transport there."""
    wanted = transport_of(uri)
    host = ip_literal(uri.address)
    if not host:
        raise SipSyntaxError(f"{uri.address} is no address literal")
    try:
        listener = core.listener_of(realm, wanted, host)
    except KeyError as error:
        what = f"{wanted} listener" if wanted else "listener"
        raise SipSyntaxError(f"realm {realm} has no {what} of IPv{6 if ':' in host else 4}") from error
    transport = core.settings.listeners[listener].transport
    return Flow(listener, transport, host, uri.port or DEFAULT_PORTS[transport])


def _offered(core: Core, call: Call, leg: Leg, body: bytes, status: int, now: float) -> None:
    """The media plane has endpoints for this branch, or has refused."""
    if call.state is not CallState.RINGING or leg.state is not LegState.IDLE:
        return  # given up in the meantime
    if status:
        exchange.withdraw(call)
        core.step(call, CallEvent.REFUSE, now, Outcome(status, "sbc"))
        return
    _dress(core, call, leg, body, now)


def _dress(core: Core, call: Call, leg: Leg, body: bytes, now: float) -> None:
    """The branch is complete: its route may change it, then it is sent."""
    request, target = call.request, leg.target
    assert request is not None
    assert target is not None
    headers = shape.pass_headers(core, request, leg)
    headers.append(shape.ALLOWED_HEADER)
    headers += shape.asserted_identity(core, request, call.a, leg)
    branch = Branch(call, leg, target, target.uri, headers, shape.with_description(request, body))
    if call.on_branch is not None or RouteKind.BRANCH in core.settings.routes:
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
    leg.sent = branch
    refresh.propose(core, leg)
    if _transmit(core, leg, branch, now) and branch.target.timeout_s:
        leg.timer = core.timers.start(branch.target.timeout_s, partial(_no_answer, core, leg), now)


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
    dialog.remote_tag, dialog.route_set = "", ()
    leg.received = None
    return _transmit(core, leg, branch, now)


def _transmit(core: Core, leg: Leg, branch: Branch, now: float) -> bool:
    call, dialog = branch.call, leg.dialog
    request = call.request
    assert request is not None
    forwards = request.max_forwards
    cseq = leg.invite_cseq = dialog.next_cseq()
    dialog.remote_target = branch.uri
    via_branch = core.ids.branch()
    uri, headers = dialog.headers(
        "INVITE", cseq, core.via(leg.flow.listener, via_branch), 70 if forwards is None else forwards - 1
    )
    headers.append(("Contact", dialog.contact))
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
    return True


def _no_answer(core: Core, leg: Leg, now: float) -> None:
    """The target's own time is up."""
    leg.timer = None
    core.count("LEG_TIMEOUTS")
    core.step_leg(leg, LegEvent.TIMEOUT, now, 408)
