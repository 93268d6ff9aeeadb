"""An answered call as a versioned record, and back: all that a worker needs to go on after another one's death.

The record is compact JSON. Times are wall-clock seconds, by the clock of :mod:`sbc.b2bua.record_time`. What a record
says is not believed before it is checked: it comes from a store that others can write to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from media.protocol import StreamStats
from sbc.b2bua import ping, reanchor, record_time, refresh
from sbc.b2bua.accept import Accepted
from sbc.b2bua.call import Attempt, Call, Outcome
from sbc.b2bua.leg import Leg
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.dialog.dialog import MAX_CSEQ, RESUME_CSEQ_MARGIN, Dialog
from sbc.dialog.session_timer import DEFAULT_MIN_SE_S, MAX_INTERVAL_S, SessionTimer
from sbc.errors import SipSyntaxError
from sbc.sdp.address import ip_literal
from sbc.sdp.nated import Repair, check_lines
from sbc.sip.address import parse_name_addr
from sbc.sip.flow import Flow
from sbc.sip.ids import ALPHABET, CALL_ID_LENGTH, SHARDS
from sbc.sip.message import Message
from sbc.sip.uri import parse_uri

if TYPE_CHECKING:
    from sbc.b2bua.core import Core

VERSION: Final = 1
MAX_RECORD_BYTES = 262_144

Json = dict[str, Any]  # Any: JSON values, each checked when it is read


class BadRecord(ValueError):
    """A record that cannot be resumed; the message says why."""


class TooNew(BadRecord):
    """A record of a later release: there is nothing wrong with it, and others may be able to resume it."""


def encode(core: Core, call: Call, now: float) -> bytes:
    """The record of an answered call."""
    assert call.b is not None
    timer = call.lifetime_timer
    lifetime_s = call.lifetime_s or core.settings.dialog_lifetime_s
    record: Json = {
        "v": VERSION,
        "key": call.key,
        "shard": call.shard,
        "ver": call.version,
        "clock": record_time.written(core, now),
        "up": call.state is CallState.UP,
        "start": call.start_wall,
        "setup": call.answered_at - call.started_at,
        "answer": call.answer_wall,
        "answered": core.wall(call.answered_at),
        "expires": core.wall(timer.deadline if timer is not None else now + lifetime_s),
        "from": call.from_uri,
        "to": call.to_uri,
        "ruri": call.ruri,
        "status": call.status,
        "peers": call.admitted_peers,
        "profile": call.media_profile,
        "set": call.media_set,
        "node": call.media_node,
        "media": call.has_media,
        "offer": call.offer_from.name if call.offer_from is not None else "",
        "vars": call.variables,
        "flags": sorted(call.flags),
        "tries": [(t.gateway, t.uri, t.leg, t.status, t.pdd_ms) for t in call.attempts],
        "a": leg_record(core, call.a),
        "b": leg_record(core, call.b),
        "gone": [leg.name for leg in (call.a, call.b) if leg.state is LegState.ENDED],
        "came": call.transferred_from,
        "went": call.transferred_to,
        "way": call.one_way,
    }
    if call.recording:
        record["rec"] = call.recording
    if call.switching is not None or call.unsettled:
        record["moving_media"] = True
    if call.media_stats:
        record["stats"] = msgspec.to_builtins(call.media_stats)
    return dump(record)


def dump(record: Json) -> bytes:
    """A record as octets."""
    try:
        return orjson.dumps(record)
    except TypeError:  # text that came as something else than UTF-8 has no place in JSON as it is
        return orjson.dumps({"octets": _octets(record)})


def leg_record(core: Core, leg: Leg) -> Json:
    """One side of a call: its dialog, path, descriptions and session timer."""
    dialog = leg.dialog
    accepted, ack = leg.accepted, leg.ack
    record: Json = {"prof": leg.profile} if leg.profile else {}
    if leg.came:
        record["came"] = True
    record |= {
        "name": leg.name,
        "cid": dialog.call_id,
        "local": dialog.local,
        "ltag": dialog.local_tag,
        "remote": dialog.remote,
        "rtag": dialog.remote_tag,
        "contact": dialog.contact,
        "lseq": dialog.local_cseq,
        "rseq": dialog.remote_cseq,
        "target": dialog.remote_target,
        "routes": dialog.route_set,
        "flow": tuple(leg.flow),
        "realm": leg.realm,
        "peer": leg.peer,
        "dir": leg.direction,
        "iseq": leg.invite_cseq,
        "sid": leg.session_id,
        "sver": leg.sdp_version,
        "sdp": leg.sdp_out.decode("latin-1"),
        "in": leg.sdp_in.decode("latin-1"),
        "unacked": leg.unacked,
        "timer": None
        if leg.session is None
        else (
            leg.session.interval_s,
            leg.session.min_se_s,
            leg.session.ours,
            leg.session.update,
            core.wall(leg.session.refreshed_at),
        ),
        "accepted": None
        if accepted is None
        else (tuple(accepted.flow), accepted.data.decode("latin-1"), accepted.cseq),
        "ack": None if ack is None else (tuple(ack[0]), ack[1].decode("latin-1")),
    }
    if leg.nat_given:
        record["nat"] = leg.nat_given
    if leg.sdp_fix is not None:
        record["fix"] = leg.sdp_fix
    return record


def decode(core: Core, data: bytes, now: float, wall: float) -> Call:
    """Rebuild the call of a record in ``core``, with its timers. Raises BadRecord, and then nothing has changed."""
    try:
        fields = load(data)
        under_way = fields.raw.get("moving_media") is True
        call = _call(core, fields, now, wall)
    except (RecursionError, OverflowError) as error:
        raise BadRecord(str(error)) from error
    core.add(call)
    for peer in call.admitted_peers:
        core.settings.admission.count_call(peer)
    for leg in call.legs():
        if leg.state is LegState.ENDED:
            core.forget(leg)
            continue
        if leg.accepted is not None:
            core.layer.answered(Message.parse(leg.accepted.data), leg.accepted.flow, now)
            core.transmit(leg.accepted.flow, leg.accepted.data)
            leg.accepted.start(now)
        refresh.arm(core, leg, now)
        ping.arm(core, leg, now)
    if under_way:
        reanchor.settle(core, call, now)
    if any(leg.state is LegState.ENDED for leg in call.legs()):
        # One side had hung up, or gone on in another call, and a transfer was under way that nobody goes on with.
        note = "transferred" if call.transferred_to else "a transfer was lost with its worker"
        core.step(call, CallEvent.RELEASE, now, Outcome(500, "sbc", 41, note=note))
    return call


def load(data: bytes) -> Fields:
    """The reverse of :func:`dump`. Raises BadRecord for what nothing of ours can be."""
    if len(data) > MAX_RECORD_BYTES:
        raise BadRecord("too long")
    try:
        raw = orjson.loads(data)
        if isinstance(raw, dict) and raw.keys() == {"octets"}:
            raw = _text(raw["octets"])
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadRecord):
            raise
        raise BadRecord("no JSON") from error
    return Fields(raw)


class Fields:
    """A JSON object whose values are checked as they are taken."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:  # Any: parsed JSON
        if not isinstance(raw, dict):
            raise BadRecord("not an object")
        self.raw: Json = raw

    def text(self, name: str, limit: int = 4096) -> str:
        """A string without control characters, so that it can stand in a header."""
        value = self.raw.get(name)
        if not isinstance(value, str) or len(value) > limit:
            raise BadRecord(f"{name}: no text, or too long")
        if any(c in value for c in "\r\n\0"):
            raise BadRecord(f"{name}: control characters")
        return value

    def octets(self, name: str) -> bytes:
        """A string that stands for octets."""
        return _octets_of(self.raw.get(name), name)

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.raw.get(name)
        if type(value) is not int or not low <= value <= high:
            raise BadRecord(f"{name}: no number from {low} to {high}")
        return value

    def seconds(self, name: str) -> float:
        value = self.raw.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e11:
            raise BadRecord(f"{name}: no time")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.raw.get(name)
        if type(value) is not bool:
            raise BadRecord(f"{name}: neither true nor false")
        return value

    def texts(self, name: str, limit: int = 64) -> tuple[str, ...]:
        value = self.raw.get(name)
        if not isinstance(value, list) or len(value) > limit:
            raise BadRecord(f"{name}: no list, or too long")
        for item in value:
            if not isinstance(item, str) or len(item) > 4096 or any(c in item for c in "\r\n\0"):
                raise BadRecord(f"{name}: an element is no text")
        return tuple(value)


