"""An announcement to the caller before anybody has answered: then the call is refused, or goes on.

The media plane gets the caller's offer towards a leg of ours, ``prompt``, and we answer for that: 183 with our address
and the first G.711 codec that the caller has, and the prompt is played there. The answer is a preview (RFC 3261
§13.2.1), as that of a branch that rings: what answers later answers anew. Only a caller who insists on reliable
provisionals (RFC 3262) gets it for good, as it would get that of a branch.

Who cannot hear it (an INVITE without an offer, no G.711, a hold, media that do not pass here) is spared the wait.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from media.protocol import Answer, Play, Reply, Stop, Stream
from sbc.b2bua import accompany, exchange, provisional, shape
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.leg import Leg
from sbc.b2bua.profile import PROMPT
from sbc.b2bua.tables import CallState, LegState
from sbc.dialog.dialog import Dialog
from sbc.errors import SdpError
from sbc.sdp.address import connection_data
from sbc.sdp.description import SessionDescription
from sbc.sdp.formats import formats_of, is_g711

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.transaction.timers import Timer

Headers = tuple[tuple[str, str], ...]
_OPEN = (CallState.SETUP, CallState.RINGING)


class Announcement:
    """One announcement of a call. ``then`` is the status that the call is refused with, or the route that goes on."""

    __slots__ = ("call", "core", "file", "headers", "leg", "limit_s", "number", "reason", "then", "timer")

    def __init__(
        self,
        core: Core,
        call: Call,
        file: str,
        then: Any,  # Any: a status, or a route function that the core only carries
        *,
        limit_s: float,
        reason: str = "",
        headers: Headers = (),
    ) -> None:
        self.core = core
        self.call = call
        self.file = file
        self.then = then
        self.limit_s = limit_s
        self.reason = reason
        self.headers = headers
        self.number = core.session_id() % 2**32
        self.leg: Leg | None = None
        self.timer: Timer | None = None

    def begin(self, now: float) -> None:
        """Without effect once the call is answered or over, or while another one is heard."""
        call = self.call
        call.decided = True
        if call.state not in _OPEN or call.announcing is not None:
            return
        call.announcing = self
        call.pending_route = RunRoute(RouteKind.REQUEST, call)  # nothing ends the call meanwhile but its two ends
        if call.a.described_early:
            self._play([], now)  # it has its answer for good
        elif (why := self._describe(now)) is not None:
            self._unheard(why, now)

    def played(self, number: int, now: float) -> None:
        """The media plane has come to an end, of whichever kind."""
        if number == self.number:
            self._go_on(now)

    def stop(self) -> None:
        """The call is over."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _describe(self, now: float) -> str | None:
        """Offer what the caller offered to a leg of ours; why not, where that is of no use."""
        core, call = self.core, self.call
        a = call.a
        if call.joining is not None or a.invite is None:
            return "nobody waits for it"
        if call.media_profile is None:
            return "media do not pass here"
        if not call.body:
            return "the INVITE has no offer"
        try:
            sdp = SessionDescription.parse(call.body)
        except SdpError as error:
            return str(error)
        at = _first_audible(sdp)
        if at is None:
            return "no stream of the offer can be announced to: it takes PCMA or PCMU, and no hold"
        former = a.dialog
        dialog = Dialog(former.call_id, former.local, core.ids.tag(), former.remote, former.contact)
        leg = self.leg = Leg(PROMPT, dialog, a.flow, a.realm, "")
        leg.call, leg.state = call, LegState.ENDED
        exchange.offer(core, call, a, leg, call.body, partial(self._offered, sdp, at), now)
        return None

    def _offered(self, sdp: SessionDescription, at: int, _: bytes, status: int, now: float) -> None:
        call, leg = self.call, self.leg
        assert leg is not None  # made with the offer
        call.offer_from = None
        if call.state not in _OPEN:
            return
        if status:
            self._unheard("the media plane refused the offer", now)
            return
        answer, formats = _answer(sdp, at, self.core.settings.listeners[call.a.flow.listener].advertised_host)
        nowhere = "::" if ":" in answer.address else "0.0.0.0"
        streams = [
            Stream(nowhere, 9 if media.port else 0, media.kind, "RTP/AVPF" if media.protocol[-1:] == "F" else "RTP/AVP")
            for media in answer.streams
        ]
        request = Answer(call.key, leg.name, call.a.name, streams)
        exchange.answer_ourselves(self.core, call, call.a, request, answer, partial(self._answered, formats), now)

    def _answered(self, formats: list[str], body: bytes, status: int, now: float) -> None:
        core, call = self.core, self.call
        a = call.a
        tx = a.invite
        if call.state not in _OPEN or tx is None:
            return
        if status:
            self._unheard("the media plane refused the answer", now)
            return
        headers = [("Record-Route", route) for route in a.dialog.route_set]
        headers += (("Contact", a.dialog.contact), shape.ALLOWED_HEADER)
        headers += core.supported[a.realm][True]
        headers.append(shape.SDP_TYPE)
        reliable = provisional.relayed(core, a, tx, reliably=False)
        if reliable is not None:
            reliable.respond(183, headers, body, "", now)
        else:
            core.respond(tx, 183, now, headers, body, a.dialog.local_tag)
        self._play(formats, now)

    def _play(self, formats: list[str], now: float) -> None:
        call = self.call
        request = Play(call.key, call.a.name, self.file, formats=formats, number=self.number)
        if not formats:
            request.formats = accompany.formats_for(call.a)
        self.core.ask(call, request, self._started, now)

    def _started(self, reply: Reply, now: float) -> None:
        if self.call.announcing is not self:
            return
        if not reply.ok:
            self._unheard(reply.reason or reply.code, now)
        elif self.call.state in _OPEN:
            self.timer = self.core.timers.start(self.limit_s, self._too_long, now)

    def _too_long(self, now: float) -> None:
        self.timer = None
        if self.call.state in _OPEN:
            self.core.ask(self.call, Stop(self.call.key, self.call.a.name), _ignore, now)
        self._go_on(now)

    def _unheard(self, why: str, now: float) -> None:
        self.core.note("warning", "announcement not heard", self.call, file=self.file, reason=why)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        core, call = self.core, self.call
        if call.announcing is not self:
            return
        self.stop()
        call.announcing = None
        call.pending_route = None
        if call.state not in _OPEN:
            return
        if isinstance(self.then, int):
            core.reject(call, self.then, now, reason=self.reason, headers=self.headers)
            return
        if self.leg is not None:
            exchange.drop_branch(core, call, self.leg, now)
        call.decided = False
        core.run_route(call, RunRoute(RouteKind.REQUEST, call, self.then))


