"""A transaction layer in virtual time: what it sends, counts and tells its user, with the time of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sbc.sip.build import build_request, build_response, reply_to
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction.client import ClientTransaction
from sbc.transaction.layer import TransactionLayer
from sbc.transaction.timers import Settings, TimerQueue

UDP = Flow(0, "udp", "192.0.2.9", 5060)
TCP = Flow(0, "tcp", "192.0.2.9", 5060, 7)
START = 1000.0


def request(
    method: str = "INVITE",
    branch: str = "z9hG4bKone",
    *,
    via: str = "SIP/2.0/UDP 192.0.2.1:5060",
    cseq: int = 1,
    call_id: str = "call@a",
    to_tag: str = "",
    from_tag: str = "a",
    uri: str = "sip:bob@example.net",
    headers: tuple[tuple[str, str], ...] = (),
) -> bytes:
    tag = f";tag={to_tag}" if to_tag else ""
    return build_request(
        method,
        uri,
        [
            ("Via", f"{via};branch={branch}" if branch else via),
            ("Max-Forwards", "70"),
            ("From", f"<sip:alice@example.com>;tag={from_tag}"),
            ("To", f"<sip:bob@example.net>{tag}"),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ],
    )


def response(status: int, to: bytes, to_tag: str = "b") -> bytes:
    return reply_to(Message.parse(to), status, to_tag="" if status == 100 else to_tag, received=None)


def stray(status: int, method: str, branch: str) -> Message:
    headers = [
        ("Via", f"SIP/2.0/UDP 192.0.2.1;branch={branch}"),
        ("From", "<sip:a@b>;tag=a"),
        ("To", "<sip:c@d>;tag=b"),
    ]
    return Message.parse(build_response(status, "X", [*headers, ("Call-ID", "c"), ("CSeq", f"1 {method}")]))


@dataclass
class User:
    """Notes each event as (seconds since the start, what)."""

    seen: list[tuple[float, str | int]] = field(default_factory=list)
    cancel_on_timer_c: bool = False

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        self.seen.append((round(now - START, 6), msg.status))

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        self.seen.append((round(now - START, 6), f"timeout {tx.reason}"))
        if tx.reason == "C" and self.cancel_on_timer_c:
            tx.cancel(None, now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        self.seen.append((round(now - START, 6), "transport error"))

    @property
    def events(self) -> list[str | int]:
        return [what for _, what in self.seen]


class Rig:
    def __init__(self, settings: Settings | None = None) -> None:
        self.now = START
        self.timers = TimerQueue()
        self.sent: list[tuple[float, bytes]] = []
        self.counts: Counter[str] = Counter()
        self.layer = TransactionLayer(self.timers, settings or Settings(), self._transmit, self._count)
        self.user = User()

    def _transmit(self, flow: Flow, data: bytes) -> None:
        self.sent.append((round(self.now - START, 6), data))

    def _count(self, name: str) -> None:
        self.counts[name] += 1

    def run_to(self, seconds: float) -> None:
        """Advance to `seconds` after the start, stopping at each timer."""
        end = START + seconds
        while (deadline := self.timers.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.timers.fire(self.now)
        self.now = end

    def send(self, data: bytes, flow: Flow = UDP, cancel_data: bytes | None = None) -> ClientTransaction:
        msg = Message.parse(data)
        return self.layer.send(msg.method, msg.branch, data, flow, self.user, self.now, cancel_data=cancel_data)

    def receive(self, data: bytes) -> bool:
        return self.layer.receive_response(Message.parse(data), UDP, self.now)

    def times(self, start_line: bytes) -> list[float]:
        """When messages that begin so were sent, in seconds since the start."""
        return [at for at, data in self.sent if data.startswith(start_line)]

    def assert_empty(self) -> None:
        assert len(self.layer) == 0
        assert len(self.timers) == 0
        assert self.timers.next_deadline() is None
        assert not self.layer._initial
