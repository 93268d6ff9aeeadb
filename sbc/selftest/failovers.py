"""Rows R2: the master of a store dies, and sentinels or a cluster have a replica take its place."""

from __future__ import annotations

import statistics
import time

from sbc.selftest.measure import Measures
from sbc.selftest.node import wait
from sbc.selftest.replicated import Clustered, Replicated, Sentinelled
from sbc.selftest.row import Row
from sbc.selftest.site import Setup, Site
from sbc.selftest.stores import NEW, is_alarmed, setup_times

LIMIT_S = 90.0


def master_killed(site: Site, measures: Measures) -> None:
    """The replica that is promoted lacks the last writes; a worker that dies afterwards is followed from there."""
    store = site.store
    assert isinstance(store, Replicated)
    calls = site.establish(site.calls)
    usual = setup_times(calls)
    site.control(calls, measures)
    wait(lambda: len(store.call_keys()) == len(calls), 10, "a record of each call in the store")
    store.stop_replicas(True)
    unseen = site.establish(NEW // 2, talk=False)
    ended, calls = calls[:2], calls[2:]
    site.end(ended, measures, what="BYE before the death answered", max_s=1.0)
    fault_at, fault_s = time.time(), time.monotonic()
    former = store.kill_master()
    store.stop_replicas(False)
    new = site.establish(NEW // 2, talk=False)
    told_s = wait(lambda: is_alarmed(site, ""), 5, "an alarm in sbc status")
    new += site.establish(NEW // 2, talk=False)
    site.end(new[::2], measures, max_s=1.0)
    wait(lambda: store.master() not in (0, former), 30, "another master")
    measures.add("another master after", [time.monotonic() - fault_s])
    left = [*calls, *unseen, *new[1::2]]
    wait(lambda: len(store.call_keys()) == len(left), 30, "a record of each live call in the store")
    measures.add("all written again after", [time.monotonic() - fault_s], max_s=10.0)
    measures.add("alarm after", [told_s], max_s=2.0)
    measures.add("setup takes longer by", [max(0.0, max(setup_times(new)) - statistics.median(usual))], max_s=0.15)
    site.measure_gap(calls, fault_at, measures, max_s=0.15)
    died = site.node.kill("sip 0")
    site.node.back("sip 0", died)
    site.end(left, measures, what="BYE answered after a worker's death", max_s=1.0)
    site.settled(measures)


ROWS = (
    Row(
        "R2",
        "the master of the store is killed, sentinels promote a replica that lacks the last writes",
        "as R1 for at most 10 s; what was lost is written again, and survives a worker then",
        master_killed,
        Setup(own_store=Sentinelled),
        LIMIT_S,
    ),
    Row(
        "R2C",
        "the same in a cluster: the node of the cluster that has the keys is killed",
        "as R2",
        master_killed,
        Setup(own_store=Clustered),
        LIMIT_S,
    ),
)
