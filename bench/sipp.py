"""One SIPp caller and one SIPp callee around a system under test, and what their statistics say."""

from __future__ import annotations

import csv
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.figures import NotMeasuredError
from bench.machine import Cores, busy_s, require_program
from bench.processes import Process

SCENARIOS = Path(__file__).parent / "sipp"
CALLER = "127.0.1.21"
CALLEE = "127.0.1.22"
CALLER_PORT = 5062
CALLEE_PORT = 5064
# How long after the end of a load its last calls may take.
GRACE_S = 3.0
_BUFFER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Offered:
    """A load: ``rate`` calls a second for ``duration_s``; each call is held for ``hold_ms``."""

    rate: float
    duration_s: float
    hold_ms: int = 100

    @property
    def calls(self) -> int:
        return max(1, round(self.rate * self.duration_s))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load. Shares are 0..1 of one core over the steady part.

    ``refused`` of the ``failed`` calls got a 503 with Retry-After; the others failed in some other way.
    """

    offered: Offered
    succeeded: int
    failed: int
    refused: int
    retransmissions: int
    kept_rate: float
    cpu_s_per_call: float
    parts_s_per_call: dict[str, float]
    system_share: float
    generator_share: float
    foreign_share: float

    @property
    def clean(self) -> bool:
        """No failed call, no retransmission at either end, the wanted rate kept."""
        return self.failed == 0 and self.retransmissions == 0 and self.rate_kept

    @property
    def rate_kept(self) -> bool:
        return self.kept_rate >= 0.97 * self.offered.rate

    @property
    def generator_limited(self) -> bool:
        return self.generator_share >= 0.9

    def fault(self) -> str:
        """Why this was not a clean run, empty when it was."""
        faults = []
        if self.failed:
            kinds = f" ({self.refused} refused)" if self.refused else ""
            faults.append(f"{self.failed} of {self.succeeded + self.failed} calls failed{kinds}")
        if self.retransmissions:
            faults.append(f"{self.retransmissions} retransmissions")
        if not self.rate_kept:
            faults.append(f"{self.kept_rate:.0f}/s kept of {self.offered.rate:.0f}/s")
        return ", ".join(faults)


def offer(
    load: Offered,
    target: tuple[str, int],
    systems: Callable[[], dict[str, float]],
    cores: Cores,
    *,
    warm_s: float = 2.0,
) -> Outcome:
    """Place the calls through ``target`` and measure what lies between the warm-up and the last second.

    ``systems`` returns the CPU seconds spent so far by each part of the system under test.
    Raises NotMeasuredError when SIPp itself does not work here.
    """
    directory = Path(tempfile.mkdtemp(prefix="bench-sipp-"))
    try:
        with _callee(load, cores, directory) as uas, _caller(load, target, cores, directory) as uac:
            time.sleep(warm_s)
            first = _Snapshot(systems(), uac.cpu_s() + uas.cpu_s(), busy_s(cores.system), busy_s(cores.load))
            began, began_wall = time.monotonic(), time.time()
            steady_s = max(1.0, load.duration_s - warm_s - 0.5)
            uac.wait(steady_s)
            last = _Snapshot(systems(), uac.cpu_s() + uas.cpu_s(), busy_s(cores.system), busy_s(cores.load))
            elapsed_s = time.monotonic() - began
            ended_wall = time.time()
            # calls that still go on so long after the last one began wait for retransmissions: not clean anyway
            if uac.wait(0.5 + load.hold_ms / 1000 + GRACE_S) is None:
                uac.stop(grace_s=1.0)
            uas.signal(signal.SIGUSR1)
            uas.wait(3)
        caller_rows = _rows(directory / "uac.csv")
        unexplained = ("FailedRegexpHdrNotFound(C)", "FailedRegexpDoesntMatch(C)")  # 503 without Retry-After
        refused = _received(directory, "503") - sum(int(caller_rows[-1][name]) for name in unexplained)
        succeeded = int(caller_rows[-1]["SuccessfulCall(C)"]) - refused
        failed = max(int(caller_rows[-1]["FailedCall(C)"]) + refused, load.calls - succeeded)
        # calls are counted where they were finished: at the caller, between the two snapshots
        finished = _finished(caller_rows, ended_wall) - _finished(caller_rows, began_wall)
        spent = {name: last.systems[name] - first.systems.get(name, 0.0) for name in last.systems}
        generator_s = last.generator_s - first.generator_s
        busy = (last.system_busy_s - first.system_busy_s) + (last.load_busy_s - first.load_busy_s)
        calls = max(finished, 1.0)
        return Outcome(
            offered=load,
            succeeded=succeeded,
            failed=failed,
            refused=refused,
            retransmissions=_retransmissions(directory),
            kept_rate=finished / elapsed_s,
            cpu_s_per_call=sum(spent.values()) / calls,
            parts_s_per_call={name: value / calls for name, value in spent.items()},
            system_share=sum(spent.values()) / elapsed_s,
            generator_share=generator_s / elapsed_s,
            foreign_share=max(0.0, busy - generator_s - sum(spent.values())) / elapsed_s,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    systems: dict[str, float]
    generator_s: float
    system_busy_s: float
    load_busy_s: float


def hold(load: Offered, target: tuple[str, int], cores: Cores, look: Callable[[], None]) -> int:
    """Set up ``load.calls`` calls, call ``look`` while all of them are held, and leave them; returns how many stood."""
    directory = Path(tempfile.mkdtemp(prefix="bench-sipp-"))
    try:
        with _callee(load, cores, directory), _caller(load, target, cores, directory) as uac:
            deadline = time.monotonic() + load.duration_s + 10
            standing = 0
            while time.monotonic() < deadline and standing < load.calls:
                time.sleep(0.5)
                uac.require()
                rows = _rows(directory / "uac.csv", required=False)
                standing = int(rows[-1]["CurrentCall"]) if rows else 0
            time.sleep(1.0)
            failed = int(_rows(directory / "uac.csv")[-1]["FailedCall(C)"])
            if failed or standing < load.calls:
                stood = min(standing, load.calls - failed)
                raise NotMeasuredError(f"only {stood} of {load.calls} calls could be held: {_errors(directory)}")
            look()
            return standing
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def trace_one(target: tuple[str, int], cores: Cores) -> tuple[str, str]:
    """Place one call; returns what the caller and what the callee saw on the wire. NotMeasuredError when it fails."""
    load = Offered(rate=1, duration_s=1)
    directory = Path(tempfile.mkdtemp(prefix="bench-sipp-"))
    try:
        trace = ("-trace_msg", "-message_file")
        with (
            _callee(load, cores, directory, *trace, "uas.msg") as uas,
            _caller(load, target, cores, directory, *trace, "uac.msg") as uac,
        ):
            code = uac.wait(10)
            uas.signal(signal.SIGUSR1)
            uas.wait(3)
            if code != 0:
                raise NotMeasuredError(f"a single call did not succeed: {_errors(directory)}")
            if _received(directory, "503"):
                raise NotMeasuredError("a single call was refused")
        return (directory / "uac.msg").read_text(errors="replace"), (directory / "uas.msg").read_text(errors="replace")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _common(load: Offered, name: str, directory: Path) -> list[str]:
    limit_s = round(load.duration_s + load.hold_ms / 1000 + 45)
    return [
        *("-nostdin", "-trace_stat", "-stf", f"{name}.csv", "-fd", "500ms", "-trace_counts"),
        *("-trace_err", "-error_file", str(directory / f"{name}.err")),
        *("-buff_size", str(_BUFFER_BYTES), "-timeout", f"{limit_s}s", "-deadcall_wait", "0"),
        *("-watchdog_interval", "0", "-max_retrans", "7"),
    ]


def _callee(load: Offered, cores: Cores, directory: Path, *extra: str) -> Process:
    sipp = require_program("sipp", "sip-tester")
    shutil.copy(SCENARIOS / "uas.xml", directory)  # SIPp writes its counts beside the scenario
    command = [sipp, "-sf", "uas.xml", "-i", CALLEE, "-p", str(CALLEE_PORT)]
    process = Process("uas", [*command, *_common(load, "uas", directory), *extra], cores.load, directory, _ENV)
    time.sleep(0.3)
    process.require()
    return process


def _caller(load: Offered, target: tuple[str, int], cores: Cores, directory: Path, *extra: str) -> Process:
    sipp = require_program("sipp", "sip-tester")
    shutil.copy(SCENARIOS / "uac.xml", directory)
    command = [sipp, "{}:{}".format(*target), "-sf", "uac.xml", "-i", CALLER, "-p", str(CALLER_PORT)]
    volume = ["-r", f"{load.rate:g}", "-m", str(load.calls), "-l", str(load.calls), "-d", str(load.hold_ms)]
    return Process("uac", [*command, *volume, *_common(load, "uac", directory), *extra], cores.load, directory, _ENV)


_ENV = {"TERM": "xterm", "LC_ALL": "C"}


def _rows(path: Path, *, required: bool = True) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as lines:
            # the file may be in the middle of a line: the last column tells
            rows = [row for row in csv.DictReader(lines, delimiter=";") if row.get("FailedCall(C)")]
    if required and not rows:
        raise NotMeasuredError("SIPp wrote no statistics")
    return rows


def _finished(rows: list[dict[str, str]], wall_s: float) -> float:
    """Calls that the caller had finished by ``wall_s``, interpolated between two rows."""
    points = [(float(row["CurrentTime"].split()[-1]), float(row["SuccessfulCall(C)"])) for row in rows]
    for (earlier, before), (later, after) in pairwise(points):
        if earlier <= wall_s <= later and later > earlier:
            return before + (after - before) * (wall_s - earlier) / (later - earlier)
    return points[0][1] if wall_s < points[0][0] else points[-1][1]


def _retransmissions(directory: Path) -> int:
    """Retransmissions sent or received by either end."""
    return sum(_counted(path, "_Retrans") for path in directory.glob("*_counts.csv"))


def _received(directory: Path, status: str) -> int:
    """How many responses of this status the caller got."""
    return sum(_counted(path, f"_{status}_Recv") for path in directory.glob("uac_*_counts.csv"))


def _counted(path: Path, column: str) -> int:
    """The last of the per-message counts, over all messages whose column ends so."""
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    if not rows:
        return 0
    return sum(int(value) for name, value in rows[-1].items() if name and name.endswith(column) and value)


def _errors(directory: Path) -> str:
    for name in ("uac", "uas"):
        path = directory / f"{name}.err"
        if path.exists() and (text := path.read_text(errors="replace").strip()):
            return f"{name}: {' '.join(text.split())[:300]}"
    return "SIPp says nothing"
