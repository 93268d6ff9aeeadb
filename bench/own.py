"""The SBC as a system under test: one SIP worker, its media workers (one) and the rest on one core."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from bench import sipp
from bench.figures import NotMeasuredError
from bench.machine import Cores
from bench.processes import Process, title, tree, wait_until
from bench.wire import Anchors, check_hidden

ROOT = Path(__file__).resolve().parent.parent
CALLER_SIDE = "127.0.1.11"
CALLEE_SIDE = "127.0.1.12"
PORT = 5060

# Two realms as in life; the built-in routes send what the one peer calls to the other.
CONFIG = """\
node: bench
run_dir: {directory}/run
state_dir: {directory}/state
workers: {{ sip: 1, media: {media_workers} }}
store: {store}
database: sqlite:///{directory}/state/sbc.db
{routes}
realms:
  near:
    listen: [udp:{caller_side}:{port}]
    media: {{ address: {caller_side}, ports: 10000-59999 }}
  far:
    listen: [udp:{callee_side}:{port}]
    media: {{ address: {callee_side}, ports: 10000-59999 }}
peers:
  caller: {{ realm: near, addresses: [{caller}], calls_to: callee }}
  callee: {{ realm: far, addresses: [{callee}], gateway: "sip:{callee}:{callee_port}" }}
management: {{ metrics: "" }}
log: {{ level: warning, format: json }}
"""

# A plain B2BUA: the caller's SDP goes through as it is, no session at the media workers.
PLAIN_ROUTES = """\
from sbc.routing import Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    call = request.call
    call.media.direct()
    await call.dial(call.node.peer("callee"))
"""


def write_config(directory: Path, *, full: bool, media_workers: int = 1) -> Path:
    """The configuration of one job, in a file of ``directory``."""
    routes = ""
    if not full:
        (directory / "plain.py").write_text(PLAIN_ROUTES)
        routes = f"routes: {directory}/plain.py"
    path = directory / "sbc.yaml"
    path.write_text(
        CONFIG.format(
            directory=directory,
            store="embedded" if full else "none",
            routes=routes,
            media_workers=media_workers,
            caller_side=CALLER_SIDE,
            callee_side=CALLEE_SIDE,
            port=PORT,
            caller=sipp.CALLER,
            callee=sipp.CALLEE,
            callee_port=sipp.CALLEE_PORT,
        )
    )
    return path


class Sbc:
    """One running SBC; a context manager. ``full``: media engaged, journal, CDR; else none of the three."""

    target = (CALLER_SIDE, PORT)

    def __init__(self, cores: Cores, directory: Path, *, full: bool, media_workers: int = 1) -> None:
        self.full = full
        self._media_workers = media_workers
        self._cores = cores
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._process: Process | None = None

    def __enter__(self) -> Sbc:
        for name in ("run", "state"):
            (self._directory / name).mkdir(mode=0o700, exist_ok=True)
        config = write_config(self._directory, full=self.full, media_workers=self._media_workers)
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command: list[str | Path] = [sys.executable, "-m", "sbc", "run", "-c", config]
        process = Process("sbc", command, self._cores.system, self._directory, environment)
        self._process = self._stack.enter_context(process)
        try:
            wait_until(self._answers, process, "a SIP worker that takes calls", 20)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _answers(self) -> bool:
        """A call goes through: the first ones may be lost while the workers come up."""
        if not any(name.startswith("sbc: sip") for name in self.workers().values()):
            return False
        with contextlib.suppress(NotMeasuredError):
            sipp.trace_one(self.target, self._cores)
            return True
        return False

    def workers(self) -> dict[int, str]:
        """Pid and title of every process of the SBC."""
        assert self._process is not None
        return {pid: title(pid) for pid in tree(self._process.pid)}

    def sip_workers(self) -> list[int]:
        return [pid for pid, name in self.workers().items() if name.startswith("sbc: sip")]

    def cpu_by_part(self) -> dict[str, float]:
        """CPU seconds by kind of process: sip, media, control, supervisor, store."""
        assert self._process is not None
        parts: dict[str, float] = {}
        for name, seconds in self._process.cpu_by_title().items():
            words = name.removeprefix("sbc:").split()
            part = words[0] if name.startswith("sbc:") else "store"
            parts[part] = parts.get(part, 0.0) + seconds
        return parts

    def verify(self) -> None:
        """Place one call and see that the whole job was done; NotMeasuredError tells what was not."""
        caller, callee = sipp.trace_one(self.target, self._cores)
        check_hidden(caller, callee, Anchors(CALLER_SIDE, CALLEE_SIDE) if self.full else None)
