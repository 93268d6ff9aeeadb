"""Rows of the family P: processes of the node die or hang."""

from __future__ import annotations

import signal
import time
from functools import partial
from importlib.util import find_spec

from sbc.selftest.measure import Failed, Measures, NotTried
from sbc.selftest.node import STRANGER, wait
from sbc.selftest.row import Row
from sbc.selftest.site import Call, Setup, Site
from sbc.selftest.sprayer import spraying

IN_SETUP = 20
ORPHAN_S = 10.0  # after its worker's death no side of a call may be left with a call that the other has not
PREPARED_S = 4.0
SETUP_END_S = 8.0  # how long a call in setup may stay without a final answer after its worker's death


def sip_worker_killed(site: Site, measures: Measures) -> None:
    """Half of the calls are ended at once, the other half afterwards; some ring when it happens."""
    calls, ringing = site.establish(site.calls), site.ring(IN_SETUP)
    site.control(calls, measures)
    half = len(calls) // 2
    fault_at, fault_s = time.time(), time.monotonic()
    died = site.node.kill("sip 0")
    site.end(calls[:half], measures, max_s=1.0)
    site.node.back("sip 0", died)
    measures.add("worker serves again", [time.monotonic() - fault_s], max_s=1.0)
    site.heard_again(calls[half:], time.time(), 5)
    site.measure_gap(calls[half:], fault_at, measures, max_s=0.15)
    _setup_ends(site, measures, ringing, fault_s)
    site.end(calls[half:], measures, what="BYE answered afterwards", max_s=1.0)
    told = site.node.logged("worker died", worker="sip 0", pid=died)
    measures.expect(len(told) == 1, f"the death was logged {len(told)} times instead of once")
    site.settled(measures)


def _setup_ends(site: Site, measures: Measures, ringing: list[Call], fault_s: float) -> None:
    """Each call that rang comes up when it is answered, or has a final answer in time; nothing of it is left."""
    for call in ringing:
        if call.b.invite is not None:  # else it has been cancelled
            site.callee.answer(call.b)
    end = time.monotonic() + SETUP_END_S
    while time.monotonic() < end and not all(_decided(call) for call in ringing):
        time.sleep(0.02)
    up = [call for call in ringing if call.a.up]
    silent = [call for call in ringing if not _decided(call)]
    site.expect_records(call.a for call in up)
    for call in silent:
        site.caller.cancel(call.a)
    measures.note(
        f"run {measures.runs}: of {len(ringing)} calls in setup {len(up)} came up, "
        f"{len(ringing) - len(up) - len(silent)} were refused, {len(silent)} had no answer for {SETUP_END_S:g} s"
    )
    wait(lambda: all("CANCEL" not in call.a.asked or call.a.asked["CANCEL"].status for call in silent), 35, "CANCEL")
    refused = [call for call in ringing if not call.a.up]
    orphans = [call for call in refused if not call.b.ended_by_far]
    try:
        wait(
            lambda: all(call.b.ended_by_far for call in refused), ORPHAN_S, "the end of refused calls at their callees"
        )
        if orphans:
            measures.add("no orphan at a callee after", [time.monotonic() - fault_s], max_s=ORPHAN_S)
    except Failed as failed:
        measures.expect(False, str(failed))
    site.hang_up(up)
    wait(lambda: all(call.a.ended_by_far or call.b.ended_by_far for call in up), 10, "the end of those that came up")
    site.silence(ringing)


def _decided(call: Call) -> bool:
    return call.a.up or call.a.asked["INVITE"].status != 0


