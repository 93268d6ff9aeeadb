"""Client transactions (RFC 3261 §17.1) and what INVITE needs besides: the ACK to a refusal, and CANCEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from sbc.sip.build import build_request
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction import tables as t
from sbc.transaction.machine import Action, Rows, Timers, Transaction, compile_rows, compile_timers

if TYPE_CHECKING:
    from sbc.transaction.layer import TransactionLayer

# What ACK and CANCEL repeat of the INVITE besides the top Via, From, Call-ID, CSeq number and To (§17.1.1.3, §9.1);
# the credentials because neither request can be challenged (§22.1).
_REPEATED: Final = frozenset({"From", "Call-ID", "Route", "Authorization", "Proxy-Authorization"})


class ClientUser(Protocol):
    """Who sent the request."""

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """Each provisional, the final response once; and each 2xx to INVITE that still comes in the 64*T1 after one."""

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """No final response. `tx.reason` says which: "B" or "F" none at all in 64*T1; "CANCEL" none in 64*T1 after
        CANCEL; "C" it rings for too long: the transaction lives, call `tx.cancel` (or be told again)."""

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """The request, or the ACK to its refusal, could not be sent."""


class _Nobody:
    """Takes the events of a transaction that nobody waits for: CANCEL, and whatever has ended."""

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        pass

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        pass

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        pass


NOBODY: ClientUser = _Nobody()


class ClientTransaction(Transaction):
    """A request that we sent. `user` is dropped when the transaction ends."""

    __slots__ = ("_ack", "_cancel_data", "_data", "_narrow", "_reasons", "branch", "last_status", "reason", "user")

    _rows: ClassVar[Rows[ClientTransaction]] = ()

    def __init__(
        self,
        layer: TransactionLayer,
        method: str,
        branch: str,
        data: bytes,
        flow: Flow,
        user: ClientUser,
        cancel_data: bytes | None,
    ) -> None:
        super().__init__(layer, method, flow)
        self.branch = branch
        self.user = user
        self.reason = ""  # of the last on_timeout
        self.last_status = 0
        self._data = data  # what a timer sends again
        self._cancel_data = cancel_data
        self._ack = b""
        self._reasons: Sequence[tuple[str, str]] = ()
        self._narrow: tuple[Flow, bytes] | None = None  # the datagram that it goes by TCP instead of

    @property
    def sent(self) -> bytes:
        """The request as it left, until its final response has come."""
        return self._data

    def left_s(self, now: float) -> float:
        """How long it has until its state ends by itself; 0 where nothing ends it."""
        return 0.0 if self._end is None else max(self._end.deadline - now, 0.0)

    def ends_in(self, seconds: float, now: float) -> None:
        """Its state ends by itself after so long: a former process had waited for some time already."""
        if self._end is not None:
            self._end.cancel()
        self._end_after(seconds, now)

    def cancel(self, cancel_data: bytes | None, now: float, reasons: Sequence[tuple[str, str]] = ()) -> None:
        """Ask the peer to give up an INVITE (RFC 3261 §9.1): at once if it sent a provisional response, else with the
        first that comes. Nothing happens after a final response, a second time, or for another method.

        `cancel_data` is the CANCEL; None: the one given to `send`, or one built from the INVITE with the headers
        `reasons` (RFC 3326), whose syntax is the caller's care.
        """
        if cancel_data is not None:
            self._cancel_data = cancel_data
        if reasons:
            self._reasons = reasons
        self._step(t.CANCEL, None, now)

    def abandon(self, now: float) -> None:
        """Forget it: nothing is repeated or acknowledged any more, and `user` hears nothing."""
        self.user = NOBODY
        if self.state != t.TERMINATED:
            self._enter(t.TERMINATED, now)

    def fall_back(self, now: float) -> bool:
        """No connection for a request that was too long for a datagram: send it as one (RFC 3261 §18.1.1), with the
        timers of a datagram. False: it never was one, or has been answered."""
        if self._narrow is None or self.last_status or self.state not in _UNANSWERED:
            return False
        state = self.state
        self.flow, self._data = self._narrow
        self._narrow = self._cancel_data = None  # a CANCEL is built anew: its Via is that of the INVITE
        self._delays = self._layer.delays(self.flow)
        self.state = t.TERMINATED
        self._enter(state, now)
        self._layer.transmit(self.flow, self._data)
        return True

    def _step(self, event: int, message: Message | None, now: float) -> None:
        row = self._rows[self.state * t.EVENTS + event]
        if row is None:
            return
        state, actions = row
        before = self.state
        if event >= t.TIMER_A:
            self._note_timer(event)
        if state != before:
            self._enter(state, now)
        for action in actions:
            action(self, message, now)
        if self.state == t.TERMINATED:
            self.user = NOBODY

    def _receive(self, message: Message, now: float) -> None:
        status = message.status
        if self.state != t.COMPLETED:
            self.last_status = status
        self._step(t.PROVISIONAL if status < 200 else t.SUCCESS if status < 300 else t.FAILURE, message, now)

    def _note_timer(self, event: int) -> None:
        if event in _TIMEOUTS:
            self.reason, counter = _TIMEOUTS[event]
            self._layer.count(counter)

    def _leave(self) -> None:
        self._layer.forget_client(self)
        self._data = self._ack = b""
        self._cancel_data = self._narrow = None

    def _retransmit(self, message: Message | None, now: float) -> None:
        self._layer.count("RETRANSMISSION_OUT")
        self._layer.transmit(self.flow, self._data)

    def _release(self, message: Message | None, now: float) -> None:
        self._data = b""
        self._cancel_data = self._narrow = None

    def _send_ack(self, message: Message | None, now: float) -> None:
        if message is not None and not self._ack:
            self._ack = _of_invite(self._data, "ACK", message.get("To") or "")
            self._release(message, now)
        self._layer.transmit(self.flow, self._ack)

    def _send_cancel(self, message: Message | None, now: float) -> None:
        data = self._cancel_data or _of_invite(self._data, "CANCEL", None, self._reasons)
        self._layer.send("CANCEL", self.branch, data, self.flow, NOBODY, now)

    def _restart_c(self, message: Message | None, now: float) -> None:
        if message is not None and message.status == 100:
            return  # RFC 3261 §16.7 step 2: 101 to 199
        if self._end is not None:
            self._end.cancel()
        self._end_after(self._delays[t.TIMER_C], now)

    def _pass_up(self, message: Message | None, now: float) -> None:
        if message is not None:
            self.user.on_response(self, message, now)

    def _timed_out(self, message: Message | None, now: float) -> None:
        self.user.on_timeout(self, now)

    def _failed(self, message: Message | None, now: float) -> None:
        self.user.on_transport_error(self, now)


# What each timer that means failure is called, for the user and as a counter.
_TIMEOUTS: Final = {
    t.TIMER_B: ("B", "TIMER_B"),
    t.TIMER_C: ("C", "TIMER_C"),
    t.TIMER_F: ("F", "TIMER_F"),
    t.TIMER_CANCEL: ("CANCEL", "TIMER_CANCEL"),
}

_UNANSWERED: Final = frozenset((t.CALLING, t.CANCEL_PENDING, t.TRYING))

_ACTIONS: dict[int, Action[ClientTransaction]] = {
    t.RETRANSMIT: ClientTransaction._retransmit,
    t.DOUBLE: ClientTransaction._double,
    t.DOUBLE_TO_T2: ClientTransaction._double_to_t2,
    t.EVERY_T2: ClientTransaction._every_t2,
    t.ABSORB: ClientTransaction._absorb,
    t.SEND_ACK: ClientTransaction._send_ack,
    t.SEND_CANCEL: ClientTransaction._send_cancel,
    t.RESTART_C: ClientTransaction._restart_c,
    t.RELEASE: ClientTransaction._release,
    t.PASS_UP: ClientTransaction._pass_up,
    t.TIMED_OUT: ClientTransaction._timed_out,
    t.FAILED: ClientTransaction._failed,
}


class InviteClient(ClientTransaction):
    """RFC 3261 §17.1.1."""

    __slots__ = ()
    _rows: ClassVar[Rows[ClientTransaction]] = compile_rows(t.INVITE_CLIENT, _ACTIONS)
    _timers: ClassVar[Timers] = compile_timers(t.INVITE_CLIENT)


class NonInviteClient(ClientTransaction):
    """RFC 3261 §17.1.2."""

    __slots__ = ()
    _rows: ClassVar[Rows[ClientTransaction]] = compile_rows(t.NON_INVITE_CLIENT, _ACTIONS)
    _timers: ClassVar[Timers] = compile_timers(t.NON_INVITE_CLIENT)


def _of_invite(invite: bytes, method: str, to: str | None, further: Sequence[tuple[str, str]] = ()) -> bytes:
    """The ACK to a refusal of `invite` (§17.1.1.3), with the To of the refusal, or its CANCEL (§9.1)."""
    sent = Message.parse(invite)
    headers = [("Via", sent.get("Via") or ""), ("Max-Forwards", "70")]
    for name, value in sent.items():
        if name in _REPEATED:
            headers.append((name, value))
        elif name == "To":
            headers.append((name, value if to is None else to))
        elif name == "CSeq":
            headers.append((name, f"{sent.cseq_number} {method}"))
    headers += further
    return build_request(method, sent.uri, headers)
