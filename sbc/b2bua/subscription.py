"""Subscriptions through us (RFC 6665): notifier towards the subscriber ``a``, subscriber towards the notifier ``b``.

Each side has a dialog of its own. SUBSCRIBE crosses from a to b, NOTIFY from b to a, and so does what answers them; the
time that is left is b's to say and ours to watch. What ends one ends both: a NOTIFY that says ``terminated``, a side
that knows nothing of it any more, or time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto
from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import crossing, local, shape
from sbc.b2bua.call import Headers, Target
from sbc.b2bua.crossing import Addresses
from sbc.b2bua.effects import DropRecord
from sbc.b2bua.leg import path_to
from sbc.b2bua.refuse import KNOWN_METHODS
from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.dialog.dialog import Dialog, Sequence, without_tag
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.params import parse_params
from sbc.sip.uri import find_param
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source
    from sbc.transaction.client import ClientTransaction, ClientUser
    from sbc.transaction.timers import Timer

MAX_SUBSCRIPTIONS = 100_000  # of one worker; each takes some 5 kB
DEFAULT_EXPIRES_S = 3600  # where neither side says
TIMER_N_T1 = 64  # how long the notifier may take for a NOTIFY that is due (RFC 6665 §4.1.2.4)
ALLOW = "SUBSCRIBE, NOTIFY"
# Answers to a SUBSCRIBE after which there is no subscription any more (RFC 6665 §4.1.2.2, RFC 5057 §5.1)
_GONE = frozenset({404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604})


class State(IntEnum):
    """Of the subscription as a whole."""

    ASKED = auto()  # SUBSCRIBE is on its way to b
    ACTIVE = auto()  # accepted, or notified
    ENDED = auto()


class Event(IntEnum):
    """What happens to it."""

    ACCEPTED = auto()  # a 2xx to the first SUBSCRIBE or to a later one
    NOTIFIED = auto()
    TERMINATED = auto()  # a has answered the NOTIFY that says so
    REFUSED = auto()  # the first SUBSCRIBE
    GONE = auto()  # a side has forgotten it, or is away
    EXPIRED = auto()


class Action(IntEnum):
    """What is done about it."""

    ARM = auto()  # watch the time that is left
    SAVE = auto()  # write it to the journal
    TELL = auto()  # a is told that it is over
    FORGET = auto()


SUBSCRIPTION: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (State.ASKED, Event.ACCEPTED): (State.ACTIVE, (Action.ARM, Action.SAVE)),
    # §4.1.2.4: a NOTIFY may overtake the 2xx
    (State.ASKED, Event.NOTIFIED): (State.ACTIVE, (Action.ARM, Action.SAVE)),
    (State.ASKED, Event.TERMINATED): (State.ENDED, (Action.FORGET,)),
    (State.ASKED, Event.REFUSED): (State.ENDED, (Action.FORGET,)),
    (State.ASKED, Event.GONE): (State.ENDED, (Action.FORGET,)),
    (State.ACTIVE, Event.ACCEPTED): (State.ACTIVE, (Action.ARM, Action.SAVE)),
    (State.ACTIVE, Event.NOTIFIED): (State.ACTIVE, (Action.ARM, Action.SAVE)),
    (State.ACTIVE, Event.TERMINATED): (State.ENDED, (Action.FORGET,)),
    (State.ACTIVE, Event.REFUSED): (State.ENDED, (Action.FORGET,)),
    (State.ACTIVE, Event.GONE): (State.ENDED, (Action.FORGET,)),
    (State.ACTIVE, Event.EXPIRED): (State.ENDED, (Action.TELL, Action.FORGET)),
}


class Side:
    """One of its two dialogs; ``flow`` is where the other side was last seen, or where the target says."""

    __slots__ = ("dialog", "flow", "nat", "peer", "realm", "subscription")

    subscription: Subscription

    def __init__(self, dialog: Dialog, flow: Flow, realm: str, peer: str) -> None:
        self.dialog = dialog
        self.flow = flow
        self.realm = realm
        self.peer = peer
        self.nat = ""  # why it is taken to be behind NAT, where its Contact does not tell

    def out(self, core: Core) -> Flow:
        """As :meth:`sbc.b2bua.leg.Leg.out`."""
        if self.nat:
            return self.flow
        try:
            return path_to(core, self.dialog.next_hop, self.flow, self.realm)
        except SipSyntaxError:
            return self.flow

    def comes_from(self, source: Source) -> bool:
        """Whether a message from there may be this side's."""
        return source.peer == self.peer if self.peer else source.realm == self.realm


