"""Records every IPv4 UDP datagram that crosses a host's wires: ``python -m tests.support.sniff FILE`` until SIGTERM.

One line of the file per datagram: source, destination, payload in hexadecimal.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ETH_P_ALL = 3
OUTGOING = 4  # PACKET_OUTGOING


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram as it was on the wire."""

    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes

    @property
    def is_rtp(self) -> bool:
        return len(self.payload) >= 12 and self.payload[0] >> 6 == 2 and not 192 <= self.payload[1] <= 223

    @property
    def is_sip(self) -> bool:
        return b"SIP/2.0" in self.payload.partition(b"\r\n")[0]


def datagram(packet: bytes, protocol: int) -> Datagram | None:
    """What a packet socket of kind SOCK_DGRAM read; None where it is no UDP in IPv4."""
    if protocol != 0x0800 or packet[9] != socket.IPPROTO_UDP:
        return None
    start = (packet[0] & 15) * 4
    sport, dport, length, _ = struct.unpack_from("!HHHH", packet, start)
    source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    return Datagram((source, sport), (destination, dport), packet[start + 8 : start + length])


def read(path: Path) -> list[Datagram]:
    """What a recorder wrote."""
    found = []
    for line in path.read_text().splitlines():
        words = line.split(" ")
        if len(words) == 5:  # the last line may be cut short
            source, sport, destination, dport, payload = words
            found.append(Datagram((source, int(sport)), (destination, int(dport)), bytes.fromhex(payload)))
    return found


@contextmanager
def recording(path: Path, prefix: Sequence[str]) -> Iterator[None]:
    """Record in the host that ``prefix`` leads into until the end of the block; then :func:`read` has all of it."""
    root = Path(__file__).resolve().parents[2]
    words = [*prefix, sys.executable, "-m", "tests.support.sniff", str(path)]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE) as recorder:
        try:
            assert recorder.stdout is not None
            assert recorder.stdout.readline() == b"recording\n"
            yield
        finally:
            recorder.terminate()


def record(path: Path) -> None:
    """Record until SIGTERM."""
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as wire, path.open("w") as out:
        wire.settimeout(0.1)
        print("recording", flush=True)
        while running:
            try:
                packet, link = wire.recvfrom(65_535)
            except TimeoutError:
                continue
            found = datagram(packet, link[1])
            if found is not None:
                (source, sport), (destination, dport) = found.source, found.destination
                out.write(f"{source} {sport} {destination} {dport} {found.payload.hex()}\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
