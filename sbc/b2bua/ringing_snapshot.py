"""What the record of a call in setup has besides, where the call is to go on in another process: what the transactions
of its INVITEs, its early dialogs and its routing need. The rules of :mod:`sbc.b2bua.snapshot` hold here too.

It is of one version, that of the reader; a record of another one ends the call, as one without this part does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from sbc.b2bua import connect, forking, shape, snapshot
from sbc.b2bua.accept import InviteUser
from sbc.b2bua.call import FAIL_OVER_STATUSES, Attempt, Call, Group, Groups, Target
from sbc.b2bua.changes import Changes
from sbc.b2bua.leg import Chosen, Leg
from sbc.b2bua.provisional import Provisionals
from sbc.b2bua.scope import Scope
from sbc.b2bua.snapshot import BadRecord, Fields, Json, flow_of
from sbc.b2bua.tables import LegState
from sbc.dialog.reliable import Received, Sent
from sbc.errors import SipSyntaxError
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.uri import parse_uri
from sbc.transaction.tables import CALLING, CANCEL_PENDING, CANCELLING, PROCEEDING

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.transaction.client import ClientTransaction
    from sbc.transaction.server import ServerTransaction

VERSION: Final = 1
_STATES: Final = {"calling": LegState.CALLING, "early": LegState.EARLY, "cancelled": LegState.CANCELLED}
_NAMES: Final = {state: name for name, state in _STATES.items()}

Text = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"\A[^\r\n\x00]*\Z")]
Octets = Annotated[str, msgspec.Meta(max_length=65_536)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**32)]
Wall = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]  # seconds of the wall clock
Path = tuple[int, str, str, int, int]


class Kept(msgspec.Struct):
    """A scope of the routes'."""

    flags: list[Text]
    variables: dict[str, Any]  # Any: JSON values


class Place(msgspec.Struct, omit_defaults=True):
    """A target."""

    uri: Text
    realm: Text
    flow: Path | None = None
    peer: Text = ""
    timeout_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    gateway: Text = ""
    q: float = 1.0
    servers: Annotated[Sequence[Path], msgspec.Meta(max_length=64)] = []


class Tried(msgspec.Struct, omit_defaults=True):
    """What is known of an attempt besides."""

    started: Wall
    group: Count
    followed: bool = False
    kept: Kept | None = None


class Branch(msgspec.Struct, omit_defaults=True):
    """A branch that is out. ``sent`` is its INVITE, where nothing has come for it yet."""

    leg: Json
    target: Place
    state: Literal["calling", "early", "cancelled"]
    ends: Wall  # its transaction
    until: Wall = 0.0  # the target's own time; 0: it has none
    sent: Octets = ""
    breadth: Count = 0
    described: bool = False
    anchored: bool = False
    rseq: dict[str, Count] = {}
    way: list[Text | None] = []  # of its media, where its route chose another than the call's
    on_reply: Text = ""


class Part(msgspec.Struct, omit_defaults=True):
    """The part as a whole. ``invite`` is A's as it came, ``ruled`` after header rules, ``changed`` after routes."""

    v: int
    invite: Octets
    said: Octets  # the last response to it
    a: Json
    b: Annotated[list[Branch], msgspec.Meta(min_length=1, max_length=64)]
    tried: list[Tried]
    targets: list[list[Place]]
    next: Count
    group: Count
    ruled: Octets = ""
    changed: Octets = ""
    seen: Path | None = None
    described: bool = False
    anchored: bool = False
    rseq: Count | None = None
    further: list[list[Place]] = []
    redirects: Count = 0
    follow: Literal["never", "peer", "realm"] | None = None
    best: tuple[Count, list[tuple[Text, Text]]] = (0, [])
    profile: Text | None = None
    set: Text = ""
    flags: list[Text] = []
    life_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    offer: Text = ""  # whose offer is open
    heard: Text = ""  # whose description A has
    lacking: bool = False
    peers: Annotated[list[Text], msgspec.Meta(max_length=8)] = []
    uris: tuple[Text, Text] | None = None  # as routes have left them
    edits: list[tuple[Text, Text | None]] = []
    kept: Kept | None = None
    on_branch: Text = ""
    on_reply: Text = ""
    on_failure: Text = ""


