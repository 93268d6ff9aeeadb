"""Digits between sides that want them differently: what the media plane heard as RFC 4733 events becomes INFO for a
side that wants that, and INFO becomes events for one that wants those. INFOs of one leg go one at a time, in order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from media.protocol import Dtmf, Reply
from sbc.b2bua import credentials, local
from sbc.b2bua.call import Headers, Outcome
from sbc.b2bua.profile import profile_of
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

RELAY, BARE = "application/dtmf-relay", "application/dtmf"
DIALOG_GONE = frozenset({408, 481})  # RFC 5057 §5.1
MOST_WAITING = 32  # INFOs of one leg
USUAL_MS, LEAST_MS, MOST_MS = 100, 40, 8000
_DIGITS = frozenset("0123456789*#ABCD")
_BY_NUMBER = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}


class Pressed(NamedTuple):
    """One key, for so long."""

    digit: str
    duration_ms: int


def read(content_type: str, body: bytes) -> Pressed | None:
    """The digit of an INFO; None where it is not about one that RFC 4733 events could say."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (RELAY, BARE) or len(body) > 256:
        return None
    signal, duration_ms = "", USUAL_MS
    for line in body.decode("ascii", "replace").splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if name.lower() == "signal" and equals:
            signal = value
        elif name.lower() == "duration" and value.isascii() and value.isdigit() and len(value) < 6:
            duration_ms = int(value)
        elif name and not equals and kind == BARE:
            signal = name
    signal = _BY_NUMBER.get(signal, signal.upper())
    return Pressed(signal, min(max(duration_ms, LEAST_MS), MOST_MS)) if signal in _DIGITS else None


def wants(core: Core, call: Call, leg: Leg) -> str:
    """How this side gets digits: pass, rfc4733 or info."""
    profile = profile_of(core, call, leg)
    return "pass" if profile is None or call.media_profile is None else profile.wish.digits


def receive(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> bool:
    """An INFO from this leg: True where it was one digit for a side that wants events, and is answered."""
    call = leg.call
    other = call.other(leg)
    if other is None or call.state is not CallState.UP or wants(core, call, other) != "rfc4733":
        return False
    pressed = read(msg.get("Content-Type") or "", msg.body)
    if pressed is None:
        return False
    core.count("DIGITS_FROM_INFO")
    core.respond(tx, 200, now)
    core.touch(call)

    def sent(reply: Reply, now: float) -> None:
        if not reply.ok:
            core.count("DIGITS_LOST")
            core.note("warning", "a digit was lost", call, leg=other.name, code=reply.code, reason=reply.reason)

    core.ask(call, Dtmf(call.key, other.name, pressed.digit, pressed.duration_ms), sent, now)
    return True


def heard(core: Core, call: Call, leg_name: str, digit: str, duration_ms: int, now: float) -> None:
    """The media plane heard a key on this leg; the other side is told if it wants INFO."""
    core.count("DIGITS_HEARD")
    leg = next((leg for leg in call.legs() if leg.name == leg_name), None)
    other = None if leg is None else call.other(leg)
    if other is None or call.state is not CallState.UP or wants(core, call, other) != "info" or digit not in _DIGITS:
        return
    waiting = other.digits
    if waiting is None:
        waiting = other.digits = deque()
    if len(waiting) == MOST_WAITING:
        core.count("DIGITS_LOST")
        return
    waiting.append((digit, duration_ms))
    if len(waiting) == 1:
        Info(core, other).send(now)


class Info:
    """The first of the digits that wait for a leg, on its way; the next follows its answer."""

    __slots__ = ("core", "leg", "tries")

    def __init__(self, core: Core, leg: Leg) -> None:
        self.core = core
        self.leg = leg
        self.tries = 0

    def send(self, now: float) -> None:
        """Send it, as the local route leaves it."""
        core, leg = self.core, self.leg
        if not leg.digits:
            return
        if leg.call.state is not CallState.UP or leg.state >= LegState.CANCELLED:
            leg.digits.clear()
            return
        digit, duration_ms = leg.digits[0]
        body = f"Signal={digit}\r\nDuration={duration_ms}\r\n".encode()
        agent = core.settings.realms[leg.realm].user_agent
        headers = [("User-Agent", agent)] if agent else []
        headers.append(("Content-Type", RELAY))
        local.ask(core, leg, "INFO", headers, body, self._transmit, now)

    def _transmit(self, own: Headers, body: bytes, now: float) -> None:
        core, leg = self.core, self.leg
        if leg.call.state is not CallState.UP or leg.state >= LegState.CANCELLED or not leg.digits:
            return
        flow = leg.out(core)
        branch = core.ids.branch()
        try:
            uri, headers = leg.dialog.headers("INFO", leg.dialog.next_cseq(), core.via(flow.listener, branch))
            headers += own
            headers += credentials.headers(leg, "INFO", uri, body)
            data = build_request("INFO", uri, headers, body)
        except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
            core.note("warning", "INFO cannot be written", leg.call, leg=leg.name, reason=error.reason)
            leg.digits.clear()
            return
        core.layer.send("INFO", branch, data, flow, self, now)

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The next one, whatever became of this one, unless there is no dialog any more."""
        if msg.status < 200:
            return
        core, leg = self.core, self.leg
        if leg.call.state < CallState.ENDING and credentials.accept(core, leg, msg, self.tries):
            self.tries += 1
            self.send(now)
            return
        if msg.status in DIALOG_GONE:
            self._gone(msg.status, now)
            return
        self._next(now, lost=msg.status >= 300)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody is there any more."""
        self._gone(408, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """This one is lost; a connection that broke may be made again for the next."""
        self._next(now, lost=True)

    def _next(self, now: float, *, lost: bool) -> None:
        if lost:
            self.core.count("DIGITS_LOST")
        if self.leg.digits:
            self.leg.digits.popleft()
            Info(self.core, self.leg).send(now)

    def _gone(self, status: int, now: float) -> None:
        if self.leg.digits:
            self.leg.digits.clear()
        if self.leg.state < LegState.CANCELLED and self.leg.call.state < CallState.ENDING:
            outcome = Outcome(status, "sbc", note=f"{status} to INFO in dialog")
            self.core.step(self.leg.call, CallEvent.RELEASE, now, outcome)
