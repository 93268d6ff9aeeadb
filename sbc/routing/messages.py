"""What the routes beside the main one act on: a branch, a reply, a failure, a request of ours, what cannot be served.

Each route type gets an object of its own, and what may not be done there is not on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sbc.b2bua import shape, subjects
from sbc.b2bua.leg import Leg
from sbc.b2bua.shape import is_sdp
from sbc.b2bua.subjects import Attempt, Target
from sbc.errors import SbcError
from sbc.routing.body import Parts
from sbc.routing.call import Call, CallView, checked_uri, user_of
from sbc.routing.changes import with_number
from sbc.routing.headers import Headers, ReceivedHeaders
from sbc.routing.media import BranchMedia, ReplyMedia
from sbc.routing.nat import repair
from sbc.routing.node import STRANGER, Node, Peer
from sbc.routing.request import NoCall, Request
from sbc.routing.routes import ReplyRoute, RouteError
from sbc.routing.sdp import TYPE, Sdp, sdp_of
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.uri import parse_uri
from sbc.telemetry.log import Logger


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
    def called_number(self) -> str:
        """The user part of the Request-URI, '' where there is none; may be changed."""
        return user_of(self._subject.uri)

    @called_number.setter
    def called_number(self, number: str) -> None:
        self.uri = str(with_number(parse_uri(self._subject.uri), number))

    @property
    def from_(self) -> NameAddr:
        """From as it will be sent, without its tag. Display name and user may be changed, for this branch alone; the
        host stays ours."""
        return parse_name_addr(self._subject.leg.dialog.local)

    @from_.setter
    def from_(self, address: NameAddr) -> None:
        dialog = self._subject.leg.dialog
        dialog.local = _readdressed(address, self.from_)

    @property
    def to(self) -> NameAddr:
        """To as it will be sent; may be changed as ``from_``."""
        return parse_name_addr(self._subject.leg.dialog.remote)

    @to.setter
    def to(self, address: NameAddr) -> None:
        dialog = self._subject.leg.dialog
        dialog.remote = _readdressed(address, self.to)

    @property
    def body(self) -> bytes:
        """The offer as it will be sent; may be changed."""
        return self._subject.body

    @body.setter
    def body(self, body: bytes) -> None:
        self._subject.body = body

    @property
    def content_type(self) -> str:
        """The type of its body, '' without one."""
        return self.headers.get("Content-Type") or ""

    def set_body(self, body: bytes, content_type: str) -> None:
        """Let this branch have another body, b"" for none."""
        if body:
            if content_type != self.content_type:
                self.headers.set("Content-Type", content_type)
        else:
            self.headers.remove("Content-Type")
        self._subject.body = body

    @property
    def parts(self) -> Parts:
        """The parts of its body, by type; to be changed one by one."""
        return Parts(self)

    @property
    def sdp(self) -> Sdp | None:
        """The offer, to be read and changed for this branch; None where there is none."""
        return sdp_of(self)

    @property
    def on_reply(self) -> ReplyRoute | None:
        """What sees the replies to this branch, after the route of all replies and before that of the dial."""
        route: ReplyRoute | None = self._subject.leg.on_reply
        return route

    @on_reply.setter
    def on_reply(self, route: ReplyRoute | None) -> None:
        self._subject.leg.on_reply = route

    @property
    def log(self) -> Logger:
        """The log, bound to the call."""
        return self.call.log

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

    def fix_sdp(self, *flags: str | int, address: str = "", extra: Sequence[str] = (), keep_old: bool = False) -> None:
        """Repair the descriptions of the branch that replied, this one and later ones; see
        :meth:`sbc.routing.Request.fix_sdp`. ``address`` '' is where its INVITE was sent to."""
        event = self._subject
        repair(event.leg, flags, address, tuple(extra), keep_old)
        if shape.is_sdp(event.received):
            event.body = event.leg.repaired(event.body)

    @property
    def media(self) -> ReplyMedia:
        """Where the media go that it describes."""
        return ReplyMedia(self.call.node, self._subject.leg)

    @property
    def attempt(self) -> Attempt:
        """The branch that it came from, among ``call.attempts``, with its flags and variables."""
        return _attempt(self._subject.leg)

    @property
    def content_type(self) -> str:
        """The type of the body that will be relayed, '' without one."""
        subject = self._subject
        if not subject.body:
            return ""
        return TYPE if is_sdp(subject.received) else subject.received.get("Content-Type") or ""

    def set_body(self, body: bytes, content_type: str) -> None:
        """Let the caller get another body. Only descriptions are relayed: RouteError for another type."""
        if body and content_type.partition(";")[0].strip().lower() != TYPE:
            raise RouteError(f"a reply is relayed with a session description or none, not with {content_type}")
        self._subject.body = body

    @property
    def sdp(self) -> Sdp | None:
        """The description that the called side sent, to be read and changed before media and the caller get it; None
        where there is none."""
        return sdp_of(self)

    @property
    def leg(self) -> str:
        """The name of the branch that it answers, as in the CDR: ``b1``."""
        return self._subject.leg.name

    @property
    def target(self) -> Target | None:
        """Where that branch went."""
        return self._subject.leg.target

    @property
    def log(self) -> Logger:
        """The log, bound to the call."""
        return self.call.log

    @property
    def is_final(self) -> bool:
        """Status 200 or above."""
        return self._subject.received.status >= 200

    def drop(self) -> None:
        """Do not relay it. Only a provisional reply can be dropped: somebody waits for a final one (RouteError)."""
        if self.is_final:
            raise RouteError("only a provisional reply can be dropped")
        self._subject.drop()

    @property
    def is_dropped(self) -> bool:
        """Whether a route has dropped it: then no further one sees it."""
        return self._subject.dropped


class Failure:
    """Every branch has failed, and the caller still waits. ``request`` is what the caller asked for, with what routes
    have changed of it; what is changed now is for the next attempts."""

    __slots__ = ("call", "request")

    def __init__(self, node: Node, subject: subjects.Call) -> None:
        self.call = Call(node, subject)
        self.request = Request(node, subject)

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
    """A request that this node originates, before it is sent.

    The BYE of a call that it ends; OPTIONS, UPDATE and INVITE that refresh a session or see whether a side is there;
    INVITEs of transfers and of media that move; NOTIFY, INFO with a digit, the REGISTER of a trunk. What is sent again
    with credentials comes here again, save a BYE. ACK, PRACK and CANCEL belong to what went before, and do not.
    """

    __slots__ = ("_node", "_subject", "headers")

    def __init__(self, node: Node, subject: subjects.LocalRequest) -> None:
        self._node = node
        self._subject = subject
        self.headers = Headers(subject.headers)

    @property
    def call(self) -> CallView:
        """The call that it belongs to; raises NoCall for a REGISTER, and for the NOTIFY of a subscription."""
        if self._subject.call is None:
            raise NoCall(f"this {self.method} belongs to no call")
        return CallView(self._node, self._subject.call)

    @property
    def in_call(self) -> bool:
        """Whether there is a ``call``."""
        return self._subject.call is not None

    @property
    def method(self) -> str:
        """Its method."""
        return self._subject.method

    @property
    def peer(self) -> Peer:
        """The peer that it goes to."""
        return self._node.peers.get(self._subject.peer, STRANGER)

    @property
    def realm(self) -> str:
        """The realm that it goes to."""
        return self._subject.realm

    @property
    def log(self) -> Logger:
        """The log, bound to the call where there is one."""
        return self.call.log if self.in_call else self._node.log

    @property
    def body(self) -> bytes:
        """Its body; may be changed, save that of INVITE and UPDATE, by which something is agreed on (RouteError)."""
        return self._subject.body

    @body.setter
    def body(self, body: bytes) -> None:
        if self.method in ("INVITE", "UPDATE"):
            raise RouteError(f"the body of an {self.method} of ours describes what is in force, and stays as it is")
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

    async def reply(self, status: int, reason: str = "") -> None:
        """Answer it, once, with 400 to 699; nothing is sent where no answer can be built."""
        if not 400 <= status <= 699:
            raise RouteError(f"reply({status}): the answer to a bad message is a status of 400 to 699")
        node, subject = self._node, self._subject
        now = node.clock.monotonic()
        with node.acts:
            if isinstance(subject, subjects.BadMessage):
                node.core.reply_bad(subject, status, now, reason=reason or None)
            elif isinstance(subject, subjects.OutOfDialogRequest):
                node.core.requests.answer(subject, status, now, reason=reason)
            else:
                node.core.reject(subject, status, now, reason=reason)


def _attempt(leg: Leg) -> Attempt:
    assert leg.attempt is not None  # every branch has one
    return leg.attempt


def _readdressed(address: NameAddr, former: NameAddr) -> str:
    """From or To of a branch with another display name and user; the host is the former one."""
    if not address.display.isprintable():
        raise RouteError("a display name holds printable characters only")
    uri = former.uri._replace(user=address.uri.user)
    checked_uri(str(uri))
    return str(NameAddr(address.display, uri))