# Written


def encode(core: Core, call: Call, now: float) -> Json:
    """The part of a call that :func:`sbc.b2bua.ringing.obstacle` has nothing against."""
    a, tx, request = call.a, call.a.invite, call.request
    assert tx is not None
    assert request is not None
    asked = tx.request
    changes = call.changes
    part = Part(
        VERSION,
        _text(asked.came.raw),
        _text(tx.said),
        snapshot.leg_record(core, a),
        [_branch(core, leg, leg.uac, now) for leg in call.branches if leg.state in _NAMES and leg.uac is not None],
        [Tried(core.wall(one.started), one.group, one.followed, _kept(one.scope)) for one in call.attempts],
        _places(call.targets),
        call.next_target,
        call.group,
        ruled="" if asked is asked.came else _text(asked.raw),
        changed="" if request is asked else _text(request.raw),
        seen=None if tx.seen == tx.flow else tx.seen,
        described=a.described_early,
        anchored=a.anchored,
        rseq=None if a.provisionals is None else a.provisionals.sent.last,
        further=_places(call.further),
        redirects=call.redirects,
        follow=call.follow_redirects,
        best=call.best_reply,
        profile=call.media_profile,
        set=call.media_set,
        flags=sorted(call.flags),
        life_s=call.lifetime_s,
        offer=call.offer_from.name if call.offer_from is not None else "",
        heard=next((leg.name for leg in call.branches if leg.dialog is call.heard), ""),
        lacking=call.media_lacking,
        peers=list(call.admitted_peers),
        uris=None if changes is None else (changes.uri, changes.from_uri),
        edits=[] if changes is None else changes.edits,
        kept=_kept(call.transaction),
        on_branch=_hook(core, call, call.on_branch),
        on_reply=_hook(core, call, call.on_reply),
        on_failure=_hook(core, call, call.on_failure),
    )
    record: Json = msgspec.to_builtins(part)
    return record


def _branch(core: Core, leg: Leg, tx: ClientTransaction, now: float) -> Branch:
    assert leg.target is not None
    return Branch(
        snapshot.leg_record(core, leg),
        _place(leg.target),
        "early" if leg.state is LegState.EARLY else "calling" if leg.state is LegState.CALLING else "cancelled",
        core.wall(now + tx.left_s(now)),
        0.0 if leg.timer is None else core.wall(leg.timer.deadline),
        _text(tx.sent) if tx.state in (CALLING, CANCEL_PENDING) else "",
        leg.breadth,
        leg.described_early,
        leg.anchored,
        {} if leg.received is None else leg.received.last,
        [] if leg.media is None else [leg.media.caller],
        _hook(core, leg.call, leg.on_reply),
    )


def _hook(core: Core, call: Call, hook: Any) -> str:  # Any: a route function, which the core only carries
    return "" if hook is None or core.hooks is None else core.hooks.name(call, hook)


def _places(groups: Sequence[Group]) -> list[list[Place]]:
    return [[_place(group)] if isinstance(group, Target) else [_place(one) for one in group] for group in groups]


def _place(one: Target) -> Place:
    return Place(one.uri, one.realm, one.flow, one.peer, one.timeout_s, one.gateway, one.q, list(one.servers))


def _kept(scope: Scope | None) -> Kept | None:
    return None if scope is None else Kept(sorted(scope.flags), scope.variables)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


# Taken up