def _ignore(reply: Reply, now: float) -> None:
    """Nobody waits for this reply."""


def _first_audible(sdp: SessionDescription) -> int | None:
    """Which stream of an offer an announcement can be heard on."""
    if accompany.holds(sdp):
        return None
    for at, media in enumerate(sdp.streams):
        if media.kind == "audio" and media.port and media.is_rtp and any(map(is_g711, formats_of(media))):
            return at
    return None


def _answer(sdp: SessionDescription, at: int, host: str) -> tuple[SessionDescription, list[str]]:
    """Our answer to an offer, of the first G.711 codec of one stream (RFC 3264 §6), and that codec. The address is
    of no meaning: the media plane puts its own."""
    chosen: list[str] = []
    lines = ["v=0", f"o=- 1 1 {connection_data(host)}", "s=-", f"c={connection_data(host)}", "t=0 0"]
    for index, media in enumerate(sdp.streams):
        if index != at:
            lines.append(f"m={media.kind} 0 {media.protocol} {media.formats[0]}")
            continue
        text = next(text for text in formats_of(media) if is_g711(text))
        number, _, encoding = text.partition(" ")
        chosen = [text]
        lines.append(f"m={media.kind} 9 {media.protocol} {number}")
        if encoding:
            lines.append(f"a=rtpmap:{number} {encoding.partition(' ')[0]}")
    return SessionDescription.parse("\r\n".join([*lines, ""]).encode()), chosen