class Subscription:
    """Both sides, and the time that is left. ``event`` is the Event value that it is about, ``key`` and ``shard`` are
    its names in the journal."""

    __slots__ = ("a", "b", "core", "event", "expires_s", "key", "notified", "shard", "state", "timer", "version")

    def __init__(self, core: Core, a: Side, b: Side, event: str, key: str, shard: int) -> None:
        self.core = core
        self.a = a
        self.b = b
        self.event = event
        self.key = key
        self.shard = shard
        self.version = 0  # of its last record; 0: there is none
        self.state = State.ASKED
        self.notified = False  # the first NOTIFY makes b's dialog (RFC 6665 §4.4.1)
        self.expires_s = DEFAULT_EXPIRES_S
        self.timer: Timer | None = None
        a.subscription = b.subscription = self

    def other(self, side: Side) -> Side:
        """The one at the other end."""
        return self.b if side is self.a else self.a

    def begin(self) -> None:
        """Messages find it from now on."""
        for side in (self.a, self.b):
            self.core.requests.sides[side.dialog.local_tag] = side
        self.core.count("SUBSCRIPTIONS_ACTIVE")

    def resume(self, left_s: float, now: float) -> None:
        """Go on as the record says, for ``left_s`` unless more is heard."""
        self.begin()
        self.state = State.ACTIVE
        self.timer = self.core.timers.start(left_s, self._expire, now)

    def step(self, event: Event, now: float) -> None:
        """Run a row of the table, if there is one."""
        row = SUBSCRIPTION.get((self.state, event))
        if row is None:
            return
        self.state, actions = row
        for action in actions:
            _ACTIONS[action](self, now)

    def arm(self, now: float) -> None:
        """Action.ARM: the notifier says itself that time is up; what it does not say, we do, Timer N later."""
        self.stop()
        core = self.core
        left_s = self.expires_s if self.notified else 0
        self.timer = core.timers.start(left_s + TIMER_N_T1 * core.settings.t1_s, self._expire, now)

    def save(self, now: float) -> None:
        """Action.SAVE: a successor of this worker can go on from here."""
        self.version += 1
        self.core.emit(self.core.requests.record(self, now))

    def _expire(self, now: float) -> None:
        self.timer = None
        self.core.count("SUBSCRIPTIONS_EXPIRED")
        self.step(Event.EXPIRED, now)

    def stop(self) -> None:
        """No time is watched any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def tell(self, now: float) -> None:
        """Action.TELL: the NOTIFY that b did not send (RFC 6665 §4.2.1.4)."""
        headers = [("Event", self.event), ("Subscription-State", "terminated;reason=timeout")]
        a = self.a
        local.ask_alone(self.core, "NOTIFY", a.peer, a.realm, headers, b"", partial(self._tell, a), now)

    def _tell(self, a: Side, headers: Headers, body: bytes, now: float) -> None:
        try:
            send(self.core, a, "NOTIFY", headers, body, 70, self.core.nobody, now)
        except SipSyntaxError as error:
            self.core.note("warning", "NOTIFY cannot be written", None, reason=error.reason)

    def forget(self, now: float) -> None:
        """Action.FORGET: no message finds it any more."""
        self.stop()
        for side in (self.a, self.b):
            self.core.requests.sides.pop(side.dialog.local_tag, None)
            del side.subscription  # no cycle for the collector, which comes rarely
        self.core.count("SUBSCRIPTIONS_ACTIVE", -1)
        if self.version:
            self.core.emit(DropRecord(self.key, self.shard))


_ACTIONS: dict[Action, Callable[[Subscription, float], None]] = {
    Action.ARM: Subscription.arm,
    Action.SAVE: Subscription.save,
    Action.TELL: Subscription.tell,
    Action.FORGET: Subscription.forget,
}


def open_(
    core: Core,
    subject: OutOfDialogRequest,
    target: Target,
    flow: Flow,
    addresses: Addresses,
    headers: Headers,
    now: float,
) -> None:
    """A SUBSCRIBE that makes a subscription goes to ``target``. Raises SipSyntaxError where it cannot be written."""
    msg, requests = subject.message, core.requests
    if len(requests.sides) >= 2 * MAX_SUBSCRIPTIONS:
        core.count("SUBSCRIPTIONS_REFUSED")
        requests.finish(subject, 503, now, [("Retry-After", "60")])
        return
    to, from_ = msg.came.get("To") or "", msg.came.get("From") or ""
    theirs = Dialog(msg.call_id, without_tag(to), subject.tag, without_tag(from_), "")
    theirs.contact = core.contact(subject.tx.flow.listener, subject.tag)
    theirs.accept(msg)
    if not theirs.remote_target or not theirs.remote_tag:  # without a Contact nobody can be notified
        requests.finish(subject, 400, now)
        return
    tag = core.ids.tag()
    ours = Dialog(
        core.ids.call_id(subject.shard), addresses.sender, tag, addresses.receiver, core.contact(flow.listener, tag)
    )
    ours.remote_target = addresses.uri
    a = Side(theirs, subject.tx.seen if subject.nat else subject.tx.flow, subject.source.realm, subject.source.peer)
    a.nat = subject.nat
    b = Side(ours, flow, target.realm, target.peer)
    subscription = Subscription(core, a, b, msg.get("Event") or "presence", ours.call_id, subject.shard)
    subscription.expires_s = _asked_for(core, msg)
    forwards = msg.max_forwards
    user = First(subscription, subject)
    subject.client = send(
        core, b, "SUBSCRIBE", headers, msg.body, 70 if forwards is None else forwards - 1, user, now, flow=flow
    )
    subscription.begin()
    core.count("SUBSCRIPTIONS_STARTED")


def send(
    core: Core,
    side: Side,
    method: str,
    headers: Headers,
    body: bytes,
    forwards: int,
    user: ClientUser,
    now: float,
    *,
    flow: Flow | None = None,
) -> ClientTransaction:
    """A request in this side's dialog. Raises SipSyntaxError where it cannot be written."""
    flow = flow or side.out(core)
    branch = core.ids.branch()
    dialog = side.dialog
    uri, head = dialog.headers(method, dialog.next_cseq(), core.via(flow.listener, branch), forwards)
    head.append(("Contact", dialog.contact))
    return core.layer.send(method, branch, build_request(method, uri, head + headers, body), flow, user, now)


