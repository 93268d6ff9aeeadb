"""Memory: what a held dialog adds to the processes that keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench import sipp
from bench.calls import JOBS, Job
from bench.figures import NotMeasuredError, Samples
from bench.own import Sbc
from bench.peers.kamailio import Kamailio
from bench.plan import Plan, attempt, working_directory
from bench.processes import resident_bytes, tree

CALLS, QUICK_CALLS = 3000, 1000
RATE = 150.0
HOLD_MS = 120_000
# Before the measured calls: caches, pools and lazily loaded code must not be charged to a dialog.
WARM = sipp.Offered(rate=100, duration_s=3)


def measure(plan: Plan) -> list[Samples]:
    """All wanted figures of this family."""
    by_name: dict[str, tuple[Job, Callable[[object], Sequence[int]]]] = {
        "dialog.memory_bytes": (_job("call.full"), _sip_workers),
        "kamailio.dialog.memory_bytes": (_job("kamailio.full"), partial(_part, "kamailio")),
        "rtpengine.session.memory_bytes": (_job("kamailio.full"), partial(_part, "rtpengine")),
    }
    wanted = {name: how for name, how in by_name.items() if plan.wants(name)}
    figures = {name: Samples(name, "bytes") for name in wanted}
    # memory hardly varies: fewer runs than for times tell the same
    for _ in range(min(plan.runs, 3)):
        for job in dict.fromkeys(job for job, _ in wanted.values()):
            of_job = {name: pids for name, (j, pids) in wanted.items() if j is job}
            attempt(plan, [figures[name] for name in of_job], partial(_held, plan, job, of_job, figures))
    return list(figures.values())


def _job(prefix: str) -> Job:
    return next(job for job in JOBS if job.prefix == prefix)


def _sip_workers(system: object) -> Sequence[int]:
    assert isinstance(system, Sbc)
    return system.sip_workers()


def _part(name: str, system: object) -> Sequence[int]:
    assert isinstance(system, Kamailio)
    return [pid for part in system.members() if part.name == name for pid in tree(part.pid)]


def _held(
    plan: Plan, job: Job, of_job: dict[str, Callable[[object], Sequence[int]]], figures: dict[str, Samples]
) -> None:
    calls = QUICK_CALLS if plan.quick else CALLS
    with working_directory() as directory, job.start(plan.cores, directory) as system:
        system.verify()
        outcome = sipp.offer(WARM, system.target, system.cpu_by_part, plan.cores, warm_s=0.5)
        if outcome.failed:
            raise NotMeasuredError(f"the warm-up was not clean: {outcome.fault()}")

        def sizes() -> dict[str, int]:
            return {name: sum(map(resident_bytes, pids(system))) for name, pids in of_job.items()}

        before = sizes()
        after: dict[str, int] = {}
        load = sipp.Offered(RATE, calls / RATE, HOLD_MS)
        sipp.hold(load, system.target, plan.cores, lambda: after.update(sizes()))
        for name in of_job:
            figures[name].add((after[name] - before[name]) / calls)
