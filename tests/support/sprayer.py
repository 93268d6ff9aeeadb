"""Somebody who sprays a range of ports: ``python -m tests.support.sprayer HOST LOW HIGH FROM PER_S`` until SIGTERM.

One socket for all ports, as somebody has who waits for media to come to him. Even ports get RTP whose sequence numbers
and time go up as those of a stream do, odd ones RTCP. At the end it says how many datagrams it sent, and how many came.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EVIL_SSRC = 0xE4111E4
EVIL = b"\xee" * 160


@dataclass(slots=True)
class Spray:
    """What came of it, once the block has ended."""

    sent: int = 0
    received: int = 0


@contextmanager
def spraying(
    host: str, ports: tuple[int, int], source: str, *, per_s: int = 2000, prefix: Sequence[str] = ()
) -> Iterator[Spray]:
    """Spray the ports of ``host`` from the address ``source`` until the end of the block."""
    spray = Spray()
    words = [sys.executable, "-m", "tests.support.sprayer", host, *map(str, ports), source, str(per_s)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([*prefix, *words], cwd=root, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"spraying\n"
            yield spray
        finally:
            process.terminate()
            assert process.stdout is not None
            told = process.stdout.read()
    spray.sent, spray.received = json.loads(told)


def rtp(sequence: int, ssrc: int = EVIL_SSRC) -> bytes:
    """A G.711 packet that nobody wants."""
    return struct.pack("!BBHII", 0x80, 8, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc) + EVIL


def rtcp(ssrc: int = EVIL_SSRC) -> bytes:
    """A sender report and a BYE (RFC 3550 §6.4.1, §6.6)."""
    return struct.pack("!BBHI5I", 0x80, 200, 6, ssrc, 0, 0, 0, 0xEEEEEEEE, 0) + struct.pack("!BBHI", 0x81, 203, 1, ssrc)


def spray(host: str, low: int, high: int, source: str, per_s: int) -> tuple[int, int]:
    """Until SIGTERM; how much was sent and received."""
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    sent = received = sequence = 0
    ports = range(low, high + 1)
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        print("spraying", flush=True)
        start = time.monotonic()
        while running:
            for port in ports:
                try:
                    sock.sendto(rtcp() if port % 2 else rtp(sequence), (host, port))
                    sent += 1
                except (BlockingIOError, ConnectionRefusedError):  # not bound yet
                    pass
            sequence += 1
            received += _received(sock)
            time.sleep(max(0.0, start + sequence * len(ports) / per_s - time.monotonic()))
        time.sleep(0.1)
        return sent, received + _received(sock)


def _received(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.recv(2048)
            count += 1
        except BlockingIOError:
            return count
        except ConnectionRefusedError:
            continue


if __name__ == "__main__":
    print(json.dumps(spray(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))))
