"""Answers whose question is lost: it was a former worker's, and no record tells of its call.

A callee that has answered such an INVITE would wait for an ACK, and then talk to nobody: it gets ACK and BYE, made of
its 2xx alone (RFC 3261 §13.2.2.4 asks for as much of a UAC that wants no such dialog). Whoever forges one gains
nothing: only what a configured peer sends in names of our own shape is answered, to an address of that peer, and not
often.

The answer to a BYE tells that a call which we hold has ended: its worker died between BYE and record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua.call import Outcome
from sbc.b2bua.cdr import NORMAL_CLEARING
from sbc.b2bua.leg import path_to
from sbc.b2bua.tables import CallEvent, CallState, LegState
from sbc.dialog.dialog import MAX_CSEQ, RESUME_CSEQ_MARGIN, Dialog, without_tag
from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.ids import is_branch, is_ours, is_token
from sbc.sip.message import Message
from sbc.sip.shard import shard_of

if TYPE_CHECKING:
    from sbc.b2bua.core import Core

PER_SECOND = 100  # of all peers together; one that is passed over comes again
REMEMBERED = 1024  # dialogs that were ended here, for 2xx that come again
_TALKING = (CallState.ANSWERED, CallState.UP)
_NOTE = "it had been hung up when its worker died"


class Strays:
    """What one core has ended that way."""

    __slots__ = ("_acks", "_core", "_left", "_second")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._acks: dict[tuple[str, str], tuple[Flow, bytes]] = {}  # by Call-ID and their tag, the oldest first
        self._second = 0
        self._left = PER_SECOND

    def answered(self, msg: Message, flow: Flow, now: float) -> None:
        """A 2xx to an INVITE that no transaction and no dialog of ours knows."""
        core = self._core
        if core.incomplete or not self._is_ours(msg) or not self._may(now):
            return
        known = self._acks.get((msg.call_id, msg.to_tag))
        if known is not None:
            core.transmit(*known)
            return
        try:
            self._end(msg, flow, now)
        except SipSyntaxError as error:
            core.note("warning", "an answer to a lost call cannot be ended", None, reason=error.reason)

    def _is_ours(self, msg: Message) -> bool:
        """Whether one of our workers may have sent the INVITE: Call-ID, tag, branch and Via are such as we make."""
        core = self._core
        if not (is_ours(msg.call_id) and is_token(msg.from_tag) and is_branch(msg.branch) and msg.to_tag):
            return False
        if msg.cseq_number >= MAX_CSEQ - RESUME_CSEQ_MARGIN:
            return False
        vias = msg.vias()
        if len(vias) != 1 or not core.requests.is_our_host(vias[0].host.strip("[]")):
            return False
        return core.settings.owns(shard_of(msg.call_id, core.settings.shard_key))

    def _may(self, now: float) -> bool:
        second = int(now)
        if second != self._second:
            self._second, self._left = second, PER_SECOND
        self._left -= 1
        return self._left >= 0

    def _end(self, msg: Message, flow: Flow, now: float) -> None:
        core = self._core
        ours, theirs = without_tag(msg.get("From") or ""), without_tag(msg.get("To") or "")
        contact = core.contact(flow.listener, msg.from_tag)
        dialog = Dialog(msg.call_id, ours, msg.from_tag, theirs, contact)
        dialog.establish(msg)
        dialog.local_cseq = msg.cseq_number + RESUME_CSEQ_MARGIN  # there may have been PRACKs
        path = self._path(dialog, flow)
        uri, headers = dialog.headers("ACK", msg.cseq_number, core.via(path.listener, core.ids.branch()))
        ack = (path, build_request("ACK", uri, headers))
        branch = core.ids.branch()
        uri, headers = dialog.headers("BYE", dialog.next_cseq(), core.via(path.listener, branch))
        headers.append(("Reason", "Q.850;cause=41"))
        bye = build_request("BYE", uri, headers)
        if len(self._acks) >= REMEMBERED:
            del self._acks[next(iter(self._acks))]
        self._acks[msg.call_id, msg.to_tag] = ack
        core.transmit(*ack)
        core.layer.send("BYE", branch, bye, path, core.nobody, now)
        core.count("STRAY_ANSWERS_ENDED")
        core.note("warning", "answered, but its call was lost with a worker: ended", None, call_id=msg.call_id)

    def _path(self, dialog: Dialog, flow: Flow) -> Flow:
        """To where the dialog says, if that is the peer that has answered; else back to where the answer came from."""
        core = self._core
        settings = core.settings
        try:
            path = path_to(core, dialog.next_hop, flow, settings.listeners[flow.listener].realm)
        except SipSyntaxError:
            return flow
        admit = settings.admission.admit
        seen = admit(flow.listener, flow.host, flow.port, flow.connection)
        said = admit(path.listener, path.host, path.port, path.connection)
        return path if seen is not None and said is not None and seen.peer == said.peer else flow


def hung_up(core: Core, msg: Message, flow: Flow, now: float) -> None:
    """Somebody has answered a BYE in a dialog that we hold, and no transaction of ours knows of it: a former worker has
    sent it, because the other side had hung up or it released the call, and died before the record went."""
    leg = core.legs.get(msg.from_tag)
    if leg is None or msg.status < 200 or leg.dialog.call_id != msg.call_id or leg.dialog.remote_tag != msg.to_tag:
        return
    call = leg.call
    source = core.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
    if source is None or source.peer != leg.peer or not call.resumed or call.state not in _TALKING:
        return
    core.count("CALLS_FOUND_ENDED")
    if msg.status not in (401, 407):  # that one was not heeded
        leg.state = LegState.ENDED
        core.forget(leg)
    core.step(call, CallEvent.RELEASE, now, Outcome(487, "b" if leg is call.a else "a", NORMAL_CLEARING, note=_NOTE))
