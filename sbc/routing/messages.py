"""What the routes beside the main one act on: a branch, a reply, a failure, a request of ours, what cannot be served.

Each route type gets an object of its own, and what may not be done there is not on it.
"""

from __future__ import annotations

from typing import Any

from sbc.b2bua import subjects
from sbc.b2bua.leg import Leg
from sbc.b2bua.subjects import Attempt, Target
from sbc.errors import SbcError
from sbc.routing.call import Call, CallView, checked_uri
from sbc.routing.headers import Headers, ReceivedHeaders
from sbc.routing.media import BranchMedia, ReplyMedia
from sbc.routing.node import Node
from sbc.routing.routes import RouteError


class Branch:
    """One outgoing INVITE, complete, before it is sent."""

    __slots__ = ("_subject", "call", "headers")

    def __init__(self, node: Node, subject: subjects.Branch) -> None:
        self._subject = subject
        self.call = CallView(node, subject.call)
        self.headers = Headers(subject.headers)

    @property
    def uri(self) -> str:
        """The Request-URI; may be changed. Where the branch is sent does not follow it."""
        return self._subject.uri

    @uri.setter
    def uri(self, uri: str) -> None:
        self._subject.uri = checked_uri(uri)

    @property
    def body(self) -> bytes:
        """The offer as it will be sent; may be changed."""
        return self._subject.body

    @body.setter
    def body(self, body: bytes) -> None:
        self._subject.body = body

    @property
    def target(self) -> Target:
        """Where it goes."""
        return self._subject.target

    @property
    def media(self) -> BranchMedia:
        """Where its media go."""
        return BranchMedia(self.call.node, self._subject)

    @property
    def attempt(self) -> Attempt:
        """It among ``call.attempts``."""
        return _attempt(self._subject.leg)

    @property
    def flags(self) -> set[str]:
        """Names that are set or not for this branch: its replies have them as ``reply.attempt.flags``, the failure
        route in ``failure.attempts``."""
        return self.attempt.flags

    @property
    def variables(self) -> dict[str, Any]:  # Any: of the author's choice
        """Kept like flags."""
        return self.attempt.variables

    def drop(self) -> None:
        """Do not send this branch: it counts as failed with 480."""
        self._subject.drop()


class Reply:
    """A reply above 100 to a branch, before it is relayed to the caller. ``received`` are its headers as they came."""

    __slots__ = ("_subject", "call", "headers", "received")

    def __init__(self, node: Node, subject: subjects.ReplyEvent) -> None:
        self._subject = subject
        self.call = CallView(node, subject.call)
        self.received = ReceivedHeaders(subject.received)
        self.headers = Headers(subject.headers)

    @property
    def status(self) -> int:
        """The status; may be changed within its class."""
        return self._subject.status

    @status.setter
    def status(self, status: int) -> None:
        if status // 100 != self._subject.received.status // 100:
            raise RouteError(f"a {self._subject.received.status} cannot become a {status}: another class")
        self._subject.status = status

    @property
    def reason(self) -> str:
        """The reason phrase; may be changed."""
        return self._subject.reason

    @reason.setter
    def reason(self, reason: str) -> None:
        if not reason.isprintable():
            raise RouteError("a reason phrase holds printable characters only")
        self._subject.reason = reason

    @property
    def body(self) -> bytes:
        """The body as it will be relayed; may be changed."""
        return self._subject.body

    @body.setter
    def body(self, body: bytes) -> None:
        self._subject.body = body

    @property
    def media(self) -> ReplyMedia:
        """Where the media go that it describes."""
        return ReplyMedia(self.call.node, self._subject.leg)

    @property
    def attempt(self) -> Attempt:
        """The branch that it came from, among ``call.attempts``, with its flags and variables."""
        return _attempt(self._subject.leg)

    @property
    def is_final(self) -> bool:
        """Status 200 or above."""
        return self._subject.received.status >= 200

    def drop(self) -> None:
        """Do not relay it. Only a provisional reply can be dropped: somebody waits for a final one (RouteError)."""
        if self.is_final:
            raise RouteError("only a provisional reply can be dropped")
        self._subject.drop()


class Failure:
    """Every branch has failed, and the caller still waits."""

    __slots__ = ("call",)

    def __init__(self, node: Node, subject: subjects.Call) -> None:
        self.call = Call(node, subject)

    @property
    def best_status(self) -> int:
        """The best final answer (RFC 3261 §16.7); 500 where there is none to choose from."""
        return self.call._call.best_status or 500

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every branch that was tried, in order, with its status."""
        return tuple(self.call._call.attempts)

    @property
    def may_fail_over(self) -> bool:
        """Whether the last failure is one that another target may not share: a timeout or a fault, not a busy user.
        After several at once: whether all of them were."""
        return self.call._call.may_fail_over


class LocalRequest:
    """A request that this node originates, before it is sent."""

    __slots__ = ("_subject", "call", "headers")

    def __init__(self, node: Node, subject: subjects.LocalRequest) -> None:
        self._subject = subject
        self.call = CallView(node, subject.call)
        self.headers = Headers(subject.headers)

    @property
    def method(self) -> str:
        """Its method."""
        return self._subject.method

    @property
    def body(self) -> bytes:
        """Its body; may be changed."""
        return self._subject.body

    @body.setter
    def body(self, body: bytes) -> None:
        self._subject.body = body


class BadMessage:
    """What cannot be served: octets that are no SIP message, or a request whose route raised.

    ``error.status`` is the answer it deserves. ``data`` is empty where a route raised.
    """

    __slots__ = ("_node", "_subject", "error")

    def __init__(
        self, node: Node, subject: subjects.BadMessage | subjects.Call | subjects.OutOfDialogRequest, error: SbcError
    ) -> None:
        self._node = node
        self._subject = subject
        self.error = error

    @property
    def node(self) -> Node:
        """This node."""
        return self._node

    @property
    def data(self) -> bytes:
        """The octets that came."""
        return self._subject.data if isinstance(self._subject, subjects.BadMessage) else b""

    @property
    def source(self) -> tuple[str, int]:
        """Address and port that it came from."""
        subject = self._subject
        if isinstance(subject, subjects.Call):
            flow = subject.a.flow
        else:
            flow = subject.flow if isinstance(subject, subjects.BadMessage) else subject.tx.flow
        return flow.host, flow.port

    async def reply(self, status: int) -> None:
        """Answer it, once, with 400 to 699; nothing is sent where no answer can be built."""
        if not 400 <= status <= 699:
            raise RouteError(f"reply({status}): the answer to a bad message is a status of 400 to 699")
        node, subject = self._node, self._subject
        if isinstance(subject, subjects.BadMessage):
            node.core.reply_bad(subject, status, node.clock.monotonic())
        elif isinstance(subject, subjects.OutOfDialogRequest):
            node.core.requests.answer(subject, status, node.clock.monotonic())
        else:
            node.core.reject(subject, status, node.clock.monotonic())


def _attempt(leg: Leg) -> Attempt:
    assert leg.attempt is not None  # every branch has one
    return leg.attempt
