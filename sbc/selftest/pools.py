"""The media workers' pools of port pairs: what they and the kernel say of them, against the calls that live."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import CORE, OUTSIDE, Node, wait
from sbc.selftest.site import Site

PAIRS_OF_A_CALL = 2  # of one stream: one pair to each side
SETTLE_S = 10.0  # quarantines pass, levels are told once a second


@dataclass(frozen=True, slots=True)
class Pools:
    """Pairs, over all media workers, as ``sbc status`` tells them: with sockets, and not lent to a call."""

    bound: int
    unlent: int


def pools(node: Node) -> Pools:
    """What the media workers say now."""
    told = node.patient("status")["media"]
    return Pools(told["ports_bound"], told["ports_free"] + told["ports_quarantined"])


def bound_sockets(node: Node) -> tuple[int, int]:
    """UDP sockets at our media ports: how many the kernel has, and how many of them media workers have open."""
    pids = [pid for name, pid in node.pids().items() if name.startswith("media ")]
    addresses = {struct.unpack("=I", socket.inet_aton(address))[0] for address in (OUTSIDE, CORE)}
    others = {node.port, node.core_port}
    there: set[str] = set()
    for line in Path(f"/proc/{node.main_pid}/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        address, port = (int(part, 16) for part in fields[1].split(":"))
        if address in addresses and port not in others:
            there.add(fields[9])
    open_there = 0
    for pid in pids:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                link = os.readlink(f"/proc/{pid}/fd/{name}")
                open_there += link.startswith("socket:[") and link[8:-1] in there
    return len(there), open_there


def expect_pools(site: Site, measures: Measures, whole: Pools, calls: int, when: str) -> None:
    """Pairs are lent to so many calls and no others, and sockets are those of the pairs. ``whole``: without calls."""
    seen: list[tuple[int, int, tuple[int, int]]] = []

    def agrees() -> bool:
        now = pools(site.node)
        seen.append((whole.unlent - now.unlent, now.bound, bound_sockets(site.node)))
        lent, bound, sockets = seen[-1]
        return lent == PAIRS_OF_A_CALL * calls and sockets == (2 * bound, 2 * bound)

    with suppress(Failed):
        wait(agrees, SETTLE_S, "")
    lent, bound, (there, open_there) = seen[-1]
    measures.note(f"run {measures.runs}: {when} {calls} calls have {lent} pairs, {bound} are bound, {there} sockets")
    measures.expect(lent == PAIRS_OF_A_CALL * calls, f"{when} {lent} pairs of ports are lent to {calls} calls")
    measures.expect(there == open_there == 2 * bound, f"{when} {bound} pairs have {there} sockets, {open_there} open")
