"""A call that nobody has answered yet as a versioned record, and what a successor does with it: it ends the call.

A setup does not survive its worker's death: routes and answers under way are gone. But nobody is left waiting either.
From the record a successor refuses A's INVITE, cancels every branch (one that has answered meanwhile gets ACK and BYE),
deletes the media session and writes the CDR. So the record has of each INVITE what answers, cancels or acknowledges
it, and no description. Where a worker goes by order the record has a part more, by which the call goes on
(:mod:`sbc.b2bua.ringing`). The rules of :mod:`sbc.b2bua.snapshot` hold here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sbc.b2bua import record_time, ringing_snapshot
from sbc.b2bua.accept import InviteUser
from sbc.b2bua.call import Call, Outcome
from sbc.b2bua.leg import Leg
from sbc.b2bua.snapshot import BadRecord, Fields, Json, attempts_of, check_version, clock_of, dump, flow_of, load
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.dialog.dialog import RESUME_CSEQ_MARGIN, Dialog, without_tag
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.ids import SHARDS, is_branch, is_ours, is_token
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.transaction.client import ClientTransaction

VERSION = 1
MAX_BRANCHES = 64
_BEGINNINGS = (b'{"setup":', b'{"octets":{"setup":')
_LIVE = (LegState.CALLING, LegState.EARLY, LegState.CANCELLED)
# Of A's INVITE: what a refusal copies, and what tells its transaction. Of ours: what ACK and CANCEL repeat.
_OF_A = frozenset({"via", "from", "to", "call-id", "cseq"})
_OF_OURS = frozenset({*_OF_A, "route", "authorization", "proxy-authorization"})
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})
_REASON = ("Reason", "Q.850;cause=41")
_NOTE = "the worker died while the call was being set up"


def is_one(data: bytes) -> bool:
    """Whether a record is of a call in setup: its kind comes first."""
    return data.startswith(_BEGINNINGS)


def encode(core: Core, call: Call, part: Json | None = None) -> bytes:
    """The record of a call in setup. Raises SipSyntaxError where a header of A's can be written nowhere. ``part``: what
    lets it go on in another process (:mod:`sbc.b2bua.ringing_snapshot`)."""
    record: Json = {
        "setup": VERSION,
        "key": call.key,
        "shard": call.shard,
        "ver": call.version,
        "clock": record_time.written(core, call.started_at),
        "start": call.start_wall,
        "began": core.wall(call.started_at),
        "from": call.from_uri,
        "to": call.to_uri,
        "ruri": call.ruri,
        "node": call.media_node,
        "media": call.has_media,
        "vars": call.variables,
        "tries": [(t.gateway, t.uri, t.leg, t.status, t.pdd_ms) for t in call.attempts],
        "a": _of_a(call.a),
        "b": [_of_branch(leg, leg.uac) for leg in call.branches if leg.state in _LIVE and leg.uac and leg.uac.sent],
        "heard": call.b.name if call.b is not None else "",
    }
    if call.transferred_from:
        record["came"] = call.transferred_from
    if call.recording:
        record["rec"] = call.recording
    if part is not None:
        record["on"] = part
    return dump(record)


def _of_a(leg: Leg) -> Json:
    tx = leg.invite
    return {
        "invite": "" if tx is None else _head(tx.request.came, _OF_A),  # '': it is to join by a transfer
        "flow": tuple(leg.flow if tx is None else tx.flow),
        "realm": leg.realm,
        "peer": leg.peer,
        "dir": leg.direction,
        "cid": leg.dialog.call_id,
        "tag": leg.dialog.local_tag,
    }


def _of_branch(leg: Leg, tx: ClientTransaction) -> Json:
    return {
        "name": leg.name,
        "invite": _head(Message.parse(tx.sent), _OF_OURS),
        "flow": tuple(tx.flow),
        "realm": leg.realm,
        "peer": leg.peer,
    }


def _head(invite: Message, names: frozenset[str]) -> str:
    return build_request("INVITE", invite.uri, invite.having(names)).decode("latin-1")


class _Found(NamedTuple):
    """What a record says, checked: A's INVITE (None: there was none), where its answer goes, and each branch's."""

    call: Call
    invite: Message | None
    flow: Flow
    sent: list[Message]


def decode(core: Core, data: bytes, now: float, wall: float) -> Call:
    """Take up the call of a record in ``core``, and go on with it or end it. Raises BadRecord, and then nothing has
    changed."""
    try:
        fields = load(data)
        call, invite, flow, sent = _found(core, fields, now, wall)
        part = fields.raw.get("on")
        if part is not None and invite is not None:
            try:
                clock = clock_of(core, fields, now, wall)
                return _gone_on(core, ringing_snapshot.decode(core, call, invite, flow, sent, part, now, clock))
            except (BadRecord, RecursionError, OverflowError, SipSyntaxError) as error:
                core.note("error", "a call that rings cannot go on here", call, reason=str(error))
                call, invite, flow, sent = _found(core, fields, now, wall)
    except (RecursionError, OverflowError, SipSyntaxError) as error:
        raise BadRecord(str(error)) from error
    core.add(call)
    core.count("CALLS_ACTIVE")
    core.count("SETUPS_LOST")
    core.note("warning", _NOTE, call)
    if invite is not None and (tx := core.layer.receive_request(invite, flow, now)) is not None:
        call.a.invite = call.a.uas = tx
        tx.user = call
    for leg, ours in zip(call.branches, sent, strict=True):
        leg.uac = core.layer.taken_up(ours, leg.flow, InviteUser(core, leg), now)
    core.step(call, CallEvent.RELEASE, now, Outcome(500, "sbc", 41, headers=(_REASON,), note=_NOTE))
    return call


def _gone_on(core: Core, call: Call) -> Call:
    core.count("CALLS_ACTIVE")
    core.count("SETUPS_CARRIED")
    core.touch(call)  # from now on it may change: an unforeseen successor is to end it again
    return call


def _found(core: Core, fields: Fields, now: float, wall: float) -> _Found:
    check_version(fields, "setup", VERSION)
    key = fields.text("key", 64)
    if not is_ours(key):
        raise BadRecord("key: not one of ours")
    if key in core.calls:
        raise BadRecord("the call is here already")
    of_a = Fields(fields.raw.get("a"))
    flow = flow_of(core, of_a.raw.get("flow"))
    a, invite = _leg_a(core, of_a, flow)
    call = Call(key, fields.integer("shard", 0, SHARDS - 1), a, now, fields.seconds("start"))
    a.call = call
    call.version = fields.integer("ver", 0, 2**53)
    began = fields.seconds("began") if "began" in fields.raw else call.start_wall
    call.started_at = now - min(max(clock_of(core, fields, now, wall) - began, 0.0), 86_400.0)
    call.from_uri, call.to_uri, call.ruri = (fields.text(name) for name in ("from", "to", "ruri"))
    call.media_node = fields.text("node", 256)
    call.has_media = fields.flag("media")
    call.transferred_from = fields.text("came", 64) if "came" in fields.raw else ""
    call.recording = fields.text("rec", 256) if "rec" in fields.raw else ""
    variables = fields.raw.get("vars")
    if not isinstance(variables, dict):
        raise BadRecord("vars: no object")
    call.variables = variables
    call.attempts = attempts_of(fields.raw.get("tries"))
    branches = fields.raw.get("b")
    if not isinstance(branches, list) or len(branches) > MAX_BRANCHES:
        raise BadRecord("b: no list, or too long")
    sent = []
    for item in branches:
        leg, ours = _branch(core, Fields(item))
        sent.append(ours)
        leg.call = call
        leg.attempt = next((attempt for attempt in call.attempts if attempt.leg == leg.name), None)
        call.branches.append(leg)
    tags = [leg.dialog.local_tag for leg in call.legs()]
    if len(set(tags)) < len(tags) or any(tag in core.legs for tag in tags):
        raise BadRecord("a dialog is here already")
    names = {ours.branch for ours in sent}
    if len(names) < len(sent) or any(core.layer.has_sent(name) for name in names):
        raise BadRecord("a transaction is here already")
    heard = fields.text("heard", 16)
    call.b = next((leg for leg in call.branches if leg.name == heard), call.branches[-1] if call.branches else None)
    call.state = CallState.RINGING
    call.decided = call.saved = call.resumed = True
    return _Found(call, invite, flow, sent)


def _leg_a(core: Core, fields: Fields, flow: Flow) -> tuple[Leg, Message | None]:
    tag = fields.text("tag", 64)
    invite = None
    dialog = Dialog(fields.text("cid", 1024), "", tag, "", core.contact(flow.listener, tag))
    if fields.octets("invite"):
        invite = _parsed(fields)
        if invite.call_id != dialog.call_id or invite.to_tag or not invite.from_tag:
            raise BadRecord("a: not the INVITE of this call")
        dialog.local, dialog.remote = without_tag(invite.get("To") or ""), without_tag(invite.get("From") or "")
        dialog.remote_tag, dialog.remote_cseq = invite.from_tag, invite.cseq_number
    leg = Leg("a", dialog, flow, _realm(core, fields), fields.text("peer", 256), fields.text("dir", 256))
    leg.state = LegState.CONFIRMED
    return leg, invite


def _branch(core: Core, fields: Fields) -> tuple[Leg, Message]:
    """A branch as it was when nothing but a provisional had come, and its INVITE."""
    invite = _parsed(fields)
    tag = invite.from_tag
    if not (is_ours(invite.call_id) and is_token(tag) and is_branch(invite.branch)):
        raise BadRecord("b: not an INVITE of ours")
    flow = flow_of(core, fields.raw.get("flow"))
    ours, contact = without_tag(invite.get("From") or ""), core.contact(flow.listener, tag)
    dialog = Dialog(invite.call_id, ours, tag, invite.get("To") or "", contact)
    dialog.local_cseq = invite.cseq_number + RESUME_CSEQ_MARGIN
    dialog.remote_target = invite.uri
    dialog.route_set = tuple(invite.get_all("Route"))
    leg = Leg(fields.text("name", 16), dialog, flow, _realm(core, fields), fields.text("peer", 256))
    leg.state = LegState.CALLING
    leg.invite_cseq = invite.cseq_number
    leg.invite_credentials = tuple(invite.having(_CREDENTIALS))
    return leg, invite


def _parsed(fields: Fields) -> Message:
    invite = Message.parse(fields.octets("invite"))
    if not invite.is_request or invite.method != "INVITE" or invite.cseq_method != "INVITE":
        raise BadRecord("invite: none")
    return invite


def _realm(core: Core, fields: Fields) -> str:
    realm = fields.text("realm", 256)
    if realm not in core.settings.realms:
        raise BadRecord(f"realm {realm} is not configured")
    return realm
