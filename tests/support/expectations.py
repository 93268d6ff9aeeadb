"""What ``expectations.csv`` of the test data asks for each torture, attack and captured message, and a bench on which a
real SBC is sent them: over UDP, and over TCP as a whole or octet by octet.

The table is read from its column ``expect``: status codes, silence, or being processed; where its words need judgement,
``READ_AS`` says what they mean here and why. What a later service will answer is a strict xfail.
"""

from __future__ import annotations

import csv
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from sbc.sip.status import REASONS
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, Loopback, loopback
from tests.support.raw import Raw, status_of
from tests.support.sbc import Sbc, running
from tests.support.shared import shared_data
from tests.support.tcp import Stream

DATA = shared_data("sip").parent
FOLDERS = ("sip/rfc4475/", "sip/rfc5118/", "sip/real/", "sip/attacks/")
T1_S = 0.02
SILENCE_S = 0.3  # after so long without a word a message counts as dropped
PATIENCE_S = 5.0

DROP, PROCESS = "drop", "process"  # beside statuses: no answer; an INVITE that reached the callee, or a 2xx
WORDS = {DROP: r"\bdrop|\bnothing\b", PROCESS: r"\bprocess|\baccept|\bnormal|\brelay"}

READ_AS: dict[str, tuple[set[int | str], str]] = {
    **dict.fromkeys(
        (
            "ipp-gw-6.20A-01-200.sip",
            "mavenir-volte-300-comma-vias.sip",
            "microsip-3.22-02-200.sip",
            "sipps-sdp-02-200.sip",
            "zoiper-tcp-02-200.sip",
        ),
        ({DROP}, "a response that answers no request of ours; the row is about its replay"),
    ),
    "zoiper-tcp-01-register.sip": ({DROP}, "the second segment of a TCP stream: by itself it is no message"),
    "mixed-req-01-invite.sip": ({PROCESS}, "the attribute is ignored, the call goes on"),
    "mavenir-volte-subscribe-long-route.sip": (
        {489},
        "its To has no tag: new, and of an event that the far end refuses",
    ),
    "wsinv.dat": ({481}, "its To has a tag: an INVITE inside a dialog that we do not have"),
    "a07-smuggle-space-before-colon.sip": ({PROCESS}, "an INVITE with headers that do not cross"),
    "a08-smuggle-control-char-before-colon.sip": ({400, PROCESS}, "the column allows both"),
    "a26-log-injection.sip": ({400, PROCESS}, "CR LF is no quoted pair (RFC 3261 §25.1), so 400 is true"),
    "a37-friendly-scanner.sip": ({PROCESS}, "the column is about strangers; a peer may ask OPTIONS"),
}


@dataclass(slots=True)
class Outcome:
    """What became of the message ``sent``: its final status or a word, the answer, and what the callee was sent:
    ``invite`` a call, ``relayed`` another request."""

    sent: bytes
    what: int | str = DROP
    answer: bytes = b""
    invite: bytes = b""
    relayed: bytes = b""
    closed: bool = False  # the connection, before any answer came


def header(message: bytes, name: str) -> list[str]:
    """The values of a header, one for each line."""
    head = message.partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    return re.findall(rf"^{name} *: *([^\r]*)", head, re.M | re.I)


def display_of(message: bytes) -> str:
    """The display name in From, as it is."""
    return header(message, "From")[0].partition("<")[0].strip()


def unsupported(*tags: str) -> Callable[[Outcome], bool]:
    """A 420 that names these."""
    return lambda seen: set(tags) == set(re.split(r", *", ",".join(header(seen.answer, "Unsupported"))))


