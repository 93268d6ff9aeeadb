"""A request outside a dialog as its route sees it: a call to be dialled, or what is relayed or answered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sbc.b2bua import refer, subjects, transfer
from sbc.b2bua.scope import Scope
from sbc.b2bua.subjects import Target
from sbc.routing.call import Call, EstablishedCall, Where, checked_uri, user_of
from sbc.routing.headers import RequestHeaders, apply
from sbc.routing.node import STRANGER, Node, Peer
from sbc.routing.routes import RouteError
from sbc.sip.address import NameAddr
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri
from sbc.telemetry.log import Logger


class NoCall(RouteError):
    """A route asked for the call of a request that has none. A route that serves calls only need not look at the
    method: where this ends it, the request is refused as if there were no route for it, and nothing is logged."""


class Transfer:
    """A transfer that a REFER asks for, before anything has been decided about it.

    Dialling ``request.call`` carries it out, rejecting that refuses the REFER. What is dialled counts as a call of the
    transferor, and leads where a route or the configuration lets it.
    """

    __slots__ = ("_node", "_subject")

    def __init__(self, node: Node, subject: transfer.Transfer) -> None:
        self._node = node
        self._subject = subject

    @property
    def call(self) -> EstablishedCall:
        """The call that is to be transferred."""
        return EstablishedCall(self._node, self._subject.first)

    @property
    def moved_peer(self) -> Peer:
        """The peer of the party that is to talk to the target."""
        return self._node.peers.get(self._subject.moved.peer, STRANGER)

    @property
    def referred_by(self) -> NameAddr | None:
        """Who the transferor says he is (RFC 3892). Nobody has proved it."""
        wish = self._subject.wish
        return wish.referred_by if wish is not None else None

    async def pass_on(self) -> None:
        """Let the other side carry it out: it is sent the REFER, and calls the target itself."""
        node = self._node
        refer.pass_on(node.core.requests.core, self._subject, node.clock.monotonic())


class Request:
    """A request outside a dialog, before anything has been decided about it.

    An INVITE has a ``call``, which is dialled. So has a REFER inside a call that is to be transferred: there ``call``
    is the new one, to whoever Refer-To names, and ``peer``, ``realm``, ``direction`` and ``source`` are of who asks for
    it (``transfer`` tells more). Any other (OPTIONS, MESSAGE, INFO, NOTIFY, PUBLISH, REGISTER, SUBSCRIBE)
    is relayed or answered; where the route does neither, an OPTIONS is answered as a ping to this node, and the others
    are refused with 405 or 481.
    """

    __slots__ = ("_call", "_headers", "_scope", "_subject", "_transfer", "node")

    def __init__(self, node: Node, subject: subjects.Call | subjects.OutOfDialogRequest) -> None:
        self.node = node
        self._subject = subject
        self._call = Call(node, subject) if isinstance(subject, subjects.Call) else None
        self._headers: RequestHeaders | None = None
        self._scope: Scope | None = None
        self._transfer = subject.joining if isinstance(subject, subjects.Call) else None

    @property
    def call(self) -> Call:
        """The call that an INVITE or a REFER asks for; raises NoCall for another method."""
        if self._call is None:
            raise NoCall(f"{self.method} makes no call")
        return self._call

    @property
    def makes_call(self) -> bool:
        """Whether there is a ``call`` to decide about."""
        return self._call is not None

    @property
    def method(self) -> str:
        """Its method."""
        if self._transfer is not None:
            return "REFER"
        return "INVITE" if self._call is not None else self._message.method

    @property
    def transfer(self) -> Transfer:
        """What a REFER is about; raises RouteError for another method."""
        if self._transfer is None:
            raise RouteError(f"{self.method} asks for no transfer of a call")
        return Transfer(self.node, self._transfer)

    @property
    def uri(self) -> Uri:
        """The Request-URI; raises SipSyntaxError when it is none."""
        return parse_uri(self._ruri)

    @property
    def called_number(self) -> str:
        """The user part of the Request-URI as it came, '' where there is none."""
        return user_of(self._ruri)

    @property
    def from_(self) -> NameAddr:
        """Who the sender says he is."""
        return self._message.from_()

    @property
    def to(self) -> NameAddr:
        """Who was called at first."""
        return self._message.to()

    @property
    def headers(self) -> RequestHeaders:
        """Its headers; changes go to every branch of the call, or to the request as it is relayed."""
        if self._call is not None:
            if self._call._headers is None:
                self._call._headers = RequestHeaders(self._message)
            return self._call._headers
        if self._headers is None:
            self._headers = RequestHeaders(self._message)
        return self._headers

    @property
    def body(self) -> bytes:
        """Its body as it came."""
        return self._message.body

    @property
    def flags(self) -> set[str]:
        """Names that are set or not while this route runs, with the functions that it calls; then they are gone."""
        if self._scope is None:
            self._scope = Scope()
        return self._scope.flags

    @property
    def variables(self) -> dict[str, Any]:  # Any: of the author's choice
        """Kept like flags."""
        if self._scope is None:
            self._scope = Scope()
        return self._scope.variables

    @property
    def direction(self) -> str:
        """The direction of the peer that sent it, as configured."""
        if self._transfer is not None:
            return self.peer.direction
        subject = self._subject
        return subject.direction if isinstance(subject, subjects.Call) else subject.source.direction

    @property
    def peer(self) -> Peer:
        """The peer that sent it."""
        subject = self._subject
        if self._transfer is not None:
            return self.node.peers.get(self._transfer.by.peer, STRANGER)
        name = subject.a.peer if isinstance(subject, subjects.Call) else subject.source.peer
        return self.node.peers.get(name, STRANGER)

    @property
    def realm(self) -> str:
        """The realm that it came from."""
        if self._transfer is not None:
            return self._transfer.by.realm
        subject = self._subject
        return subject.a.realm if isinstance(subject, subjects.Call) else subject.source.realm

    @property
    def source(self) -> tuple[str, int]:
        """Address and port that it came from."""
        flow = self._flow
        return flow.host, flow.port

    @property
    def is_for_us(self) -> bool:
        """Whether the host of the Request-URI is an address of this node."""
        return self.node.core.requests.is_ours(self.uri)

    @property
    def binding(self) -> Target | None:
        """The phone that is meant, where the Request-URI is a Contact that it was registered under through this node
        at a registrar in the sender's realm; None where it is another URI. To be dialled or relayed to as it is."""
        return self.node.core.requests.binding(self._ruri, self.realm)

    @property
    def log(self) -> Logger:
        """The log, bound to the request."""
        if self._call is not None:
            return self._call.log
        return self.node.log.bind(request=self._subject.key)

    async def relay(self, to: Where, *, number: str | None = None, uri: str | None = None) -> None:
        """Send it on, and its answer back: to a peer or its name, the SIP URI of a peer's gateway, or a Target.

        The Request-URI is that of the target, by default with the called number; for REGISTER, PUBLISH and SUBSCRIBE
        it keeps the domain that the sender asked for, unless that is an address. ``uri`` is taken as it is instead.
        Credentials, challenges and expiry cross; a REGISTER gets a Contact of ours (see ``binding``); a SUBSCRIBE opens
        a subscription. Raises RouteError for an INVITE, and for a target that leads nowhere.
        """
        subject = self._subject
        if isinstance(subject, subjects.Call):
            raise RouteError(f"{self.method} is not relayed but dialled: request.call.dial")
        if self.method == "REFER":
            raise RouteError("a REFER outside a call leads nowhere: request.reply or request.reject")
        node = self.node
        target = node.target(to, self.called_number if number is None else number)
        if node.resolver is not None and node.is_named(target):
            target = await node.served(target)
        edit = partial(apply, self._headers.edits) if self._headers is not None else None
        as_is = "" if uri is None else checked_uri(uri)
        node.core.requests.relay(subject, target, node.clock.monotonic(), uri=as_is, edit=edit)

    async def reply(
        self, status: int, reason: str = "", *, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        """Answer it with a final answer of 200 to 699. A call is not answered here: RouteError for an INVITE."""
        subject = self._subject
        if isinstance(subject, subjects.Call):
            raise RouteError("an INVITE is not replied to: request.call.dial or request.reject")
        if not 200 <= status <= 699:
            raise RouteError(f"reply({status}): a final answer is a status of 200 to 699")
        now = self.node.clock.monotonic()
        self.node.core.requests.answer(subject, status, now, reason=reason, headers=headers, body=body)

    async def reject(self, status: int, reason: str = "", *, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse it with a final answer of 300 to 699."""
        if self._call is not None:
            await self._call.reject(status, reason, headers=headers)
            return
        if not 300 <= status <= 699:
            raise RouteError(f"reject({status}): a refusal is a status of 300 to 699")
        await self.reply(status, reason, headers=headers)

    async def redirect(self, uri: str) -> None:
        """Tell the sender to ask ``uri`` instead (302)."""
        await self.reject(302, headers=[("Contact", f"<{checked_uri(uri)}>")])

    @property
    def _ruri(self) -> str:
        subject = self._subject
        return subject.ruri if isinstance(subject, subjects.Call) else subject.message.uri

    @property
    def _flow(self) -> Flow:
        if self._transfer is not None:
            return self._transfer.by.flow
        subject = self._subject
        return subject.a.flow if isinstance(subject, subjects.Call) else subject.tx.flow

    @property
    def _message(self) -> Message:
        subject = self._subject
        message = subject.request if isinstance(subject, subjects.Call) else subject.message
        if message is None:
            raise RouteError("the request of a resumed call is gone")
        return message
