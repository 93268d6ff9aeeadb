"""The SBC that is broken: real processes of its own, in folders of its own, on addresses of 127.0.0.0/8 of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sbc.demo.phone import CallFailed
from sbc.demo.run import free_port, running_sbc
from sbc.management.client import ManagementError, ask
from sbc.selftest.certificate import self_signed
from sbc.selftest.measure import Failed
from sbc.selftest.wall_clock import WallClock

NETWORK = f"127.{64 + (os.getpid() >> 8) % 128}.{os.getpid() % 256}"
OUTSIDE, CORE = f"{NETWORK}.1", f"{NETWORK}.2"
CALLER, CALLEE = f"{NETWORK}.11", f"{NETWORK}.12"
STRANGER = f"{NETWORK}.99"
POLL_S = 0.01
START_S = 90.0  # of a machine that is busy with other things

CONFIG = """\
node: selftest
run_dir: {folder}/run
state_dir: {folder}/state
database: sqlite:///{folder}/state/sbc.db
workers: {{ sip: {sip}, media: {media} }}
store: {store}
realms:
  outside:
    listen: [udp:{outside}:{port}{tcp}]{tls}
    media: {{ address: {outside}, ports: {ports_outside}, srtp: {srtp} }}
  core:
    listen: [udp:{core}:{core_port}]
    media: {{ address: {core}, ports: {ports_core}, srtp: {srtp} }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {caller}, direction: from_carrier, calls_to: pbx }}
  pbx: {{ realm: core, addresses: {callee}, direction: from_pbx, gateway: "sip:{callee}:{callee_port}" }}
timers: {{ drain_timeout_s: 0.2, media_silence_s: 20 }}
cdr: {{ spool: "{spool}" }}
management: {{ metrics: "" }}
log: {{ level: info, format: json }}
"""


def wait(check: Callable[[], bool], limit_s: float, what: str) -> float:
    """Poll until ``check`` holds; the seconds it took. Failed, naming ``what``, after the limit."""
    start = time.monotonic()
    while not check():
        if time.monotonic() - start > limit_s:
            raise Failed(f"not within {limit_s:g} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - start


def dying_with_us() -> list[str]:
    """The words before a command that is to end when this process does, be it by kill -9; none where that cannot be."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


