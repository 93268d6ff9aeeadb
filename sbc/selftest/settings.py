"""Rows of the families G and C: bad configurations, and a clock that jumps."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from sbc.selftest.measure import Measures, NotTried
from sbc.selftest.node import fake_clock_environment, faketime, wait
from sbc.selftest.row import Row
from sbc.selftest.site import Setup, Site
from sbc.selftest.traffic import Traffic

RELOADS = 18
PACE_S = 0.15  # the log has ten errors of a kind in a second
REFUSED, TAKEN = "configuration refused, the old one serves on", "configuration reloaded"
JUMPS_S = (3600, -3600)

# What an operator's hand may do to a file, and what must be said of it.
FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "a syntax error": (lambda text: text.replace("realms:", "realms: ["), "sbc.yaml"),
    "an unknown key": (lambda text: text.replace("direction: from_pbx", "directon: from_pbx"), "did you mean"),
    "a file that was cut off": (lambda text: text[: len(text) // 2], "sbc.yaml"),
    "a certificate that is not there": (
        lambda text: text.replace(
            "    trusted: true", "    trusted: true\n    tls: { certificate: no.pem, key: no.pem }"
        ),
        "no.pem",
    ),
    "another listener": (lambda text: text.replace("listen: [udp:", "listen: [tcp:127.0.0.1:1, udp:", 1), "restart"),
    "an empty file": (lambda _: "", "empty"),
}


def bad_reloads(site: Site, measures: Measures) -> None:
    """One bad file after the other is to be taken over while calls are up, and come and go."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    fault_at = time.time()
    good = site.node.text
    try:
        with Traffic(site) as traffic:
            for what, (spoil, said) in islice(cycle(FAULTS.items()), RELOADS):
                site.node.config.write_text(spoil(good))
                before = len(site.node.logged(REFUSED))
                site.node.reload()
                took_s = wait(lambda before=before: len(site.node.logged(REFUSED)) > before, 5, f"{what} is refused")  # type: ignore[misc]
                measures.add("refused after", [took_s], max_s=2.0)
                told = " ".join(site.node.logged(REFUSED)[-1]["faults"])
                time.sleep(PACE_S)
                measures.expect(said in told, f"{what}: the log does not say {said!r} but {told!r}")
            site.node.config.write_text(good)
            known = len(site.node.logged(TAKEN))
            site.node.reload()
            wait(lambda: len(site.node.logged(TAKEN)) > known, 5, "the good file is taken over")
    finally:
        site.node.config.write_text(good)
    measures.expect(not traffic.failed, f"{len(traffic.failed)} of {len(traffic.placed)} new calls failed")
    measures.expect(all(bye.status == 200 for bye in traffic.byes), "a BYE was refused")
    measures.add("setup meanwhile", (call.asked["INVITE"].took_s for call in traffic.answered))
    site.measure_gap(calls, fault_at, measures, max_s=0.15)
    site.end(calls, measures)
    site.settled(measures)


def clock_jumps(site: Site, measures: Measures) -> None:
    """The wall clock of the node goes an hour forward and an hour back while calls are up."""
    for jump_s in JUMPS_S:
        calls = site.establish(max(2, site.calls // 4))
        begun_s = time.monotonic()
        site.control(calls, measures)
        fault_at = time.time()
        site.node.set_clock(jump_s)
        time.sleep(2.0)
        measures.expect(len(site.node.calls()) == len(calls), "calls ended as the clock jumped")
        new = site.establish(2, talk=False)
        site.heard_again(calls, time.time(), 5)
        site.measure_gap(calls, fault_at, measures, max_s=0.15)
        lasted_s = time.monotonic() - begun_s
        site.end([*calls, *new], measures, max_s=1.0)
        site.settled(measures)
        told = {cdr["a_call_id"]: cdr["duration_s"] for cdr in site.node.cdrs()}
        errors = [abs(float(told[call.a.call_id] or 0) - lasted_s) for call in calls if call.a.call_id in told]
        measures.add("error of the duration in records", errors, max_s=1.0)
        site.node.set_clock(0)
        time.sleep(0.5)


def needs_faketime() -> None:
    """The machine's own clock is not for us to set. Some releases of libfaketime have Python's sleeps fail."""
    if not faketime():
        raise NotTried("libfaketime is not installed: apt-get install libfaketime")
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("+3600\n")
        file.flush()
        program = (
            "import time; start = time.monotonic(); time.sleep(0.05); print(time.time(), time.monotonic() - start)"
        )
        words = ["env", *fake_clock_environment(Path(file.name)), sys.executable, "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    told = done.stdout.split()
    if done.returncode or len(told) != 2 or float(told[0]) - time.time() < 3000 or not 0.04 < float(told[1]) < 20:
        raise NotTried("the libfaketime of this machine does not get on with this Python: a later release may")


ROWS = (
    Row(
        "G1",
        f"{RELOADS} reloads of bad configurations",
        "each is refused with its reason, the old one serves on; no call notices",
        bad_reloads,
        limit_s=120.0,
    ),
    Row(
        "C1",
        "the wall clock jumps by an hour, both ways",
        "no call ends or stalls; durations in records are right to 1 s",
        clock_jumps,
        Setup(clock=True, own_store=True),
        limit_s=120.0,
        check=needs_faketime,
    ),
)
