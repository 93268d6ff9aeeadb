"""Media control: CPU of the relay process for one call's engage, offer, answer and delete."""

from __future__ import annotations

import asyncio
from functools import partial

from bench import rtp_load
from bench.figures import Samples
from bench.plan import Plan, attempt, working_directory
from bench.relays import RELAYS, Relay, in_flight

CALLS = 2000
IN_FLIGHT = 50
REST_S = 2.3  # ports rest for two seconds between two calls: only then the next ones get them, as in a running system


def measure(plan: Plan) -> list[Samples]:
    """All wanted figures of this family; the relays take turns within each run."""
    figures = {who: Samples(f"{who}.control.cpu_us", "us/call") for who in RELAYS}
    wanted = {who: samples for who, samples in figures.items() if plan.wants(samples.name)}
    for _ in range(plan.runs):
        for who, samples in wanted.items():
            attempt(plan, [samples], partial(_control, plan, who, samples))
    return list(wanted.values())


def _control(plan: Plan, who: str, samples: Samples) -> None:
    with working_directory() as directory:
        relay = RELAYS[who](plan.cores.system, directory)
        with relay.process:
            samples.add(asyncio.run(_place(relay)))


async def _place(relay: Relay) -> float:
    """CPU microseconds per call; as many calls before warm the process up and do not count."""

    async def one(number: int) -> None:
        side = rtp_load.side_port(number)
        await relay.open_call(number, (rtp_load.CALLER, side), (rtp_load.CALLEE, side))
        await relay.close_call(number)

    await relay.connect()
    try:
        await in_flight(one, CALLS, IN_FLIGHT)
        await asyncio.sleep(REST_S)
        before_s = relay.process.cpu_s()
        await in_flight(lambda number: one(CALLS + number), CALLS, IN_FLIGHT)
        return (relay.process.cpu_s() - before_s) / CALLS * 1e6
    finally:
        relay.disconnect()
