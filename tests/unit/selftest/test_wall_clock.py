"""The kit's wall clock: it shifts that of a process, at once and while it runs, and leaves the monotonic one alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sbc.selftest import wall_clock
from sbc.selftest.measure import NotTried
from sbc.selftest.wall_clock import WallClock

PROGRAM = """
import datetime, sys, threading, time
for _ in sys.stdin:
    begun = time.monotonic()
    time.sleep(0.01)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=0.01)
    wall = time.time(), time.clock_gettime(time.CLOCK_REALTIME), datetime.datetime.now().timestamp()
    print(*wall, begun, time.monotonic() - begun, flush=True)
"""


def test_a_process_has_another_wall_clock_and_no_other_monotonic_one(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    try:
        clock.build()
    except NotTried as error:
        pytest.skip(str(error))
    words = [*clock.words, sys.executable, "-S", "-c", PROGRAM]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for ahead_s in (0.0, 3600.25, -3600.5, 7.0):
            clock.set(ahead_s)
            before, before_s = time.time(), time.monotonic()
            process.stdin.write("\n")
            process.stdin.flush()
            *walls, monotonic, slept_s = map(float, process.stdout.readline().split())
            after_s = time.monotonic()
            assert before_s <= monotonic <= after_s
            for wall in walls:
                assert ahead_s <= wall - before <= ahead_s + (after_s - before_s) + 0.1
            assert 0.02 <= slept_s <= after_s - before_s
        process.stdin.close()


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(NotTried, match="needs a C compiler: apt-get install gcc"):
        wall_clock.compiler()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "SOURCE", tmp_path / "nothing.c")
    with pytest.raises(NotTried, match=r"cannot be compiled: (.|\n)*nothing\.c"):
        WallClock(tmp_path).build()
