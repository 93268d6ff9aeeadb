"""What becomes of a REFER, told to its sender (RFC 3515 §2.4): NOTIFY with a status line as ``message/sipfrag``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sbc.b2bua import credentials, local
from sbc.b2bua.call import Headers
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.sip.status import reason_of

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.transaction.client import ClientTransaction

SIPFRAG = "message/sipfrag;version=2.0"  # RFC 3420


def status_line(status: int) -> bytes:
    """All that is said of an answer: its status, with the standard phrase (RFC 3515 §2.4.5: never more)."""
    return f"SIP/2.0 {status} {reason_of(status)}\r\n".encode()


class Notifier:
    """The subscription that a REFER has made, until its final NOTIFY.

    One NOTIFY at a time: where several are due, only the latest is sent; a final one waits for nothing.
    """

    __slots__ = ("_busy", "_core", "_due", "_ends_at", "_event", "_leg", "_over", "_said")

    def __init__(self, core: Core, leg: Leg, refer_cseq: int, ends_at: float) -> None:
        self._core = core
        self._leg = leg
        self._event = f"refer;id={refer_cseq}"  # §2.4.6: tells the REFERs of a dialog apart
        self._ends_at = ends_at
        self._busy = False
        self._over = False
        self._said = 0
        self._due = 0

    def say(self, status: int, now: float, *, final: bool = False) -> None:
        """The referred request has this status now."""
        if self._over or (status == self._said and not final):
            return
        self._over = final
        if self._busy and not final:
            self._due = status
        else:
            self._send(status, now)

    def renew(self, expires_s: int, now: float) -> int:
        """A SUBSCRIBE of the sender (RFC 6665 §4.4.4): how long it lasts from now on; 0 ends it."""
        if self._over:
            return 0
        if expires_s == 0:
            self._over = True
            self._send(self._said, now)
        return min(expires_s, max(int(self._ends_at - now), 0))

    def is_for(self, event: str) -> bool:
        """Whether an Event value names this subscription."""
        return event.replace(" ", "") in (self._event, "refer")

    def _send(self, status: int, now: float, tries: int = 0) -> None:
        core, leg = self._core, self._leg
        self._said, self._due, self._busy = status, 0, True
        left_s = max(int(self._ends_at - now), 1)
        headers = [
            ("Event", self._event),
            ("Subscription-State", "terminated;reason=noresource" if self._over else f"active;expires={left_s}"),
            ("Content-Type", SIPFRAG),
        ]
        if agent := core.settings.realms[leg.realm].user_agent:
            headers.append(("User-Agent", agent))
        local.ask(core, leg, "NOTIFY", headers, status_line(status), partial(self._transmit, tries), now)

    def _transmit(self, tries: int, own: Headers, body: bytes, now: float) -> None:
        core, leg = self._core, self._leg
        flow = leg.out(core)
        branch = core.ids.branch()
        try:
            uri, headers = leg.dialog.headers("NOTIFY", leg.dialog.next_cseq(), core.via(flow.listener, branch))
            headers.append(("Contact", leg.dialog.contact))
            headers += own
            headers += credentials.headers(leg, "NOTIFY", uri, body)
            data = build_request("NOTIFY", uri, headers, body)
        except SipSyntaxError as error:  # a Contact or Record-Route of theirs that nobody could use
            core.note("warning", "NOTIFY cannot be written", leg.call, leg=leg.name, reason=error.reason)
            self._over = True
            return
        core.layer.send("NOTIFY", branch, data, flow, _Sent(self, tries), now)

    def answered(self, msg: Message | None, tries: int, now: float) -> None:
        """A NOTIFY has its final answer, or None will come: then nobody listens any more, which harms no call."""
        if msg is not None and credentials.accept(self._core, self._leg, msg, tries):
            self._send(self._said, now, tries + 1)
            return
        self._busy = False
        if msg is None or msg.status >= 300:
            self._over = True
        elif self._due and not self._over:
            self._send(self._due, now)


class _Sent:
    """One NOTIFY on its way."""

    __slots__ = ("_notifier", "_tries")

    def __init__(self, notifier: Notifier, tries: int) -> None:
        self._notifier = notifier
        self._tries = tries

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        if msg.status >= 200:
            self._notifier.answered(msg, self._tries, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        self._notifier.answered(None, self._tries, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        self._notifier.answered(None, self._tries, now)
