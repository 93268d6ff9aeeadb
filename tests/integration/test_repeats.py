"""Every file of the SIP test data again and again, over UDP and TCP: memory stays flat, and no worker dies.

Thirty times of each by default; ``SBC_REPEATS=1000 ./dev test tests/integration/test_repeats.py`` for the long run,
whose warm-up is long enough for as many refused INVITEs as are ever remembered at a time.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.expectations import DATA, Bench, benched, rows
from tests.support.loopback import CALLER, OUTSIDE
from tests.support.raw import Raw
from tests.support.tcp import Stream

REPEATS = int(os.environ.get("SBC_REPEATS", "30"))
WARM_UP = max(10, REPEATS // 3)  # the allocator settles after some 25,000 messages
GROWTH = 1.05  # of resident memory
SLACK_BYTES = 2 << 20  # the allocator's own: 5 % of a small process is less than what one arena takes
ROUND_S = 0.2  # at least, for all files once: memory follows the most that lives at a time, so that must not vary
_BRANCH = re.compile(rb"(branch=z9hG4bK)", re.I)
Send = Callable[[Bench, list[bytes], int], None]
_CALL_ID = re.compile(rb"^((?:Call-ID|i)[ \t]*:[ \t]*)(?=[!-~])", re.M | re.I)


def anew(data: bytes, number: int) -> bytes:
    """The same message, but no retransmission of the former and not of its call."""
    mark = b"n%d" % number
    for place in (_BRANCH, _CALL_ID):
        if found := place.search(data):
            data = data[: found.end()] + mark + data[found.end() :]
    return data


@contextmanager
def refusing(bench: Bench) -> Iterator[None]:
    """The callee refuses whatever reaches it."""
    running = True

    def serve() -> None:
        while running:
            bench.refuse_all()
            time.sleep(0.002)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        running = False
        thread.join(5)


def resident_bytes(bench: Bench) -> int:
    """Of all SIP workers."""
    total = 0
    for name, pid in bench.sbc.pids().items():
        if name.startswith("sip"):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Rss: +(\d+) kB", text, re.M)[1]) << 10  # type: ignore[index]  # always there
    return total


def settled(bench: Bench) -> int:
    """The same once no transaction is left: that of a refused INVITE stays for 32 s (Timer D)."""
    time.sleep(34)
    return resident_bytes(bench)


def by_datagram(bench: Bench, files: list[bytes], number: int) -> None:
    with Raw(CALLER) as caller:
        for data in files:
            caller.send(anew(data, number), (OUTSIDE, bench.net.port))
            if number % 7 == 0:  # as it is, too
                caller.send(data, (OUTSIDE, bench.net.port))
        assert caller.best_ping((OUTSIDE, bench.net.port)) < 1


def by_stream(bench: Bench, files: list[bytes], number: int) -> None:
    for data in files:
        with Stream(CALLER, (OUTSIDE, bench.net.port)) as stream:
            with suppress(OSError):
                stream.send(anew(data, number))
            if number % 7 == 0:
                stream.read(0.05)
    with Raw(CALLER) as caller:
        assert caller.best_ping((OUTSIDE, bench.net.port)) < 1


def paced(send: Send, bench: Bench, files: list[bytes], number: int) -> None:
    end = time.monotonic() + ROUND_S
    send(bench, files, number)
    time.sleep(max(0.0, end - time.monotonic()))


@pytest.mark.slow
@pytest.mark.timeout(120 + 12 * REPEATS)
@pytest.mark.parametrize("send", [by_datagram, by_stream])
def test_memory_is_flat(tmp_path: Path, send: Send) -> None:
    files = [(DATA / row.file).read_bytes() for row in rows()]
    limits = "connections: { message_timeout_s: 0.5, per_source: 1000 }\n"
    # without a store: what one that is slow leaves with a worker for a while is no growth
    with benched(tmp_path / "sbc", more=limits, store="none") as bench, refusing(bench):
        for number in range(WARM_UP):
            paced(send, bench, files, number)
        before = settled(bench)
        for number in range(WARM_UP, WARM_UP + REPEATS):
            paced(send, bench, files, number)
        after = settled(bench)
        print(f"{before >> 10} kB, after {REPEATS} times {len(files)} messages {after >> 10} kB")
        assert after < GROWTH * before + SLACK_BYTES, (before, after)
        assert bench.sbc.pids() == bench.pids
        assert not bench.sbc.calls()
        assert bench.sbc.total("CORE_ERRORS") == bench.sbc.total("CORE_FAULTS") == 0
        assert bench.sbc.log.count("\n") < 2000 + 40 * (WARM_UP + REPEATS)  # a call has its record there