def check_version(fields: Fields, name: str, known: int) -> None:
    """Raises TooNew where the record is of a later release than this one."""
    version = fields.integer(name, 1, 1_000_000)
    if version > known:
        raise TooNew(f"it is of version {version}, and this release reads up to {known}")


def _call(core: Core, fields: Fields, now: float, wall: float) -> Call:
    check_version(fields, "v", VERSION)
    key = fields.text("key", 64)
    if len(key) != CALL_ID_LENGTH or not set(key) <= set(ALPHABET):
        raise BadRecord("key: not one of ours")
    if key in core.calls:
        raise BadRecord("the call is here already")
    wall = clock_of(core, fields, now, wall)
    a = leg_of(core, Fields(fields.raw.get("a")), now, wall)
    b = leg_of(core, Fields(fields.raw.get("b")), now, wall)
    if not record_time.is_ours(core, fields.raw.get(record_time.FIELD), now):
        for session in (a.session, b.session):
            if session is not None:  # a difference of two clocks ends no call: we ask, or wait, before we give up
                session.refreshed_at = max(session.refreshed_at, now - session.interval_s / 2)
    if a.name == b.name or a.dialog.local_tag == b.dialog.local_tag:
        raise BadRecord("the legs are not two sides of a call")
    for leg in (a, b):
        if leg.dialog.local_tag in core.legs:
            raise BadRecord("a dialog is here already")
    call = Call(key, fields.integer("shard", 0, SHARDS - 1), a, now, fields.seconds("start"))
    call.branches.append(b)
    call.b = b
    a.call = b.call = call
    call.transferred_from, call.transferred_to = (
        fields.text(name, 64) if name in fields.raw else "" for name in ("came", "went")
    )
    call.recording = fields.text("rec", 256) if "rec" in fields.raw else ""
    call.one_way = fields.text("way", 2) if "way" in fields.raw else ""
    a.state = LegState.CONFIRMED
    b.state = LegState.ANSWERED if b.unacked and not fields.flag("up") else LegState.CONFIRMED
    gone = fields.texts("gone", 2) if "gone" in fields.raw else ()
    for leg in (a, b):
        if leg.name in gone:
            leg.state = LegState.ENDED
    call.state = CallState.UP if fields.flag("up") or a.accepted is None else CallState.ANSWERED
    call.version = fields.integer("ver", 0, 2**53)
    call.answer_wall = fields.seconds("answer")
    answered = fields.seconds("answered") if "answered" in fields.raw else call.answer_wall
    call.answered_at = now - min(max(wall - answered, 0.0), 10 * 86_400.0)
    call.started_at = call.answered_at - min(fields.seconds("setup"), 86_400.0)
    call.from_uri, call.to_uri, call.ruri = (fields.text(name) for name in ("from", "to", "ruri"))
    call.status = fields.integer("status", 200, 299)
    call.admitted_peers = fields.texts("peers", 8)
    call.media_profile = None if fields.raw.get("profile") is None else fields.text("profile", 256)
    call.media_set = fields.text("set", 256)
    call.media_node = fields.text("node", 256)
    call.has_media = fields.flag("media")
    call.offer_from = {"": None, a.name: a, b.name: b}.get(fields.text("offer", 16))
    variables = fields.raw.get("vars")
    if not isinstance(variables, dict):
        raise BadRecord("vars: no object")
    call.variables = variables
    call.flags = set(fields.texts("flags", 1024))
    call.attempts = attempts_of(fields.raw.get("tries"))
    call.media_stats = _stats(fields.raw.get("stats", {}))
    call.decided = call.saved = call.resumed = True
    for leg in (a, b):
        accepted = _list(fields.raw["a" if leg is a else "b"].get("accepted"), 3)
        if accepted is not None:
            cseq = accepted[2]
            if type(cseq) is not int or not 0 <= cseq <= MAX_CSEQ:
                raise BadRecord("accepted: no CSeq")
            leg.accepted = Accepted(core, leg, flow_of(core, accepted[0]), _success(accepted[1]), cseq)
    if call.offer_from is not None and (b if call.offer_from is a else a).accepted is None:
        call.offer_from = None  # only an offer in a 2xx of ours is answered by a message that still finds its way
    if a.accepted is not None and not fields.flag("up"):
        call.state = CallState.ANSWERED
    core.start_lifetime(call, min(max(fields.seconds("expires") - wall, 1.0), 10 * 86_400.0), now)
    return call


