"""Rows of the families D and F: the disk is full, a process dies with CDRs in its hands, ports run out."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sbc.selftest.measure import Measures, NotTried
from sbc.selftest.node import wait
from sbc.selftest.row import Row
from sbc.selftest.site import Setup, Site

PAIRS = 20  # of ports in the small range
DISK_BYTES = 256 * 1024


def disk_full(site: Site, measures: Measures) -> None:
    """No room for CDRs on disk, and then no store either; both come back."""
    with _disk(site) as (fill, free):
        calls = site.establish(site.calls)
        site.control(calls, measures)
        fault_at, fault_s = time.time(), time.monotonic()
        third = len(calls) // 3
        fill()
        site.end(calls[:third], measures, max_s=1.0)
        wait(lambda: bool(_spool_error(site)), 5, "an alarm in sbc status")
        measures.add("alarm after", [time.monotonic() - fault_s], max_s=4.0)
        measures.note(f"run {measures.runs}: sbc status says: {_spool_error(site)}")
        site.store.kill()
        site.end(calls[third : 2 * third], measures, max_s=1.0)
        new = site.establish(4, talk=False)
        site.end(new, measures)
        wait(lambda: site.node.patient("status")["cdr"].get("kept_in_memory", 0) > 0, 5, "CDRs in memory only")
        site.measure_gap(calls[2 * third :], fault_at, measures, max_s=0.15)
        free()
        freed_s = time.monotonic()
        wait(lambda: not _spool_error(site), 10, "the end of the alarm")
        measures.add("on disk again after", [time.monotonic() - freed_s], max_s=5.0)
        site.store.start()
        site.end(calls[2 * third :], measures)
        site.settled(measures)


@contextmanager
def _disk(site: Site) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Ways to fill the disk of the spool and to free it: a small one where we may mount, else a limit of file sizes."""
    spool = site.spool_folder
    stuffing = spool / "stuffing"

    def fill() -> None:
        with suppress(OSError), stuffing.open("wb", buffering=0) as file:
            for size in (4096, 512, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def limit(size: int) -> None:
        for name, pid in site.node.pids().items():
            if name.startswith("sip "):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    if site.is_apart:
        yield fill, lambda: stuffing.unlink(missing_ok=True)
        stuffing.unlink(missing_ok=True)
    else:
        yield lambda: limit(0), lambda: limit(resource.RLIM_INFINITY)


def _spool_error(site: Site) -> str:
    return str(site.node.patient("status")["cdr"].get("spool_error", ""))


def killed_with_cdrs(site: Site, measures: Measures) -> None:
    """A SIP worker dies at a random moment while calls end; then everything that knows of ended calls at once."""
    chance = random.Random(site.seed * 1000 + site.run)
    for _ in range(4):
        calls = site.establish(site.calls, talk=False)
        at = chance.randrange(len(calls))
        asked = []
        for number, call in enumerate(calls):
            if number == at:
                time.sleep(chance.uniform(0, 0.01))
                died = site.node.kill("sip 0")
            asked.append(site.caller.hang_up(call.a))
            time.sleep(0.002)
        site.node.back("sip 0", died)
        wait(lambda asked=asked: all(one.status for one in asked), 35, "an answer to each BYE")  # type: ignore[misc]
        # Killed between BYE and record: it is still known, and ends when media have been silent for too long.
        time.sleep(0.5)
        for row in site.node.calls():
            site.node.patient("hangup", key=row["key"], reason="its worker died before its record")
            measures.note("calls whose worker died between BYE and record were known afterwards, and ended by hand")
    calls = site.establish(site.calls, talk=False)
    site.end(calls, measures)
    time.sleep(0.4)
    died_all = {name: site.node.kill(name) for name in ("control", "store", "sip 0", "sip 1")}
    for name, pid in died_all.items():
        site.node.back(name, pid)
    site.settled(measures)


def ports_used_up(site: Site, measures: Measures) -> None:
    """As many calls as there are pairs of ports, and one more."""
    calls = site.establish(PAIRS, talk=False)
    refused = site.invite()
    wait(lambda: refused.asked["INVITE"].status != 0, 10, "an answer to the call that is too much")
    asked = refused.asked["INVITE"]
    measures.expect(asked.status == 503, f"the call that is too much got {asked.status}, not 503")
    measures.add("refused after", [asked.took_s], max_s=0.2)
    ports = [call.a.far_audio for call in calls]
    measures.expect(len(set(ports)) == len(ports), "two calls have the same port")
    site.end(calls, measures)
    ended_s = time.monotonic()
    again = None
    while again is None or not again.up:
        if time.monotonic() - ended_s > 10:
            measures.expect(False, "no call comes up after all had ended")
            return
        again = site.invite()
        wait(lambda again=again: again.up or again.asked["INVITE"].status != 0, 10, "an answer")  # type: ignore[misc]
        time.sleep(0.05)
    measures.add("ports free again after", [time.monotonic() - ended_s], max_s=2.0)
    bye = site.caller.hang_up(again)
    wait(lambda: bye.status != 0, 10, "an answer to BYE")
    time.sleep(2.0)  # until the last pair may be lent again
    site.end(site.establish(PAIRS, talk=False), measures)
    site.settled(measures)
    time.sleep(2.0)


def needs_disk() -> None:
    """A limit of file sizes is set on live processes where no disk can be mounted."""
    if not hasattr(resource, "prlimit"):
        raise NotTried("this system has no prlimit")


ROWS = (
    Row(
        "D1",
        "the disk is full, then the store is gone too",
        "no call notices; CDRs wait in memory, sbc status says why; all are recorded once afterwards",
        disk_full,
        Setup(own_store=True, small_disk=DISK_BYTES),
        check=needs_disk,
    ),
    Row(
        "D2",
        "processes are killed between the end of a call and its record",
        "each call that was up has exactly one record",
        killed_with_cdrs,
    ),
    Row(
        "F2",
        f"all {PAIRS} pairs of ports are in use",
        "the next call gets 503 within 200 ms; ports are free again within 2 s after their call",
        ports_used_up,
        Setup(settings={"ports_outside": "10000-10039", "ports_core": "20000-20039"}),
    ),
)
