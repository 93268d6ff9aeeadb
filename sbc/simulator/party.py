"""A party of a dry run: a user agent just good enough to be right, that does what its script or a test says.

What every user agent does by itself is done here: ACK, the answers to BYE, CANCEL and PRACK, the PRACK to a reliable
provisional. INVITEs and other requests wait to be answered.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sbc.errors import SipSyntaxError
from sbc.sip.address import parse_name_addr
from sbc.sip.build import build_request, reply_to
from sbc.sip.flow import Flow
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.simulator.stage import Stage

Headers = Sequence[tuple[str, str]]
CODECS = ("PCMA/8000", "PCMU/8000", "telephone-event/8000")
_STATIC = {"pcmu/8000": 0, "pcma/8000": 8, "g722/8000": 9, "g729/8000": 18, "gsm/8000": 3}
_FLIPPED = {"a=sendonly": "a=recvonly", "a=recvonly": "a=sendonly", "a=setup:actpass": "a=setup:active"}
_BY_ITSELF = frozenset({"ACK", "PRACK"})  # what a party that waits for something else has no eye for


class Line:
    """One dialog of a party, or what is to become one."""

    __slots__ = (
        *("branch", "call_id", "cseq", "invite", "is_answered", "local", "remote", "request", "target", "uri"),
        *("acks", "has_offered"),
    )

    def __init__(self, call_id: str, local: str, remote: str, uri: str) -> None:
        self.call_id = call_id
        self.local = local  # our From or To, with its tag
        self.remote = remote
        self.uri = uri  # the Request-URI of what we send in it
        self.target = ""
        self.cseq = 0
        self.branch = ""
        self.request: Message | None = None  # the last one that came and is not answered
        self.invite: Message | None = None  # the INVITE that came
        self.is_answered = False
        self.acks = 0
        self.has_offered = True  # its last INVITE had a description; else its ACK brings the answer to the 2xx


class Party:
    """One peer, or one host that is none. Methods act in the dialog that a message was last taken from."""

    def __init__(self, stage: Stage, name: str, flow: Flow, *, known: bool = True) -> None:
        self.stage = stage
        self.name = name
        self.flow = flow  # as the node sees what we send
        self.is_known = known
        self.inbox: deque[Message] = deque()
        self.line: Line | None = None
        self.codecs: Sequence[str] = CODECS
        self.opened = ""  # the Call-ID of the dialog that it opened last
        self._lines: dict[str, Line] = {}
        self._taken: set[tuple[str, int, str, int]] = set()
        self._numbers = 0

    @property
    def host(self) -> str:
        """Its address as it stands in a URI."""
        return f"[{self.flow.host}]" if ":" in self.flow.host else self.flow.host

    @property
    def contact(self) -> str:
        transport = "" if self.flow.transport == "udp" else f";transport={self.flow.transport}"
        return f"<sip:{self.host}:{self.flow.port}{transport}>"

    # What a test says

    def calls(
        self,
        to: str,
        *,
        caller: str = "1000",
        headers: Headers = (),
        body: bytes | None = None,
        method: str = "INVITE",
    ) -> None:
        """Send an INVITE (or another ``method``) outside a dialog: ``to`` is a number, or a URI as it is.

        ``caller`` is the user of From. ``body`` None: for an INVITE, a description with the codecs of the party.
        """
        uri = to if ":" in to else f"sip:{to}@{self.stage.address_of(self.flow.listener)}"
        self._numbers += 1
        call_id = f"{self.name or 'call'}-{self._numbers}@{self.flow.host}"
        line = Line(call_id, f"<sip:{caller}@{self.host}>;tag={self.stage.mint('t')}", f"<{uri}>", uri)
        self._lines[call_id] = self.line = line
        self.opened = call_id
        offer = (self.description() if method == "INVITE" else b"") if body is None else body
        self._request(line, method, offer, headers)

    def sends(self, method: str, *, headers: Headers = (), body: bytes = b"", content_type: str = "") -> None:
        """Send a request in the dialog."""
        self._request(self._here(), method, body, headers, content_type)

    def hangs_up(self) -> None:
        """BYE."""
        self._request(self._here(), "BYE")

    def cancels(self) -> None:
        """CANCEL of the INVITE that was sent."""
        line = self._here()
        self._request(line, "CANCEL", branch=line.branch, cseq=line.cseq)

    def answers(self, status: int, *, reason: str = "", headers: Headers = (), body: bytes | None = None) -> None:
        """Answer the request that was taken last. ``body`` None: with a 2xx to an INVITE, and a 183, a description."""
        line = self._here()
        request = line.request
        assert request is not None, f"{self.name} has nothing to answer{self.stage.so_far()}"
        if body is None:
            described = request.method == "INVITE" and (status == 183 or 200 <= status < 300)
            body = (answer_to(request.body, self.flow.host) or self.description()) if described else b""
        said = list(headers)
        if request.method == "INVITE":
            if not any(name.lower() in ("contact", "m") for name, _ in said):
                said.append(("Contact", self.contact))
            line.is_answered = status >= 200
        if body:
            said.append(("Content-Type", "application/sdp"))
        if status >= 200:
            line.request = None
        tag = "" if status == 100 else line.local.rpartition(";tag=")[2]
        data = reply_to(request, status, reason=reason or None, to_tag=tag, received=None, headers=said, body=body)
        self.stage.send(self, data)

    def gets(self, what: int | str) -> Message:
        """Take the next message, which must be of this method or status; 100 and ACK are passed over unless asked for.

        Raises AssertionError with everything that has happened.
        """
        while self.inbox:
            msg = self.inbox.popleft()
            got: int | str = msg.method if msg.is_request else msg.status
            if got != what and (got == 100 or got in _BY_ITSELF):
                continue
            assert got == what, f"{self.name} got {got} ({msg.cseq_method}), not {what}{self.stage.so_far()}"
            self.line = self._lines[msg.call_id]
            return msg
        raise AssertionError(f"{self.name} got nothing, expected {what}{self.stage.so_far()}")

    def gets_nothing(self) -> None:
        """Nothing but 100 and ACK may wait to be taken. Raises AssertionError."""
        left = [m.method if m.is_request else m.status for m in self.inbox]
        left = [one for one in left if one != 100 and one not in _BY_ITSELF]
        assert not left, f"{self.name} got {left}{self.stage.so_far()}"

    # What the stage brings

    def knows(self, msg: Message) -> bool:
        """Whether a request or a final answer has come before: a retransmission, which is not taken."""
        if not msg.is_request and msg.status < 200:
            return False
        key = (msg.branch, msg.cseq_number, msg.method or msg.cseq_method, msg.status if not msg.is_request else 0)
        if key in self._taken:
            return True
        self._taken.add(key)
        return False

    def take(self, msg: Message) -> None:
        """A message has come."""
        line = self._lines.get(msg.call_id)
        if line is None:
            if not msg.is_request:
                return
            local = f"{msg.get('To')};tag={self.stage.mint('t')}" if not msg.to_tag else msg.get("To") or ""
            line = self._lines[msg.call_id] = Line(msg.call_id, local, msg.get("From") or "", msg.uri)
            line.uri = _contact(msg) or line.uri
        if msg.is_request:
            if self._serve(line, msg):
                return
        else:
            self._answered(line, msg)
        if self.stage.on_message is not None:
            self.stage.on_message(self, line, msg)
        else:
            self.inbox.append(msg)

    def _serve(self, line: Line, msg: Message) -> bool:
        """Do what goes by itself; True where there is nothing more to it."""
        match msg.method:
            case "ACK":
                line.acks += 1
            case "PRACK":
                self._reply(msg, 200)
            case "BYE":
                self._reply(msg, 200)
            case "CANCEL":
                self._reply(msg, 200)
                if line.invite is not None and not line.is_answered:
                    line.is_answered, line.request = True, None
                    self._reply(line.invite, 487, line.local.rpartition(";tag=")[2])
            case "OPTIONS" | "UPDATE" if msg.to_tag and not msg.body:  # a ping, or a session that is refreshed
                self._reply(msg, 200)
                return True
            case _:
                line.request = msg
                if msg.method == "INVITE":
                    line.invite, line.is_answered = msg, False
        return False

    def _answered(self, line: Line, msg: Message) -> None:
        """A response to a request of ours."""
        if msg.cseq_method != "INVITE" or msg.status <= 100:
            return
        if msg.to_tag:
            line.remote = msg.get("To") or line.remote
        if msg.status >= 300:
            self._request(line, "ACK", branch=line.branch, cseq=msg.cseq_number)
            return
        line.uri = _contact(msg) or line.uri
        if msg.status >= 200:
            answer = b"" if line.has_offered else answer_to(msg.body, self.flow.host)
            self._request(line, "ACK", answer, cseq=msg.cseq_number)
        elif (number := msg.get("RSeq")) is not None:
            self._request(line, "PRACK", headers=[("RAck", f"{number} {msg.cseq_number} INVITE")])

    # Octets

    def sends_as_it_is(self, data: bytes) -> None:
        """Send octets outside a dialog, whatever they are; what can be read opens a dialog of the party."""
        msg = Message.parse_lenient(data)
        if msg is not None:
            line = Line(msg.call_id, msg.get("From") or "", msg.get("To") or "", msg.uri)
            line.cseq, line.branch = msg.cseq_number, msg.branch
            self._lines[msg.call_id] = self.line = line
            self.opened = msg.call_id
        self.stage.send(self, data)

    def description(self) -> bytes:
        """A description of one audio stream at this party."""
        return describe(self.flow.host, self.codecs)

    def turns_to(self, call_id: str) -> None:
        """Act in the dialog with this Call-ID from now on. Raises KeyError for none."""
        self.line = self._lines[call_id]

    def _here(self) -> Line:
        assert self.line is not None, f"{self.name} is in no dialog yet: it calls, or gets an INVITE, first"
        return self.line

    def _request(
        self,
        line: Line,
        method: str,
        body: bytes = b"",
        headers: Headers = (),
        content_type: str = "",
        *,
        branch: str = "",
        cseq: int = 0,
    ) -> None:
        if not cseq:
            line.cseq += method != "ACK"
            cseq = line.cseq
        if not branch:
            branch = self.stage.mint("z9hG4bK")
            if method == "INVITE":
                line.branch, line.has_offered = branch, bool(body)
        transport = self.flow.transport.upper()
        all_headers = [
            ("Via", f"SIP/2.0/{transport} {self.host}:{self.flow.port};branch={branch};rport"),
            ("Max-Forwards", "70"),
            ("From", line.local),
            ("To", line.remote),
            ("Call-ID", line.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", self.contact),
            *headers,
        ]
        if body and not any(name.lower() in ("content-type", "c") for name, _ in headers):
            all_headers.append(("Content-Type", content_type or "application/sdp"))
        self.stage.send(self, build_request(method, line.uri, all_headers, body))

    def _reply(self, request: Message, status: int, tag: str = "") -> None:
        self.stage.send(self, reply_to(request, status, to_tag=tag, received=None))


def _contact(msg: Message) -> str:
    value = msg.get("Contact")
    try:
        return str(parse_name_addr(value).uri) if value else ""
    except SipSyntaxError:
        return ""


def describe(host: str, codecs: Iterable[str]) -> bytes:
    """One audio stream at ``host``; a codec is ``name`` or ``name/clock``."""
    formats, lines = [], []
    dynamic = 96
    for codec in codecs:
        name = codec if "/" in codec else f"{codec}/{48000 if codec.lower() == 'opus' else 8000}"
        number = _STATIC.get(name.lower())
        if number is None:
            number, dynamic = (101, dynamic) if name.lower().startswith("telephone-event") else (dynamic, dynamic + 1)
        formats.append(str(number))
        lines.append(f"a=rtpmap:{number} {name}{'/2' if name.lower().startswith('opus') else ''}\r\n")
    family = f"IP{ipaddress.ip_address(host).version}"
    return (
        f"v=0\r\no=- 1 1 IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\n"
        f"m=audio 4000 RTP/AVP {' '.join(formats)}\r\n{''.join(lines)}a=sendrecv\r\n"
    ).encode()


def answer_to(offer: bytes, host: str) -> bytes:
    """An answer that takes everything of an offer, at ``host``; b"" where there was no offer."""
    if not offer.startswith(b"v="):
        return b""
    family = f"IP{ipaddress.ip_address(host).version}"
    answer = []
    port = 4000
    for line in offer.decode("utf-8", "surrogateescape").splitlines():
        if line.startswith("o="):
            line = f"o=- 1 1 IN {family} {host}"
        elif line.startswith("c="):
            line = f"c=IN {family} {host}"
        elif line.startswith("m="):
            kind, was, *rest = line.split(" ")
            line = " ".join([kind, was if was == "0" else str(port), *rest])
            port += 2
        elif line.startswith(("a=candidate:", "a=ice-lite", "a=rtcp:", "a=end-of-candidates")):
            continue
        answer.append(_FLIPPED.get(line, line))
    return ("\r\n".join(answer) + "\r\n").encode("utf-8", "surrogateescape")