def decode(
    core: Core, call: Call, invite: Message, flow: Flow, sent: list[Message], raw: object, now: float, wall: float
) -> Call:
    """Go on with a call that :mod:`sbc.b2bua.setup_snapshot` has found in a record, by the part ``raw``. Raises
    BadRecord; then ``call`` is of no use any more, and nothing else has changed."""
    if not isinstance(raw, dict) or raw.get("v") != VERSION:
        raise BadRecord(f"on: not of version {VERSION}")
    try:
        part = msgspec.convert(raw, Part)
    except ValueError as error:  # ValidationError, and text that is none
        raise BadRecord(f"on: {error}") from error
    if len(part.b) != len(call.branches) or len(part.tried) != len(call.attempts):
        raise BadRecord("on: not of this call")
    came, asked, request = _requests(part, invite)
    said = _message(part.said, "said")
    if said.is_request or said.status >= 200 or said.call_id != came.call_id or core.layer.knows(came):
        raise BadRecord("said: no provisional response to that INVITE, or the INVITE is here already")
    seen = flow if part.seen is None else flow_of(core, list(part.seen))
    a = _leg(core, part.a, call.a, now, wall)
    branches = [
        _branch_leg(core, one, base, ours, now, wall)
        for one, base, ours in zip(part.b, call.branches, sent, strict=True)
    ]
    paths = [leg.flow for leg in call.branches]  # of their INVITEs; a dialog may have another one
    hooks = [_route(core, name) for name in (part.on_branch, part.on_reply, part.on_failure)]
    _fill(core, call, part, a, branches)
    call.on_branch, call.on_reply, call.on_failure = hooks
    call.request = request
    call.body = shape.description(request)
    for one, attempt in zip(part.tried, call.attempts, strict=True):
        _attempt(core, attempt, one, call, now, wall)

    # From here on nothing can fail.
    core.add(call)
    admission = core.settings.admission
    call.admitted_peers = tuple(peer for peer in part.peers if admission.open_call(peer, now) is None)
    tx = core.layer.receive_request(asked, flow, now)
    assert tx is not None  # it was not there
    tx.seen, tx.user = seen, call
    tx.said_before(said)
    a.state = LegState.CONFIRMED
    a.invite = a.uas = tx
    if part.rseq is not None:
        a.provisionals = _provisionals(core, a, tx, part.rseq)
    for branch, leg, ours, path in zip(part.b, branches, sent, paths, strict=True):
        _send_on(core, leg, branch, ours, path, now, wall)
    return call


def _requests(part: Part, invite: Message) -> tuple[Message, Message, Message]:
    """A's INVITE as it came, as header rules and as routes have left it."""
    came = asked = _message(part.invite, "invite")
    same = (came.branch, came.call_id, came.from_tag, came.cseq_number, came.method, came.to_tag) == (
        *(invite.branch, invite.call_id, invite.from_tag, invite.cseq_number),
        *("INVITE", ""),
    )
    if not came.is_request or not same:
        raise BadRecord("invite: not the one of this call")
    if part.ruled:
        asked = came.rewritten(_octets(part.ruled))
    request = _message(part.changed, "changed") if part.changed else asked
    if not (asked.is_request and request.is_request and asked.method == request.method == "INVITE"):
        raise BadRecord("ruled, changed: no INVITE")
    return came, asked, request


def _leg(core: Core, raw: Json, base: Leg, now: float, wall: float) -> Leg:
    leg = snapshot.leg_of(core, Fields(raw), now, wall)
    if (leg.name, leg.dialog.call_id, leg.dialog.local_tag) != (
        *(base.name, base.dialog.call_id),
        base.dialog.local_tag,
    ):
        raise BadRecord(f"{base.name}: another leg")
    leg.attempt, leg.invite_credentials = base.attempt, base.invite_credentials
    return leg


def _branch_leg(core: Core, one: Branch, base: Leg, ours: Message, now: float, wall: float) -> Leg:
    leg = _leg(core, one.leg, base, now, wall)
    if leg.attempt is None or leg.invite_cseq != ours.cseq_number or len(one.way) > 1:
        raise BadRecord(f"{leg.name}: a branch of no attempt, or of another INVITE")
    if one.sent and _message(one.sent, "sent").branch != ours.branch:
        raise BadRecord("sent: another INVITE")
    leg.target = _target(core, one.target)
    leg.on_reply = _route(core, one.on_reply)
    leg.state = _STATES[one.state]
    leg.breadth, leg.described_early, leg.anchored = one.breadth, one.described, one.anchored
    leg.modifying = True
    leg.media = Chosen(one.way[0]) if one.way else None
    if one.rseq:
        leg.received = Received(one.rseq)
    return leg


