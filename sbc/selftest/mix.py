"""Row X2: one fault after the other, drawn at random, while calls are up, and come and go."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

from sbc.selftest.measure import Measures
from sbc.selftest.node import wait
from sbc.selftest.pools import expect_pools, pools
from sbc.selftest.row import Row
from sbc.selftest.site import Setup, Site
from sbc.selftest.traffic import Traffic

EVERY_S = 20.0
LASTING = 6  # calls that are up all the time
RECOVERED_S = 15.0


def _kill(name: str) -> Callable[[Site, random.Random], None]:
    def fault(site: Site, _: random.Random) -> None:
        site.node.back(name, site.node.kill(name))

    return fault


def _hang(name: str) -> Callable[[Site, random.Random], None]:
    def fault(site: Site, _: random.Random) -> None:
        site.node.back(name, site.node.signal(name, signal.SIGSTOP))

    return fault


def _pause_store(site: Site, chance: random.Random) -> None:
    site.store.pause(True)
    time.sleep(chance.uniform(0.2, 4.0))
    site.store.pause(False)


def _lose_store(site: Site, chance: random.Random) -> None:
    site.store.kill()
    time.sleep(chance.uniform(0.0, 3.0))
    site.store.start()


def _empty_store(site: Site, _: random.Random) -> None:
    site.store.client().flushall()


def _hang_store_and_kill(site: Site, chance: random.Random) -> None:
    """Calls are answered while nothing can be written, and then their worker dies."""
    name = f"sip {chance.randrange(2)}"
    site.store.pause(True)
    time.sleep(chance.uniform(0.2, 2.0))
    former = site.node.kill(name)
    site.store.pause(False)
    site.node.back(name, former)


def _reload(site: Site, _: random.Random) -> None:
    site.node.reload()


FAULTS: dict[str, Callable[[Site, random.Random], None]] = {
    "sip 0 killed": _kill("sip 0"),
    "sip 1 killed": _kill("sip 1"),
    "sip 1 hangs": _hang("sip 1"),
    "media 0 killed": _kill("media 0"),
    "control killed": _kill("control"),
    "store hangs": _pause_store,
    "store killed": _lose_store,
    "store emptied": _empty_store,
    "sip killed while the store hangs": _hang_store_and_kill,
    "supervisor killed": _kill("supervisor"),
    "reload": _reload,
}


def random_mix(site: Site, measures: Measures) -> None:
    """A fault every 20 s for ``--minutes``, in an order that the seed tells.

    A call is one that the caller has heard a 2xx for. One that ended before, with its worker or because it could not be
    set up, is promised a record only if it was in setup for ``timers.setup_record_after_ms``: counted, and no more.
    """
    chance = random.Random(site.seed * 1000 + site.run)
    whole = pools(site.node)
    lasting = site.establish(LASTING)
    site.control(lasting, measures)
    descriptors = _descriptors(site)
    end_s = time.monotonic() + site.minutes * 60
    done: list[str] = []
    with Traffic(site, interval_s=0.1, hold_s=1.0) as traffic:
        while (begun_s := time.monotonic()) < end_s:
            name = chance.choice(sorted(FAULTS))
            done.append(name)
            FAULTS[name](site, chance)
            site.heard_again(lasting, time.time(), RECOVERED_S)
            for stream in (stream for call in lasting for stream in call.streams):
                stream.forget()
            site.tidy()
            measures.add("audio in all calls again after", [time.monotonic() - begun_s], max_s=RECOVERED_S)
            time.sleep(max(0.0, min(end_s, begun_s + EVERY_S) - time.monotonic()))
    measures.note(f"run {measures.runs}: {', '.join(done)}")
    lost = [call for call in traffic.answered if "BYE" not in call.asked or call.asked["BYE"].status != 200]
    measures.note(
        f"run {measures.runs}: {len(traffic.placed)} calls, {len(traffic.failed)} not set up, {len(lost)} lost"
    )
    statuses = [call.asked["BYE"].status if "BYE" in call.asked else "none" for call in lost]
    measures.expect(not lost, f"{len(lost)} calls that were up did not know their BYE: {statuses}")
    share = len(traffic.answered) / max(1, len(traffic.placed))
    measures.expect(share >= 0.9, f"only {share:.0%} of the new calls came up")
    expect_pools(site, measures, whole, LASTING, "while the lasting calls are up,")
    site.end(lasting, measures)
    _end_what_died_between_bye_and_record(site, measures)
    site.settled(measures, 40.0)
    expect_pools(site, measures, whole, 0, "at the end")
    wait(lambda: not site.store.call_keys(), 10, "the end of the last record in the store")
    streams = [stream for call in lasting for stream in call.streams]
    measures.expect(not any(stream.foreign for stream in streams), "a packet came to the wrong call")
    legs = [
        call for agent in (site.caller, site.callee) for call in agent.all_calls() if call.up and not call.has_ended
    ]
    measures.expect(not legs, f"{len(legs)} user agents still have a call that the SBC does not")
    more = _descriptors(site) - descriptors
    measures.expect(more < 60, f"the node has {more} more open files than at the start")


def _end_what_died_between_bye_and_record(site: Site, measures: Measures) -> None:
    time.sleep(1.0)
    for row in site.node.calls():
        measures.expect(bool(row["resumed"]), "a call is left that its worker never lost")
        site.node.patient("hangup", key=row["key"], reason="its worker died between BYE and record")


def _descriptors(site: Site) -> int:
    # media workers keep pairs of ports for later calls: see expect_pools
    pids = [pid for name, pid in site.node.pids().items() if name.startswith(("sip ", "control"))]
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


ROWS = (
    Row(
        "X2",
        "faults at random, one every 20 s",
        "at the end each call is up with media, or ended with exactly one record; nothing leaks",
        random_mix,
        Setup(own_store=True),
        limit_s=120.0,
    ),
)
