"""Memory: what a held dialog adds to the processes that keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench import sipp
from bench.calls import JOBS, Job
from bench.figures import NotMeasuredError, Samples
from bench.own import Sbc
from bench.peers.kamailio import Kamailio
from bench.plan import Plan, attempt, working_directory
from bench.processes import resident_bytes, tree

HOLD_MS = 120_000
# A call takes 4 descriptors of a media worker: a limit of 20,000 open files that cannot be raised ends it at 5000,
# and 8192 calls are the most in any case. The SIP worker is what is measured, and there is one.
MEDIA_WORKERS = 4
# Before the measured calls: caches, pools and lazily loaded code must not be charged to a dialog.
WARM = sipp.Offered(rate=100, duration_s=3)


@dataclass(frozen=True, slots=True)
class Held:
    """A system, how many calls it is to hold, and how many a second are set up.

    All must stand within 60 s: then the SBC ends the first, which no media flows for.
    """

    job: Job
    calls: int
    rate: float


OWN = Held(
    Job("call.full", lambda cores, directory: Sbc(cores, directory, full=True, media_workers=MEDIA_WORKERS)),
    calls=10_000,
    rate=300,
)
# rtpengine's 4 ports and descriptors a call, and Kamailio's pace, leave no room for as many.
PEERS = Held(next(job for job in JOBS if job.prefix == "kamailio.full"), calls=3000, rate=150)
QUICK_CALLS = 3000


def measure(plan: Plan) -> list[Samples]:
    """All wanted figures of this family."""
    by_name: dict[str, tuple[Held, Callable[[object], Sequence[int]]]] = {
        "dialog.memory_bytes": (OWN, _sip_workers),
        "kamailio.dialog.memory_bytes": (PEERS, partial(_part, "kamailio")),
        "rtpengine.session.memory_bytes": (PEERS, partial(_part, "rtpengine")),
    }
    wanted = {name: how for name, how in by_name.items() if plan.wants(name)}
    figures = {name: Samples(name, "bytes") for name in wanted}
    # memory hardly varies: fewer runs than for times tell the same
    for _ in range(min(plan.runs, 3)):
        for held in dict.fromkeys(held for held, _ in wanted.values()):
            of_job = {name: pids for name, (other, pids) in wanted.items() if other is held}
            attempt(plan, [figures[name] for name in of_job], partial(_hold, plan, held, of_job, figures))
    return list(figures.values())


def _sip_workers(system: object) -> Sequence[int]:
    assert isinstance(system, Sbc)
    return system.sip_workers()


def _part(name: str, system: object) -> Sequence[int]:
    assert isinstance(system, Kamailio)
    return [pid for part in system.members() if part.name == name for pid in tree(part.pid)]


def _hold(
    plan: Plan, held: Held, of_job: dict[str, Callable[[object], Sequence[int]]], figures: dict[str, Samples]
) -> None:
    calls = QUICK_CALLS if plan.quick else held.calls
    with working_directory() as directory, held.job.start(plan.cores, directory) as system:
        system.verify()
        outcome = sipp.offer(WARM, system.target, system.cpu_by_part, plan.cores, warm_s=0.5)
        if outcome.failed:
            raise NotMeasuredError(f"the warm-up was not clean: {outcome.fault()}")

        def sizes() -> dict[str, int]:
            return {name: sum(map(resident_bytes, pids(system))) for name, pids in of_job.items()}

        before = sizes()
        after: dict[str, int] = {}
        load = sipp.Offered(held.rate, calls / held.rate, HOLD_MS)
        sipp.hold(load, system.target, plan.cores, lambda: after.update(sizes()))
        for name in of_job:
            figures[name].add((after[name] - before[name]) / calls)
            figures[name].note(f"{calls} calls")
