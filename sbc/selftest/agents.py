"""User agents for tests: one UDP port, hundreds of calls, each of which can be acted on while it lives.

They share no code with the rest of the product, so that no fault is on both sides. A thread receives, answers and
retransmits (RFC 3261 §17); the test's thread asks and looks at the calls.
"""

from __future__ import annotations

import base64
import os
import re
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from sbc.selftest.background import Background

Address = tuple[str, int]

T1_S, T2_S, TIMEOUT_S = 0.5, 4.0, 32.0
TICK_S = 0.02
_URI = re.compile(r"<?(sip:(?:[^@>]*@)?([^:;>]+)(?::(\d+))?[^>]*)>?")
_CONNECTION = re.compile(r"^c=IN IP4 (\S+)", re.M)
_AUDIO = re.compile(r"^m=audio (\d+)", re.M)
_OTHER = re.compile(r"^m=((?!audio)\w+) \d+ (.*?)\r$", re.M)
SUITE = "AES_CM_128_HMAC_SHA1_80"
_DIRECTION = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?$", re.M)
_MIRRORED = {"sendonly": "recvonly", "recvonly": "sendonly"}
_CRYPTO = re.compile(rf"^a=crypto:(\d+) {SUITE} inline:(\S+?)(?:\||\s)", re.M)
_COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length"}


class Received:
    """One message, its headers by lower-case name in order."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.decode().partition("\r\n\r\n")
        self.start, *lines = head.split("\r\n")
        self.headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            self.headers.setdefault(_COMPACT.get(name, name), []).append(value.strip())
        self.status = int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0 ") else 0
        self.call_id = self.one("call-id")
        self.method = self.one("cseq").split()[1]
        self.branch = self.one("via").partition("branch=")[2].partition(";")[0]

    def one(self, name: str) -> str:
        return self.headers.get(name, [""])[0]

    def target(self) -> tuple[str, Address]:
        """The URI of the Contact, and where it leads."""
        match = _URI.search(self.one("contact"))
        assert match is not None, f"no Contact in {self.start}"
        return match[1], (match[2], int(match[3] or 5060))

    def route(self) -> list[str]:
        """The proxies that want to stay in the path, the topmost first (RFC 3261 §12.1)."""
        return [one.strip() for value in self.headers.get("record-route", []) for one in value.split(",")]

    def audio(self) -> Address:
        """Where the far side wants its audio."""
        host, port = _CONNECTION.search(self.body), _AUDIO.search(self.body)
        assert host is not None, f"no address in {self.start}"
        assert port is not None, f"no audio in {self.start}"
        return host[1], int(port[1])

    def direction(self) -> str:
        """What the far side wants of its only stream (RFC 8866 §6.7)."""
        found = _DIRECTION.search(self.body)
        return found[1] if found else "sendrecv"

    def others(self) -> str:
        """The m= lines of streams that are no audio, declined."""
        return "".join(f"m={kind} 0 {rest}\r\n" for kind, rest in _OTHER.findall(self.body))

    def crypto(self) -> tuple[str, str]:
        """Tag and master key (base64) of the far side's a=crypto line, both empty without one."""
        found = _CRYPTO.search(self.body)
        return (found[1], found[2]) if found else ("", "")


@dataclass(slots=True)
class Asked:
    """A request of ours: ``status`` is 0 until its final answer came, after ``took_s``; 408 when none did."""

    method: str
    data: bytes
    to: Address
    branch: str
    sent_at: float
    again_at: float
    wait_s: float = T1_S
    status: int = 0
    took_s: float = 0.0
    sent: int = 1
    provisional: bool = False
    reply: Received | None = None  # the final answer


