"""Header rules and number plans, where messages come in and where they leave: what the core does lies between the two.

The core sees what the rules have made of a message; its sender gets answers to what it sent. Requests are changed
once, before their transaction has them, so that what is repeated is the same again. ACK and CANCEL belong to an INVITE
and are left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua import dispatch
from sbc.b2bua.call import Call
from sbc.dialog.dialog import without_tag
from sbc.errors import SipSyntaxError
from sbc.policy.draft import Draft
from sbc.policy.header_rules import Context, Told
from sbc.sip.flow import Flow
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source
    from sbc.dialog.dialog import Dialog
    from sbc.policy.wire import WirePolicy

_LEFT_ALONE = frozenset({"ACK", "CANCEL"})


class Wire:
    """The rules and plans of all peers of a core. ``told`` hears of every change that they make."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.told: Told | None = None
        self._policies = core.settings.wire

    # In

    def receive(self, msg: Message, flow: Flow, source: Source, now: float) -> None:
        """A message from a known source: rewritten, it goes where it belongs; a refused request is answered here."""
        core = self.core
        policy = self._policies.get(source.peer)
        context = None
        if policy is not None and msg.cseq_method not in _LEFT_ALONE and msg.status != 100:
            context = self._context(source, msg, msg.to_tag if msg.is_request else msg.from_tag)
            context.addresses = msg.is_request and not msg.to_tag
            rewritten = self._inbound(policy, msg, context, flow, now)
            if rewritten is None:
                return
            msg = rewritten
        if not msg.is_request:
            if not core.layer.receive_response(msg, flow, now):
                dispatch.stray(core, msg, flow, now)
            return
        dispatch.request(core, msg, flow, source, now)
        if context is not None and context.stored and msg.method == "INVITE" and not msg.to_tag:
            tx = core.layer.invite_for_cancel(msg)
            if tx is not None and isinstance(tx.user, Call):
                tx.user.variables.update(context.stored)

    def _inbound(self, policy: WirePolicy, msg: Message, context: Context, flow: Flow, now: float) -> Message | None:
        """What the core gets; None: refused."""
        core = self.core
        draft = Draft(msg)
        refusal = policy.arriving(draft, context)
        self._count(context)
        if refusal is not None:
            tx = core.layer.receive_request(msg, core.answer_path(msg, flow), now)
            if tx is not None:
                core.count("HEADER_RULES_REFUSED")
                tag = "" if msg.to_tag else core.ids.tag()
                core.respond(tx, refusal.status, now, to_tag=tag, reason=refusal.reason)
            return None
        self._keep(context, msg.to_tag if msg.is_request else msg.from_tag)
        if not draft.changed:
            return msg
        try:
            return msg.rewritten(draft.octets())
        except SipSyntaxError as error:
            self._fault(context, msg, error)
            return msg

    # Out

    def request(self, method: str, data: bytes, flow: Flow) -> bytes:
        """A request of ours, as it leaves."""
        source = self.core.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
        policy = self._policies.get(source.peer) if source is not None else None
        if source is None or policy is None or method in _LEFT_ALONE:
            return data
        msg = Message.parse(data)
        dialog = self._dialog(msg.from_tag)
        context = self._context(source, msg, msg.from_tag)
        # One that was challenged goes again, with the From and To that its dialog has had since.
        context.addresses = not msg.to_tag and (dialog is None or dialog.local_cseq <= 1)
        draft = Draft(msg)
        changed = self._outbound(policy, draft, context, msg, data)
        if changed is not data and context.addresses and dialog is not None:
            adopt(dialog, changed)
        return changed

    def reply(self, data: bytes, flow: Flow) -> bytes:
        """A response of ours, as it leaves."""
        source = self.core.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
        policy = self._policies.get(source.peer) if source is not None else None
        if source is None or policy is None:
            return data
        msg = Message.parse(data)
        if msg.status == 100 or msg.cseq_method in _LEFT_ALONE:
            return data
        context = self._context(source, msg, msg.to_tag)
        context.addresses = False
        return self._outbound(policy, Draft(msg), context, msg, data)

    def called(self, uri: str, flow: Flow) -> str:
        """The Request-URI of a request that opens a dialog or has none, as it is to leave: credentials cover it."""
        source = self.core.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
        policy = self._policies.get(source.peer) if source is not None else None
        if policy is None or policy.numbers is None:
            return uri
        new = policy.numbers.called(uri)
        if new != uri and self.told is not None:
            self.told(f"Number plan {policy.numbers.name}: Request-URI: {uri} → {new}.", "")
        return new

    def _outbound(self, policy: WirePolicy, draft: Draft, context: Context, msg: Message, data: bytes) -> bytes:
        policy.leaving(draft, context)
        self._count(context)
        self._keep(context, msg.from_tag if msg.is_request else msg.to_tag)
        if not draft.changed:
            return data
        try:
            changed = draft.octets()
            Message.parse(changed)
        except SipSyntaxError as error:
            self._fault(context, msg, error)
            return data
        return changed

    # What is known

    def _context(self, source: Source, msg: Message, tag: str) -> Context:
        """``tag`` is ours in the dialog, '' where there is none yet."""
        leg = self.core.legs.get(tag) if tag else None
        known = {
            "peer": source.peer,
            "realm": source.realm,
            "direction": source.direction,
            "node": self.core.settings.node,
        }
        context = Context(source.direction, bool(msg.is_request and msg.to_tag), known=known, told=self.told)
        if leg is not None:
            known["call"] = leg.call.key
            context.variables = leg.call.variables
        return context

    def _dialog(self, tag: str) -> Dialog | None:
        leg = self.core.legs.get(tag)
        if leg is not None:
            return leg.dialog
        side = self.core.requests.sides.get(tag)
        return side.dialog if side is not None else None

    def _keep(self, context: Context, tag: str) -> None:
        """What rules have stored belongs to the call."""
        leg = self.core.legs.get(tag) if context.stored and tag else None
        if leg is not None and not context.stored.items() <= leg.call.variables.items():
            leg.call.variables.update(context.stored)
            self.core.touch(leg.call)

    def _count(self, context: Context) -> None:
        if context.faults:
            self.core.count("HEADER_RULE_FAULTS")

    def _fault(self, context: Context, msg: Message, error: SipSyntaxError) -> None:
        if not context.faults:
            self.core.count("HEADER_RULE_FAULTS")
        if self.told is not None:
            self.told(f"The rules for {msg.cseq_method} made what cannot be sent, so it stays: {error}.", "")


def adopt(dialog: Dialog, data: bytes) -> None:
    """The From and To of the request that opens a dialog are those of the dialog (RFC 3261 §12.1.2)."""
    msg = Message.parse(data)
    dialog.local = without_tag(msg.get("From") or "")
    dialog.remote = msg.get("To") or ""
