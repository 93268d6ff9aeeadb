"""The wall clock may jump: it is read for what people and other machines are told, and nothing is timed by it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_THE_PRODUCT = ("sbc/selftest/", "sbc/demo/", "sbc/testing/", "sbc/simulator/")
READERS = {
    "sbc/clock.py": "the clock of the shells",
    "sbc/worker/sip_worker.py": "hands it to the core, for CDRs and records",
    "sbc/worker/thaw.py": "the same clock, for a node of a pair",
    "sbc/worker/beginning.py": "records name times that another process is to understand",
    "sbc/ha/status.py": "shown",
    "sbc/management/api.py": "shown",
    "sbc/management/control.py": "certificates end by the calendar",
    "sbc/management/certificates.py": "the same",
    "sbc/routing/versions.py": "when a version was taken, shown",
    "sbc/supervisor/upgrade.py": "how far an upgrade has come, shown",
    "sbc/telemetry/log.py": "lines of the log",
    "sbc/telemetry/page.py": "when a process began, shown",
    "media/dtls.py": "from when to when a certificate is good",
    "media/recording.py": "what is in a recording",
    "media/worker.py": "when a process began, shown",
}
NAMES = {
    "time": {"time", "time_ns"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def reads_wall_clock(source: str) -> bool:
    """Whether code reads it, by ``time``, ``datetime`` or a clock of ours."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            if {alias.name for alias in node.names} & NAMES["time"]:
                return True
        elif isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if node.attr in NAMES.get(name, ()) or (node.attr == "wall" and name in ("clock", "_clock")):
                return True
    return False


def test_the_wall_clock_is_read_where_it_is_told_of_and_nowhere_else() -> None:
    found = set()
    for path in sorted([*ROOT.glob("sbc/**/*.py"), *ROOT.glob("media/**/*.py")]):
        name = str(path.relative_to(ROOT))
        if not name.startswith(NOT_THE_PRODUCT) and reads_wall_clock(path.read_text("utf-8")):
            found.add(name)
    assert found - READERS.keys() == set(), "timers, limits and durations go by the monotonic clock"
    assert READERS.keys() - found == set(), "these are on the list and read it no more"


def test_compiled_code_reads_it_for_the_age_of_a_datagram_alone() -> None:
    """The kernel stamps datagrams by it; an age that only a clock that was set can explain counts as none."""
    of_c = re.compile(r"CLOCK_REALTIME|\bgettimeofday\b|\btime\(NULL\)|SO_TIMESTAMP")
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.glob("ext/**/*")
        if path.suffix in (".pyx", ".pxd", ".c", ".h") and of_c.search(path.read_text("utf-8"))
    }
    assert found == {"ext/sbc/worker/_datagrams.pyx"}


def test_each_way_to_read_it_is_seen() -> None:
    for source in (
        "import time\nx = time.time()",
        "import time\nread = time.time_ns",
        "from time import monotonic, time",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now()",
        "self._clock.wall()",
    ):
        assert reads_wall_clock(source), source
    assert not reads_wall_clock(
        "import time\nfrom datetime import datetime\ntime.monotonic(), datetime.fromtimestamp(0)"
    )
