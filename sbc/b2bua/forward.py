"""Requests other than INVITE outside a dialog: relayed where their route says, under identifiers of our own.

Both sides have a transaction; the receiver gets a new Via, tag and Contact, and a Call-ID that follows from the
sender's, so that the order which a registrar demands of one (RFC 3261 §10.2) survives. What else crosses is in
:mod:`sbc.b2bua.crossing`; a challenge and what answers it do, for the methods named there.

- REGISTER: each Contact becomes one of ours that leads back to where the phone is (:mod:`sbc.b2bua.binding`); in the
  2xx the phone finds its own again, and none of another network. Expiry is between phone and registrar. Path and the
  flow methods of RFC 5626 are not offered: the path by which the REGISTER came is in the Contact.
- SUBSCRIBE opens a subscription: :mod:`sbc.b2bua.subscription`.
- Bodies cross octet for octet, save a session description in the answer to OPTIONS. An event package that puts
  addresses into its bodies shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from sbc.b2bua import connect, crossing, refuse, shape, subscription_snapshot
from sbc.b2bua.binding import Binding, Bindings
from sbc.b2bua.call import Headers, Target
from sbc.b2bua.effects import RouteKind, RunRoute, SaveCall
from sbc.b2bua.leg import flow_to, path_to
from sbc.b2bua.settings import CoreSettings
from sbc.b2bua.subjects import OutOfDialogRequest, Registered
from sbc.b2bua.subscription import Side, Subscription, open_
from sbc.errors import SbcError, SipSyntaxError
from sbc.policy import identity
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.ids import ALPHABET, CALL_ID_LENGTH
from sbc.sip.message import Message
from sbc.sip.shard import shard_of
from sbc.sip.uri import Uri, parse_uri
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source
    from sbc.transaction.client import ClientTransaction

# Methods that reach the route; the others are refused at once. An OPTIONS for nobody in particular is a ping.
ROUTED = frozenset({"OPTIONS", "MESSAGE", "INFO", "NOTIFY", "PUBLISH", "REFER", "REGISTER", "SUBSCRIBE"})
MAX_CONTACTS = 10  # in one REGISTER
# 64*T1 after its request the sender has given up (Timer F). Ours ends a little earlier, so that a 408 is of use to it;
# one that comes later RFC 4320 §4.2 forbids.
DEADLINE_T1 = 62
Edit = Callable[[Headers], None]
# Hears of each REGISTER that a registrar has accepted: the request, the 2xx, the registrar's realm, the time.
OnRegistered = Callable[[OutOfDialogRequest, Message, str, float], None]


class Refusal(Exception):
    """The request deserves this status, wherever it would go."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Requests:
    """The decisions of routes about such requests, and the subscriptions that came of them."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.sides: dict[str, Side] = {}  # by our tag in their dialog
        self.lost: dict[Binding, float] = {}  # phones that answer no pings, till when
        self.on_registered: OnRegistered | None = None

    def reconfigure(self, settings: CoreSettings) -> None:
        """See :meth:`sbc.b2bua.core.Core.reconfigure`."""
        self.bindings = Bindings(settings.shard_key, settings.listeners)
        self._call_id_key = blake2b(key=settings.shard_key, person=b"call-id").digest()
        self._ours = {host for it in settings.listeners for host in (it.host, it.advertised_host)}

    def binding(self, uri: str, realm: str) -> Target | None:
        """The phone behind a Contact of ours that was given out in ``realm``; None for any other URI."""
        scheme, _, rest = uri.partition(":")
        user, at, _ = rest.partition("@")
        found = self.bindings.open(user, realm) if at and scheme.lower() == "sip" else None
        if found is None or found in self.lost:
            return None
        settings, flow = self.core.settings, found.flow
        source = settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
        if source is None:  # no peer any more
            return None
        return Target(found.uri, source.realm, flow, peer=source.peer)

    def is_ours(self, uri: Uri) -> bool:
        """Whether the host of a URI is an address that we listen on, or that we tell others."""
        return uri.address in self._ours

    def is_our_host(self, address: str) -> bool:
        """The same for an address, without brackets."""
        return address in self._ours

    def relay(
        self, subject: OutOfDialogRequest, target: Target, now: float, *, uri: str = "", edit: Edit | None = None
    ) -> bool:
        """Send it on, and its answer back. False when it is decided already, or too late.

        ``uri`` is the Request-URI as it is to be sent; '' takes the target's, with the domain that the sender asked
        for where :func:`sbc.b2bua.crossing.addresses` says so. ``edit`` changes the headers that cross.
        """
        if subject.decided:
            return False
        subject.decided = True
        core, tx = self.core, subject.tx
        if not subject.nat:
            subject.nat = core.behind_nat(subject.message, tx.seen)
        try:
            to = parse_uri(target.uri)
            flow = target.path or flow_to(core, to, target.realm)
            addresses = crossing.addresses(core, subject.message, flow, to, uri)
            if core.wire is not None and tx.method not in crossing.OF_A_DOMAIN:
                addresses = addresses._replace(uri=core.wire.called(addresses.uri, flow))
            headers = self._headers(subject, target.realm, flow)
            if edit is not None:
                edit(headers)
            if tx.method == "SUBSCRIBE":
                open_(core, subject, target, flow, addresses, headers, now)
            else:
                self._send(subject, flow, addresses, headers, now)
        except Refusal as refusal:
            self.finish(subject, refusal.status, now)
        except (SbcError, KeyError) as error:
            core.note("error", "request cannot be relayed", None, request=subject.key, uri=target.uri, why=str(error))
            self.finish(subject, 503, now)
        else:
            core.count("REQUESTS_RELAYED")
        return True

    def answer(
        self,
        subject: OutOfDialogRequest,
        status: int,
        now: float,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        """Answer it ourselves (200..699; ValueError otherwise). Without effect once it is decided."""
        if not 200 <= status <= 699:
            raise ValueError(f"{status} is no final answer")
        if not subject.decided:
            subject.decided = True
            self.finish(subject, status, now, headers, body, reason)

    def drop(self, subject: OutOfDialogRequest, now: float) -> None:
        """Answer it never. Without effect once it is decided."""
        if not subject.decided:
            subject.decided = True
            if subject.timer is not None:
                subject.timer.cancel()
                subject.timer = None
            self.core.count("REQUESTS_DROPPED")
            subject.tx.forsake(now)

    def finish(
        self,
        subject: OutOfDialogRequest,
        status: int,
        now: float,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        reason: str = "",
    ) -> None:
        """The final answer to the sender; what comes after it is dropped."""
        if subject.timer is not None:
            subject.timer.cancel()
            subject.timer = None
        subject.client = None
        tx = subject.tx
        if tx.last_status >= 200:
            return
        try:
            self.core.respond(tx, status, now, headers, body, subject.tag, reason)
        except SipSyntaxError:  # a header that may cross holds what nobody may write
            self.core.respond(tx, 502, now, to_tag=subject.tag)

    def record(self, subscription: Subscription, now: float) -> SaveCall:
        """Its journal record as it is now."""
        data = subscription_snapshot.encode(self.core, subscription, now)
        return SaveCall(subscription.key, subscription.shard, subscription.version, data)

    def records(self, now: float) -> Iterator[SaveCall]:
        """See :meth:`sbc.b2bua.core.Core.records`."""
        for side in list(self.sides.values()):
            subscription = side.subscription
            if side is subscription.b and subscription.version:
                subscription.version += 1
                yield self.record(subscription, now)

    def call_id(self, subject_call_id: str, shard: int, realm: str) -> str:
        """The Call-ID by which the other side knows one of this side: always the same, and not to be guessed."""
        text = f"{realm} {subject_call_id}".encode("utf-8", "surrogateescape")
        number = int.from_bytes(blake2b(text, key=self._call_id_key, digest_size=16).digest(), "big")
        tail = "".join([ALPHABET[number >> shift & 31] for shift in range(0, 5 * (CALL_ID_LENGTH - 2), 5)])
        return ALPHABET[shard >> 5] + ALPHABET[shard & 31] + tail

    def _headers(self, subject: OutOfDialogRequest, realm: str, flow: Flow) -> Headers:
        msg = subject.message
        headers = crossing.headers_of(self.core, msg, realm)
        headers += crossing.asserted_identity(self.core, msg, subject.source.realm, flow)
        if msg.method == "REGISTER":
            headers += self._contacts_out(subject, realm, flow)
        return headers

    def _send(
        self, subject: OutOfDialogRequest, flow: Flow, addresses: crossing.Addresses, headers: Headers, now: float
    ) -> None:
        core, msg = self.core, subject.message
        branch = core.ids.branch()
        forwards = msg.max_forwards
        head = [
            ("Via", core.via(flow.listener, branch)),
            ("Max-Forwards", str(70 if forwards is None else forwards - 1)),
            ("From", f"{addresses.sender};tag={core.ids.tag()}"),
            ("To", addresses.receiver),
            ("Call-ID", subject.key),
            ("CSeq", f"{msg.cseq_number} {msg.method}"),
        ]
        data = build_request(msg.method, addresses.uri, head + headers, msg.body)
        subject.client = core.layer.send(msg.method, branch, data, flow, Relayed(self, subject), now)

    # REGISTER

    def _contacts_out(self, subject: OutOfDialogRequest, realm: str, flow: Flow) -> Headers:
        """The phone's Contacts as its registrar gets them. Raises Refusal."""
        core, msg, tx = self.core, subject.message, subject.tx
        values = msg.get_all("Contact")
        if "*" in values:  # RFC 3261 §10.2.2: alone, and with Expires 0
            if len(values) > 1 or (msg.get("Expires") or "").strip() != "0":
                raise Refusal(400)
            return [("Contact", "*")]
        if len(values) > MAX_CONTACTS:
            raise Refusal(403)
        found = []
        for value in values:
            try:
                contact = parse_name_addr(value)
            except SipSyntaxError as error:
                raise Refusal(400) from error
            # A Contact that names headers would have us send them (RFC 3261 §19.1.5): they stay behind.
            uri = contact.uri._replace(headers="")
            if subject.fixed or core.behind_nat(msg, tx.seen, uri.host):
                path = tx.seen
            else:
                path = path_to(core, uri, tx.flow, subject.source.realm)
            there = core.settings.admission.admit(path.listener, path.host, path.port, path.connection)
            if there is None or there.peer != subject.source.peer:  # a Contact opens no way to somebody else
                path = tx.flow
            user = self.bindings.seal(Binding(str(uri), path), realm)
            if user is None:
                raise Refusal(400)
            found.append(("Contact", core.contact(flow.listener, user) + _binding_params(contact)))
        return found

    def contacts_back(self, subject: OutOfDialogRequest, msg: Message, realm: str) -> Headers:
        """The bindings of a 2xx that are of the phone's own network, as the phones there wrote them."""
        found = []
        listeners = self.core.settings.listeners
        for value in msg.get_all("Contact"):
            try:
                contact = parse_name_addr(value)
            except SipSyntaxError:
                continue
            binding = self.bindings.open(contact.uri.user or "", realm)
            if binding is not None and listeners[binding.flow.listener].realm == subject.source.realm:
                found.append(("Contact", f"<{binding.uri}>{_binding_params(contact)}"))
        return found


