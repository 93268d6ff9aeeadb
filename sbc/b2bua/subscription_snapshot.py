"""A subscription as a versioned record, and back; see :mod:`sbc.b2bua.snapshot`, whose rules hold here too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua import record_time
from sbc.b2bua.snapshot import BadRecord, Fields, Json, check_version, clock_of, dialog_of, dump, load
from sbc.b2bua.subscription import Side, Subscription
from sbc.sip.ids import ALPHABET, CALL_ID_LENGTH, SHARDS

if TYPE_CHECKING:
    from sbc.b2bua.core import Core

VERSION = 1
KIND = "subscription"
_BEGINNINGS = (b'{"kind":"subscription"', b'{"octets":{"kind":"subscription"')


def is_one(data: bytes) -> bool:
    """Whether a record is of a subscription: its kind comes first."""
    return data.startswith(_BEGINNINGS)


def encode(core: Core, subscription: Subscription, now: float) -> bytes:
    """The record of an active subscription."""
    timer = subscription.timer
    return dump(
        {
            "kind": KIND,
            "v": VERSION,
            "key": subscription.key,
            "shard": subscription.shard,
            "ver": subscription.version,
            "clock": record_time.written(core, now),
            "event": subscription.event,
            "notified": subscription.notified,
            "interval": subscription.expires_s,
            "expires": core.wall(timer.deadline if timer is not None else now),
            "a": _side_record(subscription.a),
            "b": _side_record(subscription.b),
        }
    )


def _side_record(side: Side) -> Json:
    dialog = side.dialog
    record: Json = {
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
        "flow": tuple(side.flow),
        "realm": side.realm,
        "peer": side.peer,
    }
    if side.nat:
        record["nat"] = side.nat
    return record


def decode(core: Core, data: bytes, now: float, wall: float) -> Subscription:
    """Rebuild the subscription of a record in ``core``, with its timer; one that is here already stays as it is.
    Raises BadRecord, and then nothing has changed."""
    fields = load(data)
    if fields.text("kind", 32) != KIND:
        raise BadRecord("kind: another")
    check_version(fields, "v", VERSION)
    key = fields.text("key", 64)
    if len(key) != CALL_ID_LENGTH or not set(key) <= set(ALPHABET):
        raise BadRecord("key: not one of ours")
    a, b = (_side(core, Fields(fields.raw.get(name))) for name in ("a", "b"))
    sides = core.requests.sides
    here = sides.get(b.dialog.local_tag)
    if here is not None and here.subscription.key == key:
        return here.subscription
    if a.dialog.local_tag == b.dialog.local_tag or here is not None or a.dialog.local_tag in sides:
        raise BadRecord("the sides are not two of one subscription")
    subscription = Subscription(core, a, b, fields.text("event", 256), key, fields.integer("shard", 0, SHARDS - 1))
    subscription.version = fields.integer("ver", 0, 2**53)
    subscription.notified = fields.flag("notified")
    subscription.expires_s = fields.integer("interval", 0, 2**31)
    subscription.resume(max(fields.seconds("expires") - clock_of(core, fields, now, wall), 1.0), now)
    return subscription


def _side(core: Core, fields: Fields) -> Side:
    dialog, flow, realm = dialog_of(core, fields)
    side = Side(dialog, flow, realm, fields.text("peer", 256))
    side.nat = fields.text("nat") if "nat" in fields.raw else ""
    return side
