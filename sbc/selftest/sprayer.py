"""Somebody who sends RTP of his own to ports that he has guessed, in a process of its own: ``python -m
sbc.selftest.sprayer SOURCE HOST:PORT ...`` until SIGTERM. Then it says how many packets it sent, and how many came."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle

from sbc.selftest.measure import Failed
from sbc.selftest.node import dying_with_us

PER_S, EACH_PER_S = 500, 5  # packets altogether, and to each port where that is more
BURST = 10
SSRC = 0xE4111E4
READY = b"spraying\n"


@dataclass(slots=True)
class Spray:
    """What came of it, once the block has ended."""

    sent: int = 0
    received: int = 0


@contextmanager
def spraying(source: str, ports: Iterable[tuple[str, int]]) -> Iterator[Spray]:
    """Have all of these ports sprayed from the address ``source`` until the end of the block."""
    spray = Spray()
    words = [sys.executable, "-m", "sbc.selftest.sprayer", source, *(f"{host}:{port}" for host, port in ports)]
    with subprocess.Popen([*dying_with_us(), *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != READY:
                raise Failed("the sprayer did not start")
            yield spray
        finally:
            process.terminate()
            told = process.stdout.read()
    spray.sent, spray.received = json.loads(told)


def main() -> None:
    """Spray until SIGTERM."""
    targets = [(host, int(port)) for host, _, port in (word.rpartition(":") for word in sys.argv[2:])]
    pause_s = BURST / max(PER_S, EACH_PER_S * len(targets))
    sent = received = 0
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((sys.argv[1], 0))
        sock.setblocking(False)
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        for target in cycle(targets):
            if stopped:
                break
            packet = struct.pack("!BBHII", 0x80, 0, sent & 0xFFFF, sent * 160 & 0xFFFFFFFF, SSRC) + b"\xee" * 160
            with suppress(OSError):  # an ICMP error of an earlier one
                sock.sendto(packet, target)
            sent += 1
            with suppress(OSError):
                while sock.recv(2048):
                    received += 1
            if sent % BURST == 0:
                time.sleep(pause_s)
    print(json.dumps([sent, received]), flush=True)


if __name__ == "__main__":
    main()