def _fill(core: Core, call: Call, part: Part, a: Leg, branches: list[Leg]) -> None:
    names = {leg.name: leg for leg in (a, *branches)}
    if part.next > len(part.targets) or part.offer not in ("", *names) or part.heard not in ("", *names):
        raise BadRecord("next, offer or heard: out of range")
    call.targets = _groups(core, part.targets)
    call.further = list(_groups(core, part.further))
    call.next_target, call.group, call.redirects = part.next, part.group, part.redirects
    call.follow_redirects = part.follow
    call.best_reply = part.best
    call.media_profile, call.media_set, call.media_lacking = part.profile, part.set, part.lacking
    call.flags, call.lifetime_s = set(part.flags), part.life_s
    call.transaction = _scope(part.kept)
    if part.uris is not None:
        call.changes = Changes(*part.uris)
        call.changes.edits = part.edits
    heard = call.b.name if call.b is not None else ""
    a.described_early, a.anchored = part.described, part.anchored
    call.a, call.branches, call.b = a, branches, names.get(heard)
    call.offer_from = names.get(part.offer)
    call.heard = names[part.heard].dialog if part.heard else None
    for leg in (a, *branches):
        leg.call = call


def _attempt(core: Core, attempt: Attempt, one: Tried, call: Call, now: float, wall: float) -> None:
    attempt.started = now - max(0.0, wall - one.started)
    attempt.group, attempt.followed, attempt.scope = one.group, one.followed, _scope(one.kept)
    leg = next((leg for leg in call.branches if leg.attempt is attempt), None)
    replies = core.settings.replies
    if leg is not None and replies is not None:
        attempt.fail_over = replies.failover.get(leg.peer, FAIL_OVER_STATUSES)


def _provisionals(core: Core, a: Leg, tx: ServerTransaction, rseq: int) -> Provisionals:
    """Of A's, all are acknowledged."""
    found = Provisionals(core, a, tx)
    found.sent = Sent(rseq + 1, core.settings.t1_s)
    return found


def _send_on(core: Core, leg: Leg, one: Branch, ours: Message, flow: Flow, now: float, wall: float) -> None:
    """The transaction of a branch, with its timers."""
    is_given_up = leg.state is LegState.CANCELLED
    state = CALLING if one.sent else CANCELLING if is_given_up else PROCEEDING
    invite = Message.parse(_octets(one.sent)) if one.sent else ours
    tx = leg.uac = core.layer.taken_up(invite, flow, InviteUser(core, leg), now, state)
    tx.ends_in(max(one.ends - wall, 0.0), now)
    if is_given_up:
        tx.cancel(None, now)  # where that was to wait for a provisional response
    elif one.until:
        leg.timer = core.timers.start(max(one.until - wall, 0.0), partial(connect.no_answer, core, leg), now)


def _route(core: Core, name: str) -> Any:  # Any: a route function, which the core only carries
    if not name:
        return None
    route = core.hooks.find(name) if core.hooks is not None else None
    if route is None:
        raise BadRecord(f"the routes here have no {name}")
    return route


def _groups(core: Core, places: list[list[Place]]) -> Groups:
    try:
        return forking.groups_of([[_target(core, one) for one in group] for group in places]) if places else ()
    except ValueError as error:
        raise BadRecord(f"targets: {error}") from error


def _target(core: Core, place: Place) -> Target:
    if place.realm not in core.settings.realms:
        raise BadRecord(f"realm {place.realm} is not configured")
    parse_uri(place.uri)
    return Target(
        place.uri,
        place.realm,
        None if place.flow is None else flow_of(core, list(place.flow)),
        place.peer,
        place.timeout_s,
        place.gateway,
        place.q,
        tuple(flow_of(core, list(one)) for one in place.servers),
    )


def _scope(kept: Kept | None) -> Scope | None:
    if kept is None:
        return None
    scope = Scope()
    scope.flags, scope.variables = set(kept.flags), kept.variables
    return scope


def _octets(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise BadRecord("no octets") from error


def _message(text: str, name: str) -> Message:
    try:
        return Message.parse(_octets(text))
    except SipSyntaxError as error:
        raise BadRecord(f"{name}: {error}") from error
