"""A client's and a server's layer against each other, over a network that loses, doubles and reorders.

Whatever the network does: every transaction ends, both layers are empty after, and each user got one outcome.
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbc.sip.build import reply_to
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.transaction.client import ClientTransaction
from sbc.transaction.layer import TransactionLayer
from sbc.transaction.server import InviteServer, ServerTransaction
from sbc.transaction.timers import Settings, TimerQueue
from tests.unit.transaction.rig import UDP, request

HORIZON_S = 600.0  # longer than Timer C, CANCEL's 64*T1 and Timer D together


class World:
    """Both sides, the network between them, and one clock."""

    def __init__(self, chance: Random, loss: float, double: float, slowest_s: float, silent_from_s: float) -> None:
        self.chance = chance
        self.silent_from_s = silent_from_s  # from then on nothing comes back from the server
        self.loss, self.double, self.slowest_s = loss, double, slowest_s
        self.now = 0.0
        self.timers = TimerQueue()
        self.wire: list[tuple[float, int, bool, bytes]] = []
        self.serial = 0
        config = Settings(timer_c_s=60.0)
        self.client = TransactionLayer(self.timers, config, self.to_server, self.uncounted)
        self.server = TransactionLayer(self.timers, config, self.to_client, self.uncounted)
        self.served: dict[tuple[str, str], list[float]] = {}

    def uncounted(self, name: str) -> None: ...

    def to_server(self, flow: Flow, data: bytes) -> None:
        self.put(True, data)

    def to_client(self, flow: Flow, data: bytes) -> None:
        if self.now < self.silent_from_s:
            self.put(False, data)

    def put(self, to_server: bool, data: bytes) -> None:
        assert data, "nothing was sent as a datagram"
        for _ in range(2 if self.chance.random() < self.double else 1):
            if self.chance.random() >= self.loss:
                self.serial += 1
                arrival = self.now + self.chance.uniform(0, self.slowest_s)
                heapq.heappush(self.wire, (arrival, self.serial, to_server, data))

    def run(self) -> None:
        while self.now < HORIZON_S:
            deadline = self.timers.next_deadline()
            arrival = self.wire[0][0] if self.wire else None
            if deadline is None and arrival is None:
                return
            if arrival is not None and (deadline is None or arrival <= deadline):
                _, _, to_server, data = heapq.heappop(self.wire)
                self.now = max(self.now, arrival)
                (self.serve if to_server else self.take)(Message.parse(data))
            elif deadline is not None:
                self.now = max(self.now, deadline)
                self.timers.fire(self.now)

    def take(self, msg: Message) -> None:
        self.client.receive_response(msg, UDP, self.now)

    def serve(self, msg: Message) -> None:
        """The server's user: rings, then answers; repeats its 2xx as a dialog does."""
        if msg.method == "ACK":
            self.server.match_ack(msg, self.now)
            return
        tx = self.server.receive_request(msg, UDP, self.now)
        if tx is None:
            return
        self.served.setdefault((msg.method, msg.branch), []).append(self.now)
        if msg.method == "CANCEL":
            invite = self.server.invite_for_cancel(msg)
            self.answer(tx, 200 if invite else 481)
            if invite is not None:
                self.answer(invite, 487)  # discarded where a final response was given
        elif msg.method == "INVITE":
            self.answer(tx, 100)
            self.later(2.0, tx, 180)
            self.later(8.0, tx, self.chance.choice([200, 486, 503]))
        else:
            self.later(6.0, tx, self.chance.choice([200, 404]))

    def later(self, most_s: float, tx: ServerTransaction, status: int) -> None:
        self.timers.start(self.chance.uniform(0, most_s), lambda now: self.answer(tx, status), self.now)

    def give_up_later(self, tx: ClientTransaction) -> None:
        self.timers.start(self.chance.uniform(0, 12), lambda now: tx.cancel(None, now), self.now)

    def answer(self, tx: ServerTransaction, status: int) -> None:
        if status < 200 and tx.last_status >= 200:
            return
        data = reply_to(tx.request, status, to_tag="" if status == 100 else "b", received=None)
        before = tx.last_status
        tx.respond(status, data, self.now)
        if isinstance(tx, InviteServer) and tx.last_status == 200 and before < 200:
            self.repeat(tx, data, 0.5)

    def repeat(self, tx: ServerTransaction, data: bytes, interval_s: float) -> None:
        def again(now: float) -> None:
            if not tx.terminated:
                tx.respond(200, data, now)
                self.repeat(tx, data, min(4.0, interval_s * 2))

        self.timers.start(interval_s, again, self.now)


class Caller:
    """The client's user: gives up at random, cancels when it rings too long, and keeps what it was told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.finals: list[int] = []
        self.timeouts: list[str] = []

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        if msg.status >= 200:
            self.finals.append(msg.status)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        if tx.reason == "C":
            tx.cancel(None, now)
        else:
            self.timeouts.append(tx.reason)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        raise AssertionError("no transport failed")

    def assert_one_outcome(self, method: str) -> None:
        if self.timeouts:
            assert len(self.timeouts) == 1
            assert not self.finals
        elif method == "INVITE" and self.finals[:1] == [200]:
            assert set(self.finals) == {200}
        else:
            assert len(self.finals) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]),
    double=st.sampled_from([0.0, 0.3]),
    slowest_s=st.sampled_from([0.0, 0.2, 3.0]),
    silent_from_s=st.sampled_from([HORIZON_S, 0.7, 3.0]),
    methods=st.lists(st.tuples(st.sampled_from(["INVITE", "OPTIONS"]), st.booleans()), min_size=1, max_size=6),
)
def test_every_transaction_ends_with_one_outcome(
    seed: int, loss: float, double: float, slowest_s: float, silent_from_s: float, methods: list[tuple[str, bool]]
) -> None:
    world = World(Random(seed), loss, double, slowest_s, silent_from_s)
    callers = []
    for number, (method, gives_up) in enumerate(methods):
        branch = f"z9hG4bK{number}"
        data = request(method, branch, call_id=f"call{number}")
        caller = Caller(world)
        tx = world.client.send(method, branch, data, UDP, caller, world.now)
        callers.append((method, caller))
        if gives_up:
            world.give_up_later(tx)
    world.run()

    assert world.now < HORIZON_S
    assert len(world.client) == 0
    assert len(world.server) == 0
    assert len(world.timers) == 0
    for method, caller in callers:
        caller.assert_one_outcome(method)
        if loss == 0 and silent_from_s == HORIZON_S:
            assert caller.finals, "nothing was lost, so an answer came"
        if loss == 1:
            assert caller.timeouts == (["B"] if method == "INVITE" else ["F"])
    for times in world.served.values():
        # A copy that the network held back beyond Timer J is a new request to any server (RFC 3261 §17.2.2).
        assert all(later - earlier >= 64 * 0.5 for earlier, later in pairwise(times)), (
            "a retransmission reached the user"
        )