# What the columns ask for besides the outcome.
ALSO: dict[str, tuple[str, Callable[[Outcome], bool]]] = {
    "intmeth.dat": ("Allow", lambda seen: bool(header(seen.answer, "Allow")) or seen.what == 501),
    "esc01.dat": ("the user part is one string", lambda seen: b"INVITE sip:sips%3Auser%40example.com@" in seen.invite),
    "mult-ip-in-sdp.dat": (
        "a realm of IPv4 takes the audio and declines the video of IPv6",
        lambda seen: re.findall(rb"^m=(\w+) (0?)", seen.invite, re.M) == [(b"audio", b""), (b"video", b"0")],
    ),
    "bext01.dat": (
        "each tag of Require and of Proxy-Require",
        unsupported(
            *("nothingSupportsThis", "nothingSupportsThisEither"),
            *("noProxiesSupportThis", "norDoAnyProxiesSupportThis"),
        ),
    ),
    "sdp01.dat": ("Accept is kept", lambda seen: header(seen.invite, "Accept") == ["text/nobodyKnowsThis"]),
    "a07-smuggle-space-before-colon.sip": (
        "nothing smuggled",
        lambda seen: not re.search(rb"X-Trusted-Peer|X-Billing|Asserted|15551230000", seen.invite, re.I),
    ),
    "a29-invalid-utf8-display-name.sip": (
        "octets as they were",
        lambda seen: not seen.invite or display_of(seen.invite) == display_of(seen.sent),
    ),
    "a37-friendly-scanner.sip": ("no product name", lambda seen: not header(seen.answer, "(?:Server|User-Agent)")),
    "sipps-sdp-01-invite.sip": ("k= stays behind", lambda seen: b"\nk=" not in seen.invite),
    "snom360-utf8-displayname-invite.sip": (
        "octets as they were",
        lambda seen: display_of(seen.invite) == display_of(seen.sent),
    ),
    "a40-require-unknown-plus-100rel.sip": ("the unknown tag alone", unsupported("x-unknown-ext")),
}


class Row(NamedTuple):
    """One line of the table."""

    file: str
    kind: str
    allowed: set[int | str]


def allowed_by(text: str) -> set[int | str]:
    """Which outcomes a text in the column ``expect`` admits."""
    text = re.sub(r"\(never \d+\)|received=\S+", "", text)
    found: set[int | str] = {int(code) for code in re.findall(r"\b[1-6]\d\d\b", text) if int(code) in REASONS}
    return found | {word for word, pattern in WORDS.items() if re.search(pattern, text)}


