"""Row P11: a node is frozen as a whole, replaced, and thaws."""

from __future__ import annotations

import os
import signal
import time

from sbc.selftest.measure import Measures
from sbc.selftest.node import wait
from sbc.selftest.pair import PairSite, needs_root
from sbc.selftest.pairs import AFTER_S, AGE_S, AUDIO_S, on_pair
from sbc.selftest.row import Row
from sbc.selftest.site import Setup

ENDED = 3  # calls that end while the node is frozen: it has the BYE, and another one answers it
FROZEN_S = 5.0
AFTERWARDS_S = 2.0
SILENT_S = 1.0


def node_frozen(two: PairSite, measures: Measures) -> None:
    """All processes of the active node are stopped, as by a pause of its machine, and go on when the other one has its
    calls. What it heard before the pause and what was due meanwhile is not its business any more."""
    calls = two.establish(two.calls)
    two.control(calls, measures)
    two.ready()
    time.sleep(AGE_S)
    former, other = two.active, two.other
    fault_at, fault_s = time.time(), time.monotonic()
    pids = two.lab.pids(former)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    over, left = calls[:ENDED], calls[ENDED:]
    byes = two.hang_up(over)
    two.taken_over()
    measures.add("active after", [time.monotonic() - fault_s])
    wait(lambda: all(bye.status == 200 for bye in byes), 35, "an answer to each BYE, by the other node")
    two.silence(over)
    two.heard_again(left, time.time(), AUDIO_S)
    time.sleep(max(0.0, FROZEN_S - (time.monotonic() - fault_s)))
    two.measure_gap(left, fault_at, measures, max_s=3.0)

    thawed_at, thawed_s = time.time(), time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    two.one_owner(former, other)
    measures.add("silent after the thaw", [time.monotonic() - thawed_s], max_s=SILENT_S)
    time.sleep(AFTERWARDS_S)
    ended = [call for call in left if call.a.ended_by_far or call.b.ended_by_far]
    measures.expect(not ended, f"the node that thawed ended {len(ended)} calls that another one has")
    measures.expect(two.role(former) == "passive", f"the node that thawed is {two.role(former)}")
    two.heard_again(left, time.time(), AUDIO_S)
    time.sleep(AFTER_S)
    two.measure_gap(left, thawed_at, measures, max_s=SILENT_S, what="gap at the thaw")
    measures.add("ready again after", [two.ready()])
    two.switch()
    two.taken_over()
    two.heard_again(left, time.time(), AUDIO_S)
    two.end(left, measures, what="BYE answered afterwards", max_s=1.0)
    two.settled(measures)


ROWS = (
    Row(
        "P11",
        "the active one of two nodes is frozen for 5 s, and thaws when the other one has its calls",
        "it falls silent within 1 s and ends no call; no call is lost, each has one record, those included that ended "
        "meanwhile; afterwards it serves by order",
        on_pair(node_frozen),
        Setup(pair=True),
        limit_s=120.0,
        check=needs_root,
    ),
)
