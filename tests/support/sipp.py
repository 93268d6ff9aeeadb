"""SIPp as caller and callee, and what it counted."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SCENARIOS = Path(__file__).parent / "sipp"
PCAPS = Path("/usr/share/sip-tester/pcap")


@dataclass(slots=True)
class Counted:
    """The totals of one SIPp run."""

    created: int
    successful: int
    failed: int
    retransmissions: int


class Sipp:
    """One SIPp process; ``finish()`` waits for its end and returns its totals."""

    def __init__(
        self,
        scenario: str,
        directory: Path,
        *words: str,
        prefix: Sequence[str] = (),
        timeout_s: int = 60,
    ) -> None:
        self.name = scenario
        self.directory = directory
        self.stats = directory / f"{scenario}.csv"
        self.timeout_s = timeout_s
        command = [*prefix, "sipp", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-nostdin", "-trace_stat", "-fd", "1"]
        command += ["-stf", str(self.stats), "-trace_err", "-error_file", str(directory / f"{scenario}.err")]
        command += ["-timeout", f"{timeout_s}s", *words]
        self._out = (directory / f"{scenario}.out").open("wb")
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.STDOUT, cwd=directory)

    def finish(self, *, expect_success: bool = True) -> Counted:
        """Wait for SIPp to end; AssertionError with its errors when it reports failures and none were expected."""
        code = self.process.wait(self.timeout_s + 10)
        self._out.close()
        counted = self.counted()
        if expect_success and (code != 0 or counted.failed):
            errors = self.directory / f"{self.name}.err"
            text = errors.read_text(errors="replace")[-4000:] if errors.exists() else ""
            raise AssertionError(f"sipp {self.name}: exit {code}, {counted}\n{text}")
        return counted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it now, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()

    def counted(self) -> Counted:
        """Totals so far, from the last line of the statistics."""
        with self.stats.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        if not rows:
            return Counted(0, 0, 0, 0)
        last = rows[-1]
        return Counted(
            int(last["TotalCallCreated"]),
            int(last["SuccessfulCall(C)"]),
            int(last["FailedCall(C)"]),
            int(last["Retransmissions(C)"]),
        )