@dataclass(slots=True)
class UaCall:
    """One call as its user agent sees it."""

    call_id: str
    local: str
    number: str = ""  # that was called: the same on both sides
    remote: str = ""
    target: str = ""
    far: Address = ("", 0)
    route: list[str] = field(default_factory=list)  # the dialog's, of loose routers alone (RFC 3261 §12.2.1.1)
    audio_port: int = 0
    far_audio: Address = ("", 0)
    far_direction: str = "sendrecv"
    direction: str = "sendrecv"  # ours
    descriptions: int = 0  # of ours
    declined: str = ""  # m= lines of the far side's other streams, for which we have no use (RFC 3264 §6)
    key: str = ""  # its SRTP master key in base64, when it speaks SRTP, and that of the far side
    far_key: str = ""
    cseq: int = 1
    invite_cseq: int = 1  # of our last INVITE, for its ACK
    asked: dict[str, Asked] = field(default_factory=dict)  # the latest of each method
    ringing: bool = False
    up: bool = False  # the caller has its 2xx, the callee its ACK
    ended_by_far: bool = False
    informed: list[str] = field(default_factory=list)  # bodies of INFOs
    notified: list[int] = field(default_factory=list)  # statuses that NOTIFYs of a REFER told
    got: list[str] = field(default_factory=list)  # methods of requests inside the dialog, without retransmissions
    answer: bytes = b""  # the callee's 2xx, sent until its ACK comes
    again_at: float = 0.0
    wait_s: float = T1_S
    invite: Received | None = None  # the callee's, until it is answered
    source: Address = ("", 0)  # where that came from

    def follow(self, route: list[str]) -> None:
        """Send by way of these proxies, the next one first."""
        self.route = route
        next_hop = _URI.search(route[0]) if route else None
        if next_hop is not None:
            self.far = (next_hop[2], int(next_hop[3] or 5060))

    @property
    def has_ended(self) -> bool:
        """Whether one side has hung up, and it is known here."""
        return self.ended_by_far or ("BYE" in self.asked and self.asked["BYE"].status != 0)


