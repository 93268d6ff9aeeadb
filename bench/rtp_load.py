"""The RTP generator (``load/rtp_load.c``): compiled when needed, run on its core, its output read."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import NothingRelayedError, NotMeasuredError
from bench.machine import Cores, busy_s
from bench.relays import Anchored

CALLER, CALLEE = "127.0.2.21", "127.0.2.22"
PORT = 6000
# As in the generator: calls in blocks share a socket of their side.
_SOCKETS, _BLOCK = 1, 32
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Relayed:
    """What came of a load: packets per second wanted and sent, loss as a share, the relay's CPU in the steady part.

    ``warm_loss`` is the share of what was sent before the steady part that had not come back when it began.
    """

    wanted_pps: float
    sent_pps: float
    loss: float
    warm_loss: float
    lossy_streams: int
    misrouted: int
    cpu_us_per_packet: float
    relay_share: float
    generator_share: float
    foreign_share: float
    generator_drops: int
    latest_us: int
    delay_p50_us: float
    delay_p99_us: float

    def generator_fault(self) -> str:
        """Why the generator, not the relay, set the limit; empty when it did not."""
        if self.generator_share >= 0.9:
            return f"the generator was the bottleneck ({self.generator_share:.0%} busy)"
        if self.sent_pps < 0.99 * self.wanted_pps:
            return f"the generator sent {self.sent_pps:,.0f}/s of {self.wanted_pps:,.0f}/s"
        if self.generator_drops:
            return f"the generator lost {self.generator_drops} packets itself"
        return ""


def side_port(call: int) -> int:
    """The generator's port (of either side) for a call."""
    return PORT + call // _BLOCK % _SOCKETS


def build(*, secure: bool = False) -> Path:
    """Compile the generator unless it is newer than its sources; NotMeasuredError without a compiler.

    ``secure`` adds SRTP, which takes OpenSSL's headers.
    """
    folder = _HERE / "load"
    sources = [folder / "rtp_load.c", *([folder / "srtp.c"] if secure else [])]
    program = _HERE / "bin" / ("srtp_load" if secure else "rtp_load")
    newest = max(path.stat().st_mtime for path in folder.iterdir())
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotMeasuredError("no C compiler for the RTP generator (Debian package gcc)")
    program.parent.mkdir(exist_ok=True)
    extra = ["-DSRTP", "-lcrypto"] if secure else []
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), *map(str, sources), *extra]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if result.returncode:
        wants = " (SRTP takes Debian's libssl-dev)" if secure else ""
        raise NotMeasuredError(f"the RTP generator does not compile{wants}: {result.stderr.strip()[-300:]}")
    return program


def relay(
    calls: Sequence[Anchored],
    pps: float,
    steady_s: float,
    relay_cpu_s: Callable[[], float],
    cores: Cores,
    *,
    warm_s: float,
) -> Relayed:
    """Send ``pps`` packets a second each way through every call; SRTP on the callee's side where calls have keys."""
    lines = "".join(" ".join(map(str, (*call.near, *call.far, *call.keys))) + "\n" for call in calls)
    program = build(secure=bool(calls[0].keys))
    arguments = [CALLER, CALLEE, str(PORT), f"{pps:g}", f"{warm_s:g}", f"{steady_s:g}"]
    process = subprocess.Popen(
        ["taskset", "-c", str(cores.load), str(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    marks: dict[str, dict[str, float]] = {}
    spent: list[tuple[float, float, float]] = []
    try:
        process.stdin.write(lines)
        process.stdin.close()
        for line in process.stdout:  # the generator ends by itself: its duration is an argument
            mark = json.loads(line)
            marks[mark.pop("at")] = mark
            if len(marks) <= 2:
                spent.append((time.monotonic(), relay_cpu_s(), busy_s(cores.system) + busy_s(cores.load)))
    finally:
        if process.poll() is None and "totals" not in marks:
            process.kill()
        code = process.wait(10)
    if code or "totals" not in marks:
        raise NotMeasuredError(f"the RTP generator ended with code {code} ")
    begin, end, totals = marks["begin"], marks["end"], marks["totals"]
    seconds = spent[1][0] - spent[0][0]
    generator_s = end["cpu_s"] - begin["cpu_s"]
    relay_s = spent[1][1] - spent[0][1]
    busy = spent[1][2] - spent[0][2]
    received = end["received"] - begin["received"]
    if not received:
        raise NothingRelayedError("the relay sent nothing on")
    return Relayed(
        wanted_pps=2 * len(calls) * pps,
        sent_pps=(end["sent"] - begin["sent"]) / (end["seconds"] - begin["seconds"]),
        loss=1 - totals["steady_received"] / totals["steady_sent"],
        warm_loss=1 - begin["received"] / (begin["sent"] or 1),
        lossy_streams=int(totals["lossy_streams"]),
        misrouted=int(totals["misrouted"]),
        cpu_us_per_packet=relay_s / received * 1e6,
        relay_share=relay_s / seconds,
        generator_share=generator_s / seconds,
        foreign_share=max(0.0, busy - generator_s - relay_s) / seconds,
        generator_drops=int(totals["own_drops"]),
        latest_us=int(totals["latest_us"]),
        delay_p50_us=totals["delay_p50_us"],
        delay_p99_us=totals["delay_p99_us"],
    )
