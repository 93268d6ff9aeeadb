"""What a process does for itself."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sbc.supervisor import process


@pytest.mark.parametrize("kept", [0, process.CAP_NET_ADMIN | process.CAP_NET_RAW])
def test_another_user_keeps_the_powers_that_are_named_and_no_others(kept: int) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            process.become(pwd.getpwnam("nobody"), kept)
            lines = Path("/proc/self/status").read_text().splitlines()
            mask = next(line.split()[1] for line in lines if line.startswith("CapEff"))
            os.write(write, f"{os.geteuid()} {mask}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        user, mask = told.read().split()
    os.waitpid(child, 0)
    assert int(user) == pwd.getpwnam("nobody").pw_uid
    assert int(mask, 16) == kept


def test_who_turns_in_circles_wants_a_processor_and_who_sleeps_or_is_gone_does_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            deadline = time.monotonic() + 20
            while process.want_of_processor(busy.pid) < (True, 0.05):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            busy.send_signal(signal.SIGSTOP)
            while process.want_of_processor(busy.pid)[0]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            busy.kill()
    assert process.want_of_processor(busy.pid) == (False, 0.0)
