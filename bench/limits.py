"""At the edge and beyond: what happens at 80 % of the highest clean rate, and at twice that rate; and for a long time.

The highest clean rate is sought anew where it was not measured in the same run, since only figures of one run compare.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

from bench import sipp
from bench.calls import JOBS, highest
from bench.figures import NotMeasuredError, Samples
from bench.own import Sbc
from bench.plan import Plan, attempt, working_directory
from bench.processes import resident_bytes

LOAD_S, QUICK_LOAD_S = 20.0, 6.0
# A soak's calls come in stretches. The last transactions end 32 s after a call, and within the next 20 s a worker gives
# back what they took: only what is left then can be a leak.
STRETCH_S, SETTLE_S = 200.0, 60.0
WARM_UP_S = 200.0  # the heap finds its size


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
        f"at {2 * maximum:.0f}/s; {outcome.refused} refused (503 with Retry-After), {outcome.failed - outcome.refused}"
        f" failed otherwise, {outcome.retransmissions} retransmissions"
    )


def _offer(plan: Plan, rate: float) -> sipp.Outcome:
    with working_directory() as directory, Sbc(plan.cores, directory, full=True) as system:
        load = sipp.Offered(rate, QUICK_LOAD_S if plan.quick else LOAD_S)
        outcome = sipp.offer(load, system.target, system.cpu_by_part, plan.cores)
        if outcome.generator_limited:
            raise NotMeasuredError(f"the generator was the bottleneck ({outcome.generator_share:.0%} busy)")
        return outcome


def _soak(plan: Plan, rate: float, slope: Samples, faults: Samples) -> None:
    """Calls at ``rate`` for ``plan.minutes``: what each thousand of them leaves in the memory of the SIP workers.

    It is looked at between stretches, each time after a pause in which the last transactions end, and the slope is that
    of the straight line nearest to all that was seen: one look alone would tell of an allocator's mood.
    """
    with working_directory() as directory, Sbc(plan.cores, directory, full=True) as system:
        outcomes = [_stretch(plan, rate, WARM_UP_S, system)]
        before, calls = _resident(system), 0
        seen = [(0.0, 0.0)]  # thousands of calls, bytes more than before
        stretches = max(2, round(60 * plan.minutes / STRETCH_S))
        for _ in range(stretches):
            outcomes.append(_stretch(plan, rate, 60 * plan.minutes / stretches, system))
            calls += outcomes[-1].offered.calls
            seen.append((calls / 1000, _resident(system) - before))
            plan.say(f"soak: {calls} calls, {seen[-1][1] / 1000:+.0f} kB, {outcomes[-1].fault() or 'clean'}")
        note = f"{calls} calls at {rate:.0f}/s"
        slope.add(statistics.linear_regression(*zip(*seen, strict=True)).slope, note)
        faults.add(sum(outcome.failed + outcome.retransmissions for outcome in outcomes), note)


def _stretch(plan: Plan, rate: float, duration_s: float, system: Sbc) -> sipp.Outcome:
    outcome = sipp.offer(sipp.Offered(rate, duration_s), system.target, system.cpu_by_part, plan.cores)
    time.sleep(SETTLE_S)
    return outcome


def _resident(system: Sbc) -> int:
    """Not the proportional set size: what a worker shares with its supervisor becomes its own when the collector first
    looks at everything, which is once and no growth."""
    return sum(resident_bytes(pid, of="Rss") for pid in system.sip_workers())
