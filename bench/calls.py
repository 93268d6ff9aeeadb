"""Signalling: CPU per call at 300 calls/s, and the highest clean rate, of the SBC and of its peers in the same jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bench import sipp
from bench.figures import NotMeasuredError, Samples, SpoiledError
from bench.machine import Cores
from bench.own import Sbc
from bench.peers.kamailio import Kamailio
from bench.peers.sippy import Sippy
from bench.plan import RATE_RUNS, Plan, attempt, working_directory

RATE = 300.0
# A system that is not clean at RATE is measured at the first lower rate where it is, and the report says so.
LOWER_RATES = (200.0, 100.0)
LOWEST_RATE, HIGHEST_RATE = 20.0, 6000.0
# The highest clean rate is sought until it is known to this part.
RESOLUTION = 0.05


class System(Protocol):
    """A system under test that is up."""

    target: tuple[str, int]

    def verify(self) -> None: ...
    def cpu_by_part(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One system in one job, and the prefix of its figures' names."""

    prefix: str
    start: Callable[[Cores, Path], AbstractContextManager[System]]


JOBS = (
    Job("call.full", lambda cores, directory: Sbc(cores, directory, full=True)),
    Job("kamailio.full", lambda cores, directory: Kamailio(cores, directory, full=True)),
    Job("call.plain", lambda cores, directory: Sbc(cores, directory, full=False)),
    Job("kamailio.proxy", lambda cores, directory: Kamailio(cores, directory, full=False)),
    Job("sippy.plain", Sippy),
)


def measure(plan: Plan) -> list[Samples]:
    """All wanted figures of this family; the systems take turns within each run."""
    cpu = {job: Samples(f"{job.prefix}.cpu_ms", "ms/call") for job in JOBS}
    rate = {job: Samples(f"{job.prefix}.max_cps", "calls/s") for job in JOBS}
    wanted_cpu = [job for job in JOBS if plan.wants(cpu[job].name)]
    wanted_rate = [job for job in JOBS if plan.wants(rate[job].name)]
    verified: set[Job] = set()
    for run in range(plan.runs):
        for job in wanted_cpu:
            attempt(plan, [cpu[job]], partial(_cpu, plan, job, cpu[job], verified))
        for job in wanted_rate if run < RATE_RUNS else ():
            attempt(plan, [rate[job]], partial(highest, plan, job, rate[job], verified))
    return [
        sample for job in JOBS for sample, jobs in ((cpu[job], wanted_cpu), (rate[job], wanted_rate)) if job in jobs
    ]


def _offer(plan: Plan, job: Job, load: sipp.Offered, verified: set[Job], warm_s: float) -> sipp.Outcome:
    """One load on a system that was just started: nothing left over from an overload before."""
    with working_directory() as directory, job.start(plan.cores, directory) as system:
        if job not in verified:
            system.verify()
            verified.add(job)
        return sipp.offer(load, system.target, system.cpu_by_part, plan.cores, warm_s=warm_s)


def _cpu(plan: Plan, job: Job, samples: Samples, verified: set[Job]) -> None:
    faults: list[str] = []
    for rate in (RATE, *LOWER_RATES):
        load = sipp.Offered(rate, 6 if plan.quick else 12)
        outcome = _offer(plan, job, load, verified, 2.0)
        if outcome.generator_limited:
            raise SpoiledError(f"the generator was the bottleneck ({outcome.generator_share:.0%} busy)")
        if outcome.clean:
            samples.add(outcome.cpu_s_per_call * 1000, plan.disturbance(outcome.foreign_share))
            if faults:
                samples.note(f"at {rate:.0f}/s, because at {faults[0]}")
            parts = ", ".join(f"{name} {value * 1000:.2f}" for name, value in outcome.parts_s_per_call.items())
            plan.say(f"{samples.name}: {outcome.cpu_s_per_call * 1000:.3f} ms ({parts})")
            return
        faults.append(f"{rate:.0f}/s: {outcome.fault()}")
    raise SpoiledError(f"no clean run: {'; '.join(faults)}")


def highest(plan: Plan, job: Job, samples: Samples, verified: set[Job]) -> None:
    """Bracket the highest clean rate, then halve the bracket down to RESOLUTION of it."""
    resolution = 2 * RESOLUTION if plan.quick else RESOLUTION
    seconds = 4 if plan.quick else 6
    # later runs begin where the earlier ones ended, with small steps
    rate, growth = (max(samples.values), 1.1) if samples.values else (RATE, 2.0)
    clean, unclean, repeated = 0.0, 0.0, False
    while not unclean or unclean - clean > resolution * unclean:
        outcome = _offer(plan, job, sipp.Offered(rate, seconds), verified, 1.0)
        plan.say(
            f"{samples.name}: {rate:.0f}/s {outcome.fault() or 'clean'}"
            f" (system {outcome.system_share:.0%}, generator {outcome.generator_share:.0%})"
        )
        disturbance = "" if outcome.clean else plan.disturbance(outcome.foreign_share)
        if disturbance and not repeated:
            repeated = True  # perhaps the others' fault: once more before it is held against the system
            continue
        samples.note(disturbance)
        repeated = False
        if outcome.clean:
            clean = rate
        elif outcome.generator_limited:
            raise NotMeasuredError(
                f"the generator was the bottleneck at {rate:.0f}/s ({outcome.generator_share:.0%} busy, the system"
                f" {outcome.system_share:.0%}); clean at {clean:.0f}/s"
            )
        else:
            unclean = rate
            if unclean < LOWEST_RATE:
                raise SpoiledError(f"not clean at {unclean:.0f}/s: {outcome.fault()}")
        if clean >= HIGHEST_RATE:
            raise NotMeasuredError(f"still clean at {clean:.0f}/s, where the search ends")
        if clean and unclean:
            rate = (clean + unclean) / 2
        else:
            rate = min(clean * growth, HIGHEST_RATE) if clean else unclean / growth
    samples.add(clean)
