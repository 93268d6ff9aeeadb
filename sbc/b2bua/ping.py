"""Pings inside a dialog, to find calls whose other side died without BYE: OPTIONS or re-INVITE, off by default.

What a session timer does for peers that know RFC 4028, this does for all, at an interval of the operator's choice.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import credentials, local, refresh
from sbc.b2bua.call import Headers, Outcome
from sbc.b2bua.relay import DIALOG_GONE
from sbc.b2bua.tables import CallEvent
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction


def arm(core: Core, leg: Leg, now: float) -> None:
    """Ping this leg from now on, where pings are wanted."""
    interval_s = core.settings.ping_interval_s
    if interval_s:
        leg.ping_watch = core.timers.start(interval_s, partial(_due, core, leg), now)


def stop(leg: Leg) -> None:
    """The call is over."""
    if leg.ping_watch is not None:
        leg.ping_watch.cancel()
        leg.ping_watch = None


def _due(core: Core, leg: Leg, now: float) -> None:
    leg.ping_watch = None
    if not refresh.lives(leg):
        return
    if core.settings.ping_method == "options":
        Ping(core, leg).send(now)
    elif refresh.may_reinvite(leg):  # else something is under way, which tells as much as a ping
        core.count("PINGS_SENT")
        refresh.Refresh(core, leg, "INVITE").send(now)
    arm(core, leg, now)


class Ping:
    """One OPTIONS on its way (RFC 3261 §11): whatever is answered, somebody is there, unless it says there is no
    dialog (RFC 5057 §5.1)."""

    __slots__ = ("core", "leg")

    def __init__(self, core: Core, leg: Leg) -> None:
        self.core = core
        self.leg = leg

    def send(self, now: float) -> None:
        """Send it, as the local route leaves it."""
        agent = self.core.settings.realms[self.leg.realm].user_agent
        headers = [("User-Agent", agent)] if agent else []
        local.ask(self.core, self.leg, "OPTIONS", headers, b"", self._transmit, now)

    def _transmit(self, own: Headers, body: bytes, now: float) -> None:
        """With the next CSeq."""
        core, leg = self.core, self.leg
        if not refresh.lives(leg):
            return
        flow = leg.out(core)
        branch = core.ids.branch()
        try:
            uri, headers = leg.dialog.headers("OPTIONS", leg.dialog.next_cseq(), core.via(flow.listener, branch))
            headers += own
            headers += credentials.headers(leg, "OPTIONS", uri, body)
            data = build_request("OPTIONS", uri, headers, body)
        except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
            core.note("warning", "ping cannot be written", leg.call, leg=leg.name, reason=error.reason)
            return
        core.count("PINGS_SENT")
        core.layer.send("OPTIONS", branch, data, flow, self, now)

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """Alive, or not."""
        if msg.status in DIALOG_GONE:
            self._dead(f"{msg.status} to ping", now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody."""
        self._dead("no answer to ping", now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """A connection that broke may be made again until the next ping."""

    def _dead(self, note: str, now: float) -> None:
        core, leg = self.core, self.leg
        if refresh.lives(leg):
            core.count("PING_UNANSWERED")
            outcome = Outcome(408, "sbc", 102, note=f"{note} on leg {leg.name}")
            core.step(leg.call, CallEvent.RELEASE, now, outcome)
