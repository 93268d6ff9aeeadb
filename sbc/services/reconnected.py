"""Calls of a phone that has connected and registered anew are reached by its new connection.

A connection that a phone made is the only way to it: at its Contact nobody listens. When it breaks, because a node, a
worker or a NAT in between has died, the phone connects again and registers (RFC 5626 §4.4, §4.5), and requests of its
calls are to take the new connection from then on. The next request of the phone in a call says so for that call
(:mod:`sbc.b2bua.dispatch`); the registration says so for all of them.

Whose call it is follows from the Contact: same realm, peer, listener and source address, and the same user, host and
port, where ports that are those of the connections themselves are as good as the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sbc.b2bua.binding import Binding
from sbc.errors import SipSyntaxError
from sbc.sip.address import parse_name_addr
from sbc.sip.flow import Flow
from sbc.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.b2bua.subjects import OutOfDialogRequest
    from sbc.b2bua.subscription import Side
    from sbc.sip.message import Message

KNOWN_MAX: Final = 50_000  # phones of a worker; once there are more, the next refresh of each is told as news


class Reconnections:
    """By which connection each phone of this worker registered last, so that a refresh is no news."""

    __slots__ = ("_core", "_known")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[tuple[str, str, str], int] = {}  # by peer, address and Contact

    def news(self, subject: OutOfDialogRequest, answer: Message, realm: str) -> list[Binding]:
        """The bindings in the 2xx of a registrar in ``realm`` that lead to the connection by which this REGISTER came,
        and did not before; each with the end of that connection."""
        seen = subject.tx.seen
        if not seen.connection:
            return []
        found = []
        for value in answer.get_all("Contact"):
            try:
                user = parse_name_addr(value).uri.user or ""
            except SipSyntaxError:
                continue
            binding = self._core.requests.bindings.open(user, realm)
            if binding is None or binding.flow.connection != seen.connection:
                continue
            key = (subject.source.peer, seen.host, binding.uri)
            if self._known.get(key) != seen.connection:
                if len(self._known) >= KNOWN_MAX:
                    self._known.clear()
                self._known[key] = seen.connection
                found.append(Binding(binding.uri, seen))
        return found


def take_over(core: Core, binding: Binding) -> int:
    """Have the calls and subscriptions of a phone take the connection of its binding; how many dialogs did not
    before. ``binding`` is one of :meth:`Reconnections.news`."""
    flow = binding.flow
    source = core.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
    if not flow.connection or source is None:
        return 0
    try:
        contact = parse_uri(binding.uri)
    except SipSyntaxError:
        return 0

    def is_its(side: Leg | Side) -> bool:
        was = side.flow
        return (
            was.connection != flow.connection
            and was.host == flow.host
            and was.listener == flow.listener
            and (side.realm, side.peer) == (source.realm, source.peer)
            and _leads_to(side.dialog.remote_target, was, contact, flow)
        )

    moved = 0
    for leg in core.legs.values():
        if is_its(leg):
            leg.flow = flow
            leg.forget_path()
            moved += 1
    for side in core.requests.sides.values():
        if is_its(side):
            side.flow = flow
            moved += 1
    return moved


def _leads_to(target: str, was: Flow, contact: Uri, flow: Flow) -> bool:
    """Whether a Contact of a dialog is that of the phone that has registered, whatever parameters it has there."""
    try:
        former = parse_uri(target)
    except SipSyntaxError:
        return False
    if (former.user, former.address) != (contact.user, contact.address):
        return False
    return former.port == contact.port or (former.port, contact.port) == (was.port, flow.port)
