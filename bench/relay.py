"""Media: CPU per relayed packet at 500 and 2,000 calls, the highest rate with under 0.1 % loss, delay at 70 % of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

from bench import rtp_load
from bench.figures import NothingRelayedError, NotMeasuredError, Samples, SpoiledError
from bench.plan import RATE_RUNS, Plan, attempt, working_directory
from bench.processes import Process, tree
from bench.relays import RELAYS, SECURE_RELAYS, Anchored, in_flight

CALLS = 500
PPS = 50.0
# So many calls at once, at the highest of these packet rates (20, 30, 40, 60 and 80 ms of G.711) at which the peer
# still loses nothing: then the others are measured at the same.
MANY_CALLS, MANY_PPS, YARDSTICK = 2000, (50.0, 100 / 3, 25.0, 50 / 3, 12.5), "rtpengine"
LOSS = 0.001
# Rates are raised by sending more often on this many calls: the relay's work per packet stays the same.
RATE_CALLS = 500
FIRST_PPS, HIGHEST_PPS, LOWEST_PPS = 60_000.0, 600_000.0, 1_000.0
RESOLUTION = 0.04
# rtpengine settles on a stream's source only after three seconds; both relays get the same time.
WARM_S = 4.0

SRTP_CALLS = 500
DELAY_AT = 0.7  # of the highest rate

# Overload: no generator here sends three times what the relay can carry, so the relay may run for so little of each
# period that the load is that many times what it carries then: it must lose two of three packets.
OVERLOAD_S, OVERLOAD_PPS, RUNS_S, RESTS_S = 10.0, 100.0, 0.001, 0.016
OVERLOAD_FACTOR = 3.0
GRACE_S = 1.0  # after that, every stream has to be whole again


def measure(plan: Plan) -> list[Samples]:
    """All wanted figures of this family; the relays take turns within each run."""
    cpu = {who: Samples(f"{who}.rtp.cpu_us.{CALLS}", "us/packet") for who in RELAYS}
    many = {who: Samples(f"{who}.rtp.cpu_us.{MANY_CALLS}", "us/packet") for who in RELAYS}
    delay = {who: Samples(f"{who}.rtp.p99_us.at70", "us") for who in RELAYS}
    highest = {who: Samples(f"{who}.rtp.max_pps", "packets/s") for who in RELAYS}
    srtp = {who: Samples(f"{who}.srtp.cpu_us.{SRTP_CALLS}", "us/packet") for who in RELAYS}
    lossy = {who: Samples(f"{who}.rtp.lossy_streams", "streams") for who in RELAYS}
    for run in range(plan.runs):
        for who, samples in cpu.items():
            if plan.wants(samples.name):
                attempt(plan, [samples], partial(_cpu, plan, who, samples, CALLS))
        _many(plan, many)
        for who, samples in srtp.items():
            if plan.wants(samples.name):
                attempt(plan, [samples], partial(_cpu, plan, who, samples, SRTP_CALLS, secure=True))
        for who, samples in lossy.items():
            if run < RATE_RUNS and plan.wants(samples.name):
                attempt(plan, [samples], partial(_recovery, plan, who, samples))
        for who, samples in highest.items():
            if run < RATE_RUNS and plan.wants(samples.name):
                attempt(plan, [samples], partial(_highest, plan, who, samples))
        for who, samples in delay.items():
            if run < RATE_RUNS and plan.wants(samples.name):
                attempt(plan, [samples], partial(_delay, plan, who, samples, highest[who]))
    families = (cpu, many, srtp, lossy, highest, delay)
    return [samples for family in families for samples in family.values() if plan.wants(samples.name)]


def _relay(
    plan: Plan,
    who: str,
    calls: int,
    pps: float,
    steady_s: float,
    *,
    secure: bool = False,
    warm_s: float = WARM_S,
    meanwhile: Callable[[Process], None] | None = None,
) -> rtp_load.Relayed:
    """One load on a relay that was just started: an overload before must not show. ``meanwhile`` runs beside it."""

    async def open_all(number: int) -> None:
        sides = (rtp_load.CALLER, rtp_load.side_port(number)), (rtp_load.CALLEE, rtp_load.side_port(number))
        opened[number] = await relay.open_call(number, *sides)

    async def set_up() -> None:
        await relay.connect()
        try:
            await in_flight(open_all, calls, 50)
        finally:
            relay.disconnect()

    relays = SECURE_RELAYS if secure else RELAYS
    opened: dict[int, Anchored] = {}
    with working_directory() as directory:
        relay = relays[who](plan.cores.system, directory)
        with relay.process:
            asyncio.run(set_up())
            paths = [opened[number] for number in range(calls)]
            beside = threading.Thread(target=meanwhile or (lambda _: None), args=(relay.process,))
            beside.start()
            try:
                outcome = rtp_load.relay(paths, pps, steady_s, relay.process.cpu_s, plan.cores, warm_s=warm_s)
            finally:
                beside.join()
            relay.process.require()
            return outcome


def _many(plan: Plan, many: dict[str, Samples]) -> None:
    """MANY_CALLS at a rate at which YARDSTICK loses nothing; every relay that is wanted at the same one."""
    if not any(plan.wants(samples.name) for samples in many.values()):
        return
    yardstick = many[YARDSTICK]
    for pps in MANY_PPS:
        before = len(yardstick.values)
        yardstick.reason = ""  # of a rate that was too high
        attempt(plan, [yardstick], partial(_cpu, plan, YARDSTICK, yardstick, MANY_CALLS, pps=pps))
        if len(yardstick.values) > before:
            break
    else:
        pps = PPS  # it is not there, or never without loss: the others by themselves
    for who, samples in many.items():
        if who != YARDSTICK and plan.wants(samples.name):
            attempt(plan, [samples], partial(_cpu, plan, who, samples, MANY_CALLS, pps=pps))
    for samples in many.values():
        if samples.values:
            samples.note(f"{2 * MANY_CALLS * pps:,.0f} packets/s")


def _cpu(plan: Plan, who: str, samples: Samples, calls: int, *, pps: float = PPS, secure: bool = False) -> None:
    outcome = _relay(plan, who, calls, pps, 3 if plan.quick else 8, secure=secure)
    note = plan.disturbance(outcome.foreign_share)
    if fault := outcome.generator_fault():
        raise SpoiledError(f"{fault}; {note}")
    if outcome.misrouted:
        raise NotMeasuredError(f"{outcome.misrouted} packets came from a wrong port or changed")
    if outcome.loss > LOSS:
        raise SpoiledError(f"{outcome.loss:.2%} of {outcome.wanted_pps:,.0f} packets/s were lost; {note}")
    samples.add(outcome.cpu_us_per_packet, note)
    plan.say(
        f"{samples.name}: {outcome.cpu_us_per_packet:.2f} us (relay {outcome.relay_share:.0%}, generator"
        f" {outcome.generator_share:.0%}, delay p50 {outcome.delay_p50_us:.0f} us, p99 {outcome.delay_p99_us:.0f} us)"
    )


def _recovery(plan: Plan, who: str, samples: Samples) -> None:
    """How many streams lose packets after an overload that is over for GRACE_S."""

    def hinder(process: Process) -> None:
        time.sleep(WARM_S)  # until every source is known
        members = list(tree(process.pid))
        end = time.monotonic() + OVERLOAD_S
        while time.monotonic() < end:
            for number, pause_s in ((signal.SIGSTOP, RESTS_S), (signal.SIGCONT, RUNS_S)):
                for pid in members:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(pause_s)

    warm_s = WARM_S + OVERLOAD_S + GRACE_S
    outcome = _relay(plan, who, RATE_CALLS, OVERLOAD_PPS, 3, warm_s=warm_s, meanwhile=hinder)
    note = plan.disturbance(outcome.foreign_share)
    if fault := outcome.generator_fault():
        raise SpoiledError(f"{fault}; {note}")
    lost = outcome.warm_loss * warm_s / OVERLOAD_S
    if lost < 1 - 1 / OVERLOAD_FACTOR:
        raise SpoiledError(f"the load was only {1 / (1 - lost):.1f} times what the relay carried")
    plan.say(
        f"{samples.name}: {lost:.0%} lost in the overload, which was {1 / max(1 - lost, 0.001):.1f} times what it"
        f" carried; {outcome.loss:.3%} after, in {outcome.lossy_streams} of"
        f" {2 * RATE_CALLS} streams (delay p50 {outcome.delay_p50_us:.0f} us, p99 {outcome.delay_p99_us:.0f} us)"
    )
    samples.add(outcome.lossy_streams, note)


def _delay(plan: Plan, who: str, samples: Samples, highest: Samples) -> None:
    """How long the relay keeps 99 of 100 packets at most, at DELAY_AT of its highest rate of this run."""
    if not highest.values:
        _highest(plan, who, highest)
    rate = DELAY_AT * highest.values[-1]
    outcome = _relay(plan, who, RATE_CALLS, rate / (2 * RATE_CALLS), 3 if plan.quick else 8)
    note = plan.disturbance(outcome.foreign_share)
    if fault := outcome.generator_fault():
        raise SpoiledError(f"{fault}; {note}")
    if outcome.loss > LOSS:
        raise SpoiledError(f"{outcome.loss:.2%} of {rate:,.0f} packets/s were lost; {note}")
    samples.add(outcome.delay_p99_us, note)
    samples.note(f"at {rate:,.0f} packets/s; half of the packets in {outcome.delay_p50_us:.0f} us")


def _highest(plan: Plan, who: str, samples: Samples) -> None:
    """Bracket the highest rate with at most LOSS, then halve the bracket down to RESOLUTION of it."""
    resolution = 2 * RESOLUTION if plan.quick else RESOLUTION
    rate, growth = (max(samples.values), 1.1) if samples.values else (FIRST_PPS, 1.5)
    good, bad, repeated, ends = 0.0, 0.0, False, ""
    while not bad or bad - good > resolution * bad:
        try:
            outcome = _relay(plan, who, RATE_CALLS, rate / (2 * RATE_CALLS), 3 if plan.quick else 5)
        except NothingRelayedError as error:
            if not good:
                raise
            plan.say(f"{samples.name}: {rate:,.0f}/s, {error}")
            bad, ends = rate, ""
            rate = (good + bad) / 2
            continue
        plan.say(
            f"{samples.name}: {rate:,.0f}/s, {outcome.loss:.3%} lost (relay {outcome.relay_share:.0%},"
            f" generator {outcome.generator_share:.0%})"
        )
        disturbance = "" if outcome.loss <= LOSS else plan.disturbance(outcome.foreign_share)
        if disturbance and not repeated:
            repeated = True  # perhaps the others' fault: once more before it is held against the relay
            continue
        samples.note(disturbance)
        repeated = False
        lossless = outcome.loss <= LOSS and not outcome.misrouted
        # with loss it matters whose fault it was; without loss only whether the rate was really sent
        if outcome.generator_fault() and (not lossless or outcome.sent_pps < 0.99 * rate):
            ends = f"{outcome.generator_fault()} at {rate:,.0f}/s, the relay {outcome.relay_share:.0%}"
            if not good:
                raise NotMeasuredError(ends)
            bad = rate
        elif lossless:
            good = rate
        else:
            bad, ends = rate, ""
        if good >= HIGHEST_PPS or (bad and bad < LOWEST_PPS):
            raise NotMeasuredError(f"no limit between {LOWEST_PPS:,.0f} and {HIGHEST_PPS:,.0f}/s")
        rate = (good + bad) / 2 if good and bad else min(good * growth, HIGHEST_PPS) if good else bad / growth
    samples.add(good, f"at least: {ends}" if ends else "")  # what passed without loss is a fact, whatever ended it
