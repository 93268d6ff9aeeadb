"""One side of a call: its dialog, its path, what it was told and what it still waits for."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sbc.b2bua.tables import LegState
from sbc.dialog.dialog import DEFAULT_PORTS, Dialog
from sbc.errors import SipSyntaxError
from sbc.policy.nat import behind_by_contact, behind_by_via, is_hidden
from sbc.sdp.address import ip_literal
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.uri import Uri

if TYPE_CHECKING:
    from media.protocol import Join
    from sbc.b2bua.accept import Accepted
    from sbc.b2bua.call import Attempt, Call, Target
    from sbc.b2bua.core import Core
    from sbc.b2bua.early import Fork
    from sbc.b2bua.provisional import Provisionals
    from sbc.b2bua.subjects import Branch, ReplyEvent
    from sbc.dialog.reliable import Received
    from sbc.dialog.session_timer import SessionTimer
    from sbc.sdp.nated import Repair
    from sbc.sip.digest import Session
    from sbc.transaction.client import ClientTransaction
    from sbc.transaction.server import ServerTransaction
    from sbc.transaction.timers import Timer


class Chosen:
    """How the media of one branch go: ``caller`` is the profile of the A side, None for media that are not relayed."""

    __slots__ = ("caller",)

    def __init__(self, caller: str | None) -> None:
        self.caller = caller


class Leg:
    """The A leg (``a``) or one branch (``b1``, ``b2`` ...) of a call.

    ``state`` runs through B_LEG for branches; the A leg stays CONFIRMED or goes to ENDED, since its INVITE is the
    call's own state. ``flow`` is where the other side was last seen, or where the target says.
    """

    __slots__ = (
        "_out",
        "accepted",
        "ack",
        "anchored",
        "attempt",
        "breadth",
        "busy",
        "bye_wanted",
        "call",
        "came",
        "described_early",
        "dialog",
        "digits",
        "direction",
        "flow",
        "forks",
        "in_before",
        "invite",
        "invite_credentials",
        "invite_cseq",
        "join",
        "media",
        "modifying",
        "music",
        "name",
        "nat",
        "nat_given",
        "on_reply",
        "origin",
        "peer",
        "ping_watch",
        "prack",
        "profile",
        "prompt",
        "provisionals",
        "realm",
        "received",
        "refers",
        "sdp_before",
        "sdp_fix",
        "sdp_in",
        "sdp_out",
        "sdp_text",
        "sdp_version",
        "seat_of",
        "sent",
        "session",
        "session_id",
        "session_watch",
        "sessions",
        "state",
        "target",
        "timer",
        "tries",
        "uac",
        "uas",
        "unacked",
        "waiting",
        "withheld",
    )

    call: Call  # set by the call that it joins

    def __init__(self, name: str, dialog: Dialog, flow: Flow, realm: str, peer: str, direction: str = "") -> None:
        self.name = name
        self.dialog = dialog
        self.flow = flow
        self.realm = realm
        self.peer = peer
        self.direction = direction
        self.state = LegState.IDLE
        self._out: Flow | None = None
        self.nat = ""  # why it is taken to be behind NAT, as it was last judged
        self.nat_given = ""  # the same, where that does not follow from its Contact
        # the INVITE that made this leg
        self.invite: ServerTransaction | None = None  # A leg
        self.uac: ClientTransaction | None = None  # B leg, and any INVITE that we sent on a leg later
        self.invite_cseq = 0  # of the last INVITE that we sent
        self.target: Target | None = None
        self.on_reply: Any = None  # Any: a route function that the core only carries
        self.sent: Branch | None = None  # the INVITE that opens this leg, until its final answer
        self.attempt: Attempt | None = None
        self.breadth = 0  # how many branches may come of it (RFC 5393); 0: it does not say
        self.timer: Timer | None = None  # no final answer in time
        # offers and INVITEs inside the dialog
        self.uas: ServerTransaction | None = None  # its INVITE or UPDATE that we have not finally answered
        self.modifying = False  # ours to it is not finally answered
        self.accepted: Accepted | None = None  # our 2xx to its INVITE, until the ACK
        self.unacked = False  # its 2xx to our INVITE still wants an ACK
        self.ack: tuple[Flow, bytes] | None = None  # the last ACK, for a 2xx that comes again
        self.bye_wanted = False  # BYE once its ACK has come (RFC 3261 §15)
        # order: while an operation for this leg is under way, what comes from it waits here
        self.busy = False
        self.waiting: deque[Callable[[float], None]] | None = None
        # descriptions
        self.session_id = 0
        self.origin: tuple[str, str] | None = None  # user and address of our o=, which stay what they were
        self.sdp_version = 0
        self.sdp_text = ""  # what we last sent, from s= on: the version of o= rises when it differs
        self.sdp_out = b""  # what we last sent
        self.sdp_in = b""  # what it last sent and the media plane took
        self.sdp_fix: Repair | None = None  # what a route has done to each description of its
        self.music = ""  # the prompt that it hears while the other side holds it
        self.prompt = ""  # the one that an operator lets it hear
        self.anchored = False  # the media plane has endpoints for it
        self.media: Chosen | None = None  # a branch that has not answered: its route wants other media than the call
        self.profile = ""  # the media profile that its route chose; empty: that of its peer
        self.came = False  # by a transfer: it has that profile wherever it is, not that of an A leg
        self.seat_of: Leg | None = None  # whom this stands for (sbc.b2bua.transfer)
        self.join: Join | None = None  # by which that one keeps its transport when it comes
        # while an offer of ours, or of its own, is open: what holds again when that is refused
        self.sdp_before: bytes | None = None
        self.in_before: bytes | None = None
        # B leg: early dialogs (sbc.b2bua.early)
        self.forks: dict[str, Fork] | None = None  # by their tag, besides ``dialog``
        self.withheld: ReplyEvent | None = None  # a provisional with a description, while A hears another branch
        # RFC 3262
        self.provisionals: Provisionals | None = None  # A leg: what we sent it reliably
        self.received: Received | None = None  # B leg: what it sent us reliably
        self.described_early = False  # a reliable provisional had a description: it stands
        self.prack = 0  # B leg: RSeq of its offer, whose PRACK waits for A's answer
        # digest
        self.sessions: dict[bool, Session] | None = None  # by proxy (407) or not: what challenged us on this leg
        self.invite_credentials: Sequence[tuple[str, str]] = ()  # of the last INVITE, for its ACK (RFC 3261 §13.2.2.4)
        self.tries = 0  # how often its first INVITE was challenged
        # RFC 3515: by our CSeq of a REFER that went to this leg, its number on the leg that it came from
        self.refers: dict[int, int] | None = None
        # RFC 4028
        self.session: SessionTimer | None = None
        self.session_watch: Timer | None = None
        self.ping_watch: Timer | None = None
        # that go to it as INFO, one at a time: digit, milliseconds
        self.digits: deque[tuple[str, int]] | None = None

    def __repr__(self) -> str:
        return f"<Leg {self.name} {self.state.name} {self.dialog.call_id}>"

    def describe_again(self, description: bytes) -> None:
        """``description`` is in force, as when it was sent."""
        self.sdp_out, self.sdp_before = description, None
        lines = description.partition(b"\r\no=")[2].decode("utf-8", "surrogateescape")
        origin, _, self.sdp_text = lines.partition("\r\n")
        if origin.count(" ") >= 5:
            self.origin = origin_of(origin)

    def let_go(self) -> None:
        """The call is over: keep what tells a late message so, and acknowledges a late 2xx."""
        self.invite = self.uac = self.uas = self.attempt = self.target = self.on_reply = self.accepted = (
            self.waiting
        ) = None
        self.forks = self.withheld = self.seat_of = self.join = None
        self.sdp_in = self.sdp_out = b""
        self.sdp_text = ""
        self.sdp_before = self.in_before = None

    def refresh_target(self, message: Message) -> None:
        """A new Contact changes where requests of this leg go."""
        if self.dialog.refresh_target(message):
            self._out = None

    def forget_path(self) -> None:
        """Route set or target were replaced: work the path out anew."""
        self._out = None

    def out(self, core: Core) -> Flow:
        """Where a request inside the dialog goes: the next hop's address as its URI gives it (RFC 3261 §12.2.1.1),
        or where the other side was seen when the URI has a host name, or an address that cannot be right behind NAT.

        Of a stream, the connection that the other side last used goes along: it is used while it lives, and the
        address is where to connect to once it is gone."""
        if self._out is None:
            self._out = self._resolve(core)
        return self._out

    def _resolve(self, core: Core) -> Flow:
        if self.nat_given:
            return self.flow
        try:
            hop = self.dialog.next_hop
        except SipSyntaxError:
            return self.flow
        return path_to(core, hop, self.flow, self.realm)

    def judge_nat(self, core: Core) -> str:
        """Why the other side is taken to be behind NAT, the end of a sentence; '' where it is not."""
        dialog = self.dialog
        self.nat = self.nat_given
        if not self.nat and core.settings.realms[self.realm].nat == "auto":
            try:
                host = dialog.next_hop.host
            except SipSyntaxError:
                return ""
            self.nat = behind_by_contact(host, self.flow.host, "Record-Route" if dialog.route_set else "Contact")
        return self.nat

    def see_via(self, core: Core, message: Message) -> None:
        """The request that opens its dialog tells by its Via that the other side is behind NAT, or it does not."""
        if core.settings.realms[self.realm].nat == "auto":
            try:
                host = self.dialog.next_hop.host
            except SipSyntaxError:
                host = ""
            self.nat_given = behind_by_via(message.top_via.host, host, self.flow.host)

    def repaired(self, described: bytes) -> bytes:
        """A description of this side as a route wants it."""
        return described if self.sdp_fix is None else self.sdp_fix.of(described, self.flow.host)


def origin_of(line: str) -> tuple[str, str]:
    """The user and the address of an o= line, which is given without its type."""
    user, *_, network, family, address = line.rstrip().rsplit(" ", 5)
    return user, f"{network} {family} {address}"


def path_to(core: Core, hop: Uri, flow: Flow, realm: str) -> Flow:
    """Where what is for ``hop`` goes, of which ``flow`` is the path that its last message came by: see ``Leg.out``."""
    nat = core.settings.realms[realm].nat
    if nat == "always" or flow.transport in ("ws", "wss"):  # nobody can connect to a browser (RFC 7118 §5)
        return flow
    if hop.address == flow.host:
        address = flow.host
    else:
        try:
            address = str(ipaddress.ip_address(hop.address))
        except ValueError:
            return flow
        if nat == "auto" and is_hidden(address):
            return flow
    transport = transport_of(hop)
    if transport and transport != flow.transport:
        try:
            listener = core.listener_of(realm, transport, address)
        except KeyError:
            pass  # none of ours speaks it: what worked so far is the better guess
        else:
            return Flow(listener, transport, address, hop.port or DEFAULT_PORTS[transport])
    port = hop.port or DEFAULT_PORTS.get(flow.transport, 5060)
    if (address, port) == (flow.host, flow.port):
        return flow
    return flow._replace(host=address, port=port, connection=flow.connection if address == flow.host else 0)


def flow_to(core: Core, uri: Uri, realm: str) -> Flow:
    """The path to a URI in a realm. Raises SipSyntaxError where its host is a name, or nothing of ours speaks its
    transport there."""
    wanted = transport_of(uri)
    host = ip_literal(uri.address)
    if not host:
        raise SipSyntaxError(f"{uri.address} is no address literal")
    try:
        listener = core.listener_of(realm, wanted, host)
    except KeyError as error:
        what = f"{wanted} listener" if wanted else "listener"
        raise SipSyntaxError(f"realm {realm} has no {what} of IPv{6 if ':' in host else 4}") from error
    transport = core.settings.listeners[listener].transport
    return Flow(listener, transport, host, uri.port or DEFAULT_PORTS[transport])


def transport_of(uri: Uri) -> str:
    """The transport that a URI asks for, '' where it leaves that open (RFC 3263 §4.1, RFC 3261 §26.2.2)."""
    transport = (uri.param("transport") or "").lower()
    if uri.scheme == "sips" and transport in ("", "tcp"):
        return "tls"
    return transport


# What stands for both legs of a call that is over.
GONE = Leg("", Dialog("", "", "", "", ""), Flow(0, "", "", 0), "", "")
