"""Rows P7 to P10: faults of a pair of nodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import wait
from sbc.selftest.pair import SMALL_CALLS, PairSite, needs_root
from sbc.selftest.ringing import CALLS as RINGING
from sbc.selftest.ringing import rang_on
from sbc.selftest.row import Row, Run
from sbc.selftest.site import Call, Setup, Site
from sbc.selftest.traffic import Traffic

AGE_S = 1.0  # a call in its first second may be lost
AUDIO_S = 10.0
AFTER_S = 0.5
HELD, ENDED = 1000, 50  # calls without audio of P10R, and how many of them end at once
RETURNED_S = 0.5  # a node that starts takes a processor, of a machine that is both nodes and all callers


def on_pair(run: Callable[[PairSite, Measures], None]) -> Run:
    """A run that has two nodes."""

    def ran(site: Site, measures: Measures) -> None:
        assert isinstance(site, PairSite)
        run(site, measures)

    return ran


def active_one_dies(
    two: PairSite, calls: Sequence[Call], measures: Measures, active_s: float = 1.5
) -> tuple[float, float]:
    """kill -9 of every process of the active node, and its link down, once calls are old enough and the other node is
    ready; that one is active within the limit. When it was, by the wall clock and by the monotonic one."""
    two.control(calls, measures)
    two.ready()
    time.sleep(AGE_S)
    fault_at = time.time()
    died_s = two.die(two.active)
    two.taken_over()
    measures.add("active after", [time.monotonic() - died_s], max_s=active_s)
    return fault_at, died_s


def node_dies(
    two: PairSite, measures: Measures, active_s: float = 1.5, gap_s: float = 2.0, gap_p50_s: float = 1.5
) -> None:
    """The active node dies. The other one is active, and audio back, within the limits."""
    filled = two.fill_up()
    measures.expect(len(filled) == SMALL_CALLS, f"a customer with {SMALL_CALLS} channels has {len(filled)}")
    phone = two.register()
    calls = two.establish(two.calls)
    fault_at, died_s = active_one_dies(two, calls, measures, active_s)
    measures.add("answers after", [two.answers(since_s=died_s)])
    lost = silent(calls, time.time())
    time.sleep(AFTER_S)
    two.measure_gap([call for call in calls if call not in lost], fault_at, measures, max_s=gap_s, p50_s=gap_p50_s)
    measures.note(f"run {measures.runs}: calls lost {len(lost)} of {len(calls)}")
    measures.expect(not lost, f"{len(lost)} of {len(calls)} calls have no audio")
    more = two.fill_up()
    measures.expect(not more, f"a customer with {len(filled)} calls gets {len(more)} more than he may have")
    measures.expect(two.reaches_phone(phone), "a registered phone is not reached through the other node")
    ended = [two.ends.small.hang_up(call) for call in [*filled, *more]]
    wait(lambda: all(one.status == 200 for one in ended), 35, "an answer to each BYE of a customer with few channels")
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


def paths_cut(two: PairSite, measures: Measures) -> None:
    """The nodes do not hear each other; then the active one does not reach the store either."""
    calls = two.begun(measures)
    former, other = two.active, two.other
    fault_at = time.time()
    two.cut(former, beats=True)
    time.sleep(2.5)
    measures.expect(two.roles() == {former: "active", other: "passive"}, f"roles after the cut: {two.roles()}")
    two.measure_gap(calls, fault_at, measures, max_s=0.15, what="gap, paths cut")

    fault_at, fault_s = time.time(), time.monotonic()
    two.cut(former, beats=True, store=True)
    span = two.one_owner(former, other)
    measures.add("both own the address", [span.seconds], max_s=1.0)
    two.taken_over()
    measures.add("active after", [time.monotonic() - fault_s])
    two.heard_again(calls, time.time(), AUDIO_S)
    time.sleep(AFTER_S)
    two.measure_gap(calls, fault_at, measures, max_s=3.0, what="gap, store cut too")
    two.cut(former)
    measures.add("ready again after", [two.ready()])
    measures.expect(two.roles() == {former: "passive", other: "active"}, f"roles in the end: {two.roles()}")
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


def planned_switch(two: PairSite, measures: Measures) -> None:
    """By order, while calls are set up and end, and others ring."""
    calls = two.begun(measures)
    ringing = two.ring(RINGING)
    time.sleep(AGE_S)
    with Traffic(two) as traffic:
        time.sleep(1.0)
        fault_at, fault_s = time.time(), time.monotonic()
        two.switch()
        two.taken_over()
        measures.add("active after", [time.monotonic() - fault_s])
        two.heard_again(calls, time.time(), AUDIO_S)
        time.sleep(1.0)
        two.measure_gap(calls, fault_at, measures, max_s=0.2)
    lost = [*traffic.failed, *traffic.silent]
    measures.add("setup meanwhile", (call.asked["INVITE"].took_s for call in traffic.answered))
    measures.note(f"run {measures.runs}: setups lost {len(lost)} of {len(traffic.placed)}")
    refused = dict(Counter(call.asked["INVITE"].status for call in lost))
    measures.expect(not lost, f"{len(lost)} of {len(traffic.placed)} new calls failed, by status: {refused}")
    measures.expect(all(bye.status == 200 for bye in traffic.byes), "a BYE was refused")
    calls += rang_on(two, ringing, measures)
    measures.add("ready again after", [two.ready()])
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


def node_returns(two: PairSite, measures: Measures, held: int = 0) -> None:
    """The node that had died is started again, while calls come and go, and then has to serve. It also has to take in
    ``held`` calls without audio."""
    quiet = two.establish(held, talk=False)
    calls = two.establish(two.calls)
    two.ready()
    time.sleep(AGE_S)
    died = two.active
    two.die(died)
    two.taken_over()
    two.heard_again(calls, time.time(), AUDIO_S)
    time.sleep(AFTER_S)
    two.mend(died)
    two.control(calls, measures)
    with Traffic(two) as traffic:
        fault_at, fault_s = time.time(), time.monotonic()
        two.nodes[died].start()
        measures.add("started after", [time.monotonic() - fault_s])
        two.ready()
        measures.add("ready after", [time.monotonic() - fault_s], max_s=10.0)
        time.sleep(AFTER_S)
        measures.expect(two.role(died) == "passive", f"the node that returned is {two.role(died)}")
        measures.expect(not two.holds(died), "the node that returned has taken the addresses")
        two.measure_gap(calls, fault_at, measures, max_s=RETURNED_S)
    measures.add("setup meanwhile", (call.asked["INVITE"].took_s for call in traffic.answered))
    measures.expect(not traffic.failed and not traffic.silent, "new calls failed as the node returned")
    two.switch()
    two.taken_over()
    two.heard_again(calls, time.time(), AUDIO_S)
    two.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    for first in range(0, held, ENDED):
        two.end(quiet[first : first + ENDED], measures, what="BYE answered, calls without audio", max_s=1.0)
    two.settled(measures)


def silent(calls: Sequence[Call], since: float) -> list[Call]:
    """Those of which some direction brings nothing after ``since`` (wall clock)."""

    def left() -> list[Call]:
        return [call for call in calls if not all(stream.heard_since(since, 5) for stream in call.streams)]

    try:
        wait(lambda: not left(), AUDIO_S, "audio in each call")
    except Failed:
        return left()
    return []


PAIR = Setup(pair=True)

ROWS = (
    Row(
        "P7",
        "the active one of two nodes dies, processes and link",
        "the other one is active within 1.5 s; no call is lost, gap at most 2 s (max), 1.5 s (p50), RTP and SRTP; "
        "limits and registrations are there; each call has exactly one record",
        on_pair(node_dies),
        PAIR,
        check=needs_root,
    ),
    Row(
        "P8",
        "the paths between two nodes are cut, then the active one's way to the store",
        "paths alone: nothing changes; then both have the address for 1 s at most, one of them in the end; no call is "
        "lost or has two records",
        on_pair(paths_cut),
        PAIR,
        check=needs_root,
    ),
    Row(
        "P9",
        "a planned switch while 20 calls a second are set up, and 20 ring",
        "gap at most 200 ms, RTP and SRTP; no call and no setup is lost, what rings goes on ringing",
        on_pair(planned_switch),
        PAIR,
        check=needs_root,
    ),
    Row(
        "P10",
        "the node that had died returns, while calls come and go",
        "it is ready within 10 s of its start, stands by and disturbs nobody; then it serves by order",
        on_pair(node_returns),
        PAIR,
        limit_s=120.0,
        check=needs_root,
    ),
    Row(
        "P10R",
        f"as P10, with {HELD} more calls that it has to take in",
        "as P10: it is ready within 10 s, and new calls and audio notice nothing of it",
        on_pair(partial(node_returns, held=HELD)),
        PAIR,
        limit_s=180.0,
        check=needs_root,
    ),
)
