"""The benchmarks keep their own rules: one at a time, nothing left behind, and refusals told from failures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import sipp
from bench.figures import NotMeasuredError
from bench.lock import alone
from bench.machine import pick_cores
from bench.processes import every_process
from tests.support.sbc import eventually, has_ended

ROOT = Path(__file__).resolve().parents[2]
HOST, PORT = "127.0.1.13", 5066


def bench(directory: Path, *words: str) -> subprocess.Popen[str]:
    """With a lock of its own, for another bench may run on this machine."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "--quick", "--although-busy", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(root: int) -> list[int]:
    members = {root}
    stats = every_process()
    while more := {pid for pid, stat in stats.items() if stat.parent in members} - members:
        members |= more
    return sorted(members - {root})


def test_a_second_bench_says_who_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with alone():
        second = bench(tmp_path, "--only", "relay.rtp.cpu_us.500")
        _, said = second.communicate(timeout=20)
        assert second.returncode == 1
        assert f"another bench runs on this machine, process {os.getpid()}:" in said
        with pytest.raises(NotMeasuredError, match=f"process {os.getpid()}"), alone():
            pass
    with alone():  # what the file still says is of no account
        pass


def test_sigterm_ends_whatever_was_started(tmp_path: Path) -> None:
    running = bench(tmp_path, "--only", "relay.rtp.cpu_us.500")
    try:
        eventually(lambda: len(descendants(running.pid)) >= 2, 30, "the relay and its load")
        children = descendants(running.pid)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 128 + signal.SIGTERM
    assert "ended by SIGTERM" in said
    eventually(lambda: all(map(has_ended, children)), 5, "end of what it started")
    assert not list(tmp_path.glob("bench-*")), "its folders are gone"
    with alone():
        pass


@contextmanager
def refusing() -> Iterator[tuple[str, int]]:
    """A system that answers INVITEs in turn: 503 with Retry-After, 503 without, 486."""
    answers = ("503 Service Unavailable\r\nRetry-After: 5", "503 Service Unavailable", "486 Busy Here")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, PORT))
        sock.settimeout(0.1)
        running = True

        def serve() -> None:
            seen: list[bytes] = []
            while running:
                try:
                    data, source = sock.recvfrom(65_535)
                except TimeoutError:
                    continue
                if not data.startswith(b"INVITE "):
                    continue
                lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
                same = [it for it in lines if it.lower().startswith((b"via:", b"from:", b"to:", b"call-id:", b"cseq:"))]
                call = next(it for it in same if it.lower().startswith(b"call-id:"))
                if call not in seen:
                    seen.append(call)
                status = answers[seen.index(call) % len(answers)].encode()
                sock.sendto(b"\r\n".join([b"SIP/2.0 " + status, *same, b"Content-Length: 0", b"", b""]), source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield HOST, PORT
        finally:
            running = False
            thread.join()


@pytest.mark.peer("sipp")
def test_refusals_are_told_from_other_failures() -> None:
    with refusing() as target:
        outcome = sipp.offer(sipp.Offered(60, 0.5), target, lambda: {}, pick_cores(), warm_s=0.1)
    assert (outcome.succeeded, outcome.failed, outcome.refused) == (0, 30, 10)
    assert "30 of 30 calls failed (10 refused)" in outcome.fault()
    assert not outcome.clean
