"""A transfer as a state machine: a leg leaves its call and takes a place in another one (RFC 3515, RFC 3891, RFC 5589).

Three requests lead here, and all are the same to the machine. ``first`` is the call that is left: ``moved`` is its leg
that goes, ``by`` the one that stays behind and is ended. ``second`` is the call that takes the leg in:

- REFER without Replaces: ``second`` is made for it, as if the referred party called; its route says where it goes.
- REFER with Replaces: ``second`` is another call of the same transferor, whose leg there, ``place``, makes room.
- INVITE with Replaces: ``second`` is the call that this INVITE makes.

Until the moved leg has accepted, both calls stay as they were: in ``second`` a ``seat`` stands for it, a leg that has
descriptions of its own and sends nothing. Then the two change places, and whatever waits for an answer on the moved leg
finds it where it is now. So a failure at any time has nothing to repair but what the parties were told.

Offer and answer (RFC 3264): the target offers (in its 200 to an INVITE without a description, or in the INVITE that
came), the moved leg answers that, and the ACK or the 200 brings the answer to the target. Neither is shown anything
that the other has not said in this very exchange, whatever was agreed, held or muted before.

Who hangs up: the transferor may at any time, and nothing else ends by it. When the moved party does, the target is
given up, and when the target does, the moved party has its old call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from media.protocol import Reply
from sbc.b2bua import accept, accompany, cdr, exchange, ping, refresh, shape
from sbc.b2bua.call import Call, Outcome
from sbc.b2bua.effects import DropRecord, RouteKind, RunRoute
from sbc.b2bua.invitation import Invitation
from sbc.b2bua.leg import Leg
from sbc.b2bua.notifier import Notifier
from sbc.b2bua.subjects import ReplyEvent
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.b2bua.transfer_table import TRANSFER, Action, Event, State
from sbc.dialog.dialog import Dialog
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.refer import Wish
    from sbc.transaction.timers import Timer

MAX_GLARE = 6  # how often a party may answer 491, or be busy with a change of its own
# What passes from the caller's INVITE to that which we send in his name, to be judged by the trust of both realms
_IDENTITY = frozenset({"p-asserted-identity", "p-preferred-identity", "remote-party-id", "privacy"})


def begin(core: Core, by: Leg, wish: Wish, tx: ServerTransaction, place: Leg | None, now: float) -> None:
    """A REFER of ``by`` that we are to carry out; ``place`` is the leg that it names by Replaces."""
    first = by.call
    moved = first.other(by)
    refusal = _unready(core, by, place)
    if not refusal and place is None:
        refusal = core.settings.admission.open_call(by.peer, now) or 0  # the transferor's call, by his limits
        if refusal:
            core.count("MAX_CALLS_REFUSED")
    if refusal or moved is None:
        core.refuse(tx, refusal or 491, now, [("Retry-After", "5")] if refusal == 503 else (), established=True)
        return
    core.count("TRANSFERS_STARTED")
    seat = _seat(core, moved, "a" if place is None else _free_name(place.call))
    second = _call_for(core, by, moved, seat, wish, tx, now) if place is None else place.call
    if place is not None:
        seat.profile, seat.came = _profile(moved), True
    transfer = Transfer(core, by, moved, second, seat, place, now)
    transfer.tx = tx
    transfer.silent = wish.silent
    transfer.wish = wish
    if place is None:
        core.run_route(second, RunRoute(RouteKind.REQUEST, second))
    else:
        transfer.step(Event.ACCEPT, now)


def take_over(core: Core, second: Call, by: Leg, now: float) -> None:
    """The call of an INVITE with Replaces takes the place of ``by`` in its established call (RFC 3891 §3)."""
    first = by.call
    moved = first.other(by)
    assert moved is not None  # an established call has two sides
    core.count("TRANSFERS_STARTED")
    second.decided = True
    second.media_profile, second.media_set = first.media_profile, first.media_set
    core.step(second, CallEvent.DIAL, now)
    seat = _seat(core, moved, "b1")
    seat.profile, seat.came = _profile(moved), True
    second.a.came = by is not first.a or second.a.peer != by.peer  # else it takes the place of one of its own
    second.b = seat
    second.branches.append(seat)
    transfer = Transfer(core, by, moved, second, seat, None, now)
    transfer.step(Event.ACCEPT, now)
    if second.body:
        exchange.offer(core, second, second.a, seat, second.body, transfer.answered, now)
    else:
        transfer.step(Event.OFFER, now)  # none: the moved leg is asked for it


def _unready(core: Core, by: Leg, place: Leg | None) -> int:
    """The status by which a REFER must be refused for now; 0: none."""
    if core.draining and place is None:
        return 503
    if place is not None and (place.call.state is not CallState.UP or place.call.joining or place.call.moving):
        return 491
    return 0


def _seat(core: Core, moved: Leg, name: str) -> Leg:
    """What stands for a leg in the call that it is to join. Its dialog is a name only: no message is sent in it."""
    former = moved.dialog
    dialog = Dialog(former.call_id, former.local, core.ids.tag(), former.remote, former.contact)
    seat = Leg(name, dialog, moved.flow, moved.realm, moved.peer, moved.direction)
    seat.state = LegState.ENDED
    seat.session_id, seat.sdp_version, seat.sdp_text = moved.session_id, moved.sdp_version, moved.sdp_text
    seat.origin, seat.sdp_out = moved.origin, moved.sdp_out  # what is to be said may be the same again
    seat.seat_of = moved
    return seat


def _profile(moved: Leg) -> str:
    """The media profile that a leg has in its call, wherever it goes: '' for that of its peer."""
    as_caller = moved is moved.call.a and not moved.came
    return (moved.call.media_profile or "") if as_caller else moved.profile


def _free_name(call: Call) -> str:
    """A leg name that neither the call nor its media session has had."""
    taken = {leg.name for leg in call.legs()}
    return next(name for n in range(1, len(taken) + 2) if (name := f"t{n}") not in taken)


def _call_for(core: Core, by: Leg, moved: Leg, seat: Leg, wish: Wish, tx: ServerTransaction, now: float) -> Call:
    """The call to the target, as if the moved party had asked for it by an INVITE of its own."""
    first = by.call
    request = _invite_of(core, by, moved, wish, tx)
    call = Call(core.ids.call_id(first.shard), first.shard, seat, now, core.wall(now))
    seat.call = call
    call.request = request
    call.from_uri = cdr.printable(str(request.from_().uri))
    call.to_uri = call.ruri = cdr.printable(request.uri)
    call.admitted_peers = (by.peer,)
    call.transferred_from = first.key
    core.add(call)
    core.setups.begun(call, now)
    core.count("CALLS_ACTIVE")
    return call


def _invite_of(core: Core, by: Leg, moved: Leg, wish: Wish, tx: ServerTransaction) -> Message:
    """That INVITE. It names the moved party as the transferor knows it, so that what was hidden stays hidden."""
    original = by.call.request
    host = core.hosts[by.flow.listener]
    uri = str(wish.uri) if wish.uri.scheme == "tel" else str(wish.uri._replace(host=host, port=None, password=None))
    forwards = tx.request.max_forwards
    headers = [
        ("Via", core.via(moved.flow.listener, core.ids.branch())),
        ("Max-Forwards", str(70 if forwards is None else forwards)),
        ("From", f"{by.dialog.local};tag={core.ids.tag()}"),
        ("To", f"<{uri}>"),
        ("Call-ID", moved.dialog.call_id),
        ("CSeq", "1 INVITE"),
        ("Contact", moved.dialog.contact),
    ]
    if original is not None and moved is by.call.a:
        headers += original.having(_IDENTITY)
    return Message.parse(build_request("INVITE", uri, headers))


class Transfer:
    """One transfer; ``first`` and ``second`` point to it (``moving``, ``joining``) until it is over."""

    __slots__ = (
        "_asked",
        "_body",
        "_core",
        "_glares",
        "_left",
        "_limit",
        "_reply",
        "_retry",
        "by",
        "first",
        "moved",
        "notifier",
        "place",
        "seat",
        "second",
        "silent",
        "state",
        "tx",
        "wish",
    )

    def __init__(self, core: Core, by: Leg, moved: Leg, second: Call, seat: Leg, place: Leg | None, now: float) -> None:
        self.first = by.call
        self.by = by
        self.moved = moved
        self.second = second
        self.seat = seat
        self.place = place
        self.state = State.ASKED
        self.tx: ServerTransaction | None = None  # the REFER, until it is answered
        self.silent = False
        self.wish: Wish | None = None
        self.notifier: Notifier | None = None
        self._core = core
        self._asked: Invitation | None = None  # the INVITE that is under way
        self._body = b""  # the offer for the moved leg, then the answer for the target
        self._reply: Message | None = None  # of the moved leg to that INVITE
        self._left: set[Leg] = set()  # who of the transferor's has hung up already
        self._glares = 0
        self._retry: Timer | None = None
        limit_s = 2 * core.settings.timer_c_s
        self._limit = core.timers.start(limit_s, partial(self._step_later, Event.FAIL, 408), now)
        seat.call = second
        self.first.moving = self
        second.joining = self

    @property
    def target(self) -> Leg:
        """The leg that the moved one is to talk to."""
        if self.place is None and self.seat is self.second.a:
            assert self.second.b is not None  # who has answered
            return self.second.b
        other = self.second.other(self.place or self.seat)
        assert other is not None
        return other

    def step(self, event: Event, now: float, context: Any = None) -> bool:  # Any: a status, by event
        """Run a row of the table; False: this event means nothing any more."""
        row = TRANSFER.get((self.state, event))
        if row is None:
            return False
        self.state, actions = row
        for action in actions:
            _ACTIONS[action](self, now, context)
        return True

    def _step_later(self, event: Event, context: object, now: float) -> None:
        self.step(event, now, context)

    # What the calls tell

    def dialled(self, now: float) -> None:
        """A route has decided for it."""
        self.step(Event.ACCEPT, now)

    def headers_for(self, leg: Leg) -> shape.Headers:
        """What the INVITE to the target says of the transfer: who asked for it (RFC 3892), where that is trusted."""
        by = self.wish.referred_by if self.wish is not None else None
        if by is None or not self._core.trust[leg.realm].trusted:
            return []
        return [("Referred-By", shape.rehomed(by, self._core.hosts[leg.flow.listener]))]

    def progressed(self, status: int, now: float) -> None:
        """A provisional answer of the target."""
        self.step(Event.PROGRESS, now, status)

    def answered(self, body: bytes, status: int, now: float) -> None:
        """The target has answered: its offer for the moved leg, through the media plane, or the status that it met."""
        if status or not body:
            self.step(Event.FAIL, now, status or 488)
        else:
            self._body = body
            self.step(Event.OFFER, now)

    def leaves(self, leg: Leg, now: float) -> bool:
        """A leg has said BYE: True where the transfer goes on without it, so that its call must."""
        return leg in (self.by, self.place) and leg not in self._left and self.step(Event.LEAVE, now, leg)

    def ended(self, call: Call, status: int, now: float) -> None:
        """One of the calls is over before the transfer is: with ``status``, or 0."""
        self.step(Event.FAIL, now, status or (487 if call is self.first else 480))

    def withdraw(self) -> ServerTransaction | None:
        """It is not for us to carry out: the REFER, which has no answer yet; None where that was decided otherwise.

        No call was made, so none is recorded.
        """
        if self.state is not State.ASKED or self.tx is None or self.place is not None:
            return None
        core, second, tx = self._core, self.second, self.tx
        self.state, self.tx = State.OVER, None
        self._clear()
        second.decided = True
        second.state = CallState.ENDED
        for peer in second.admitted_peers:
            core.settings.admission.close_call(peer)
        core.count("CALLS_ACTIVE", -1)
        core.remove(second)
        if second.saved:
            core.emit(DropRecord(second.key, second.shard))
        core.forget(self.seat)
        return tx

    # Actions

    def admit(self, now: float, _: object) -> None:
        core, tx = self._core, self.tx
        self._started()
        if tx is None:
            return
        self.tx = None
        contact = ("Contact", self.by.dialog.contact)
        if self.silent:
            core.respond(tx, 200, now, [contact, ("Refer-Sub", "false")])
            return
        core.respond(tx, 202, now, [contact])
        self.notifier = Notifier(core, self.by, tx.request.cseq_number, self._limit.deadline)
        self.notifier.say(100, now)

    def ask(self, now: float, _: object) -> None:
        """The target of a call that is up says what it can do, without regard to what holds now."""
        if self.place is None:
            return
        if not refresh.is_quiet(self.target):
            self.step(Event.GLARE, now, self.target)
            return
        self._invite(self.target, b"", self._target_replied, now)

    def _target_replied(self, status: int, msg: Message | None, now: float) -> None:
        core, target = self._core, self.target
        if self.state is not State.CALLING:  # given up meanwhile
            if status < 300:
                accept.send_ack(core, target, now, target.sdp_out)
        elif status == 491:
            self.step(Event.GLARE, now, target)
        elif msg is None or status >= 300 or not shape.is_sdp(msg):
            if status < 300:
                accept.send_ack(core, target, now, target.sdp_out)
            self.step(Event.FAIL, now, status if status >= 300 else 488)
        else:
            sdp = shape.description(msg)
            exchange.offer(core, self.second, target, self.seat, sdp, self._target_offered, now)

    def _target_offered(self, body: bytes, status: int, now: float) -> None:
        if self.state is State.CALLING:
            self.answered(body, status, now)

    def tell(self, now: float, status: object) -> None:
        if self.notifier is not None and isinstance(status, int):
            self.notifier.say(status, now)

    def invite(self, now: float, _: object) -> None:
        if refresh.is_quiet(self.moved):
            self._invite(self.moved, self._body, self._moved_replied, now)
        else:
            self.step(Event.GLARE, now, self.moved)

    def _invite(self, leg: Leg, body: bytes, then: Callable[[int, Message | None, float], None], now: float) -> None:
        self._asked = Invitation(self._core, leg, body, then)
        self._asked.send(now)

    def _moved_replied(self, status: int, msg: Message | None, now: float) -> None:
        core, moved = self._core, self.moved
        if status < 300 and (self._body or self.state is not State.JOINING):
            accept.send_ack(core, moved, now, b"" if self._body else moved.sdp_out)
        if self.state is not State.JOINING:
            if status < 300:
                self._restore(now)
        elif status == 491:
            self.step(Event.GLARE, now, moved)
        elif msg is None or status >= 300:
            self.step(Event.FAIL, now, status)
            if status in (408, 481):
                note = f"{status} to INVITE in dialog"
                core.step(self.first, CallEvent.RELEASE, now, Outcome(408, "sbc", 102, note=note))
        elif not shape.is_sdp(msg):
            self._unfit(488, now)
        else:
            sdp = shape.description(msg)
            self._reply = msg
            cross = exchange.answer if self._body else exchange.offer
            cross(core, self.second, self.seat, self.target, sdp, self._moved_described, now)

    def _moved_described(self, body: bytes, status: int, now: float) -> None:
        if self.state is not State.JOINING or status:
            self._unfit(status, now)
        else:
            self._body = body
            self.step(Event.ANSWER, now)

    def _unfit(self, status: int, now: float) -> None:
        """The moved leg has taken an offer that came to nothing."""
        if self.moved.unacked:
            accept.send_ack(self._core, self.moved, now, self.moved.sdp_out)
        self.step(Event.FAIL, now, status)
        self._restore(now)

    def _restore(self, now: float) -> None:
        """Offer the moved leg what it had before."""
        core, moved = self._core, self.moved
        if moved.call is not self.first or self.first.state is not CallState.UP or not moved.sdp_out:
            return
        moved.sdp_out = exchange.said_again(moved)

        def restored(status: int, msg: Message | None, now: float) -> None:
            if status < 300:
                accept.send_ack(core, moved, now)

        Invitation(core, moved, moved.sdp_out, restored).send(now)

    def back_off(self, now: float, leg: object) -> None:
        """RFC 3261 §14.1, a few times."""
        assert isinstance(leg, Leg)
        self._glares += 1
        if self._glares > MAX_GLARE:
            self.step(Event.FAIL, now, 491)
            return
        self._core.count("TRANSFER_GLARE")
        delay_s = refresh.glare_delay_s(self._core, leg)
        self._retry = self._core.timers.start(delay_s, partial(self._step_later, Event.RETRY, None), now)

    def move(self, now: float, _: object) -> None:
        """The leg takes its seat, and what stood for it is left in its former call for the record."""
        core, first, second, moved, seat = self._core, self.first, self.second, self.moved, self.seat
        target = self.target
        core.forget(seat)
        if first.a is moved:
            first.a = seat
        else:
            first.b = seat
            first.branches[first.branches.index(moved)] = seat
        if first.offer_from is moved:
            first.offer_from = None
        seat.call, moved.call = first, second
        seat.name, moved.name = moved.name, seat.name
        seat.state, moved.state = LegState.ENDED, LegState.CONFIRMED
        seat.anchored, moved.anchored = moved.anchored, seat.anchored
        moved.sdp_in, moved.sdp_out, moved.sdp_before = seat.sdp_in, seat.sdp_out, None
        moved.sdp_text, moved.sdp_version, moved.session_id = seat.sdp_text, seat.sdp_version, seat.session_id
        moved.origin, moved.in_before = seat.origin, None
        moved.profile, moved.came = seat.profile, seat.came
        if seat.join is not None:
            core.ask(second, seat.join, self._media_joined, now)
            moved.music = moved.prompt = ""  # the media worker has ended it
        seat.seat_of = seat.join = None
        self._sit(moved, now)
        second.transferred_from, first.transferred_to = first.key, second.key
        if second.state is CallState.UP:
            accept.complete(core, target, self._body, now)
            core.free(target, now)
            core.touch(second)

    def _sit(self, moved: Leg, now: float) -> None:
        core, second, place = self._core, self.second, self.place
        if second.offer_from is self.seat:
            second.offer_from = moved
        if place is None and second.b is self.seat:
            assert self._reply is not None  # by which it has accepted
            second.b = moved
            second.branches[:] = [moved]
            second.joining = None
            core.step(second, CallEvent.B_ANSWERED, now)
            event = ReplyEvent(second, moved, self._reply, [], self._body, "")
            accept.conclude(core, moved, event, self._body, 0, now)
            return
        if place is None:
            second.a = moved
            core.step(second, CallEvent.JOINED, now)
            second.status = 200
            second.answered_at, second.answer_wall = now, core.wall(now)
            core.count("CALLS_ANSWERED")
            core.start_lifetime(second, second.lifetime_s or core.settings.dialog_lifetime_s, now)
            assert second.b is not None
            refresh.arm(core, second.b, now)
            ping.arm(core, second.b, now)
            accompany.answered(core, second, now)
            return
        if second.a is place:
            second.a = moved
            second.branches.append(place)
        else:
            second.b = moved
            second.branches.append(moved)
        place.anchored = second.has_media  # whatever this worker has seen of it
        core.drop_branch(place, now)
        _stop(place)
        if place not in self._left:
            core.send_bye(place, now)

    def _media_joined(self, reply: Reply, now: float) -> None:
        if not reply.ok:
            why = f"{reply.code}: {reply.reason}"
            self._core.note("warning", "a transferred leg has no media", self.second, leg=self.moved.name, why=why)

    def succeed(self, now: float, _: object) -> None:
        core, first = self._core, self.first
        core.count("TRANSFERS_DONE")
        self._clear()
        if self.notifier is not None:
            self.notifier.say(200, now, final=True)
        core.commit(first, now)  # so that nobody takes the moved leg for its own, should this worker die now
        core.step(first, CallEvent.RELEASE, now, Outcome(200, "sbc", cdr.NORMAL_CLEARING, note="transferred"))

    def report(self, now: float, status: object) -> None:
        assert isinstance(status, int)
        core, tx = self._core, self.tx
        core.count("TRANSFERS_FAILED")
        self._clear()
        if tx is not None:
            self._started()
            self.tx = None
            core.refuse(tx, status, now, established=True)
        elif self.notifier is not None:
            self.notifier.say(status, now, final=True)

    def undo(self, now: float, status: object) -> None:
        assert isinstance(status, int)
        core, first, second, place = self._core, self.first, self.second, self.place
        if self._asked is not None:
            self._asked.cancel(now)
        self.moved.sdp_version = max(self.moved.sdp_version, self.seat.sdp_version)  # the next change is another
        if place is None:
            hung_up = first.state >= CallState.ENDING
            core.step(second, CallEvent.RELEASE, now, Outcome(status, "a" if hung_up else "sbc", note="transfer"))
        else:
            target = self.target
            if target.unacked:  # its offer is answered by what holds
                accept.send_ack(core, target, now, target.sdp_out)
            if second.offer_from is target:
                second.offer_from = None
                core.drop_branch(self.seat, now)
        for call, leg in ((first, self.by), (second, place)):
            if leg in self._left and call.state < CallState.ENDING:
                note = "its transfer failed after the transferor had hung up"
                core.step(call, CallEvent.RELEASE, now, Outcome(status, "sbc", note=note))

    def part(self, now: float, leg: object) -> None:
        assert isinstance(leg, Leg)
        self._left.add(leg)
        leg.state = LegState.ENDED
        _stop(leg)
        self._core.forget(leg)
        self._core.touch(leg.call)

    def _started(self) -> None:
        """A call was asked for, whatever comes of it."""
        if self.place is None and self.wish is not None:
            self._core.count("CALLS_STARTED")

    def _clear(self) -> None:
        self._limit.cancel()
        if self._retry is not None:
            self._retry.cancel()
        self.first.moving = self.second.joining = None


def _stop(leg: Leg) -> None:
    """Nothing is watched or repeated on a leg that is over."""
    refresh.stop(leg)
    ping.stop(leg)
    if leg.accepted is not None:
        leg.accepted.stop()
        leg.accepted = None


_ACTIONS: dict[Action, Callable[[Transfer, float, Any], None]] = {  # Any: a status or a leg, by event
    Action.ADMIT: Transfer.admit,
    Action.ASK: Transfer.ask,
    Action.TELL: Transfer.tell,
    Action.INVITE: Transfer.invite,
    Action.BACK_OFF: Transfer.back_off,
    Action.MOVE: Transfer.move,
    Action.SUCCEED: Transfer.succeed,
    Action.REPORT: Transfer.report,
    Action.UNDO: Transfer.undo,
    Action.PART: Transfer.part,
}