class Relayed:
    """One such request on its way; its final answer crosses, provisional ones mean nothing beyond their hop."""

    __slots__ = ("requests", "subject")

    def __init__(self, requests: Requests, subject: OutOfDialogRequest) -> None:
        self.requests = requests
        self.subject = subject

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer."""
        subject, requests = self.subject, self.requests
        if msg.status < 200 or subject.client is None:
            return
        core, method, realm = requests.core, subject.tx.method, subject.source.realm
        if msg.status >= 300:
            status, headers = crossing.failure(msg)
            requests.finish(subject, status, now, headers)
            return
        headers, body = crossing.headers_of(core, msg, realm), msg.body
        if method == "REGISTER":
            there = core.settings.listeners[tx.flow.listener].realm
            contacts = requests.contacts_back(subject, msg, there)
            headers += contacts
            if RouteKind.REGISTERED in core.settings.routes:
                core.emit(RunRoute(RouteKind.REGISTERED, registered(subject, msg, contacts)))
            if requests.on_registered is not None:
                requests.on_registered(subject, msg, there, now)
        elif method == "OPTIONS":
            headers.append(shape.ALLOWED_HEADER)
            if shape.is_sdp(msg):  # it names the address of its sender
                headers, body = shape.without_content(headers), b""
        requests.finish(subject, msg.status, now, headers, body)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody is there. Our deadline came first, unless the route took its time."""
        self.requests.finish(self.subject, 408, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """RFC 3261 §8.1.3.1: as if 503 had come."""
        self.requests.finish(self.subject, 503, now)


def registered(subject: OutOfDialogRequest, msg: Message, contacts: Headers) -> Registered:
    """What the 2xx to a REGISTER says of the phone's bindings."""
    default = (msg.get("Expires") or "").strip()
    found = []
    for _, value in contacts:
        contact = parse_name_addr(value)
        said = (contact.param("expires") or default).strip()
        found.append((str(contact.uri), int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0))
    return Registered(str(subject.message.to().uri), subject.source, subject.tx.flow, found)


def receive(core: Core, msg: Message, tx: ServerTransaction, source: Source, now: float) -> None:
    """A request other than INVITE without To tag: its route decides, or what :mod:`~sbc.b2bua.refuse` says."""
    if tx.method not in ROUTED or (tx.method == "OPTIONS" and (msg.max_forwards == 0 or "@" not in msg.uri)):
        refuse.out_of_dialog(core, msg, tx, now)
        return
    if msg.uri[:4].lower() not in connect.SCHEMES:
        core.refuse(tx, 416, now)
        return
    if tx.method == "SUBSCRIBE" and core.draining:
        core.count("DRAINING_REFUSED")
        core.refuse(tx, 503, now, [("Retry-After", str(core.settings.drain_retry_after_s))])
        return
    if identity.impossible(identity.privacy_of(msg)):  # RFC 3323 §5
        core.refuse(tx, 500, now)
        return
    try:
        for parse in (lambda: parse_uri(msg.uri), msg.from_, msg.to):
            parse()
    except SipSyntaxError:
        core.refuse(tx, 400, now)
        return
    shard = shard_of(msg.call_id, core.settings.shard_key)
    key = core.requests.call_id(msg.call_id, shard, source.realm)
    subject = OutOfDialogRequest(key, shard, msg, source, tx, core.ids.tag())
    subject.timer = core.timers.start(DEADLINE_T1 * core.settings.t1_s, partial(_too_late, core, subject), now)
    core.emit(RunRoute(RouteKind.REQUEST, subject))


def _too_late(core: Core, subject: OutOfDialogRequest, now: float) -> None:
    subject.timer = None
    subject.decided = True
    core.count("REQUEST_TIMEOUTS")
    client = subject.client
    if client is None:
        core.requests.finish(subject, 408, now)
        return
    user, client.user = client.user, core.nobody
    user.on_timeout(client, now)


def route_done(core: Core, subject: OutOfDialogRequest, error: BaseException | None, now: float) -> None:
    """Its route has ended; one that did not decide leaves the request to the default."""
    if subject.decided:
        return
    subject.decided = True
    if subject.timer is not None:
        subject.timer.cancel()
        subject.timer = None
    if error is not None:
        core.requests.finish(subject, 500, now)
    else:
        refuse.out_of_dialog(core, subject.message, subject.tx, now)


def _binding_params(contact: NameAddr) -> str:
    """The parameters of a Contact that are about the binding itself (RFC 3261 §10.2.1.1, §10.2.1.2)."""
    text = ""
    for name in ("expires", "q"):
        value = contact.param(name)
        if value:
            text += f";{name}={value}"
    return text