def sip_worker_hung(site: Site, measures: Measures) -> None:
    """SIGSTOP; calls are ended while it hangs, and afterwards."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    half = len(calls) // 2
    fault_at, fault_s = time.time(), time.monotonic()
    hung = site.node.signal("sip 1", signal.SIGSTOP)
    site.end(calls[:half], measures, max_s=6.0, what="BYE answered meanwhile")
    site.node.back("sip 1", hung)
    measures.add("replaced after", [time.monotonic() - fault_s], max_s=5.0)
    site.heard_again(calls[half:], time.time(), 5)
    site.measure_gap(calls[half:], fault_at, measures, max_s=0.15)
    site.end(calls[half:], measures, what="BYE answered afterwards", max_s=1.0)
    site.settled(measures)


def media_worker_killed(site: Site, measures: Measures, rollovers: int = 0) -> None:
    """kill -9 while a stranger sends to all ports; audio goes on at the same ones."""
    calls = site.establish(site.calls)
    site.age(calls, rollovers)
    site.prepare(calls, PREPARED_S)
    site.control(calls, measures)
    with spraying(STRANGER, site.media_ports(calls)) as spray:
        fault_at, fault_s = time.time(), time.monotonic()
        died = site.node.kill("media 0")
        site.node.back("media 0", died)
        measures.add("worker serves again", [time.monotonic() - fault_s], max_s=1.0)
        ran_s, waited_s = site.node.processor_s("media 0")
        site.heard_again(calls, time.time(), 5)
    site.measure_gap(calls, fault_at, measures, p99_s=0.15, max_s=0.25)
    measures.add("processor time that it took", [ran_s])
    measures.add("wait for that processor", [waited_s])
    measures.note(f"run {measures.runs}: packets of a stranger that anybody got: {spray.received}")
    measures.expect(spray.sent > 0, "the stranger sent nothing")
    measures.expect(not spray.received, f"a stranger got {spray.received} packets")
    site.end(calls, measures)
    site.settled(measures)


def sip_worker_killed_twice(site: Site, measures: Measures) -> None:
    """kill -9, and its successor as well within a second; BYE from then on."""
    _die_twice(site, measures, "sip 0", gap_s=0.15, bye_s=1.0)


def media_worker_killed_twice(site: Site, measures: Measures) -> None:
    """The same with a media worker: two gaps, and neither longer than after one death."""
    _die_twice(site, measures, "media 0", gap_s=0.25, gap_p99_s=0.15)


def _die_twice(
    site: Site,
    measures: Measures,
    name: str,
    *,
    gap_s: float,
    gap_p99_s: float | None = None,
    bye_s: float | None = None,
) -> None:
    calls = site.establish(site.calls)
    site.control(calls, measures)
    fault_at = time.time()
    _kill_twice(site, measures, name, calls)
    site.heard_again(calls, time.time(), 5)
    site.measure_gap(calls, fault_at, measures, p99_s=gap_p99_s, max_s=gap_s)
    site.end(calls, measures, max_s=bye_s)
    site.settled(measures)


def _kill_twice(site: Site, measures: Measures, name: str, calls: list[Call]) -> None:
    first_s = time.monotonic()
    for _ in range(2):
        fault_s = time.monotonic()
        site.node.back(name, site.node.kill(name))
        measures.add("worker serves again", [time.monotonic() - fault_s], max_s=1.0)
        site.heard_again(calls, time.time(), 5)
    measures.add("both deaths within", [fault_s - first_s], max_s=1.0)


def media_worker_hung(site: Site, measures: Measures) -> None:
    """SIGSTOP; the supervisor notices and replaces it."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    fault_at, fault_s = time.time(), time.monotonic()
    hung = site.node.signal("media 0", signal.SIGSTOP)
    site.node.back("media 0", hung)
    measures.add("replaced after", [time.monotonic() - fault_s], max_s=MEDIA_HUNG_S)
    site.heard_again(calls, time.time(), 5)
    site.measure_gap(calls, fault_at, measures, max_s=MEDIA_HUNG_S)
    site.end(calls, measures)
    site.settled(measures)


def node_frozen(site: Site, measures: Measures) -> None:
    """SIGSTOP of every process, as a machine that is paused does it; the supervisor is the first to go on."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    before = site.node.pids()
    fault_at, fault_s = time.time(), time.monotonic()
    site.node.freeze(FROZEN_S)
    frozen_s = time.monotonic() - fault_s
    site.heard_again(calls, time.time(), 5)
    time.sleep(MEDIA_HUNG_S)  # whoever were taken for hung would be ended by now
    site.measure_gap(calls, fault_at, measures, max_s=frozen_s + 0.15)
    ended = [name for name, pid in site.node.pids().items() if before.get(name) != pid]
    measures.expect(not ended, f"these were ended, and had only been frozen: {', '.join(ended)}")
    site.end(calls, measures, max_s=1.0)
    site.settled(measures)


def supervisor_killed(site: Site, measures: Measures) -> None:
    """kill -9; then workers die, to see that its successor does its work."""
    before = site.node.pids()
    if before["supervisor"] == site.node.main_pid:
        raise NotTried("in this release the workers end with the supervisor")
    calls = site.establish(site.calls)
    site.control(calls, measures)
    third = len(calls) // 3
    fault_at, fault_s = time.time(), time.monotonic()
    died = site.node.kill("supervisor")
    site.end(calls[:third], measures, max_s=1.0)
    site.node.back("supervisor", died)
    measures.add("supervisor again after", [time.monotonic() - fault_s], max_s=3.0)
    time.sleep(0.5)
    site.measure_gap(calls[third:], fault_at, measures, max_s=0.15)
    after = site.node.pids()
    changed = [name for name, pid in before.items() if name != "supervisor" and after.get(name) != pid]
    measures.expect(not changed, f"these were not adopted but started again: {', '.join(changed)}")
    for name in ("sip 0", "media 0"):
        begun_s = time.monotonic()
        site.node.back(name, site.node.kill(name))
        measures.add("a worker that dies then serves again", [time.monotonic() - begun_s], max_s=2.0)
    site.heard_again(calls[third:], time.time(), 5)
    site.end(calls[third:], measures, what="BYE answered afterwards", max_s=1.0)
    site.settled(measures)


def node_killed(site: Site, measures: Measures) -> None:
    """kill -9 of every process but the store, which in life is another machine's, and a start."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    time.sleep(1.0)  # a call in its first second may be lost
    fault_at, fault_s = time.time(), time.monotonic()
    site.node.kill_all()
    site.node.start()
    serves_s = time.monotonic() - fault_s
    measures.add("node serves again", [serves_s])
    known = len(site.node.calls())
    measures.expect(known >= 0.99 * len(calls), f"only {known} of {len(calls)} calls are known after the start")
    site.heard_again(calls, time.time(), 10)
    site.measure_gap(calls, fault_at, measures, max_s=serves_s + 1.0)
    site.end(calls, measures, what="BYE answered afterwards", max_s=1.0)
    site.settled(measures)


