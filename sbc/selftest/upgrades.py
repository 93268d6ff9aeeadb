"""Rows PU and PUD: another release for a pair, by the book; and a death between the two halves of that."""

from __future__ import annotations

import time
from pathlib import Path

from sbc.b2bua import records, snapshot
from sbc.management.client import ManagementError
from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import wait
from sbc.selftest.pair import PairSite, needs_root
from sbc.selftest.pairs import AGE_S, AUDIO_S, on_pair, silent
from sbc.selftest.row import Row
from sbc.selftest.site import Setup
from sbc.selftest.traffic import Traffic

LATER = "999.0"
TRAFFIC_S = 0.1
UPGRADED_S = 120.0
GAP_S = 0.2
LEFT_S = 5.0  # of calls that nobody has
LEFT = "a record of a later release is left where it is"


def pair_upgraded(two: PairSite, measures: Measures) -> None:
    """The later release writes records of a later format, so half-way there is no way back, and the nodes say so."""
    calls = two.establish(two.calls)
    two.control(calls, measures)
    two.ready()
    time.sleep(AGE_S)
    former, other = two.active, two.other
    with Traffic(two, interval_s=TRAFFIC_S) as traffic:
        fault_at = time.time()
        _upgrade(two, other, measures)
        measures.add("ready again after the passive node", [two.ready()])
        two.measure_gap(calls, fault_at, measures, max_s=GAP_S, what="gap, passive node")

        fault_at = time.time()
        two.switch()
        two.taken_over()
        two.heard_again(calls, time.time(), AUDIO_S)
        time.sleep(1.0)
        two.measure_gap(calls, fault_at, measures, max_s=GAP_S, what="gap, planned switch")
        _expect_refusal(two, measures)

        fault_at = time.time()
        _upgrade(two, former, measures)
        measures.add("ready again after the other node", [two.ready()])
        two.measure_gap(calls, fault_at, measures, max_s=GAP_S, what="gap, other node")
    lost = [*traffic.failed, *traffic.silent]
    measures.add("setup meanwhile", (call.asked["INVITE"].took_s for call in traffic.answered))
    measures.note(f"run {measures.runs}: setups lost {len(lost)} of {len(traffic.placed)}")
    measures.expect(not lost, f"{len(lost)} of {len(traffic.placed)} new calls failed")
    measures.expect(all(bye.status == 200 for bye in traffic.byes), "a BYE was refused")
    measures.expect(two.roles() == {former: "passive", other: "active"}, f"roles in the end: {two.roles()}")
    versions = {row["version"] for node in two.nodes.values() for row in node.patient("status")["processes"]}
    measures.expect(versions == {LATER}, f"processes are of the releases {', '.join(sorted(versions))}")
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


def node_dies_half_way(two: PairSite, measures: Measures) -> None:
    """The active node has a later release, and dies; the other one cannot read the records of its calls, until it gets
    that release as well."""
    source = Path(snapshot.__file__).with_name("snapshot.py").read_text()
    known = f"VERSION: Final = {snapshot.VERSION}"
    spoil = ("sbc/b2bua/snapshot.py", source.replace(known, f"VERSION: Final = {snapshot.VERSION + 1}"))
    died, other = two.other, two.active
    _upgrade(two, died, measures, spoil)
    two.ready()
    two.switch()
    two.taken_over()
    wait(lambda: two.role(other) == "passive", 30, f"{other} is passive")
    calls = two.establish(two.calls)
    two.control(calls, measures)
    wait(lambda: bool(two.status(other)["media"]["synced"]), 30, "media sessions are kept ready")
    time.sleep(AGE_S)
    _expect_refusal(two, measures)
    fault_at, fault_s = time.time(), time.monotonic()
    two.die(died)
    two.taken_over()
    measures.add("active after", [time.monotonic() - fault_s], max_s=1.5)
    two.heard_again(calls, time.time(), AUDIO_S)
    time.sleep(LEFT_S)
    two.measure_gap(calls, fault_at, measures, max_s=2.0)
    measures.expect(bool(two.node.logged(LEFT)), "the log does not say that records are left in the store")
    measures.expect(not two.recorded(), "there are records of calls that are up")
    fault_at = time.time()
    _upgrade(two, other, measures, spoil)
    wait(lambda: len(two.node.calls()) == len(calls), 30, "all calls at the node with the later release")
    measures.expect(not silent(calls, time.time()), "calls have no audio after the second upgrade")
    two.measure_gap(calls, fault_at, measures, max_s=1.0, what="gap, second upgrade")
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


def _upgrade(two: PairSite, name: str, measures: Measures, spoil: tuple[str, str] | None = None) -> None:
    node, releases = two.nodes[name], two.releases[name]
    releases.install(
        LATER, spoil=spoil or ("sbc/b2bua/records.py", f"{Path(records.__file__).read_text()}\nFORMAT += 1\n")
    )
    began_s = time.monotonic()
    outcome = releases.take_over(node.folder, node.main_pid, UPGRADED_S)
    if outcome["state"] != "done":
        raise Failed(f"the upgrade of {name} is {outcome['state']}: {'; '.join(outcome['reasons'])}")
    measures.add("upgraded after", [time.monotonic() - began_s])


def _expect_refusal(two: PairSite, measures: Measures) -> None:
    """A switch back to the former release, which could not read the records by now."""
    said = ""
    try:
        two.node_half.ha("switch")
    except ManagementError as error:
        said = str(error)
    measures.expect("former release" in said, f"a switch back to a former release: {said or 'it was done'}")
    why = "; ".join(two.status(two.other).get("why_not", []))
    measures.expect("former release" in why, f"sbc ha status of the node with the former release: {why or 'ready'}")


ROWS = (
    Row(
        "PU",
        "a pair gets another release: the passive node, a planned switch, the other node",
        "no call and no setup of ten a second is lost, gap at most 200 ms; a switch back to the former release, which "
        "could not read the records, is refused in words",
        on_pair(pair_upgraded),
        Setup(pair=True, releases=True),
        limit_s=400.0,
        check=needs_root,
    ),
    Row(
        "PUD",
        "the node with the later release dies before the other one has it, and then gets it",
        "the other one is active within 1.5 s, and serves; it leaves the records that it cannot read, and says so: "
        "audio of these calls goes on, and with the later release it has them all, each with one record in the end",
        on_pair(node_dies_half_way),
        Setup(pair=True, releases=True),
        limit_s=400.0,
        check=needs_root,
    ),
)
