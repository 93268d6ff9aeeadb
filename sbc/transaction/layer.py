"""The transaction layer: which message belongs to which transaction (RFC 3261 §17.1.3, §17.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from sbc.sip._shard import peek_call_id
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction import tables as t
from sbc.transaction.client import ClientTransaction, ClientUser, InviteClient, NonInviteClient
from sbc.transaction.oversize import Oversize
from sbc.transaction.server import InviteServer, Key, NonInviteServer, ServerTransaction
from sbc.transaction.timers import Settings, TimerQueue

__all__ = ["ClientTransaction", "ClientUser", "ServerTransaction", "Settings", "TimerQueue", "TransactionLayer"]

_DATAGRAM: Final = frozenset({"udp"})  # transports that lose messages
Dress = Callable[[str, bytes, Flow], bytes]


class TransactionLayer:
    """All transactions of one core. `len` is how many live.

    `transmit(flow, data)` sends; `count(name)` counts: TRANSACTIONS, RETRANSMISSION_IN, RETRANSMISSION_OUT,
    STRAY_RESPONSE, STRAY_ACK, TIMER_B, TIMER_C, TIMER_F, TIMER_H, TIMER_CANCEL, OVERSIZE_TCP, OVERSIZE_FALLBACKS.
    `oversize` sends what is too long for a datagram by TCP; None: nothing is.
    """

    def __init__(
        self,
        timers: TimerQueue,
        settings: Settings,
        transmit: Callable[[Flow, bytes], None],
        count: Callable[[str], None],
        oversize: Oversize | None = None,
    ) -> None:
        self.timers = timers
        self.settings = settings
        self.transmit = transmit
        self.count = count
        self.oversize = oversize or Oversize()
        self.dress: Dress | None = None  # the last word on every request but ACK and CANCEL; None: there is none
        self._clients: dict[tuple[str, str], ClientTransaction] = {}  # by branch and method
        self._servers: dict[Key, ServerTransaction] = {}
        self._initial: dict[Key, ServerTransaction] = {}  # requests without To tag, for §8.2.2.2
        self._unreliable = t.durations(settings, reliable=False)
        self._reliable = t.durations(settings, reliable=True)

    def __len__(self) -> int:
        return len(self._clients) + len(self._servers)

    # Requests

    def receive_request(self, msg: Message, flow: Flow, now: float) -> ServerTransaction | None:
        """A new transaction, or None for what was absorbed: a request that came again (the last response leaves
        again) and the ACK to a refusal. Give ACK to :meth:`match_ack` first; one that matches nothing is counted.
        """
        method = msg.method
        if method == "ACK":
            if not self.match_ack(msg, now):
                self.count("STRAY_ACK")
            return None
        key = _server_key(msg, method)
        tx = self._servers.get(key)
        if tx is not None:
            tx._step(t.REQUEST, msg, now)
            return None
        merge_key = None
        if method != "CANCEL" and not msg.to_tag:
            merge_key = _merge_key(msg)
        tx = (InviteServer if method == "INVITE" else NonInviteServer)(self, msg, flow, key, merge_key)
        self._servers[key] = tx
        if merge_key is not None:
            self._initial.setdefault(merge_key, tx)
        self.count("TRANSACTIONS")
        tx._enter(t.PROCEEDING if method == "INVITE" else t.TRYING, now)
        return tx

    def answered(self, response: Message, flow: Flow, now: float) -> None:
        """Take up the transaction of an INVITE that a former process has answered with this 2xx: should the INVITE
        come again, it is absorbed here rather than taken for a new call. Without a unique branch there is no telling.
        """
        key = response.transaction_key("INVITE")
        if key and key not in self._servers:
            tx = InviteServer(self, response, flow, key, None)
            self._servers[key] = tx
            tx.answered_before(now)

    def knows(self, msg: Message) -> bool:
        """Whether the request belongs to a live server transaction: it is a retransmission."""
        return _server_key(msg, msg.method) in self._servers

    def call_ids(self, *, pending: bool = False, besides: str = "") -> set[bytes]:
        """The Call-IDs of all transactions, or of those alone that have no final answer yet; ``besides`` is a method
        whose transactions do not count."""
        found = set()
        for server in self._servers.values():
            if (pending and server.last_status >= 200) or server.method == besides:
                continue
            if server._data:
                found.add(peek_call_id(server._data))
            elif server.request is not None:
                found.add(server.request.call_id.encode("utf-8", "surrogateescape"))
        for client in self._clients.values():
            if client._data and not (pending and client.last_status >= 200) and client.method != besides:
                found.add(peek_call_id(client._data))
        return {call_id for call_id in found if call_id is not None}

    def match_ack(self, msg: Message, now: float | None = None) -> bool:
        """True: the ACK belongs to a refused INVITE and was absorbed; else it is a dialog's. Without `now`, the time
        is that of the timer queue."""
        tx = self._servers.get(_server_key(msg, "INVITE"))
        if tx is None or not tx.acknowledged_by(msg):
            return False
        tx._step(t.ACK, msg, self.timers.now if now is None else now)
        return True

    def invite_for_cancel(self, msg: Message) -> ServerTransaction | None:
        """The INVITE that a CANCEL means (§9.2), in whatever state it is; None: answer 481."""
        return self._servers.get(_server_key(msg, "INVITE"))

    def is_merged(self, msg: Message) -> bool:
        """The same request came by another path and its transaction still lives (§8.2.2.2): answer 482. May be asked
        before or after :meth:`receive_request`; constant time."""
        if msg.to_tag or msg.method in ("ACK", "CANCEL"):
            return False
        other = self._initial.get(_merge_key(msg))
        return other is not None and other.key != _server_key(msg, msg.method)

    # Responses

    def receive_response(self, msg: Message, flow: Flow, now: float) -> bool:
        """Give the response to its client transaction; False: there is none (counted)."""
        tx = self._clients.get((msg.branch, msg.cseq_method))
        if tx is None:
            self.count("STRAY_RESPONSE")
            return False
        tx._receive(msg, now)
        return True

    def send(
        self,
        method: str,
        branch: str,
        data: bytes,
        flow: Flow,
        user: ClientUser,
        now: float,
        *,
        cancel_data: bytes | None = None,
    ) -> ClientTransaction:
        """Send a request other than ACK, whose top Via carries `branch`, and see to its answer.

        Raises ValueError where a live transaction has that branch and method.
        """
        key = (branch, method)
        if key in self._clients:
            raise ValueError(f"{method} with branch {branch} is under way already")
        invite = method == "INVITE"
        if self.dress is not None:
            data = self.dress(method, data, flow)
        narrow = None
        if len(data) > self.oversize.least_bytes and (wide := self._widened(flow, data, now)) is not None:
            narrow = (flow, data)
            flow, data = wide
        tx = (InviteClient if invite else NonInviteClient)(self, method, branch, data, flow, user, cancel_data)
        tx._narrow = narrow
        self._clients[key] = tx
        self.count("TRANSACTIONS")
        tx._enter(t.CALLING if invite else t.TRYING, now)
        self.transmit(flow, data)
        return tx

    def has_sent(self, branch: str) -> bool:
        """Whether an INVITE of ours with this branch is under way."""
        return (branch, "INVITE") in self._clients

    def taken_up(
        self, invite: Message, flow: Flow, user: ClientUser, now: float, state: int = t.PROCEEDING
    ) -> ClientTransaction:
        """The transaction of an INVITE that a former process sent, as if a provisional response had come. `invite` has
        what ACK and CANCEL repeat of it; in state Calling it is the INVITE itself. Raises ValueError as :meth:`send`
        does."""
        key = (invite.branch, "INVITE")
        if key in self._clients:
            raise ValueError(f"INVITE with branch {invite.branch} is under way already")
        tx = InviteClient(self, "INVITE", invite.branch, invite.raw, flow, user, None)
        self._clients[key] = tx
        self.count("TRANSACTIONS")
        tx._enter(state, now)
        return tx

    def send_ack(self, data: bytes, flow: Flow, now: float) -> None:
        """Send the ACK to a 2xx, which has no transaction (§13.2.2.4)."""
        wide = self._widened(flow, data, now, ack=True) if len(data) > self.oversize.least_bytes else None
        self.transmit(*(wide or (flow, data)))

    def _widened(self, flow: Flow, data: bytes, now: float, *, ack: bool = False) -> tuple[Flow, bytes] | None:
        wide = self.oversize.widened(flow, data, now, ack=ack)
        if wide is not None:
            self.count("OVERSIZE_TCP")
        return wide

    # Transport

    def transport_failed(self, flow: Flow, now: float) -> None:
        """Nothing can be sent along `flow`: every transaction that would ends, and its user is told, unless its request
        can go as a datagram instead. Linear in the number of transactions: report a flow once, not once per datagram.
        """
        hit: list[ClientTransaction | ServerTransaction] = []
        for client in [tx for tx in self._clients.values() if tx.flow == flow]:
            if client.fall_back(now):
                self.count("OVERSIZE_FALLBACKS")
                self.oversize.refused(flow, now)
            else:
                hit.append(client)
        self.oversize.lost(flow, now)
        hit += [tx for tx in self._servers.values() if tx.flow == flow]
        for tx in hit:
            tx._step(t.TRANSPORT_ERROR, None, now)

    def silence(self, call_ids: Collection[str], now: float) -> None:
        """Nothing more is sent in these calls: requests of ours are forgotten, and what is owed an answer gets none.
        Linear in the number of transactions."""
        lines = [f"\r\nCall-ID: {it}\r\n".encode("utf-8", "surrogateescape") for it in call_ids]
        for client in [tx for tx in self._clients.values() if any(line in tx.sent for line in lines)]:
            client.abandon(now)
        for server in list(self._servers.values()):
            if server.request is not None and server.request.call_id in call_ids:
                server.forsake(now)

    # For the transactions

    def delays(self, flow: Flow) -> tuple[float, ...]:
        """Seconds of each timer along this flow."""
        return self._unreliable if flow.transport in _DATAGRAM else self._reliable

    def forget_client(self, tx: ClientTransaction) -> None:
        """`tx` has ended."""
        del self._clients[tx.branch, tx.method]

    def forget_server(self, tx: ServerTransaction, merge_key: Key | None) -> None:
        """`tx` has ended."""
        del self._servers[tx.key]
        if merge_key is not None and self._initial.get(merge_key) is tx:
            del self._initial[merge_key]


def _server_key(msg: Message, method: str) -> Key:
    """§17.2.3, for the transaction that was created by `method`: INVITE for its ACK and CANCEL."""
    key = msg.transaction_key(method)
    if key:
        return key
    # RFC 2543. The To tag stands in for requests within a dialog; INVITE goes without: its ACK carries another.
    to_tag = "" if method == "INVITE" else msg.to_tag
    return (method, msg.came.uri, msg.call_id, msg.cseq_number, msg.from_tag, to_tag, msg.get("Via"))


def _merge_key(msg: Message) -> Key:
    # The Request-URI is not in §8.2.2.2, whose UA is one user. We stand for many: a proxy that forks to two phones
    # behind us sends two requests that differ in nothing else.
    return (msg.call_id, msg.from_tag, msg.cseq_number, msg.method, msg.uri)