def control_killed(site: Site, measures: Measures) -> None:
    """kill -9 of the process that writes CDRs, amid calls that end."""
    calls = site.establish(site.calls, talk=False)
    half = len(calls) // 2
    site.end(calls[:half], measures, max_s=1.0)
    died = site.node.kill("control")
    site.end(calls[half:], measures)
    measures.add("process serves again", [site.node.back("control", died)], max_s=5.0)
    site.settled(measures)


def needs_pylibsrtp() -> None:
    """SRTP at the ends of the calls is made by libsrtp."""
    if find_spec("pylibsrtp") is None:
        raise NotTried("the callers need pylibsrtp to speak SRTP: pip install pylibsrtp")


MEDIA_HUNG_S = 1.3  # the watchdog's patience with media workers, and a start
FROZEN_S = 2.0
ROLLOVERS = {"P3S2": 2, "P3SH": 300}

ROWS = (
    Row(
        "P1",
        "a SIP worker is killed",
        "no call that is up is lost, BYE is answered within 1 s, no gap in media; calls in setup end",
        sip_worker_killed,
    ),
    Row(
        "P1D",
        "a SIP worker is killed, and its successor within a second",
        "as P1: nobody waits longer because it is the second time",
        sip_worker_killed_twice,
    ),
    Row(
        "P2",
        "a SIP worker hangs",
        "it is replaced within 5 s, then as P1; the other workers go on",
        sip_worker_hung,
    ),
    Row(
        "P3",
        "a media worker is killed",
        "no call is lost; gap at most 150 ms (p99), 250 ms (max); the same ports, no packet to a wrong call",
        media_worker_killed,
    ),
    Row(
        "P3D",
        "a media worker is killed, and its successor within a second",
        "as P3: each of both gaps",
        media_worker_killed_twice,
    ),
    Row(
        "P3S",
        "a media worker is killed, SRTP on both sides",
        "as P3; each packet after the death is authentic",
        media_worker_killed,
        Setup(secure=True),
        check=needs_pylibsrtp,
    ),
    *(
        Row(
            name,
            f"as P3S, after {rollovers} rollovers of the sequence numbers",
            "as P3S: each index is the next one of its stream, and none comes a second time",
            partial(media_worker_killed, rollovers=rollovers),
            Setup(secure=True),
            limit_s=180.0,
            check=needs_pylibsrtp,
        )
        for name, rollovers in ROLLOVERS.items()
    ),
    Row(
        "P4",
        "a media worker hangs",
        f"it is replaced, then as P3; gap at most {MEDIA_HUNG_S:g} s",
        media_worker_hung,
    ),
    Row(
        "P4F",
        f"every process of the node is frozen for {FROZEN_S:g} s, and goes on",
        "nobody is taken for hung, no call is lost, the gap is as long as that",
        node_frozen,
    ),
    Row(
        "P5",
        "the supervisor is killed",
        "workers and calls notice nothing; within 3 s another one has adopted them, and starts those that die",
        supervisor_killed,
    ),
    Row(
        "P6",
        "every process of the node is killed, and it is started again",
        "calls are taken up from the store (at least 99 %), audio is back 1 s after the node",
        node_killed,
        Setup(own_store=True),
    ),
    Row(
        "PC",
        "the control process is killed",
        "calls notice nothing; each has exactly one record",
        control_killed,
    ),
)