def receive(core: Core, side: Side, msg: Message, tx: ServerTransaction, source: Source, now: float) -> None:
    """A request whose To tag is this side's: SUBSCRIBE and NOTIFY cross, each in its direction."""
    subscription, dialog, method = side.subscription, side.dialog, msg.method
    # A NOTIFY may be the first that b says; one of another tag is of a fork, which gets none (RFC 6665 §4.4.1).
    first = side is subscription.b and method == "NOTIFY" and not subscription.notified
    if not (msg.call_id == dialog.call_id if first else dialog.matches(msg)):
        core.count("DIALOG_UNKNOWN")
        core.refuse(tx, 481, now, established=True)
    elif not side.comes_from(source):
        core.count("WRONG_SOURCE_REFUSED")
        core.refuse(tx, 481, now, established=True)
    elif msg.max_forwards == 0:
        core.count("MAX_FORWARDS_REFUSED")
        core.refuse(tx, 483, now, established=True)
    elif required := msg.get_all("Require"):
        core.count("EXTENSION_REFUSED")
        core.refuse(tx, 420, now, [("Unsupported", ", ".join(required))], established=True)
    elif method != ("NOTIFY" if side is subscription.b else "SUBSCRIBE"):
        core.count("METHOD_REFUSED")
        status = 405 if method in KNOWN_METHODS else 501
        core.refuse(tx, status, now, [("Allow", ALLOW)], established=True)
    elif dialog.check_sequence(msg.cseq_number) is Sequence.OLD:
        core.count("CSEQ_REFUSED")
        core.refuse(tx, 500, now, established=True)
    else:
        if first:
            dialog.accept(msg)
            subscription.notified = True
        else:
            dialog.refresh_target(msg)
        side.flow = tx.seen if side.nat else tx.flow
        _cross(core, subscription, side, msg, tx, now)


def _cross(core: Core, subscription: Subscription, side: Side, msg: Message, tx: ServerTransaction, now: float) -> None:
    other = subscription.other(side)
    if not other.dialog.remote_tag:  # a refresh before b has said a word
        core.refuse(tx, 491, now, established=True)
        return
    ends = False
    if msg.method == "NOTIFY":
        state, expires_s = _subscription_state(msg)
        ends = state == "terminated"
        if not ends:
            if expires_s is not None:
                subscription.expires_s = _bounded(core, expires_s)
            subscription.step(Event.NOTIFIED, now)
    headers = crossing.headers_of(core, msg, other.realm)
    forwards = 70 if msg.max_forwards is None else msg.max_forwards - 1
    try:
        send(core, other, msg.method, headers, msg.body, forwards, Crossing(subscription, side, tx, ends), now)
    except SipSyntaxError:  # a header that may cross holds what nobody may write
        core.refuse(tx, 400, now, established=True)


