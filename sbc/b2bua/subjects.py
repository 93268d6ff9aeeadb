"""What routes act on: the subjects of RunRoute effects, and the targets that they dial.

The classes hold what the core knows; the author's view of them (async methods, checks) is the facade in sbc/routing,
which changes what is mutable here and calls the decisions of :class:`sbc.b2bua.core.Core`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sbc.b2bua.call import Attempt, Call, Redirects, Target
from sbc.b2bua.leg import Leg
from sbc.b2bua.settings import Source
from sbc.errors import SipSyntaxError
from sbc.sip.flow import Flow
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.transaction.client import ClientTransaction
    from sbc.transaction.server import ServerTransaction
    from sbc.transaction.timers import Timer

Then = Callable[[list[tuple[str, str]], bytes, float], None]

__all__ = [
    "Attempt",
    "BadMessage",
    "Branch",
    "Call",
    "Ended",
    "LocalRequest",
    "OutOfDialogRequest",
    "Outlived",
    "Redirects",
    "Registered",
    "ReplyEvent",
    "Target",
    "Then",
]


class Branch:
    """One outgoing INVITE, complete, before it is sent: ``uri``, ``headers`` and ``body`` may still be changed.

    ``headers`` are those above what the dialog needs (Via, Max-Forwards, From, To, Call-ID, CSeq and Contact are ours
    alone and not in the list).
    """

    __slots__ = ("body", "call", "dropped", "headers", "leg", "target", "uri")

    def __init__(
        self, call: Call, leg: Leg, target: Target, uri: str, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.call = call
        self.leg = leg
        self.target = target
        self.uri = uri
        self.headers = headers
        self.body = body
        self.dropped = False

    def drop(self) -> None:
        """Do not send this branch: it counts as failed with 480."""
        self.dropped = True


class ReplyEvent:
    """A reply above 100 to a branch, before it is relayed: status, reason, headers and body may be changed.

    ``received`` is what came; ``status`` may be changed within its class only (a 200 cannot become a 180), and
    ``headers`` are those that we add to our reply, on top of the ones that the dialog needs.
    """

    __slots__ = ("body", "call", "dropped", "headers", "leg", "reason", "received", "status")

    def __init__(
        self, call: Call, leg: Leg, received: Message, headers: list[tuple[str, str]], body: bytes, reason: str
    ) -> None:
        self.call = call
        self.leg = leg
        self.received = received
        self.status = received.status
        self.reason = reason
        self.headers = headers
        self.body = body
        self.dropped = False

    def drop(self) -> None:
        """Do not relay this provisional reply; ValueError for a final one, which somebody waits for."""
        if self.received.status >= 200:
            raise ValueError("only a provisional reply can be dropped")
        self.dropped = True


class OutOfDialogRequest:
    """A request other than INVITE outside a dialog, until it is answered: its route relays or answers it, once.

    ``key`` names it in the log, and is the Call-ID under which it goes on; ``tag`` is ours in what the sender gets.
    ``nat``: why the sender is taken to be behind NAT; '' while nothing says so. ``fixed``: a route has said it.
    """

    __slots__ = ("client", "decided", "fixed", "key", "message", "nat", "shard", "source", "tag", "timer", "tx")

    def __init__(self, key: str, shard: int, message: Message, source: Source, tx: ServerTransaction, tag: str) -> None:
        self.key = key
        self.shard = shard
        self.message = message
        self.source = source
        self.tx = tx
        self.tag = tag
        self.nat = ""
        self.fixed = False
        self.decided = False
        self.client: ClientTransaction | None = None  # while it is relayed and not answered
        self.timer: Timer | None = None


@dataclass(slots=True)
class BadMessage:
    """Octets that are no SIP message, from a known source. ``core.reply_bad(bad, status, now)`` answers, once.

    ``answerable`` tells whether enough of it could be read to build an answer (RFC 3261 §8.2.6).
    """

    data: bytes
    flow: Flow
    source: Source
    error: SipSyntaxError
    answerable: bool
    answered: bool = False


class LocalRequest:
    """A request that this node originates (:mod:`sbc.b2bua.local`), before it is sent by ``then(headers, body, now)``.

    ``headers`` are those on top of the ones that the dialog needs; ``headers`` and ``body`` may be changed. It goes to
    ``peer`` in ``realm``; ``call`` is None for a REGISTER and for a NOTIFY of a subscription.
    """

    __slots__ = ("body", "call", "headers", "method", "peer", "realm", "then")

    def __init__(
        self,
        call: Call | None,
        method: str,
        peer: str,
        realm: str,
        headers: list[tuple[str, str]],
        body: bytes,
        then: Then,
    ) -> None:
        self.call = call
        self.method = method
        self.peer = peer
        self.realm = realm
        self.headers = headers
        self.body = body
        self.then = then


class Outlived:
    """A call that has reached the end of its lifetime: it ends unless its route gives it ``extend_s`` more seconds."""

    __slots__ = ("call", "extend_s")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.extend_s = 0.0


class Ended:
    """A call that is over, with its CDR."""

    __slots__ = ("call", "cdr")

    def __init__(self, call: Call, cdr: dict[str, Any]) -> None:  # Any: JSON values
        self.call = call
        self.cdr = cdr


class Registered:
    """A REGISTER that a registrar has accepted: ``contacts`` are the phone's own, with the seconds that they last."""

    __slots__ = ("aor", "contacts", "flow", "source")

    def __init__(self, aor: str, source: Source, flow: Flow, contacts: list[tuple[str, int]]) -> None:
        self.aor = aor
        self.source = source
        self.flow = flow
        self.contacts = contacts
