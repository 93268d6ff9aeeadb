"""What routes ask and say about NAT on the side that a request, or a reply, came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sbc.b2bua import shape, subjects
from sbc.b2bua.leg import Leg, path_to
from sbc.errors import SipSyntaxError
from sbc.policy.nat import NatTest, nat_tests, uac_test
from sbc.routing.routes import RouteError
from sbc.sdp.address import ip_literal
from sbc.sdp.nated import Repair, check_lines, fix_flags
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.uri import Uri

if TYPE_CHECKING:
    from sbc.routing.node import Node

BY_ROUTE: Final = "its route says so"


class Nat:
    """NAT between us and the sender of a request outside a dialog: ``request.nat``.

    A fix is there for the next line to see: ``contact`` and ``path`` are what holds from then on. It holds for the
    whole dialog, or for the binding that a REGISTER makes, over restarts too.
    """

    __slots__ = ("_message", "_node", "_subject")

    def __init__(self, node: Node, subject: subjects.Call | subjects.OutOfDialogRequest, message: Message) -> None:
        self._node = node
        self._subject = subject
        self._message = message

    def test(self, *tests: str | int) -> bool:
        """Whether any of these tests is true: names, numbers or sums as of ``nat_uac_test`` (19, "19", "via-ip").

        Raises RouteError for what is no test.
        """
        return bool(self.true_of(*tests))

    def true_of(self, *tests: str | int) -> NatTest:
        """Those of the tests that are true, all of them asked by default; as for :meth:`test`."""
        try:
            mask = nat_tests(tests) if tests else NatTest(127)
        except ValueError as error:
            raise RouteError(f"nat.test: {error}") from error
        message = self._message
        return uac_test(message, shape.description(message), self._seen, mask)

    @property
    def is_behind(self) -> bool:
        """Whether the sender is taken to be behind NAT: by the ``nat`` of its realm, or since a fix."""
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why it is, as the end of a sentence; '' where it is not."""
        subject, core = self._subject, self._node.core.requests.core
        if not isinstance(subject, subjects.Call):
            return BY_ROUTE if subject.fixed else core.behind_nat(self._message, self._seen)
        if subject.joining is None and (why := subject.a.judge_nat(core)):
            return why
        return "its realm has nat: always" if core.nat_of(self._seen) == "always" else ""

    @property
    def is_fixed(self) -> bool:
        """Whether a route has said that it is behind NAT."""
        subject = self._subject
        if isinstance(subject, subjects.Call):
            return subject.a.nat_given == BY_ROUTE
        return subject.fixed

    @property
    def contact(self) -> Uri | None:
        """Its Contact: as it wrote it, or with the address and port that it was seen at once that is fixed. None where
        there is none. The Request-URI that it is sent stays the one that it wrote."""
        try:
            contact = self._message.contact()
        except SipSyntaxError:
            contact = None
        if contact is None:
            return None
        if not self.is_fixed:
            return contact.uri
        host, port = self._seen.host, self._seen.port
        return contact.uri._replace(host=f"[{host}]" if ":" in host else host, port=port)

    @property
    def path(self) -> tuple[str, int]:
        """Address and port that later requests in the dialog, or calls to the binding, are sent to."""
        subject, core = self._subject, self._node.core.requests.core
        if isinstance(subject, subjects.Call):
            flow = subject.a.out(core)
        else:
            contact = self.contact
            flow = self._seen
            if contact is not None and not self.is_behind:
                flow = path_to(core, contact, subject.tx.flow, subject.source.realm)
        return flow.host, flow.port

    def fix_contact(self) -> None:
        """Send what is for the sender to where it was seen, whatever its Contact says: later requests in the dialog,
        and calls to the binding of a REGISTER. The Request-URI stays the Contact that it wrote.

        Raises RouteError for a REFER inside a call, whose parties are known already.
        """
        subject = self._subject
        if isinstance(subject, subjects.Call):
            if subject.joining is not None:
                raise RouteError("fix_contact: the parties of a transfer are known already")
            leg = subject.a
            leg.nat = leg.nat_given = BY_ROUTE
            leg.flow = self._seen
            leg.forget_path()
        else:
            subject.fixed, subject.nat = True, BY_ROUTE

    def fix_register(self) -> None:
        """The same for REGISTER, by the name that others give it. Raises RouteError for another method."""
        if self._message.method != "REGISTER":
            raise RouteError(f"fix_register: this is a {self._message.method}; fix_contact is for any request")
        self.fix_contact()

    def force_rport(self) -> None:
        """Answer to the port that the request came from, whether its Via asks for that (RFC 3581) or not. It is so by
        itself unless the realm has ``answers_to: via``."""
        subject = self._subject
        tx = subject.a.invite if isinstance(subject, subjects.Call) else subject.tx
        if tx is not None and not (isinstance(subject, subjects.Call) and subject.joining is not None):
            tx.flow = tx.seen

    @property
    def _seen(self) -> Flow:
        subject = self._subject
        if not isinstance(subject, subjects.Call):
            return subject.tx.seen
        if subject.joining is not None:
            return subject.joining.by.flow
        tx = subject.a.invite
        return tx.seen if tx is not None else subject.a.flow


def repair(leg: Leg, flags: tuple[str | int, ...], address: str, extra: tuple[str, ...], keep_old: bool) -> None:
    """Have the descriptions of a leg repaired from now on. Raises RouteError for what cannot be done."""
    try:
        wanted = fix_flags(flags)
        check_lines(extra)
    except ValueError as error:
        raise RouteError(f"fix_sdp: {error}") from error
    if address and not ip_literal(address):
        raise RouteError(f"fix_sdp: {address!r} is no IP address")
    leg.sdp_fix = Repair(int(wanted), ip_literal(address), extra, keep_old)