class Crossing:
    """A SUBSCRIBE or NOTIFY inside the subscription, on its way; ``ends`` when it is the last NOTIFY."""

    __slots__ = ("ends", "side", "subscription", "tx")

    def __init__(self, subscription: Subscription, side: Side, tx: ServerTransaction, ends: bool) -> None:
        self.subscription = subscription
        self.side = side  # where it came from
        self.tx = tx
        self.ends = ends

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer crosses."""
        status = msg.status
        if status < 200:
            return
        subscription, core = self.subscription, self.subscription.core
        if status >= 300:
            code, headers = crossing.failure(msg)
            core.respond(self.tx, code, now, headers)
            if status in (_GONE if tx.method == "SUBSCRIBE" else (481,)):
                subscription.step(Event.GONE, now)
        else:
            headers = _accepted(subscription, self.side, msg, self.tx.request) if tx.method == "SUBSCRIBE" else []
            subscription.other(self.side).dialog.refresh_target(msg)
            core.respond(self.tx, status, now, headers)
            if tx.method == "SUBSCRIBE":
                subscription.step(Event.ACCEPTED, now)
        if self.ends:
            subscription.step(Event.TERMINATED, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """RFC 6665 §4.2.2: who does not answer a NOTIFY is no subscriber; a SUBSCRIBE may be tried again."""
        subscription = self.subscription
        subscription.core.respond(self.tx, 408, now)
        if tx.method == "NOTIFY":
            subscription.step(Event.GONE, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """As a timeout, without the wait."""
        subscription = self.subscription
        subscription.core.respond(self.tx, 503, now)
        if tx.method == "NOTIFY":
            subscription.step(Event.GONE, now)


class First:
    """The SUBSCRIBE that makes the subscription, on its way."""

    __slots__ = ("subject", "subscription")

    def __init__(self, subscription: Subscription, subject: OutOfDialogRequest) -> None:
        self.subscription = subscription
        self.subject = subject

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer crosses, and decides whether there is a subscription."""
        if msg.status < 200:
            return
        subscription = self.subscription
        requests = subscription.core.requests
        if msg.status >= 300:
            status, headers = crossing.failure(msg)
            requests.finish(self.subject, status, now, headers)
            subscription.step(Event.REFUSED, now)
            return
        if not subscription.notified:
            subscription.b.dialog.establish(msg)
        a = subscription.a
        headers = [("Record-Route", route) for route in a.dialog.route_set]
        headers += _accepted(subscription, a, msg, self.subject.message)
        requests.finish(self.subject, msg.status, now, headers)
        subscription.step(Event.ACCEPTED, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody is there."""
        self.subscription.core.requests.finish(self.subject, 408, now)
        self.subscription.step(Event.REFUSED, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """RFC 3261 §8.1.3.1: as if 503 had come."""
        self.subscription.core.requests.finish(self.subject, 503, now)
        self.subscription.step(Event.REFUSED, now)


def _accepted(subscription: Subscription, a: Side, msg: Message, asked: Message) -> Headers:
    """What the 2xx to a SUBSCRIBE says to the subscriber (RFC 6665 §4.2.1.1), and how long it holds."""
    said = _seconds(msg.get("Expires"))
    expires_s = _asked_for(subscription.core, asked) if said is None else _bounded(subscription.core, said)
    subscription.expires_s = expires_s
    headers = crossing.headers_of(subscription.core, msg, a.realm)
    kept = [item for item in shape.without_content(headers) if item[0] != "Expires"]
    return [("Contact", a.dialog.contact), ("Expires", str(expires_s)), *kept]


def _asked_for(core: Core, msg: Message) -> int:
    """The seconds that a SUBSCRIBE asks for: what holds while the notifier says nothing."""
    seconds = _seconds(msg.get("Expires"))
    return _bounded(core, DEFAULT_EXPIRES_S if seconds is None else seconds)


def _bounded(core: Core, expires_s: int) -> int:
    """A notifier may shorten a subscription (RFC 6665 §4.2.1.1), and to a we are one."""
    return min(expires_s, int(core.settings.dialog_lifetime_s))


def _subscription_state(msg: Message) -> tuple[str, int | None]:
    """The state that a NOTIFY names, in lower case, and the seconds that it says are left."""
    state, semicolon, params = (msg.get("Subscription-State") or "").partition(";")
    try:
        expires = find_param(parse_params(semicolon + params), "expires")
    except SipSyntaxError:
        expires = None
    return state.strip().lower(), _seconds(expires)


def _seconds(text: str | None) -> int | None:
    """A number of seconds as a header says it; None where it says none."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None