def clock_of(core: Core, fields: Fields, now: float, wall: float) -> float:
    """What the clock by which a record was written shows now. Raises BadRecord."""
    try:
        return record_time.wall_of_writer(core, fields.raw.get(record_time.FIELD), now, wall)
    except ValueError as error:
        raise BadRecord(str(error)) from error


def dialog_of(core: Core, fields: Fields) -> tuple[Dialog, Flow, str]:
    """The dialog of one side with its flow and realm, each checked; raises BadRecord.

    Its CSeq jumps ahead of whatever was sent after the record was written.
    """
    dialog = Dialog(
        fields.text("cid", 1024),
        fields.text("local"),
        fields.text("ltag", 256),
        fields.text("remote"),
        fields.text("contact", 512),
    )
    dialog.remote_tag = fields.text("rtag", 1024)
    dialog.local_cseq = fields.integer("lseq", 0, MAX_CSEQ - RESUME_CSEQ_MARGIN) + RESUME_CSEQ_MARGIN
    dialog.remote_cseq = fields.integer("rseq", -1, 2**32)
    dialog.remote_target = fields.text("target")
    dialog.route_set = fields.texts("routes")
    try:
        parse_uri(dialog.remote_target)
        for route in dialog.route_set:
            parse_name_addr(route)
    except SipSyntaxError as error:
        raise BadRecord(f"a target or route that is no address: {error}") from error
    realm = fields.text("realm", 256)
    if realm not in core.settings.realms:
        raise BadRecord(f"realm {realm} is not configured")
    return dialog, flow_of(core, fields.raw.get("flow")), realm


