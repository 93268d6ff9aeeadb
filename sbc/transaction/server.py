"""Server transactions (RFC 3261 §17.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from sbc.sip.flow import Flow
from sbc.sip.ids import MAGIC_COOKIE
from sbc.sip.message import Message
from sbc.transaction import tables as t
from sbc.transaction.machine import Action, Rows, Timers, Transaction, compile_rows, compile_timers

if TYPE_CHECKING:
    from sbc.transaction.layer import TransactionLayer

# Which request a transaction answers (§17.2.3): `Message.transaction_key`; or what RFC 2543 gives, see layer.
Key = str | tuple[str | int | None, ...]


def is_unique(branch: str) -> bool:
    """RFC 3261 §8.1.1.7. A branch that is nothing but the magic cookie is not unique (RFC 4475 §3.2.1)."""
    return branch.startswith(MAGIC_COOKIE) and len(branch) > len(MAGIC_COOKIE)


class ServerTransaction(Transaction):
    """A request that we received. `flow` is where responses go: change it before the first, if at all. `seen` is where
    the request came from, which may be another port.

    `user` is whatever the transaction user wants to find here; `on_failure(tx, now)` tells it that no ACK came to a
    refusal (Timer H) or that a response could not be sent. Both are dropped when the transaction ends.
    """

    __slots__ = ("_data", "_merge_key", "key", "last_status", "on_failure", "request", "seen", "user")

    _rows: ClassVar[Rows[ServerTransaction]] = ()

    def __init__(self, layer: TransactionLayer, request: Message, flow: Flow, key: Key, merge_key: Key | None) -> None:
        super().__init__(layer, request.method, flow)
        self.request = request
        self.seen = flow
        self.key = key
        self.last_status = 0
        self.user: object | None = None
        self.on_failure: Callable[[ServerTransaction, float], None] | None = None
        self._merge_key = merge_key
        self._data = b""  # the last response, for retransmission

    @property
    def branch(self) -> str:
        """Of the request's top Via."""
        return self.request.branch

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response, `data` on the wire. A final one is repeated here until it is acknowledged, save a 2xx to
        INVITE: that one the dialog repeats (RFC 3261 §13.3.1.4), by this method or by itself. What the state does not
        allow (anything after a final response) is discarded, as §17.2.1 and §17.2.2 say."""
        event = t.PROVISIONAL if status < 200 else t.SUCCESS if status < 300 else t.FAILURE
        row = self._rows[self.state * t.EVENTS + event]
        if row is not None:
            self.last_status = status
            self._data = data
            self._step(event, None, now)

    @property
    def said(self) -> bytes:
        """The last response, as long as it may leave again."""
        return self._data

    def said_before(self, response: Message) -> None:
        """A former process has sent this provisional response: it leaves again when the request comes again."""
        self.last_status, self._data = response.status, response.raw

    def let_go(self) -> None:
        """The user has answered and wants nothing more: what stays for the rest of this transaction's life, 32 s as a
        rule, is what absorbs retransmissions."""
        self.user = self.on_failure = None
        self.request = None  # type: ignore[assignment]  # nobody reads it any more

    def forsake(self, now: float) -> None:
        """The user will never answer: what comes again of this request is absorbed in silence, for 64*T1."""
        self.user = self.on_failure = None
        self._data = b""
        if self._end is None and self.state != t.TERMINATED:
            self._end = self._queue.start(64 * self._layer.settings.t1_s, self._forsaken, now)

    def _forsaken(self, now: float) -> None:
        self._end = None
        self._enter(t.TERMINATED, now)

    def acknowledged_by(self, ack: Message) -> bool:
        """The ACK is for the refusal that this transaction sent. A unique branch says so; without one, the To tag of
        the response does (RFC 3261 §17.2.3)."""
        if self.state == t.COMPLETED:
            return is_unique(ack.branch) or Message.parse(self._data).to_tag == ack.to_tag
        return self.state == t.CONFIRMED

    def _step(self, event: int, message: Message | None, now: float) -> None:
        row = self._rows[self.state * t.EVENTS + event]
        if row is None:
            return
        state, actions = row
        if event == t.TIMER_H:
            self._layer.count("TIMER_H")
        if state != self.state:
            self._enter(state, now)
        for action in actions:
            action(self, message, now)
        if self.state == t.TERMINATED:
            self.user = self.on_failure = None

    def _leave(self) -> None:
        self._layer.forget_server(self, self._merge_key)
        self._data = b""

    def _send(self, message: Message | None, now: float) -> None:
        self._layer.transmit(self.flow, self._data)

    def _retransmit(self, message: Message | None, now: float) -> None:
        if self._data:
            self._layer.count("RETRANSMISSION_OUT")
            self._layer.transmit(self.flow, self._data)

    def _release(self, message: Message | None, now: float) -> None:
        self._data = b""

    def _tell(self, message: Message | None, now: float) -> None:
        if self.on_failure is not None:
            self.on_failure(self, now)


_ACTIONS: dict[int, Action[ServerTransaction]] = {
    t.SEND: ServerTransaction._send,
    t.RETRANSMIT: ServerTransaction._retransmit,
    t.DOUBLE_TO_T2: ServerTransaction._double_to_t2,
    t.ABSORB: ServerTransaction._absorb,
    t.RELEASE: ServerTransaction._release,
    t.TIMED_OUT: ServerTransaction._tell,
    t.FAILED: ServerTransaction._tell,
}


class InviteServer(ServerTransaction):
    """RFC 3261 §17.2.1."""

    __slots__ = ()
    _rows: ClassVar[Rows[ServerTransaction]] = compile_rows(t.INVITE_SERVER, _ACTIONS)
    _timers: ClassVar[Timers] = compile_timers(t.INVITE_SERVER)

    def answered_before(self, now: float) -> None:
        """`request` is not the request but the 2xx that a former process sent: absorb what comes again of its INVITE
        (RFC 6026 §7.1)."""
        self.method = "INVITE"
        self.last_status = self.request.status
        self.let_go()
        self._enter(t.ACCEPTED, now)


class NonInviteServer(ServerTransaction):
    """RFC 3261 §17.2.2."""

    __slots__ = ()
    _rows: ClassVar[Rows[ServerTransaction]] = compile_rows(t.NON_INVITE_SERVER, _ACTIONS)
    _timers: ClassVar[Timers] = compile_timers(t.NON_INVITE_SERVER)
