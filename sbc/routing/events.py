"""What event routes act on: one class for each event. An event that no route is for costs nothing.

Names of the author's own (``tariff.loaded``) are raised by ``node.raise_event``; the others are in :data:`EVENTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sbc.b2bua import subjects
from sbc.routing.call import EstablishedCall
from sbc.routing.node import STRANGER, Node, Peer
from sbc.routing.routes import RouteError


class MediaTimeout:
    """The event ``media.timeout``: no packet came from ``leg`` for ``silent_s``."""

    __slots__ = ("call", "leg", "silent_s")

    def __init__(self, call: EstablishedCall, leg: str, silent_s: float) -> None:
        self.call = call
        self.leg = leg
        self.silent_s = silent_s


class MediaDtmf:
    """The event ``media.dtmf``: ``digit`` (0-9, *, #, A-D or flash) was pressed on ``leg``. Only in calls of which a
    profile says how digits are wanted."""

    __slots__ = ("call", "digit", "duration_ms", "leg")

    def __init__(self, call: EstablishedCall, leg: str, digit: str, duration_ms: int) -> None:
        self.call = call
        self.leg = leg
        self.digit = digit
        self.duration_ms = duration_ms


class CallAnswered:
    """The event ``call.answered``: the caller has been sent the 200."""

    __slots__ = ("call",)

    def __init__(self, node: Node, call: subjects.Call) -> None:
        self.call = EstablishedCall(node, call)


class CallLifetime:
    """The event ``call.lifetime``: a call has lasted as long as it may. It ends when its routes have
    ended, unless one of them gave it more time; they have the budget of a route."""

    __slots__ = ("_subject", "call")

    def __init__(self, node: Node, subject: subjects.Outlived) -> None:
        self._subject = subject
        self.call = EstablishedCall(node, subject.call)

    def extend(self, seconds: float) -> None:
        """Let it last so much longer from now on; then it comes here again."""
        if not seconds > 0:
            raise RouteError(f"extend({seconds}): a length of time in seconds, above 0")
        self._subject.extend_s = seconds


class CallEnded:
    """The event ``call.ended``, of every call, answered or not: ``cdr`` is its record as it is stored."""

    __slots__ = ("cdr", "flags", "key", "peer", "variables")

    def __init__(self, node: Node, subject: subjects.Ended) -> None:
        call, cdr = subject.call, subject.cdr
        self.key: str = call.key
        self.peer: Peer = node.peers.get(cdr["a_peer"], STRANGER)
        self.cdr: Mapping[str, Any] = cdr  # Any: JSON values, named in sbc.b2bua.cdr
        self.variables: Mapping[str, Any] = call.variables  # Any: JSON values of the author
        self.flags: frozenset[str] = frozenset(call.flags)

    @property
    def status(self) -> int:
        """The final status that the caller got: 200 for a call that was answered."""
        return int(self.cdr["status"])

    @property
    def was_answered(self) -> bool:
        """Whether it was answered."""
        return bool(self.cdr["answered"])


class PhoneRegistered:
    """The event ``phone.registered``: a registrar behind us has accepted a REGISTER. ``contacts`` are the phone's
    bindings, as it wrote them, with the seconds that each lasts; none: it has unregistered."""

    __slots__ = ("aor", "contacts", "peer", "realm", "source")

    def __init__(self, node: Node, subject: subjects.Registered) -> None:
        self.aor = subject.aor
        self.peer = node.peers.get(subject.source.peer, STRANGER)
        self.realm = subject.source.realm
        self.source = (subject.flow.host, subject.flow.port)
        self.contacts = tuple(subject.contacts)


class TrunkState:
    """The event ``trunk.state``: this node is registered at ``peer`` now, or is no more. Raised by the one worker that
    registers there."""

    __slots__ = ("is_registered", "peer")

    def __init__(self, peer: Peer, is_registered: bool) -> None:
        self.peer = peer
        self.is_registered = is_registered


class NodeDraining:
    """The event ``node.draining``: this worker takes no new calls any more and stops when the last one has ended."""

    __slots__ = ("calls", "node")

    def __init__(self, node: Node, calls: int) -> None:
        self.node = node
        self.calls = calls


EVENTS: Final[dict[str, type]] = {
    "call.answered": CallAnswered,
    "call.ended": CallEnded,
    "call.lifetime": CallLifetime,
    "media.dtmf": MediaDtmf,
    "media.timeout": MediaTimeout,
    "node.draining": NodeDraining,
    "phone.registered": PhoneRegistered,
    "trunk.state": TrunkState,
}