def leg_of(core: Core, fields: Fields, now: float, wall: float) -> Leg:
    """The reverse of :func:`leg_record`; its state is the caller's to set. Raises BadRecord."""
    dialog, flow, realm = dialog_of(core, fields)
    leg = Leg(fields.text("name", 16), dialog, flow, realm, fields.text("peer", 256), fields.text("dir", 256))
    leg.invite_cseq = fields.integer("iseq", 0, MAX_CSEQ)
    leg.session_id = fields.integer("sid", 0, 2**63 - 1)
    leg.sdp_version = fields.integer("sver", 0, 2**53)
    leg.describe_again(fields.octets("sdp"))
    leg.sdp_in = fields.octets("in") if "in" in fields.raw else b""
    leg.profile = fields.text("prof", 256) if "prof" in fields.raw else ""
    leg.nat_given = fields.text("nat") if "nat" in fields.raw else ""
    leg.sdp_fix = _repair(fields.raw.get("fix"))
    leg.session = _session(fields.raw.get("timer"), now, wall)
    leg.unacked = fields.flag("unacked")
    leg.came = fields.flag("came") if "came" in fields.raw else False
    ack = _list(fields.raw.get("ack"), 2)
    if ack is not None:
        leg.ack = (flow_of(core, ack[0]), _octets_of(ack[1], "ack"))
    return leg


