"""Sippy (PyPI ``sippy``), a B2BUA in Python: its ``b2bua_simple``, one process, in the plain job."""

from __future__ import annotations

from pathlib import Path

from bench import sipp
from bench.figures import NotMeasuredError
from bench.machine import Cores, require_sippy
from bench.peers.templates import fill
from bench.processes import Process, wait_for_port
from bench.wire import check_hidden

ADDRESS = "127.0.1.13"
PORT = 5060
CALLEE = f"{sipp.CALLEE}:{sipp.CALLEE_PORT}"


class Sippy:
    """One running B2BUA; a context manager. Media goes directly, nothing is stored."""

    target = (ADDRESS, PORT)

    def __init__(self, cores: Cores, directory: Path) -> None:
        self._cores = cores
        self._directory = directory
        self._process: Process | None = None

    def __enter__(self) -> Sippy:
        python = require_sippy()
        script = fill("sippy.py.in", self._directory / "b2bua.py", ADDRESS=ADDRESS, PORT=PORT, CALLEE=CALLEE)
        command: list[str | Path] = [python, script]
        self._process = Process("sippy", command, self._cores.system, self._directory, {"SIPLOG_BEND": "none"})
        try:
            wait_for_port(self._process, ADDRESS, PORT)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop()

    def cpu_by_part(self) -> dict[str, float]:
        """CPU seconds of the one process."""
        assert self._process is not None
        return {self._process.name: self._process.cpu_s()}

    def verify(self) -> None:
        """Place one call and see that it was carried through; NotMeasuredError tells what was not done."""
        caller, callee = sipp.trace_one(self.target, self._cores)
        # it has one Call-ID for both legs
        check_hidden(caller, callee, None, apart_from=("Call-ID:",))
        for method in ("ACK", "BYE"):
            if f"\n{method} sip:" not in callee:
                raise NotMeasuredError(f"the {method} did not reach the callee")
