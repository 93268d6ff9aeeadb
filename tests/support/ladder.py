"""Call flows that read like the ladders of RFC 3665, in virtual time, around a bare core.

:class:`Ladder` is the SBC with its shell: it performs effects at once, plays the media plane and the journal, and
keeps what each phone was sent. :class:`Phone` is one party; ``a`` and ``e`` call, ``b``, ``c`` and ``d`` are
called. A phone method sends one message, ``expect`` takes the next one that it was sent.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from media.protocol import Answer, Delete, Dtmf, Endpoint, Join, Offer, Play, Record, Reply, Stop, StreamStats
from sbc.b2bua.call import Call, Target
from sbc.b2bua.core import Core
from sbc.b2bua.effects import (
    DropRecord,
    FinishCall,
    MediaCommand,
    Note,
    RouteKind,
    RunRoute,
    SaveCall,
    ServerFailed,
    Transmit,
)
from sbc.b2bua.settings import CoreSettings, ListenerSettings, RealmSettings
from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.policy.admission import Source
from sbc.sip.flow import Flow
from sbc.sip.ids import Ids
from sbc.sip.message import Message

A_HOST, B_HOST, C_HOST, STRANGER = "192.0.2.10", "198.51.100.20", "198.51.100.30", "203.0.113.66"
D_HOST = "198.51.100.40"
E_HOST = "192.0.2.11"  # of the same peer as a
OUR_A, OUR_B = "192.0.2.1", "198.51.100.1"
MEDIA_A, MEDIA_B = "192.0.2.2", "198.51.100.2"


def sdp(host: str, port: int = 4000, *, version: int = 1, direction: str = "sendrecv", codec: str = "0") -> bytes:
    """A description of one audio stream, as a phone at ``host`` would write it."""
    return (
        f"v=0\r\no=phone 77 {version} IN IP4 {host}\r\ns=talk\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {codec}\r\na=rtpmap:{codec} PCMU/8000\r\na={direction}\r\n"
    ).encode()


class Peers:
    """Admission for the phones; ``limit`` calls at once when it is set."""

    def __init__(self) -> None:
        self.sources = {
            (0, A_HOST): Source("phones", "inside", "from_phones"),
            (0, E_HOST): Source("phones", "inside", "from_phones"),
            (1, B_HOST): Source("carrier-b", "outside", "from_carrier"),
            (1, C_HOST): Source("carrier-c", "outside", "from_carrier"),
            (1, D_HOST): Source("carrier-d", "outside", "from_carrier"),
        }
        self.open = 0
        self.limit = 1_000_000

    def admit(self, listener: int, host: str, port: int = 0, connection: int = 0) -> Source | None:
        return self.sources.get((listener, host))

    def open_call(self, peer: str, now: float) -> int | None:
        if self.open >= self.limit:
            return 503
        self.open += 1
        return None

    def count_call(self, peer: str) -> None:
        self.open += 1

    def close_call(self, peer: str) -> None:
        self.open -= 1


def settings(peers: Peers, **changes: Any) -> CoreSettings:  # Any: fields of CoreSettings
    """Two realms with one listener each."""
    fields: dict[str, Any] = {  # Any: as above
        "node": "sbc1",
        "listeners": (
            ListenerSettings("inside", "udp", OUR_A, 5060, OUR_A, 5060),
            ListenerSettings("outside", "udp", "10.0.0.5", 5060, OUR_B, 5060),
        ),
        "realms": {
            "inside": RealmSettings("inside", trusted=True, user_agent="Portcullis"),
            "outside": RealmSettings("outside"),
        },
        "admission": peers,
        "shard_key": b"0123456789abcdef",
    }
    fields.update(changes)
    return CoreSettings(**fields)


def counting_ids(seed: int = 0) -> Ids:
    """Identifiers that are the same in every run."""
    numbers = itertools.count(seed * 1_000_000 + 1)
    return Ids(lambda n: (next(numbers) * 0x9E3779B97F4A7C15 % (1 << (8 * n))).to_bytes(n, "big"))


class Phone:
    """One party: a UA just good enough to be right, and able to be wrong."""

    def __init__(self, ladder: Ladder, name: str, host: str, listener: int) -> None:
        self.ladder = ladder
        self.name = name
        self.host = host
        self.listener = listener
        self.inbox: deque[Message] = deque()
        self.all: list[bytes] = []  # every octet that it was ever sent
        self.tag = f"tag-of-{name}"
        self.contact = f"<sip:{name}@{host}:5070>"
        self.user_agent = f"Phone-{name}/1.0"
        self.cseq = 0
        self.invite: Message | None = None  # the INVITE that came, for replies
        self.dialog: tuple[str, str, str, str] | None = None  # Call-ID, From, To, request URI
        self.branches = itertools.count(1)
        self.sent: bytes = b""

    # sending

    def _send(self, data: bytes) -> None:
        self.sent = data
        self.ladder.deliver(data, Flow(self.listener, "udp", self.host, 5070))

    def again(self) -> None:
        """Retransmit the last message."""
        self._send(self.sent)

    def request(
        self,
        method: str,
        *,
        body: bytes = b"",
        cseq: int | None = None,
        to_tag: bool = True,
        branch: str = "",
        extra: Sequence[tuple[str, str]] = (),
        uri: str = "",
        content_type: str = "application/sdp",
    ) -> None:
        """A request in the phone's dialog, or (``dialog`` None) a new one."""
        if cseq is None:
            self.cseq += method not in ("ACK", "CANCEL")
            cseq = self.cseq
        if self.dialog is None:
            call_id, ours = f"call-of-{self.name}@{self.host}", OUR_A if self.listener == 0 else OUR_B
            sender, receiver = f'"Alice A" <sip:alice@{self.host}>;tag={self.tag}', f"<sip:+4930123@{ours}>"
            target = uri or f"sip:+4930123@{ours}"
        else:
            call_id, sender, receiver, target = self.dialog
            target = uri or target
        branch = branch or f"z9hG4bK{self.name}{next(self.branches)}"
        if method not in ("ACK", "CANCEL"):
            self.branch = branch
        lines = [
            f"{method} {target} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:5070;branch={branch};rport",
            "Max-Forwards: 70",
            f"From: {sender}",
            f"To: {receiver}",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: {self.contact}",
            f"User-Agent: {self.user_agent}",
            *(f"{name}: {value}" for name, value in extra),
        ]
        if body:
            lines.append(f"Content-Type: {content_type}")
        lines += [f"Content-Length: {len(body)}", "", ""]
        self._send("\r\n".join(lines).encode("utf-8", "surrogateescape") + body)

    def reply(
        self,
        status: int,
        *,
        to: Message | None = None,
        body: bytes = b"",
        tag: str = "",
        extra: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Answer the INVITE that came, or the request ``to``."""
        request = to if to is not None else self.invite
        assert request is not None, f"{self.name} has nothing to answer"
        to_value = request.get("To") or ""
        if not request.to_tag and status > 100:
            to_value += f";tag={tag or self.tag}"
        lines = [
            f"SIP/2.0 {status} Whatever {self.host} says",
            *(f"Via: {via}" for via in request.get_all("Via")),
            f"From: {request.get('From')}",
            f"To: {to_value}",
            f"Call-ID: {request.call_id}",
            f"CSeq: {request.cseq_number} {request.cseq_method}",
            *([] if any(name == "Contact" for name, _ in extra) else [f"Contact: {self.contact}"]),
            f"Server: {self.user_agent}",
            f'Warning: 399 {self.host} "text"',
            *(f"{name}: {value}" for name, value in extra),
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body)}", "", ""]
        if request.method == "INVITE":
            self.dialog = (request.call_id, to_value, request.get("From") or "", _uri(request.get("Contact") or ""))
        self._send("\r\n".join(lines).encode("utf-8", "surrogateescape") + body)

    def ack(self, *, body: bytes = b"", cseq: int | None = None) -> None:
        """The ACK to a 2xx."""
        self.request("ACK", body=body, cseq=cseq)

    def cancel(self) -> None:
        """CANCEL the INVITE that was sent last."""
        dialog, self.dialog = self.dialog, None
        self.request("CANCEL", branch=self.branch)
        self.dialog = dialog

    # receiving

    def expect(self, what: int | str) -> Message:
        """The next message must be this method or this status."""
        assert self.inbox, f"{self.name} got nothing, expected {what}"
        msg = self.inbox.popleft()
        got: int | str = msg.method if msg.is_request else msg.status
        assert got == what, f"{self.name} got {got} ({msg.cseq_method}), expected {what}:\n{msg.raw.decode()}"
        if msg.is_request and msg.method == "INVITE":
            self.invite = msg
        if not msg.is_request and msg.cseq_method == "INVITE" and 100 < msg.status < 300:
            self.dialog = (
                msg.call_id,
                msg.get("From") or "",
                msg.get("To") or "",
                _uri(msg.get("Contact") or ""),
            )
        return msg

    def nothing(self) -> None:
        """Nothing may have come."""
        assert not self.inbox, f"{self.name} got {self.inbox[0]!r}"

    def refused(self, status: int) -> Message:
        """A final failure to the INVITE, which is acknowledged hop by hop."""
        msg = self.expect(status)
        dialog, self.dialog = self.dialog, None
        to = msg.get("To") or ""
        self.dialog = (msg.call_id, msg.get("From") or "", to, f"sip:+4930123@{OUR_A}")
        self.request("ACK", branch=msg.branch, cseq=msg.cseq_number)
        self.dialog = dialog
        return msg


def _uri(contact: str) -> str:
    return contact.partition("<")[2].partition(">")[0]


class Ladder:
    """A core, its shell, and the phones."""

    def __init__(
        self,
        *,
        route: Callable[[Ladder, Call], None] | None = None,
        requests: Callable[[Ladder, OutOfDialogRequest], None] | None = None,
        hooks: dict[str, Callable[[Ladder, Any], None]] | None = None,  # Any: the subject of that route
        engage: bool = True,
        seed: int = 0,
        **changes: Any,  # Any: fields of CoreSettings
    ) -> None:
        self.now, self.wall_offset = 1000.0, 1_700_000_000.0
        self.peers = Peers()
        self.core = Core(settings(self.peers, **changes), counting_ids(seed))
        self.deaths = 0
        self.route = route or dial_b
        self.requests = requests or undecided
        self.hooks = hooks or {}
        self.engage = engage
        self.counts: dict[str, int] = {}
        self.notes: list[Note] = []
        self.cdrs: list[dict[str, Any]] = []  # Any: JSON values
        self.finished: list[FinishCall] = []
        self.records: dict[str, bytes] = {}
        self.saves: list[SaveCall] = []
        self.failed_servers: list[Flow] = []
        self.media: list[Any] = []  # Any: requests of the protocol
        self.media_refusal: Reply | None = None
        self.held_media: list[MediaCommand] | None = None  # a list: replies wait for release_media()
        self.held_routes: list[RunRoute] | None = None
        self.hold_journal = False
        self.ports = itertools.count(30000, 2)
        self.endpoints: dict[tuple[str, str], list[int]] = {}  # by session and leg: the ports that it was told
        self.offered: dict[str, int] = {}  # by session: the streams of the last offer
        self.facing: dict[tuple[str, str], str] = {}  # by session and leg: its realm
        self.media_legs: dict[str, set[str]] = {}  # by session: what the media plane has endpoints for
        self.feature_refusals: dict[type, list[Reply]] = {}  # of Play, Stop and Record
        self.lost: list[bytes] = []
        self.lose_next = 0
        self.a = Phone(self, "a", A_HOST, 0)
        self.b = Phone(self, "b", B_HOST, 1)
        self.c = Phone(self, "c", C_HOST, 1)
        self.d = Phone(self, "d", D_HOST, 1)
        self.e = Phone(self, "e", E_HOST, 0)
        hosts = (A_HOST, B_HOST, C_HOST, D_HOST, E_HOST)
        self.phones = dict(zip(hosts, (self.a, self.b, self.c, self.d, self.e), strict=True))
        self.lines: dict[str, Phone] = {}  # by Call-ID: further dialogs of these phones
        self.realms: dict[tuple[str, str], str] = {}  # of media legs, by session and name

    @property
    def wall(self) -> float:
        return self.now + self.wall_offset

    def line(self, phone: Phone, name: str, call_id: str = "") -> Phone:
        """Another line of this phone, for the call that it makes next, or for the one that came with ``call_id``."""
        line = Phone(self, name, phone.host, phone.listener)
        self.lines[call_id or f"call-of-{name}@{phone.host}"] = line
        return line

    def deliver(self, data: bytes, flow: Flow) -> None:
        """A datagram reaches the SBC."""
        self.core.receive(data, flow, self.now, self.wall)
        self.drain()

    def after(self, seconds: float) -> None:
        """Let time pass, firing every timer at its time."""
        end = self.now + seconds
        while (at := self.core.next_timer()) is not None and at <= end:
            self.now = max(self.now, at)
            self.core.fire(self.now, self.wall)
            self.drain()
        self.now = end

    def drain(self) -> None:
        """Perform every effect."""
        while (effect := self.core.poll()) is not None:
            self.perform(effect)
        for name, amount in self.core.take_counts().items():
            self.counts[name] = self.counts.get(name, 0) + amount

    def perform(self, effect: object) -> None:
        match effect:
            case Transmit(flow, data):
                if self.lose_next:
                    self.lose_next -= 1
                    self.lost.append(data)
                    return
                msg = Message.parse(data)
                phone = self.lines.get(msg.call_id) or self.phones.get(flow.host)
                if phone is not None:
                    phone.all.append(data)
                    phone.inbox.append(msg)
            case RunRoute():
                if self.held_routes is not None:
                    self.held_routes.append(effect)
                else:
                    self.run(effect)
            case MediaCommand():
                self.media.append(effect.request)
                if self.held_media is not None:
                    self.held_media.append(effect)
                else:
                    self.core.media_done(effect.request_id, self.answer_media(effect), self.now)
            case SaveCall():
                self.saves.append(effect)
                self.records[effect.key] = effect.record
                if effect.wait and not self.hold_journal:
                    self.core.saved(effect.key, effect.version, True, self.now)
            case DropRecord(key):
                self.records.pop(key, None)
            case FinishCall():
                self.finished.append(effect)
                self.cdrs.append(effect.cdr)
                self.records.pop(effect.key, None)
            case ServerFailed(flow):
                self.failed_servers.append(flow)
            case Note():
                self.notes.append(effect)

    def run(self, effect: RunRoute) -> None:
        """Run a route as the runner would."""
        error: BaseException | None = None
        try:
            if isinstance(effect.subject, OutOfDialogRequest):
                self.requests(self, effect.subject)
            elif effect.kind is RouteKind.REQUEST and effect.hook is None:
                if self.engage:
                    effect.subject.media_profile = "default"
                self.route(self, effect.subject)
            elif effect.hook is not None:
                effect.hook(self, effect.subject)
            else:
                self.hooks[effect.kind.value](self, effect.subject)
        except Exception as raised:  # handed on, as the runner does
            error = raised
        self.core.route_done(effect, error, self.now)

    def release_media(self) -> None:
        """Let the media plane answer what it was asked."""
        held, self.held_media = self.held_media or [], None
        for command in held:
            self.core.media_done(command.request_id, self.answer_media(command), self.now)
        self.drain()

    def answer_media(self, command: MediaCommand) -> Reply:
        request = command.request
        if self.media_refusal is not None and not isinstance(request, Delete):
            return self.media_refusal
        if isinstance(request, Play | Stop | Record):
            return self.answer_feature(request)
        if isinstance(request, Dtmf | Join):
            return Reply(worker="media-0")
        assert isinstance(request, Offer | Answer | Delete)
        legs = self.media_legs.setdefault(request.session, set())
        if isinstance(request, Offer):
            legs.update((request.from_leg, request.to_leg))
        elif isinstance(request, Answer) and not {request.from_leg, request.to_leg} <= legs:
            return Reply(ok=False, code="unknown_leg", worker="media-0")
        elif isinstance(request, Delete) and request.leg:
            if request.leg not in legs:
                return Reply(ok=False, code="unknown_leg", worker="media-0")
            legs.remove(request.leg)
            self.endpoints.pop((request.session, request.leg), None)
        if isinstance(request, Offer | Answer):
            if isinstance(request, Offer):
                self.realms[request.session, request.from_leg] = request.from_realm
                self.realms[request.session, request.to_leg] = request.to_realm
                self.offered[request.session] = len(request.streams)
                self.facing[request.session, request.from_leg] = request.from_realm
                self.facing[request.session, request.to_leg] = request.to_realm
            elif len(request.streams) != self.offered[request.session]:
                return Reply(ok=False, code="malformed", reason="another number of streams")
            address = MEDIA_A if self.realms[request.session, request.to_leg] == "inside" else MEDIA_B
            known = self.endpoints.setdefault((request.session, request.to_leg), [])
            known += [next(self.ports) for _ in request.streams[len(known) :]]
            ports = [port if stream.port else 0 for port, stream in zip(known, request.streams, strict=False)]
            address = MEDIA_A if self.facing[request.session, request.to_leg] == "inside" else MEDIA_B
            return Reply(worker="media-0", endpoints=[Endpoint(address, port, port + 1) for port in ports])
        if isinstance(request, Delete) and not request.leg:
            del self.media_legs[request.session]
            stats = {
                leg: [StreamStats(packets_in=150, packets_out=149, lost=1, jitter_ms=2.5, mos=4.2)]
                for leg in ("a", "b1")
            }
            return Reply(worker="media-0", stats=stats)
        return Reply(worker="media-0")

    def answer_feature(self, request: Play | Stop | Record) -> Reply:
        """What is played and recorded; ``feature_refusals`` by class come first."""
        legs = self.media_legs.get(request.session, set())
        if refusals := self.feature_refusals.get(type(request)):
            return refusals.pop(0)
        wanted = request.left if isinstance(request, Record) else request.leg
        if wanted not in legs:
            return Reply(ok=False, code="unknown_leg", worker="media-0")
        file = f"{request.file}.{request.format}" if isinstance(request, Record) and request.on else ""
        return Reply(worker="media-0", file=file)

    @property
    def cdr(self) -> dict[str, Any]:  # Any: JSON values
        """The one CDR."""
        assert len(self.cdrs) == 1, f"{len(self.cdrs)} CDRs"
        return self.cdrs[0]

    @property
    def call(self) -> Call:
        """The one call."""
        (call,) = self.core.calls.values()
        return call

    def over(self) -> None:
        """Nothing may be left: no call, leg or transaction, after all timers have run."""
        self.after(200.0)
        assert not self.core.calls, [call.describe() for call in self.core.calls.values()]
        assert not self.core.legs
        assert not self.core.requests.sides
        assert not len(self.core.layer)
        assert self.peers.open == 0
        assert not self.media_legs, self.media_legs
        assert not [note for note in self.notes if note.event == "fault in the core"], self.notes

    # the beginning that most flows share

    def set_up(self, *, offer: bytes | None = None, answer: bytes | None = None, rings: bool = True) -> None:
        """INVITE, 180 where it ``rings``, 200, ACK."""
        a, b = self.a, self.b
        a.request("INVITE", body=sdp(A_HOST) if offer is None else offer)
        a.expect(100)
        b.expect("INVITE")
        if rings:
            b.reply(180)
            a.expect(180)
        b.reply(200, body=sdp(B_HOST) if answer is None else answer)
        a.expect(200)
        a.ack()
        b.expect("ACK")

    def moves(self) -> Ladder:
        """A planned move: the core hands on what rings, and another one takes its place."""
        self.drain()
        for effect in self.core.hand_on(self.now):
            self.perform(effect)
        self.drain()
        return self.dies()

    def dies(self) -> Ladder:
        """kill -9: a new core resumes what the journal holds; the phones notice nothing."""
        settings_, hooks = self.core.settings, self.core.hooks
        self.core = Core(settings_, counting_ids(99 + self.deaths))  # no two cores give the same names
        self.core.hooks = hooks
        self.deaths += 1
        self.peers.open = 0
        for record in list(self.records.values()):
            assert self.core.resume(record, self.now, self.wall) is not None
        self.drain()
        self.end_orphans()
        return self

    def end_orphans(self) -> None:
        """A successor ends the media sessions that have no call."""
        self.media_legs = {key: legs for key, legs in self.media_legs.items() if key in self.core.calls}

    def only_two_legs(self) -> None:
        """The media plane has endpoints for A and the one that answered, in every call, and for nobody else."""
        for call in self.core.calls.values():
            assert call.b is not None
            assert self.media_legs.get(call.key) in (None, {"a", call.b.name}), (call.describe(), self.media_legs)


TARGET_B = Target(f"sip:+4930123@{B_HOST}:5070", "outside", peer="carrier-b", gateway="gw-b")
TARGET_C = Target(f"sip:+4930123@{C_HOST}:5070", "outside", peer="carrier-c", gateway="gw-c")
TARGET_D = Target(f"sip:+4930123@{D_HOST}:5070", "outside", peer="carrier-d", gateway="gw-d")


def dial_b(ladder: Ladder, call: Call) -> None:
    """The route of most flows: everything to b."""
    ladder.core.dial(call, [TARGET_B], ladder.now)


def undecided(ladder: Ladder, request: OutOfDialogRequest) -> None:
    """The route of nodes that serve calls only."""


def ring_all(ladder: Ladder, call: Call) -> None:
    """b and c at once, then d; redirects are followed."""
    ladder.core.dial(call, [(TARGET_B, TARGET_C), TARGET_D], ladder.now, follow_redirects="realm")


def hunt(ladder: Ladder, call: Call) -> None:
    """b first, c when b fails in a way that another gateway may not."""

    def on_failure(ladder: Ladder, call: Call) -> None:
        if call.attempts[-1].may_fail_over and call.has_next:
            ladder.core.dial_next(call, ladder.now)

    ladder.core.dial(call, [TARGET_B, TARGET_C], ladder.now, on_failure=on_failure)
