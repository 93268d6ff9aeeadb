"""Rows R2P and P7R: faults of a pair whose store lies on its own two machines, and sentinels watch it."""

from __future__ import annotations

import time
from typing import Any

from sbc.selftest.background import Background
from sbc.selftest.measure import Measures
from sbc.selftest.node import wait
from sbc.selftest.pair import PairSite, needs_root
from sbc.selftest.pairs import AFTER_S, AUDIO_S, node_dies, on_pair
from sbc.selftest.replicated import DOWN_AFTER_MS
from sbc.selftest.row import Row
from sbc.selftest.site import Setup
from sbc.selftest.traffic import Traffic

TRAFFIC_S = 0.1
POLL_S = 0.05
ANOTHER_S = 10.0
ACTIVE_S, GAP_S = 5.0, 6.0


class Told(Background):
    """What ``sbc ha status`` of both nodes says, and what each takes itself for, until the end of the block."""

    def __init__(self, two: PairSite) -> None:
        super().__init__()
        self.sentences: dict[str, set[str]] = {name: set() for name in two.nodes}
        self.roles: dict[str, set[str]] = {name: set() for name in two.nodes}
        self._two = two

    def has(self, name: str, *parts: str) -> bool:
        """Whether a sentence of this node had one of these in it."""
        return any(part in sentence for sentence in self.sentences[name] for part in parts)

    def _run(self) -> None:
        while self._running:
            for name in self._two.nodes:
                found: dict[str, Any] = self._two.status(name)  # Any: JSON values
                if found:
                    self.sentences[name].update(found["why_not"])
                    self.roles[name].add(found["role"])
            time.sleep(POLL_S)


def master_dies(two: PairSite, measures: Measures) -> None:
    """kill -9 of the server of the active node, which is the master; then it is started again, empty."""
    store = two.watched
    assert store is not None
    calls = two.begun(measures)
    active, other = two.active, two.other
    wait(lambda: len(store.call_keys(other)) == len(calls), 10, "a record of each call in the replica")
    fault_at, fault_s = time.time(), time.monotonic()
    with Told(two) as told, Traffic(two, interval_s=TRAFFIC_S) as traffic:
        store.kill(active)
        wait(lambda: store.master() == other and store.leads(other), 30, "another master")
        measures.add("another master after", [time.monotonic() - fault_s])
        wait(lambda: "held here" in str(two.status(active).get("lease")), 10, "the lease in the other server")
        measures.add("lease held again after", [time.monotonic() - fault_s], max_s=ANOTHER_S)
        time.sleep(1.0)
    two.measure_gap(calls, fault_at, measures, max_s=0.15)
    wait(lambda: len(store.call_keys(other)) == len(calls), 10, "a record of each live call in the other server")
    measures.expect(told.roles == {active: {"active"}, other: {"passive"}}, f"roles meanwhile: {told.roles}")
    for name in (active, other):
        measures.expect(told.has(name, "store"), f"sbc ha status of {name} says nothing of the store")
    lost = [*traffic.failed, *traffic.silent]
    measures.expect(not lost, f"{len(lost)} of {len(traffic.placed)} new calls failed")
    measures.expect(all(bye.status == 200 for bye in traffic.byes), "a BYE was refused")
    measures.add("setup meanwhile", (call.asked["INVITE"].took_s for call in traffic.answered))
    said = "; ".join(two.status(active).get("why_not", []))
    measures.expect("replica" in said, f"without a replica sbc ha status says: {said or 'HA ready'}")
    store.serve(active)
    measures.add("ready again after", [two.ready()])
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


def node_dies_with_master(two: PairSite, measures: Measures) -> None:
    """As P7; the server of that node, the master, and its sentinel die with it. Then the machine returns."""
    store = two.watched
    assert store is not None
    died, other = two.active, two.other
    with Told(two) as told:
        node_dies(two, measures, ACTIVE_S, GAP_S, GAP_S)
    measures.note(f"run {measures.runs}: sbc ha status meanwhile: {'; '.join(sorted(told.sentences[other]))}")
    measures.expect(told.has(other, f"{died} is not heard"), f"sbc ha status does not say that {died} is not heard")
    measures.expect(told.has(other, "the store does not answer"), "sbc ha status says nothing of the store")
    measures.expect(store.master() == other, f"the master is that of {store.master() or 'nobody'}")
    two.mend(died)
    store.serve(died)
    store.watch(died)
    two.nodes[died].start()
    measures.add("ready again after", [two.ready()])
    measures.expect(two.roles() == {died: "passive", other: "active"}, f"roles in the end: {two.roles()}")


def node_cut_off(two: PairSite, measures: Measures) -> None:
    """The active node, with the master and a sentinel, is cut off from the rest of the store and from the other node.
    It lives, callers reach it, and its server goes on answering it."""
    store = two.watched
    assert store is not None
    calls = two.begun(measures)
    former, other = two.active, two.other
    fault_at, fault_s = time.time(), time.monotonic()
    store.isolate(former, True)
    two.cut(former, beats=True)
    span = two.one_owner(former, other)
    measures.add("both own the address", [span.seconds], max_s=1.0)
    two.taken_over()
    measures.add("active after", [time.monotonic() - fault_s], max_s=ACTIVE_S)
    two.heard_again(calls, time.time(), AUDIO_S)
    time.sleep(AFTER_S)
    two.measure_gap(calls, fault_at, measures, max_s=GAP_S)
    said = "; ".join(two.status(former).get("why_not", []))
    measures.note(f"run {measures.runs}: sbc ha status of the node that is cut off: {said}")
    measures.expect("is not heard" in said and "store" in said, "sbc ha status does not say what the node has lost")
    two.cut(former)
    store.isolate(former, False)
    measures.add("ready again after", [two.ready()])
    measures.expect(two.roles() == {former: "passive", other: "active"}, f"roles in the end: {two.roles()}")
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


WATCHED = Setup(pair=True, watched=True)

ROWS = (
    Row(
        "R2P",
        "a store on the two nodes, watched by sentinels: the server of the active node, the master, is killed",
        "the active node stays so, no call notices, new ones come up; the lease is held again within 10 s; sbc ha "
        "status says that the store is away, and then that it has no replica",
        on_pair(master_dies),
        WATCHED,
        limit_s=120.0,
        check=needs_root,
    ),
    Row(
        "P7R",
        "such a pair: the active node dies together with the master of the store and a sentinel",
        f"the other one is active within {ACTIVE_S:g} s, once sentinels have promoted its server ({DOWN_AFTER_MS} ms "
        "and an election); no call is lost; limits and registrations are there; each call has exactly one record",
        on_pair(node_dies_with_master),
        WATCHED,
        limit_s=150.0,
        check=needs_root,
    ),
    Row(
        "P8R",
        "such a pair: the active node, with the master, is cut off from the rest of the store and the other node",
        f"it falls silent although its own server answers it; the other one is active within {ACTIVE_S:g} s; both have "
        "the address for 1 s at most; no call is lost or has two records",
        on_pair(node_cut_off),
        WATCHED,
        limit_s=150.0,
        check=needs_root,
    ),
)