class Node:
    """One node. ``start`` again after it has died; ``close`` ends it and whatever of it is left. ``inside``: the words
    that put a command where it is to run."""

    inside: Sequence[str] = ()

    def __init__(self, folder: Path, **settings: Any) -> None:  # Any: values of the configuration
        self.folder = folder
        self.port, self.callee_port = free_port(OUTSIDE), free_port(CALLEE)
        folder.mkdir(parents=True, exist_ok=True)
        self.tls_port, self.certificate = free_port(OUTSIDE), folder / "own.pem"  # where the setting ``tls`` is true
        self.config = folder / "sbc.yaml"
        given = {
            "sip": 2,
            "media": 1,
            "store": "embedded",
            "srtp": "off",
            "spool": "",
            "tcp": False,
            "tls": False,
            **settings,
        }
        given = {"ports_outside": "10000-19999", "ports_core": "20000-29999", **given}
        given["tcp"] = f", tcp:{OUTSIDE}:{self.port}" if given["tcp"] else ""
        if given["tls"]:
            self_signed(self.certificate, OUTSIDE)
            given["tcp"] += f", tls:{OUTSIDE}:{self.tls_port}"
            given["tls"] = f"\n    tls: {{ certificate: {self.certificate}, key: {self.certificate} }}"
        else:
            given["tls"] = ""
        addresses = {"outside": OUTSIDE, "core": CORE, "caller": CALLER, "callee": CALLEE}
        self.core_port = free_port(CORE)
        ports = {"port": self.port, "core_port": self.core_port, "callee_port": self.callee_port}
        self.text = CONFIG.format(folder=folder, **addresses, **ports, **given)
        self.config.write_text(self.text)
        self.main_pid = 0
        self._stack = ExitStack()
        self._before: list[str] = []

    def start(self) -> None:
        """Start it and wait until it serves. Failed, with the end of its log, when it does not."""
        log = self.folder / "sbc.log"
        if log.exists():
            log.rename(self.folder / f"sbc.log.{time.time():.3f}")
        prefix = [*self.inside, *dying_with_us(), *self._before]
        try:
            process = self._stack.enter_context(running_sbc(self.config, log, timeout_s=START_S, prefix=prefix))
        except CallFailed as error:
            raise Failed(f"{error}: {self.log[-500:]}") from error
        self.main_pid = process.pid
        wait(self._answers, START_S, "an answer of the control process")

    def has_clock(self, clock: WallClock) -> None:
        """Before the start: this is its wall clock, and of all its processes."""
        self._before = clock.words

    def close(self) -> None:
        """End it, in order where it still can be."""
        left = processes_below(self.main_pid) if self.main_pid else {}
        self._stack.close()
        for pid in left:
            with suppress(ProcessLookupError):
                if _is_of(pid, self.folder):
                    os.kill(pid, signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("ping") == "pong")
        except ManagementError:
            return False

    @property
    def log(self) -> str:
        """What it has logged since its last start."""
        try:
            return (self.folder / "sbc.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:  # Any: JSON values
        """The lines of the log with this event and these fields."""
        found = []
        for line in self.log.splitlines():
            if event in line:
                with suppress(ValueError):
                    told = json.loads(line)
                    if told.get("event") == event and all(told.get(name) == value for name, value in fields.items()):
                        found.append(told)
        return found

    # -- questions

    def ask(self, method: str, **params: Any) -> Any:  # Any: JSON values
        """One question to the control process; raises ManagementError."""
        return ask(str(self.folder / "run" / "control.sock"), method, params)

    def patient(self, method: str, **params: Any) -> Any:  # Any: JSON values
        """The same, while it may just be starting again."""
        answers: list[Any] = []  # Any: JSON values

        def asked() -> bool:
            with suppress(ManagementError):
                answers.append(self.ask(method, **params))
            return bool(answers)

        wait(asked, 10, f"an answer to {method}")
        return answers[0]

    def total(self, counter: str) -> int:
        """A counter, summed over the SIP workers."""
        return int(self.patient("status")["totals"].get(counter.lower(), 0))

    def calls(self) -> list[dict[str, Any]]:  # Any: JSON values
        """All calls that it knows."""
        found: list[dict[str, Any]] = self.patient("calls", limit=10_000)["calls"]  # Any: JSON values
        return found

    def cdrs(self) -> list[dict[str, Any]]:  # Any: JSON values
        """All records in the database."""
        return records(self.folder / "state" / "sbc.db")

    # -- processes

    def pids(self) -> dict[str, int]:
        """Process ids by name: ``supervisor``, ``sip 0``, ``media 0``, ``control``, ``store``."""
        found = {}
        for pid, title in processes_below(self.main_pid).items():
            if title.startswith("sbc: "):
                name = title.removeprefix("sbc: ")
                found["store" if name.startswith("store") else name] = pid  # it adds where it listens
        return found

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a process by its name; its process id. Failed where there is none."""
        pid = self.pids().get(name)
        if pid is None:
            raise Failed(f"there is no process {name}")
        os.kill(pid, number)
        return pid

    def kill(self, name: str) -> int:
        """kill -9."""
        return self.signal(name, signal.SIGKILL)

    def kill_all(self) -> None:
        """kill -9 of every process, the first one first; :meth:`start` begins anew."""
        pids = sorted(processes_below(self.main_pid), key=lambda pid: pid != self.main_pid)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait(lambda: not any(_is_of(pid, self.folder) for pid in pids if pid != self.main_pid), 10, "the end of all")

    def freeze(self, seconds: float) -> None:
        """Stop every process but the store for so long; then they go on, the supervisor a moment before the others."""
        names = sorted(self.pids().items(), key=lambda found: found[0] != "supervisor")
        pids = [pid for name, pid in names if name != "store"]
        for pid in reversed(pids):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
            time.sleep(POLL_S)

    def back(self, name: str, former: int, limit_s: float = 30.0) -> float:
        """Wait until another process has taken the place of ``former`` and serves; the seconds that it took."""
        return wait(lambda: self._serves(name, former), limit_s, f"a successor of {name}")

    def _serves(self, name: str, former: int) -> bool:
        if self.pids().get(name, former) == former:
            return False
        if name in ("store", "supervisor"):
            return True
        with suppress(ManagementError):
            return any(row["name"] == name and row["state"] == "ready" for row in self.ask("status")["processes"])
        return False

    def processor_s(self, name: str) -> tuple[float, float]:
        """Seconds for which a process had a processor, and for which it waited for one; zeros where nobody counts."""
        with suppress(OSError, KeyError, ValueError):
            ran, waited, _ = Path(f"/proc/{self.pids()[name]}/schedstat").read_text().split()
            return int(ran) / 1e9, int(waited) / 1e9
        return 0.0, 0.0

    def reload(self) -> None:
        """Have it take its configuration file over."""
        os.kill(self.main_pid, signal.SIGHUP)


def records(path: Path) -> list[dict[str, Any]]:  # Any: JSON values
    """All CDRs in this database, of SQLite; none while there is no such file or table."""
    if not path.exists():
        return []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
        try:
            rows = connection.execute("SELECT record FROM cdr").fetchall()
        except sqlite3.OperationalError:  # the table is not there yet
            return []
    return [json.loads(row[0]) for row in rows]


def processes_below(root: int) -> dict[int, str]:
    """``root`` and all processes that descend from it, with their titles."""
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError, IndexError):
            path = Path(f"/proc/{pid}")
            if (path / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                found[pid] = (path / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            for thread in os.listdir(path / "task"):
                waiting += map(int, (path / "task" / thread / "children").read_text().split())
    return found


def _is_of(pid: int, folder: Path) -> bool:
    """Whether this process is one of ours still, and not a new one with its number."""
    with suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        return title.startswith(b"sbc: ") or str(folder).encode() in title
    return False
