"""Processes that the harness starts: pinned to a core, measured through /proc, and always ended by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import NotMeasuredError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/<pid>/stat that matter here; times in clock ticks."""

    parent: int
    session: int
    own_ticks: int
    reaped_ticks: int


def read_stat(pid: int) -> Stat | None:
    """Read one process, or None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    utime, stime, cutime, cstime = (int(value) for value in fields[11:15])
    return Stat(int(fields[1]), int(fields[3]), utime + stime, cutime + cstime)


def title(pid: int) -> str:
    """The command line as shown by ps: what setproctitle set, or the program's arguments."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def every_process() -> dict[int, Stat]:
    """All processes of the machine."""
    found = {int(entry): read_stat(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    return {pid: stat for pid, stat in found.items() if stat is not None}


def tree(root: int) -> dict[int, Stat]:
    """The process ``root`` and all its descendants, also those in sessions of their own."""
    stats = every_process()
    members = {root: stats[root]} if root in stats else {}
    grown = True
    while grown:
        found = {pid: stat for pid, stat in stats.items() if stat.parent in members and pid not in members}
        grown = bool(found)
        members.update(found)
    return members


def resident_bytes(pid: int, *, of: str = "Pss") -> int:
    """Proportional set size of one process, so that pages shared by forked workers are counted once; or another sum of
    the kernel's."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{of}:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0


class Process:
    """One program in its own session, pinned to ``core``, its output in a file; a context manager that ends it."""

    def __init__(
        self, name: str, command: Sequence[str | Path], core: int, directory: Path, env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as output:
            self._popen = subprocess.Popen(
                ["taskset", "-c", str(core), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def running(self) -> bool:
        return self._popen.poll() is None

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when it still runs after ``timeout_s``."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL to what is left of the tree and of the session, orphans of a crash included.

        Both are known by the pid that this object started: its descendants, and the session that it leads.
        """
        members = set(tree(self.pid))
        if self.running():
            self.signal(signal.SIGTERM)
            self.wait(grace_s)
        for pid, stat in every_process().items():
            # a number used again meanwhile is in a session that is none of ours
            if stat.session == self.pid or (pid in members and stat.session in members):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.wait(grace_s)

    def cpu_s(self) -> float:
        """User and system time of the tree so far, with what its members reaped."""
        return sum(stat.own_ticks + stat.reaped_ticks for stat in tree(self.pid).values()) / _TICKS_PER_S

    def cpu_by_title(self) -> dict[str, float]:
        """CPU seconds by the process's title: ``sbc: sip 0``, ``rtpengine`` ..."""
        parts: dict[str, float] = {}
        for pid, stat in tree(self.pid).items():
            name = title(pid)
            name = name if name.startswith("sbc:") else self.name
            parts[name] = parts.get(name, 0.0) + (stat.own_ticks + stat.reaped_ticks) / _TICKS_PER_S
        return parts

    def tail(self, lines: int = 5) -> str:
        """The last lines of its output, on one line, for a message."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def require(self) -> None:
        """Raise NotMeasuredError when the process has ended."""
        if not self.running():
            raise NotMeasuredError(f"{self.name} ended with code {self._popen.returncode}: {self.tail()}")


def wait_until(ready: Callable[[], object], process: Process, what: str, timeout_s: float = 15.0) -> None:
    """Call ``ready`` (a function that returns a truth value) until it holds; NotMeasuredError when it never does."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        process.require()
        if time.monotonic() > deadline:
            raise NotMeasuredError(f"{process.name}: {what} did not come within {timeout_s:.0f} s: {process.tail()}")
        time.sleep(0.05)


def wait_for_port(process: Process, address: str, port: int) -> None:
    """Until a UDP port is taken: a SIP probe would need an answer that not every peer gives alone."""

    def taken() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                return True
        return False

    wait_until(taken, process, "its SIP port")