def rows() -> list[Row]:
    with (DATA / "expectations.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["file"].startswith(FOLDERS)]
    found = []
    for line in lines:
        name = line["file"].rpartition("/")[2]
        allowed = READ_AS[name][0] if name in READ_AS else allowed_by(line["expect"])
        found.append(Row(line["file"], line["class"], allowed))
    return found


def case(row: Row) -> object:
    return pytest.param(row, id=row.file.rpartition("/")[2])


How = Literal["datagram", "whole", "octets"]


@dataclass(slots=True)
class Bench:
    """The SBC under test, and a callee that is busy, and knows nobody who registers, publishes, writes or watches."""

    sbc: Sbc
    net: Loopback
    callee: Raw
    pids: dict[str, int]
    free_at: dict[bytes, float]  # by top Via: when a message with it is no retransmission any more

    def play(self, data: bytes, wait_s: float, how: How = "datagram") -> Outcome:
        """Send one message from a port of its own, and see what becomes of it; no answer in ``wait_s`` is none."""
        seen = Outcome(data)
        via = data[data.lower().find(b"via") :].partition(b"\n")[0]
        time.sleep(max(0.0, self.free_at.get(via, 0.0) - time.monotonic()))
        with Raw(CALLER) if how == "datagram" else Stream(CALLER, (OUTSIDE, self.net.port)) as caller:
            self.callee.take()
            if isinstance(caller, Raw):
                caller.send(data, (OUTSIDE, self.net.port))
            else:
                caller.send(*([data] if how == "whole" else [data[i : i + 1] for i in range(len(data))]))
            start = time.monotonic()
            while time.monotonic() < start + (PATIENCE_S if seen.answer or seen.invite else wait_s):
                select.select([caller, self.callee], [], [], 0.02)
                if isinstance(caller, Stream) and caller.ended and not seen.answer:
                    seen.closed = True
                    break
                for message, source in self.callee.take():
                    if message.startswith(b"INVITE "):
                        seen.invite = seen.invite or message
                    elif not message.startswith((b"ACK ", b"SIP/2.0 ")):
                        seen.relayed = seen.relayed or message
                    if not message.startswith((b"ACK ", b"SIP/2.0 ")):
                        self.callee.send(refusal(message), source)
                for message, _ in caller.take():
                    if status_of(seen.answer) < 200:
                        seen.answer = message
                if status_of(seen.answer) >= 200:
                    break
        self.free_at[via] = time.monotonic() + 80 * T1_S
        status = status_of(seen.answer)
        if seen.invite or 200 <= status < 300:
            seen.what = PROCESS
        elif status:
            seen.what = status
        return seen

    def refuse_all(self) -> None:
        """What has reached the callee is answered."""
        for message, source in self.callee.take():
            if not message.startswith((b"ACK ", b"SIP/2.0 ")):
                self.callee.send(refusal(message), source)


def refusal(request: bytes) -> bytes:
    """What the callee answers."""
    method = request.partition(b" ")[0].decode()
    status = {"INVITE": 486, "OPTIONS": 200, "MESSAGE": 407, "SUBSCRIBE": 489, "PUBLISH": 489}.get(method, 401)
    names = ("Via", "From", "To", "Call-ID", "CSeq")
    lines = [f"{name}: {value}{';tag=b' * (name == 'To')}" for name in names for value in header(request, name)]
    if status in (401, 407):
        name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
        lines.append(f'{name}: Digest realm="far.example", nonce="{len(request)}"')
    text = "\r\n".join([f"SIP/2.0 {status} {REASONS[status]}", *lines, "Content-Length: 0", "", ""])
    return text.encode("utf-8", "surrogateescape")


@contextmanager
def benched(folder: Path, *, more: str = "", store: str = "embedded") -> Iterator[Bench]:
    """A bench with UDP and TCP at the same ports, and timers so short that few messages meet a former one's
    transaction."""
    t1_ms = round(T1_S * 1000)
    net = loopback(
        sip=2, store=store, more=f"timers: {{ t1_ms: {t1_ms}, t2_ms: {8 * t1_ms}, t4_ms: {10 * t1_ms} }}\n" + more
    )
    text = net.text
    for host, port in ((OUTSIDE, net.port), (CORE, net.core_port)):
        text = text.replace(f"[udp:{host}:{port}]", f"[udp:{host}:{port}, tcp:{host}:{port}]")
    # everything reaches the callee as a datagram, however long
    text = text.replace("    trusted: true", "    trusted: true\n    udp_request_max_bytes: 0")
    with running(folder, text) as sbc, Raw(CALLEE, net.callee_port) as callee:
        yield Bench(sbc, net, callee, sbc.pids(), {})


def judge(row: Row, seen: Outcome, allowed: set[int | str]) -> None:
    """Raises AssertionError where an outcome is none of ``allowed``, or wants what the table asks for besides."""
    name = row.file.rpartition("/")[2]
    # 200 in the table means that the request is served, which is what a 2xx says here.
    allowed = allowed | ({PROCESS} if 200 in allowed else set())
    assert allowed, f"{row.file}: nothing could be read from the table"
    if seen.relayed and PROCESS in allowed and row.kind == "valid":
        seen.what = PROCESS  # what the far end makes of it is its affair
    if seen.what not in allowed:
        raise AssertionError(f"{seen.what}, not one of {allowed}:\n{seen.answer!r}")
    if name in ALSO and seen.what != DROP:
        what, check = ALSO[name]
        assert check(seen), f"{what}:\n{seen.answer!r}\n{seen.invite!r}"
