"""Row F1: processes may open no more files."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress

from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import CALLER, OUTSIDE, wait
from sbc.selftest.resources import needs_disk as needs_prlimit
from sbc.selftest.row import Row
from sbc.selftest.site import Setup, Site

TRIES = 60  # connections, of which the first ones take the descriptors that are left
NEW = 8  # calls meanwhile
BUSY_S = 2.0
PING = (
    "OPTIONS sip:ping SIP/2.0\r\nVia: SIP/2.0/TCP {host}:9;branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n"
    "From: <sip:a@{host}>;tag=1\r\nTo: <sip:ping>\r\nCall-ID: {n}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


def no_more_files(site: Site, measures: Measures) -> None:
    """The limit of open files falls to what SIP and media workers have open; new connections and calls come."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    workers = [pid for name, pid in site.node.pids().items() if name.startswith(("sip ", "media "))]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers}
    fault_at = time.time()
    with ExitStack() as stack:
        _answered(stack.enter_context(_connection(site)), "before")
        used = _ran_s(site)
        for pid in workers:
            most = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[pid][1]))
        try:
            begun_s = time.monotonic()
            closed = _fill_up(site, stack, measures)
            new = [site.invite() for _ in range(NEW)]
            wait(lambda: all(call.up or call.asked["INVITE"].status for call in new), 10, "answers to new calls")
            time.sleep(max(0.0, begun_s + BUSY_S - time.monotonic()))
            lasted_s = time.monotonic() - begun_s
        finally:
            for pid, limits in before.items():
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        shares = {name: (ran - used[name]) / lasted_s for name, ran in _ran_s(site).items()}
    answers = Counter(200 if call.up else call.asked["INVITE"].status for call in new)
    measures.note(
        f"run {measures.runs}: {closed} of {TRIES} connections were closed; new calls got {dict(answers)}; processor: "
        + ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items()))
    )
    measures.expect(closed > 0, f"none of {TRIES} connections was closed")
    measures.expect(set(answers) <= {200, 503}, f"new calls got {dict(answers)}")
    measures.expect(max(shares.values()) < 0.5, "a worker was busy with connections that it cannot accept")
    freed_s = time.monotonic()
    with _connection(site) as after:
        _answered(after, "afterwards")
    measures.add("connection served again after", [time.monotonic() - freed_s], max_s=2.0)
    site.measure_gap(calls, fault_at, measures, max_s=0.15)
    site.expect_records(call for call in new if call.up)
    byes = [site.caller.hang_up(call) for call in new if call.up]
    wait(lambda: all(bye.status for bye in byes), 35, "an answer to each BYE")
    site.end(site.establish(2, talk=False), measures, max_s=1.0)
    site.end(calls, measures, max_s=1.0)
    measures.expect(not site.node.logged("worker died"), "a worker died")
    site.settled(measures)


def _fill_up(site: Site, stack: ExitStack, measures: Measures) -> int:
    """Connect until that leads to nothing; how many connections were closed."""
    opened: dict[int, tuple[socket.socket, float]] = {}
    closed = 0

    def look(patience_s: float) -> None:
        nonlocal closed
        for sock in select.select([sock for sock, _ in opened.values()], [], [], patience_s)[0]:
            with suppress(ConnectionError):
                if sock.recv(100):
                    continue
            measures.add("closed after", [time.monotonic() - opened.pop(sock.fileno())[1]], max_s=1.0)
            closed += 1

    for _ in range(TRIES):
        sock = stack.enter_context(_connection(site))
        opened[sock.fileno()] = sock, time.monotonic()
        look(0.01)
    look(1.0)
    return closed


def _connection(site: Site) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(5)
    sock.bind((CALLER, 0))
    sock.connect((OUTSIDE, site.node.port))
    return sock


def _answered(sock: socket.socket, when: str) -> None:
    """OPTIONS by this connection gets an answer, whichever."""
    sock.sendall(PING.format(host=CALLER, n=f"ping{when}{time.monotonic_ns()}").encode())
    try:
        if sock.recv(2000).startswith(b"SIP/2.0 "):
            return
    except OSError as error:
        raise Failed(f"no answer by a connection {when}: {error}") from error
    raise Failed(f"no answer by a connection {when}")


def _ran_s(site: Site) -> dict[str, float]:
    return {name: site.node.processor_s(name)[0] for name in site.node.pids() if name.startswith("sip ")}


ROWS = (
    Row(
        "F1",
        "no process may open another file",
        "calls go on; a new connection is closed at once, a new call comes up or gets 503; no worker is busy with it",
        no_more_files,
        Setup(settings={"tcp": True}),
        check=needs_prlimit,
    ),
)
