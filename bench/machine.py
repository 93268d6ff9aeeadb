"""The machine that the figures belong to: cores, names, versions, and who else was busy on it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.figures import NotMeasuredError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SIPPY = Path(__file__).parent / "bin" / "sippy"


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core runs the system under test and which the load generator."""

    system: int
    load: int


def pick_cores() -> Cores:
    """The first two processors that we may use; NotMeasuredError when there is but one to share."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise NotMeasuredError("two processors are needed, one for the system and one for the load generator")
    return Cores(system=available[0], load=available[1])


def busy_s(core: int) -> float:
    """Seconds that a core has been busy since boot, whoever used it (interrupts included)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(value) for value in values)
            return (user + nice + system + irq + softirq) / _TICKS_PER_S
    return 0.0


def require_program(name: str, package: str) -> str:
    """The path of a program; NotMeasuredError that names Debian's package where it is missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise NotMeasuredError(f"{name} is not installed (Debian package {package})")
    return path


def require_sippy() -> str:
    """The interpreter of the virtual environment that has Sippy; NotMeasuredError that says how to make one.

    ``SBC_BENCH_SIPPY`` names the environment; without it, it is looked for in bench/bin/sippy.
    """
    environment = os.environ.get("SBC_BENCH_SIPPY") or str(_SIPPY)
    python = Path(environment, "bin", "python")
    if not python.exists() or not list(Path(environment).glob("lib/python*/site-packages/sippy/b2bua_simple.py")):
        raise NotMeasuredError(
            f"no Sippy in {environment} (python -m venv bench/bin/sippy; bench/bin/sippy/bin/pip install sippy;"
            " or name another environment in SBC_BENCH_SIPPY)"
        )
    return str(python.absolute())


def describe() -> dict[str, str]:
    """What the report says about the machine and the peers."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sipp": _version("sipp", "-v", r"SIPp (v[\d.]+)"),
        "kamailio": _version("kamailio", "-v", r"kamailio ([\d.]+)"),
        "rtpengine": _version("rtpengine", "--version", r"Version: ?([\w.+-]+)"),
        "redis": _version("redis-server", "--version", r"v=([\d.]+)"),
        "sippy": _sippy_version(),
    }


def _version(program: str, option: str, pattern: str) -> str:
    try:
        path = require_program(program, "")
    except NotMeasuredError:
        return "absent"
    result = subprocess.run([path, option], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(pattern, result.stdout + result.stderr)
    return match[1] if match else "unknown"


def _sippy_version() -> str:
    """Its own version and that of the Python that runs it."""
    try:
        python = require_sippy()
    except NotMeasuredError:
        return "absent"
    script = (
        "import importlib.metadata, platform; print(importlib.metadata.version('sippy'), platform.python_version())"
    )
    result = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=10, check=False)
    sippy, _, interpreter = result.stdout.strip().partition(" ")
    return f"{sippy} on Python {interpreter}" if interpreter else "unknown"
