"""Media of an established call leave the relay, or come back to it: one exchange with both sides (RFC 3725, RFC 3264).

A is asked for an offer (re-INVITE without a description), B is made that offer, and both hear the answer: B's ACK is
empty, A's has it. Directly, the descriptions cross with o= lines of ours; relayed, with our addresses, as ever. So
nobody is asked to answer what it has not been offered, and a refusal at any point leaves both sides what they had: A's
offer is then answered with what A was told before, and B, where it had accepted already, is offered what it had.

The media plane keeps its session until both sides have changed over; what it counted goes into the record of the call.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from enum import IntEnum, auto
from typing import TYPE_CHECKING

from sbc.b2bua import accept, by_hand, exchange, refresh, shape
from sbc.b2bua.call import Outcome
from sbc.b2bua.invitation import Invitation
from sbc.b2bua.profile import profile_of
from sbc.b2bua.tables import CallEvent, CallState
from sbc.errors import SdpError
from sbc.sdp.address import NULL_ADDRESSES
from sbc.sdp.description import SessionDescription
from sbc.sdp.negotiate import NOTHING
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

MAX_GLARE = 4  # how often one of the sides may be busy with a change of its own
SETTLE_S = 6.0  # after a resume: what was under way has been acknowledged by then (T2 is 4 s)
_KEYS = (b"a=crypto:", b"a=fingerprint:", b"SAVP")
_GONE = frozenset({408, 481})

Then = Callable[[str, float], None]


class State(IntEnum):
    """Whom this waits for."""

    WAITING = auto()  # until it may begin, or begin again
    ASKING = auto()  # A, for its offer
    OFFERING = auto()  # B, for its answer
    OVER = auto()


def begin(core: Core, call: Call, profile: str | None, then: Then, now: float) -> str:
    """Move the media of ``call``: ``profile`` None lets them go directly, else they are relayed under that profile.

    Returns why not, in a sentence; or '', and then ``then(reason, now)`` hears once how it ended, '' for well.
    """
    refusal = _refusal(core, call, profile)
    if refusal:
        return refusal
    assert call.b is not None  # who has answered
    call.switching = Reanchor(core, call, call.a, call.b, profile, then)
    call.switching.start(now)
    return ""


def settle(core: Core, call: Call, now: float) -> None:
    """The worker that had this under way is dead: bring both sides back to what the record says, in a while."""
    call.unsettled = True
    for leg in (call.a, call.b):
        if leg is not None:
            leg.ack, leg.unacked = None, False  # what comes is for the INVITE of the dead worker

    def again(now: float) -> None:
        call.unsettled = False
        if call.state is CallState.UP and call.b is not None and call.switching is None:
            call.switching = Reanchor(core, call, call.a, call.b, call.media_profile, _nobody)
            call.switching.start(now)

    core.timers.start(SETTLE_S, again, now)


def _nobody(reason: str, now: float) -> None:
    """Nobody waits for the end of this one."""


def _refusal(core: Core, call: Call, profile: str | None) -> str:
    b = call.b
    if call.state is not CallState.UP or b is None:
        return "the call is not up: it is not answered yet, or ends"
    if call.switching is not None or call.unsettled:
        return "its media are being moved already"
    if call.moving is not None or call.joining is not None:
        return "a transfer of the call is under way"
    if (call.media_profile is None) == (profile is None):
        return "its media go directly already" if profile is None else "its media are relayed already"
    if profile is not None:
        return ""
    if (":" in call.a.flow.host) != (":" in b.flow.host):
        return "the two sides are of different IP versions"
    for leg in (call.a, b):
        if heard := leg.prompt or leg.music:
            return f"leg {leg.name} hears {heard}"
    if call.recording:
        return "the call is recorded"
    for leg in (call.a, b):
        if any(key in leg.sdp_out for key in _KEYS):
            return f"leg {leg.name} speaks SRTP with keys of ours"
        if why := _needs_relay(core, call, leg) or _misfit(core, call, leg, leg.sdp_in):
            return why
    return ""


def _needs_relay(core: Core, call: Call, leg: Leg) -> str:
    """Why media of this side need us, whatever it describes; '' for nothing."""
    profile = profile_of(core, call, leg)
    if core.settings.realms[leg.realm].nat == "always" or (profile is not None and profile.latch == "learn"):
        return f"leg {leg.name} is behind NAT"
    if profile is None:
        return ""
    if profile.music or profile.record != "off":
        return f"the media profile of leg {leg.name} plays or records"
    if profile.wish.transcode:
        return f"the media profile of leg {leg.name} transcodes ({', '.join(profile.wish.transcode)})"
    if profile.wish != NOTHING:
        return f"the media profile of leg {leg.name} converts digits (dtmf: {profile.wish.digits})"
    return ""


def _misfit(core: Core, call: Call, leg: Leg, body: bytes) -> str:
    """Why the other side cannot be told this description of a leg as it is; '' for none (or nothing known of it)."""
    if not body:
        return ""
    try:
        sdp = SessionDescription.parse(body)
    except SdpError as error:
        return f"leg {leg.name} describes its media in a way that cannot be read: {error}"
    if any(key in body for key in _KEYS):
        return f"leg {leg.name} speaks SRTP"
    other = call.other(leg)
    for address in {sdp.address_of(media) for media in sdp.streams if media.port}.difference(NULL_ADDRESSES):
        try:
            host = ipaddress.ip_address(address)
        except ValueError:
            return f"leg {leg.name} describes its media with a host name"
        if host.is_private and address != leg.flow.host:
            return f"leg {leg.name} is behind NAT"
        if other is not None and (host.version == 6) != (":" in other.flow.host):
            return "the two sides are of different IP versions"
    return ""


class Reanchor:
    """One such change; ``call.switching`` points to it until it is over."""

    __slots__ = ("_core", "_first", "_former", "_glares", "_moved", "_then", "call", "profile", "second", "state")

    def __init__(self, core: Core, call: Call, first: Leg, second: Leg, profile: str | None, then: Then) -> None:
        self.call = call
        self.second = second
        self.profile = profile
        self.state = State.WAITING
        self._core = core
        self._first = first
        self._then = then
        self._glares = 0
        self._moved = False
        self._former = (first.sdp_in, second.sdp_out)

    def start(self, now: float) -> None:
        """Ask A, or wait until neither side has anything under way."""
        first, second = self._first, self.second
        if self._is_dead():
            self._end("the call has ended", now)
        elif not (refresh.is_quiet(first) and refresh.is_quiet(second)):
            self._glare(first, now)
        else:
            self.state = State.ASKING
            self._former = (first.sdp_in, second.sdp_out)
            Invitation(self._core, first, b"", self._first_replied).send(now)
            self._core.touch(self.call)

    def _is_dead(self) -> bool:
        call = self.call
        return (
            self.state is State.OVER
            or call.state is not CallState.UP
            or (call.a, call.b)
            != (
                self._first,
                self.second,
            )
        )

    # What the sides say

    def _first_replied(self, status: int, msg: Message | None, now: float) -> None:
        core, first = self._core, self._first
        sdp = shape.description(msg) if msg is not None and status < 300 else b""
        if self._is_dead():
            if status < 300:
                accept.send_ack(core, first, now, first.sdp_out)
            self._end("the call has ended", now)
        elif status == 491:
            self._glare(first, now)
        elif status >= 300:
            self._refused(first, status, now)
        elif not sdp:
            accept.send_ack(core, first, now, first.sdp_out)
            self._end(f"leg {first.name} has made no offer", now)
        elif why := self._unfit(first, sdp):
            accept.send_ack(core, first, now, first.sdp_out)
            self._end(why, now)
        else:
            self._cross(first, self.second, sdp, now)

    def _offered(self, body: bytes, status: int, now: float) -> None:
        if self._is_dead() or status:
            self._undo(now)
            self._end(f"the offer of leg {self._first.name} could not be passed on ({status})", now)
            return
        self.state = State.OFFERING
        Invitation(self._core, self.second, body, self._second_replied).send(now)
        self._core.touch(self.call)

    def _second_replied(self, status: int, msg: Message | None, now: float) -> None:
        core, second = self._core, self.second
        if status < 300:
            accept.send_ack(core, second, now)
        sdp = shape.description(msg) if msg is not None and status < 300 else b""
        if self._is_dead():
            self._undo(now)
            self._end("the call has ended", now)
        elif status == 491:
            self._undo(now)
            self._glare(second, now)
        elif status >= 300:
            self._undo(now)
            self._refused(second, status, now)
        elif why := self._unfit(second, sdp) if sdp else f"leg {second.name} has not answered the offer":
            self._undo(now)
            self._restore(now)
            self._end(why, now)
        else:
            self._cross(second, self._first, sdp, now)

    def _answered(self, body: bytes, status: int, now: float) -> None:
        if self._is_dead():
            self._undo(now)
            self._end("the call has ended", now)
        elif status:
            self._undo(now)
            self._restore(now)
            self._end(f"the answer of leg {self.second.name} could not be passed on ({status})", now)
        else:
            accept.send_ack(self._core, self._first, now, body)
            self._commit(now)

    # What we make of it

    def _unfit(self, leg: Leg, sdp: bytes) -> str:
        return _misfit(self._core, self.call, leg, sdp) if self.profile is None else ""

    def _cross(self, sender: Leg, receiver: Leg, sdp: bytes, now: float) -> None:
        """Through the exchange as it is to be; until both sides have agreed the call is what it was."""
        call, former = self.call, self.call.media_profile
        offering = sender is self._first
        then = self._offered if offering else self._answered

        def crossed(body: bytes, status: int, now: float) -> None:
            call.media_profile = former
            then(body, status, now)

        call.media_profile = self.profile
        (exchange.offer if offering else exchange.answer)(self._core, call, sender, receiver, sdp, crossed, now)
        if not self._moved:
            call.media_profile = former

    def _commit(self, now: float) -> None:
        core, call = self._core, self.call
        self.state, self._moved = State.OVER, True
        call.media_profile = self.profile
        self._first.in_before = self.second.sdp_before = None
        if self.profile is None:
            self._delete(now)
        core.count("MEDIA_MOVED")
        self._end("", now)

    def _delete(self, now: float) -> None:
        """The relay is done with this call."""
        call = self.call
        if call.has_media:
            by_hand.delete(self._core, call, lambda _status: self._core.touch(call), now)

    def _undo(self, now: float) -> None:
        """Both sides are told, or believe, what they did before; A's offer is answered with that."""
        core, first, second = self._core, self._first, self.second
        first.sdp_in = self._former[0]
        exchange.withdraw(core, self.call, now, first)
        second.describe_again(self._former[1])
        if first.unacked:
            accept.send_ack(core, first, now, first.sdp_out)
        if self.call.media_profile is None and self.call.state is CallState.UP:
            self._delete(now)

    def _restore(self, now: float) -> None:
        """B has accepted what came to nothing: it is offered what it had."""
        core, second = self._core, self.second

        def restored(status: int, msg: Message | None, now: float) -> None:
            if status < 300:
                accept.send_ack(core, second, now)

        second.sdp_out = exchange.said_again(second)
        Invitation(core, second, second.sdp_out, restored).send(now)

    def _refused(self, leg: Leg, status: int, now: float) -> None:
        self._end(f"leg {leg.name} has refused with {status}", now)
        if status in _GONE:
            note = f"{status} to INVITE in dialog"
            self._core.step(self.call, CallEvent.RELEASE, now, Outcome(408, "sbc", 102, note=note))

    def _glare(self, leg: Leg, now: float) -> None:
        """RFC 3261 §14.1, a few times."""
        self.state = State.WAITING
        self._glares += 1
        if self._glares > MAX_GLARE:
            self._end(f"leg {leg.name} is busy with changes of its own", now)
        else:
            self._core.timers.start(refresh.glare_delay_s(self._core, leg), self.start, now)

    def _end(self, reason: str, now: float) -> None:
        core, call = self._core, self.call
        self.state = State.OVER
        if call.switching is self:
            call.switching = None
        where = "directly" if call.media_profile is None else "relayed"
        core.note("info", "media of a call moved" if not reason else "media of a call stay", call, go=where, why=reason)
        if call.state is CallState.UP:
            core.touch(call)
        self._then(reason, now)