def _repair(raw: Any) -> Repair | None:  # Any: parsed JSON
    """What a route has done to the descriptions of a leg."""
    parts = _list(raw, 4)
    if parts is None:
        return None
    flags, address, extra, keep_old = parts
    if type(flags) is not int or type(keep_old) is not bool or not isinstance(extra, list):
        raise BadRecord("fix: not one")
    if not isinstance(address, str) or (address and not ip_literal(address)):
        raise BadRecord("fix: no address")
    if not all(isinstance(line, str) for line in extra):
        raise BadRecord("fix: a line that is none")
    try:
        check_lines(extra)
    except ValueError as error:
        raise BadRecord(f"fix: {error}") from error
    return Repair(flags, address, tuple(extra), keep_old)


def _session(raw: Any, now: float, wall: float) -> SessionTimer | None:  # Any: parsed JSON
    """The session timer of a leg (RFC 4028); a session that has expired meanwhile ends at once, not before."""
    parts = _list(raw, 5)
    if parts is None:
        return None
    interval_s, min_se_s, ours, update, refreshed = parts
    if type(ours) is not bool or type(update) is not bool or type(refreshed) not in (int, float):
        raise BadRecord("timer: not one")
    for seconds in (interval_s, min_se_s):
        if type(seconds) is not int or not DEFAULT_MIN_SE_S <= seconds <= MAX_INTERVAL_S:
            raise BadRecord("timer: no interval")
    session = SessionTimer(interval_s, min_se_s, ours=ours)
    session.update = update
    session.refreshed_at = now - min(max(wall - refreshed, 0.0), float(interval_s))
    return session


def flow_of(core: Core, raw: Any) -> Flow:  # Any: parsed JSON
    parts = _list(raw, 5)
    if parts is None or [type(part) for part in parts] != [int, str, str, int, int]:
        raise BadRecord("flow: not one")
    flow = Flow(*parts)
    if not 0 <= flow.listener < len(core.settings.listeners) or not 0 < flow.port < 65536:
        raise BadRecord("flow: no such listener or port")
    return flow


def _list(raw: Any, length: int) -> list[Any] | None:  # Any: parsed JSON
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) != length:
        raise BadRecord("a list of the wrong length")
    return raw


def attempts_of(raw: Any) -> list[Attempt]:  # Any: parsed JSON
    """What became of each branch that was tried. Raises BadRecord, as does :func:`flow_of`."""
    if not isinstance(raw, list) or len(raw) > 256:
        raise BadRecord("tries: no list, or too long")
    attempts = []
    for item in raw:
        parts = _list(item, 5)
        if parts is None or [type(part) for part in parts] != [str, str, str, int, int]:
            raise BadRecord("tries: an element is none")
        attempts.append(Attempt(*parts))
    return attempts


def _stats(raw: Any) -> dict[str, list[StreamStats]]:  # Any: parsed JSON
    try:
        return msgspec.convert(raw, dict[str, list[StreamStats]])
    except msgspec.ValidationError as error:
        raise BadRecord(f"stats: {error}") from error


def _octets_of(raw: Any, name: str) -> bytes:  # Any: parsed JSON
    if not isinstance(raw, str) or len(raw) > 65_536:
        raise BadRecord(f"{name}: no octets, or too many")
    try:
        return raw.encode("latin-1")
    except UnicodeEncodeError as error:
        raise BadRecord(f"{name}: no octets") from error


def _success(raw: Any) -> bytes:  # Any: parsed JSON
    """The octets of a 2xx of ours."""
    data = _octets_of(raw, "accepted")
    try:
        response = Message.parse(data)
    except SipSyntaxError as error:
        raise BadRecord(f"accepted: {error}") from error
    if response.is_request or not 200 <= response.status < 300:
        raise BadRecord("accepted: no 2xx")
    return data


def _octets(value: Any) -> Any:  # Any: JSON values in, JSON values out
    """Every string as its octets, written as Latin-1."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    if isinstance(value, dict):
        return {_octets(name): _octets(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_octets(item) for item in value]
    return value


def _text(value: Any) -> Any:  # Any: JSON values in, JSON values out
    """The reverse of :func:`_octets`."""
    if isinstance(value, str):
        return _octets_of(value, "text").decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_text(name): _text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value
