"""A real SBC for a test: real processes, its own folders, stopped at the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbc.demo.run import free_port, running_sbc
from sbc.selftest.node import records

BOOT_LIMIT_S = 60.0  # on a machine that does much else

__all__ = ["Sbc", "eventually", "free_port", "has_ended", "running"]

HEAD = """\
node: {node}
run_dir: {directory}/run
state_dir: {directory}/state
database: sqlite:///{directory}/state/sbc.db
management: {{ metrics: "" }}
"""


def eventually(check: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Poll until ``check`` holds; returns the seconds it took, AssertionError naming ``what`` after the timeout."""
    start = time.monotonic()
    while True:
        if check():
            return time.monotonic() - start
        if time.monotonic() - start > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Whether this process is gone, or waits for its parent to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(parent: int) -> dict[int, str]:
    """Process ids and titles of the children of a process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                found[int(entry.name)] = title
        except (OSError, IndexError):
            continue
    return found


@dataclass(slots=True)
class Sbc:
    """A running SBC."""

    directory: Path
    main_pid: int  # of the keeper, which passes signals on

    @property
    def log(self) -> str:
        return (self.directory / "sbc.log").read_text(errors="replace")

    def ask(self, method: str, **params: Any) -> Any:  # Any: JSON both ways
        """One question to the control worker, which may just be starting again."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            eventually(lambda: self._reached(sock), 15, f"a control worker to ask for {method}")
            sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
            reply = json.loads(sock.makefile().readline())
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']}")
        return reply["result"]

    def _reached(self, sock: socket.socket) -> bool:
        try:
            sock.connect(str(self.directory / "run" / "control.sock"))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True

    def total(self, counter: str) -> int:
        """A counter, summed over the SIP workers; 0 while it never counted."""
        return int(self.ask("status")["totals"].get(counter.lower(), 0))

    @property
    def supervisor_pid(self) -> int:
        """Of the supervisor, 0 while there is none."""
        return next((pid for pid, title in children(self.main_pid).items() if "supervisor" in title), 0)

    def pids(self) -> dict[str, int]:
        """Process ids of the workers by title (``sip 0``, ``media 0``, ``control``), store included: children of the
        supervisor, or of the keeper where a former supervisor has started them."""
        found = {}
        supervisor = self.supervisor_pid
        for pid, title in {**children(self.main_pid), **children(supervisor)}.items():
            if pid != supervisor:
                name = title.removeprefix("sbc: ") if title.startswith("sbc: ") else "store"
                # the store adds to its title where it listens
                found["store" if name.startswith("store") else name] = pid
        return found

    def kill(self, name: str) -> int:
        """``kill -9`` one child; returns its process id."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def respawned(self, name: str, old_pid: int, timeout_s: float = 10.0) -> float:
        """Wait for a successor of a killed child; returns the seconds it took."""
        return eventually(lambda: self.pids().get(name, old_pid) != old_pid, timeout_s, f"{name} started again")

    def calls(self) -> list[dict[str, Any]]:  # Any: JSON
        """All live calls."""
        found: list[dict[str, Any]] = self.ask("calls", limit=10_000)["calls"]  # Any: JSON
        return found

    def cdrs(self) -> list[dict[str, Any]]:  # Any: JSON
        """All records in the database."""
        return records(self.directory / "state" / "sbc.db")


@contextmanager
def running(directory: Path, config: str, *, prefix: Sequence[str] = (), node: str = "test") -> Iterator[Sbc]:
    """Run an SBC with ``config`` (node, folders and database are set here) until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "sbc.yaml"
    path.write_text(HEAD.format(node=node, directory=directory) + config)
    with running_sbc(path, directory / "sbc.log", BOOT_LIMIT_S, prefix) as process:
        # `ip netns exec` replaces itself by the command, so this is the keeper in both cases
        sbc = Sbc(directory, process.pid)
        # It serves calls before its control worker answers questions; a test asks at once.
        eventually((directory / "run" / "control.sock").exists, BOOT_LIMIT_S, f"a control worker\n{sbc.log}")
        yield sbc
