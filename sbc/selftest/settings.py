"""Row of the family G: bad configurations."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle, islice

from sbc.selftest.measure import Measures
from sbc.selftest.node import wait
from sbc.selftest.row import Row
from sbc.selftest.site import Site
from sbc.selftest.traffic import Traffic

RELOADS = 18
PACE_S = 0.15  # the log has ten errors of a kind in a second
REFUSED, TAKEN = "configuration refused, the old one serves on", "configuration reloaded"

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


ROWS = (
    Row(
        "G1",
        f"{RELOADS} reloads of bad configurations",
        "each is refused with its reason, the old one serves on; no call notices",
        bad_reloads,
        limit_s=120.0,
    ),
)
