"""A request outside a dialog as its route sees it: a call to be dialled, or what is relayed or answered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sbc.b2bua import refer, shape, subjects, transfer
from sbc.b2bua.changes import apply
from sbc.b2bua.scope import Scope
from sbc.b2bua.subjects import Target
from sbc.dialog.dialog import without_tag
from sbc.routing import changes
from sbc.routing.authentication import ALGORITHMS, PasswordSource, challenge_of
from sbc.routing.body import Parts
from sbc.routing.call import Call, Elsewhere, EstablishedCall, Where, checked_uri, contacts, user_of
from sbc.routing.headers import RequestHeaders
from sbc.routing.nat import Nat, repair
from sbc.routing.node import STRANGER, Node, Peer
from sbc.routing.routes import RouteError
from sbc.routing.sdp import Sdp, sdp_of
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
        with node.acts:
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
        """The Request-URI; raises SipSyntaxError when it is none.

        It may be changed (``request.uri = request.uri.replace(user=..., params=...)``). Its user part is what is
        dialled where ``dial`` and ``relay`` name no other number; where that goes is theirs to say, not the URI's.
        """
        return parse_uri(self._ruri)

    @uri.setter
    def uri(self, uri: Uri) -> None:
        changes.set_uri(self._subject, uri)
        self._changed(f"The Request-URI becomes {self._ruri}.")

    @property
    def called_number(self) -> str:
        """The user part of the Request-URI, '' where there is none; may be changed: it is what is dialled."""
        return user_of(self._ruri)

    @called_number.setter
    def called_number(self, number: str) -> None:
        self.uri = changes.with_number(self.uri, number)

    @property
    def calling_number(self) -> str:
        """The user part of From, '' where there is none; may be changed. Nobody has proved it."""
        return user_of(str(self.from_.uri))

    @calling_number.setter
    def calling_number(self, number: str) -> None:
        from_ = self.from_
        self.from_ = from_.replace(uri=changes.with_number(from_.uri, number))

    @property
    def from_(self) -> NameAddr:
        """Who the sender says he is. Display name and user may be changed, and go to every branch; the host is that of
        the other side in any case, and the tag stays. A caller who is to remain unknown (Privacy) does."""
        return self._message.from_()

    @from_.setter
    def from_(self, address: NameAddr) -> None:
        changes.set_address(self._subject, "From", address)
        self._changed(f"From becomes {without_tag(self._message.get('From') or '')}.")

    @property
    def to(self) -> NameAddr:
        """Who was called at first; may be changed as ``from_``. Nothing is dialled by it."""
        return self._message.to()

    @to.setter
    def to(self, address: NameAddr) -> None:
        changes.set_address(self._subject, "To", address)
        self._changed(f"To becomes {without_tag(self._message.get('To') or '')}.")

    @property
    def headers(self) -> RequestHeaders:
        """Its headers; changes go to every branch of the call, or to the request as it is relayed."""
        if self._headers is None:
            subject = self._subject
            edits = changes.changes_of(subject).edits if isinstance(subject, subjects.Call) else []
            self._headers = RequestHeaders(self._message, edits, self.node.decided)
        return self._headers

    @property
    def content_type(self) -> str:
        """The type of its body, '' without one; changed together with it: :meth:`set_body`."""
        return changes.content_type_of(self._message)

    @property
    def body(self) -> bytes:
        """Its body, as :meth:`fix_sdp` left it; may be changed, see :meth:`set_body`."""
        subject = self._subject
        if isinstance(subject, subjects.Call) and subject.a.sdp_fix is not None:
            return shape.with_description(self._message, subject.body)
        return self._message.body

    @body.setter
    def body(self, body: bytes) -> None:
        self.set_body(body, self.content_type)

    def set_body(self, body: bytes, content_type: str) -> None:
        """Let it have another body, b"" for none. RouteError for the INVITE of a call whose answer would then not fit:
        an offer has as many streams as the caller's own, and there is one where the caller made one."""
        changes.set_body(self._subject, body, content_type)
        self._changed(f"The body becomes {len(body)} octets of {content_type or 'no type'}.")

    @property
    def parts(self) -> Parts:
        """The parts of its body, by type; to be changed one by one."""
        return Parts(self)

    @property
    def sdp(self) -> Sdp | None:
        """The session description in its body, to be read and changed; None where there is none."""
        return sdp_of(self)

    def _changed(self, said: str) -> None:
        if self._headers is not None:
            self._headers.read_again(self._message)
        if self.node.decided is not None:
            self.node.decided(said)

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
    def nat(self) -> Nat:
        """Whether its sender is behind NAT, and what is to be done about it."""
        return Nat(self.node, self._subject, self._message)

    def fix_sdp(self, *flags: str | int, address: str = "", extra: Sequence[str] = (), keep_old: bool = False) -> None:
        """Repair the caller's descriptions in this call, this one and later ones, as ``fix_nated_sdp`` does elsewhere
        (:mod:`sbc.sdp.nated` has the flags, by number and by name).

        ``address`` '' is where the caller is seen. ``extra`` lines go to the end. What the addresses were is told to
        nobody, unless ``keep_old`` asks for a=oldcip and a=oldoip. Descriptions with ICE stay as they
        are. Raises RouteError for a request that makes no call, and for what is no flag, address or line.
        """
        call = self.call._call
        if self._transfer is not None:
            raise RouteError("fix_sdp: the parties of a transfer have their descriptions already")
        repair(call.a, flags, address, tuple(extra), keep_old)
        call.body = call.a.repaired(call.body)

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
        with node.acts:
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
        with self.node.acts:
            self.node.core.requests.answer(subject, status, now, reason=reason, headers=headers, body=body)

    async def reject(self, status: int, reason: str = "", *, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse it with a final answer of 300 to 699."""
        if self._call is not None:
            await self._call.reject(status, reason, headers=headers)
            return
        if not 300 <= status <= 699:
            raise RouteError(f"reject({status}): a refusal is a status of 300 to 699")
        await self.reply(status, reason, headers=headers)

    async def redirect(self, to: Elsewhere | Sequence[Elsewhere], *, status: int = 302) -> None:
        """Tell the sender to ask a URI instead, or one of several with their preferences: see :meth:`Call.redirect`."""
        await self.reject(status, headers=contacts(to, status))

    async def drop(self) -> None:
        """Answer it never, for a sender that deserves no answer (a scanner). What comes again of it is absorbed."""
        subject, node = self._subject, self.node
        with node.acts:
            if isinstance(subject, subjects.Call):
                node.core.drop(subject, node.clock.monotonic())
            else:
                node.core.requests.drop(subject, node.clock.monotonic())

    async def challenge(self, realm: str, *, algorithms: Sequence[str] = ALGORITHMS, stale: bool = False) -> None:
        """Ask the sender to prove who he is (RFC 8760): 401 for a REGISTER, 407 for any other. ``algorithms`` in the
        order of preference; a phone answers the first that it knows."""
        header, status = challenge_of(self.method)
        values = self.node.nonces.challenges(realm, self.source[0], algorithms, stale)
        await self.reject(status, headers=[(header, value) for value in values])

    async def authenticate(
        self, realm: str, password_of: PasswordSource, *, algorithms: Sequence[str] = ALGORITHMS
    ) -> str:
        """The name that the sender has proved to be his, or '' after he was challenged: then this is decided.

        ``password_of(name)``, which may be ``async``, gives the password of a user, or H(A1) by algorithm
        (``{"MD5": "...", "SHA-256": "..."}``), or None for nobody. Each answer to a challenge is taken once, within
        five minutes, and from the address that was challenged. The Request-URI that it was made for must have the same
        user and host. Credentials that are good go no further.
        """
        judged = await self.node.nonces.judge(self, realm, password_of, algorithms)
        if judged.user:
            if self._call is None:
                self.headers.remove(judged.header)
            self.log.debug("authenticated", user=judged.user, realm=realm)
            return judged.user
        await self.challenge(realm, algorithms=algorithms, stale=judged.stale)
        return ""

    @property
    def _ruri(self) -> str:
        subject = self._subject
        if isinstance(subject, subjects.Call):
            return subject.ruri if subject.changes is None else subject.changes.uri
        return subject.message.uri

    @property
    def _flow(self) -> Flow:
        if self._transfer is not None:
            return self._transfer.by.flow
        subject = self._subject
        if not isinstance(subject, subjects.Call):
            return subject.tx.seen
        return subject.a.flow if subject.a.invite is None else subject.a.invite.seen

    @property
    def _received(self) -> Message:
        """The request as it came, whatever was changed of it since."""
        subject = self._subject
        if not isinstance(subject, subjects.Call):
            return subject.tx.request
        tx = subject.a.invite
        return self._message if tx is None else tx.request

    @property
    def _message(self) -> Message:
        return changes.message_of(self._subject)
