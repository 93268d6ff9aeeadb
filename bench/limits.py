"""At the edge and beyond: what happens at 80 % of the highest clean rate, and at twice that rate; and for a long time.

The highest clean rate is sought anew where it was not measured in the same run, since only figures of one run compare.
"""

from __future__ import annotations

import time
from functools import partial

from bench import sipp
from bench.calls import JOBS, highest
from bench.figures import NotMeasuredError, Samples
from bench.own import Sbc
from bench.plan import Plan, attempt, working_directory
from bench.processes import resident_bytes

LOAD_S, QUICK_LOAD_S = 20.0, 6.0
# The last of the warm-up's transactions ends 32 s after it: only then is what is left of the calls to come a leak.
SOAK_SETTLE_S = 40.0


def measure(plan: Plan) -> list[Samples]:
    """``call.full.at80.faults``, ``call.full.overload.completed``; ``soak.*`` only where it is asked for by name."""
    at80 = Samples("call.full.at80.faults", "calls and retransmissions")
    overload = Samples("call.full.overload.completed", "of the highest clean rate")
    slope = Samples("soak.memory_slope", "bytes/1000 calls")
    faults = Samples("soak.faults", "calls and retransmissions")
    soaking = [samples for samples in (slope, faults) if plan.patterns and plan.wants(samples.name)]
    found = [samples for samples in (at80, overload) if plan.wants(samples.name)]
    if not found and not soaking:
        return []
    maximum = Samples("call.full.max_cps", "calls/s")
    attempt(plan, [maximum], partial(highest, plan, JOBS[0], maximum, set()))
    if not maximum.values:
        for samples in (*found, *soaking):
            samples.reason = f"no highest clean rate: {maximum.reason}"
        return [*found, *soaking]
    for samples in found:
        load = _at_80 if samples is at80 else _beyond
        attempt(plan, [samples], partial(load, plan, maximum.values[0], samples))
    if soaking:
        attempt(plan, soaking, partial(_soak, plan, maximum.values[0] / 2, slope, faults))
    return [*found, *soaking]


def _at_80(plan: Plan, maximum: float, samples: Samples) -> None:
    outcome = _offer(plan, 0.8 * maximum)
    samples.add(outcome.failed + outcome.retransmissions, plan.disturbance(outcome.foreign_share))
    samples.note(f"at {0.8 * maximum:.0f}/s")


def _beyond(plan: Plan, maximum: float, samples: Samples) -> None:
    outcome = _offer(plan, 2 * maximum)
    samples.add(outcome.succeeded / outcome.offered.duration_s / maximum, plan.disturbance(outcome.foreign_share))
    samples.note(
        f"at {2 * maximum:.0f}/s; {outcome.failed} refused or failed, {outcome.retransmissions} retransmissions"
    )


def _offer(plan: Plan, rate: float) -> sipp.Outcome:
    with working_directory() as directory, Sbc(plan.cores, directory, full=True) as system:
        load = sipp.Offered(rate, QUICK_LOAD_S if plan.quick else LOAD_S)
        outcome = sipp.offer(load, system.target, system.cpu_by_part, plan.cores)
        if outcome.generator_limited:
            raise NotMeasuredError(f"the generator was the bottleneck ({outcome.generator_share:.0%} busy)")
        return outcome


def _soak(plan: Plan, rate: float, slope: Samples, faults: Samples) -> None:
    """Calls at ``rate`` for ``plan.minutes``: what each thousand of them leaves in the memory of the SIP workers."""
    with working_directory() as directory, Sbc(plan.cores, directory, full=True) as system:
        outcomes = [sipp.offer(sipp.Offered(rate, SOAK_SETTLE_S), system.target, system.cpu_by_part, plan.cores)]
        before, calls = _resident(system), 0
        until = time.monotonic() + 60 * plan.minutes
        while (left := until - time.monotonic()) > 0:
            outcome = sipp.offer(
                sipp.Offered(rate, max(5.0, min(left, 60.0))), system.target, system.cpu_by_part, plan.cores
            )
            outcomes.append(outcome)
            calls += outcome.offered.calls
            plan.say(
                f"soak: {calls} calls, {(_resident(system) - before) / 1000:+.0f} kB, {outcome.fault() or 'clean'}"
            )
        note = f"{calls} calls at {rate:.0f}/s"
        slope.add((_resident(system) - before) / calls * 1000, note)
        faults.add(sum(outcome.failed + outcome.retransmissions for outcome in outcomes), note)


def _resident(system: Sbc) -> int:
    return sum(resident_bytes(pid) for pid in system.sip_workers())