class Agent(Background):
    """A user agent at ``host:port`` (0: any). As callee it rings, and answers unless the number begins with 2;
    a number that begins with a status of 4xx to 6xx is refused with it.

    ``audio_port`` gives each new call the port that its SDP names. ``secure``: it speaks SRTP alone (RFC 4568).
    ``codec``, its payload type and name, is the only one that it knows, or several with commas between them. Whoever
    registers is told that he is.
    """

    transport = "UDP"  # as a Via names it

    def __init__(
        self,
        host: str,
        port: int = 0,
        *,
        audio_port: Callable[[], int] | None = None,
        secure: bool = False,
        codec: str = "0 PCMU/8000",
        open_socket: Callable[[], socket.socket] | None = None,
    ) -> None:
        super().__init__()
        self.host = host
        self.read: list[bytes] = []  # every message that it got
        self.calls: dict[str, UaCall] = {}
        self.stray: list[Received] = []  # what belongs to no call
        self._audio_port = audio_port or (lambda: 40_000)
        self._secure = secure
        self._codec = codec
        self.registered: list[str] = []  # the URIs of Contacts
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Asked, UaCall]] = {}  # by branch
        self._answered: dict[tuple[str, str], bytes] = {}  # by branch and method
        self._open_socket = open_socket or (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket = self._open(port)
        self.port = int(self._socket.getsockname()[1])
        self.contact = f"<sip:ua@{host}:{self.port}>"
        self.error: BaseException | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None and self.error is not None:
            raise self.error

    def _close(self) -> None:
        self._socket.close()

    # -- what a test does and sees

    def call(self, gateway: Address, number: str) -> UaCall:
        """Send an INVITE."""
        with self._lock:
            call = UaCall(f"{uuid.uuid4().hex}@{self.host}", f"<sip:caller@{self.host}>;tag={uuid.uuid4().hex[:12]}")
            call.number, call.remote = number, f"<sip:{number}@{gateway[0]}>"
            call.target, call.far = f"sip:{number}@{gateway[0]}:{gateway[1]}", gateway
            self.calls[call.call_id] = call
            self._ask(call, "INVITE", self._sdp(call))
            return call

    def register_at(self, gateway: Address, user: str = "phone") -> Asked:
        """Send a REGISTER for ``user``."""
        with self._lock:
            here = f"<sip:{user}@{gateway[0]}>"
            call = UaCall(f"{uuid.uuid4().hex}@{self.host}", f"{here};tag={uuid.uuid4().hex[:12]}", remote=here)
            call.target, call.far = f"sip:{gateway[0]}", gateway
            return self._ask(call, "REGISTER", extra=["Expires: 300"])

    def ask(self, call: UaCall, method: str) -> Asked:
        """Send a request inside the dialog of a call."""
        with self._lock:
            call.cseq += 1
            return self._ask(call, method)

    def inform(self, call: UaCall, digit: str) -> Asked:
        """Tell of a digit by INFO."""
        with self._lock:
            call.cseq += 1
            body = f"Signal={digit}\r\nDuration=120\r\n".encode()
            return self._ask(call, "INFO", body, extra=["Content-Type: application/dtmf-relay"])

    def modify(self, call: UaCall, direction: str) -> Asked:
        """Offer another direction, as a phone does to hold and to resume (RFC 3264 §8.4)."""
        with self._lock:
            call.cseq += 1
            call.invite_cseq = call.cseq
            call.direction = direction
            return self._ask(call, "INVITE", self._sdp(call))

    def refer(self, call: UaCall, number: str, *, instead_of: UaCall | None = None) -> Asked:
        """Have the far side of a call call ``number``, or take the place of this agent in another call."""
        replaces = ""
        if instead_of is not None:
            tags = [party.partition("tag=")[2] for party in (instead_of.remote, instead_of.local)]
            call_id = instead_of.call_id.replace("@", "%40")
            replaces = f"?Replaces={call_id}%3Bto-tag%3D{tags[0]}%3Bfrom-tag%3D{tags[1]}"
        with self._lock:
            call.cseq += 1
            return self._ask(call, "REFER", extra=[f"Refer-To: <sip:{number}@{call.far[0]}{replaces}>"])

    def hang_up(self, call: UaCall) -> Asked:
        return self.ask(call, "BYE")

    def cancel(self, call: UaCall) -> Asked:
        """CANCEL the INVITE, which is outstanding."""
        with self._lock:
            return self._ask(call, "CANCEL", branch=call.asked["INVITE"].branch)

    def answer(self, call: UaCall) -> None:
        """Answer a call that rings."""
        with self._lock:
            assert call.invite is not None
            self._final(call, call.invite, 200, self._sdp(call))

    def all_calls(self) -> list[UaCall]:
        with self._lock:
            return list(self.calls.values())

    def up(self) -> int:
        return sum(call.up for call in self.all_calls())

    # -- sending

    def _open(self, port: int) -> socket.socket:
        sock = self._open_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((self.host, port))
        sock.setblocking(False)
        return sock

    def _ask(self, call: UaCall, method: str, body: bytes = b"", branch: str = "", extra: Sequence[str] = ()) -> Asked:
        branch = branch or f"z9hG4bK{uuid.uuid4().hex[:16]}"
        data = self._request(call, method, branch, body, extra)
        now = time.monotonic()
        asked = Asked(method, data, call.far, branch, now, now + T1_S)
        call.asked[method] = asked
        self._waiting[f"{branch} {method}"] = (asked, call)
        self._send(data, call.far)
        return asked

    def _request(self, call: UaCall, method: str, branch: str, body: bytes = b"", extra: Sequence[str] = ()) -> bytes:
        lines = [
            f"{method} {call.target} SIP/2.0",
            f"Via: SIP/2.0/{self.transport} {self.host}:{self.port};rport;branch={branch}",
            "Max-Forwards: 70",
            *(f"Route: {proxy}" for proxy in call.route),
            f"From: {call.local}",
            f"To: {call.remote}",
            f"Call-ID: {call.call_id}",
            f"CSeq: {call.invite_cseq if method in ('ACK', 'CANCEL') else call.cseq} {method}",
            f"Contact: {self.contact}",
            *extra,
            *(["Content-Type: application/sdp"] if body and method != "INFO" else []),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _sdp(self, call: UaCall) -> bytes:
        call.audio_port = call.audio_port or self._audio_port()
        call.descriptions += 1
        lines = ["v=0", f"o=ua 1 {call.descriptions} IN IP4 {self.host}", "s=-", f"c=IN IP4 {self.host}", "t=0 0"]
        codecs = self._codec.split(", ")
        numbers = " ".join(codec.split()[0] for codec in codecs)
        lines.append(f"m=audio {call.audio_port} RTP/{'SAVP' if self._secure else 'AVP'} {numbers}")
        lines += [f"a=rtpmap:{codec}" for codec in codecs]
        if self._secure:
            call.key = call.key or base64.b64encode(os.urandom(30)).decode()
            tag = (call.invite.crypto()[0] if call.invite is not None else "") or "1"
            lines.append(f"a=crypto:{tag} {SUITE} inline:{call.key}")
        if call.direction != "sendrecv":
            lines.append(f"a={call.direction}")
        lines.append(call.declined)
        return "\r\n".join(lines).encode()

    def _send(self, data: bytes, to: Address) -> None:
        self._socket.sendto(data, to)

    # -- the thread

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            try:
                while self._running:
                    selector.select(TICK_S)
                    with self._lock:
                        self._receive_all()
                        self._send_again(time.monotonic())
            except BaseException as error:
                self.error = error

    def _receive_all(self) -> None:
        for _ in range(200):
            try:
                data, source = self._socket.recvfrom(65_535)
            except BlockingIOError:
                return
            if not data.strip(b"\0\r\n"):  # a keep-alive
                continue
            self._received(data, source)

    def _received(self, data: bytes, source: Address) -> None:
        self.read.append(data)
        message = Received(data)
        if message.status:
            self._replied(message)
        else:
            self._requested(message, source)

    def _send_again(self, now: float) -> None:
        for key, (asked, _) in list(self._waiting.items()):
            if now - asked.sent_at > TIMEOUT_S and not asked.provisional:
                asked.status = 408
                del self._waiting[key]
            elif now >= asked.again_at and not (asked.method == "INVITE" and asked.provisional):
                asked.wait_s = min(2 * asked.wait_s, TIMEOUT_S if asked.method == "INVITE" else T2_S)
                asked.again_at = now + asked.wait_s
                asked.sent += 1
                self._send(asked.data, asked.to)
        for call in self.calls.values():
            if call.answer and not call.up and now >= call.again_at:
                call.wait_s = min(2 * call.wait_s, T2_S)
                call.again_at = now + call.wait_s
                self._send(call.answer, call.source)

    def _replied(self, message: Received) -> None:
        entry = self._waiting.get(f"{message.branch} {message.method}")
        if entry is None:
            call = self.calls.get(message.call_id)
            if call is not None and message.method == "INVITE" and call.up and message.status < 300:
                self._acknowledge(call)
            elif call is None:
                self.stray.append(message)
            return
        asked, call = entry
        if message.status < 200:
            asked.provisional = True
            call.ringing = call.ringing or message.status >= 180
            return
        del self._waiting[f"{message.branch} {message.method}"]
        asked.reply = message
        asked.status, asked.took_s = message.status, time.monotonic() - asked.sent_at
        if asked.method != "INVITE":
            return
        call.remote = message.one("to")
        if message.status < 300:
            call.target, call.far = message.target()
            call.follow(message.route()[::-1])
            call.far_audio, call.far_key = message.audio(), message.crypto()[1]
            call.far_direction = message.direction()
            call.up = True
            self._acknowledge(call)
        else:
            self._send(self._request(call, "ACK", asked.branch), asked.to)

    def _acknowledge(self, call: UaCall) -> None:
        self._send(self._request(call, "ACK", f"z9hG4bK{uuid.uuid4().hex[:16]}"), call.far)

    def _requested(self, message: Received, source: Address) -> None:
        method, key = message.method, (message.branch, message.method)
        call = self.calls.get(message.call_id)
        if method == "ACK":
            if call is not None:
                if message.body:
                    call.far_audio = message.audio()
                call.up, call.answer = call.up or bool(call.answer), b""
            return
        if key in self._answered:
            self._send(self._answered[key], source)
            return
        if method == "INVITE" and call is None:
            self._invited(message, source)
            return
        if call is None and method == "REGISTER":
            self.registered.append(message.target()[0])
            self._reply(message, source, 200, message.one("contact"))  # that is bound (RFC 3261 §10.3 step 8)
            return
        if call is None:
            self.stray.append(message)
            self._reply(message, source, 481)
            return
        call.got.append(method)
        if method == "CANCEL":
            self._reply(message, source, 200)
            if call.invite is not None:
                self._final(call, call.invite, 487)
            call.ended_by_far = True
            return
        if method == "BYE":
            call.ended_by_far = True
        if method == "INVITE":
            self._invited_again(call, message, source)
            return
        if method == "INFO":
            call.informed.append(message.body)
        if method == "NOTIFY" and message.body.startswith("SIP/2.0 "):
            call.notified.append(int(message.body.split(" ")[1]))
        self._reply(message, source, 200)

    def _invited(self, message: Received, source: Address) -> None:
        call = UaCall(message.call_id, f"{message.one('to')};tag={uuid.uuid4().hex[:12]}", remote=message.one("from"))
        call.target, call.far = message.target()
        call.follow(message.route())
        if message.body:
            call.far_audio, call.far_key = message.audio(), message.crypto()[1]
            call.declined = message.others()
        call.number = message.start.partition("sip:")[2].partition("@")[0]
        call.invite = message
        call.source = source
        self.calls[call.call_id] = call
        ringing = self._response(message, 180, call.local)
        self._answered[(message.branch, "INVITE")] = ringing
        self._send(ringing, source)
        call.ringing = True
        if call.number.startswith(("4", "5", "6")):
            self._final(call, message, int(call.number[:3]))
        elif not call.number.startswith("2"):
            self._final(call, message, 200, self._sdp(call))

    def _invited_again(self, call: UaCall, message: Received, source: Address) -> None:
        """A re-INVITE: what it asks for is done."""
        call.target, call.far = message.target()
        call.invite = message
        if message.body:
            call.far_audio, call.far_key = message.audio(), message.crypto()[1]
            call.declined = message.others()
            call.far_direction = message.direction()
            call.direction = _MIRRORED.get(call.far_direction, call.far_direction)
        call.source = source
        call.up = False  # until the ACK
        self._final(call, message, 200, self._sdp(call))

    def _final(self, call: UaCall, invite: Received, status: int, body: bytes = b"") -> None:
        data = self._response(invite, status, "" if "tag=" in invite.one("to") else call.local, body)
        self._answered[(invite.branch, "INVITE")] = data
        call.invite = None
        if status < 300:
            call.answer = data
            call.again_at = time.monotonic() + T1_S
        self._send(data, call.source)

    def _reply(self, message: Received, source: Address, status: int, contact: str = "") -> None:
        data = self._response(message, status, contact=contact)
        self._answered[(message.branch, message.method)] = data
        self._send(data, source)

    def _response(self, message: Received, status: int, to: str = "", body: bytes = b"", contact: str = "") -> bytes:
        lines = [
            f"SIP/2.0 {status} So be it",
            *(f"Via: {via}" for via in message.headers["via"]),
            f"From: {message.one('from')}",
            f"To: {to or message.one('to')}",
            f"Call-ID: {message.call_id}",
            f"CSeq: {message.one('cseq')}",
            f"Contact: {contact or self.contact}",
            *(f"Record-Route: {proxy}" for proxy in message.headers.get("record-route", [])),
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body
