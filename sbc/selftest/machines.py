"""The machines of two nodes, as hosts made of network namespaces: how they are joined, and what befalls them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sbc.selftest.measure import Failed
from sbc.selftest.netns import Lab
from sbc.selftest.node import wait

PING_S = 0.01
OPTIONS = (
    "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {me}:{port};branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n"
    "From: <sip:ping@{me}>;tag={n}\r\nTo: <sip:{to}>\r\nCall-ID: {n}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


def network(lab: Lab, hosts: Mapping[str, Sequence[str]], cable: Mapping[str, str]) -> dict[str, str]:
    """One network of all hosts with their addresses, and a cable between two; the interfaces of all in the former."""
    lab.host("lan")
    lab.bridge("lan")
    found = {}
    for host, addresses in hosts.items():
        lab.host(host)
        found[host] = lab.plug("lan", host, *(f"{address}/24" for address in addresses))
    (a, at_a), (b, at_b) = cable.items()
    lab.wire(a, f"{at_a}/24", b, f"{at_b}/24")
    return found


def die(lab: Lab, host: str, interface: str) -> float:
    """Every process and the link, at once; when that was (monotonic seconds)."""
    pids = lab.pids(host)
    began_s = time.monotonic()
    for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody is to see another one die
        for pid in pids:
            os.kill(pid, number)
    link(lab, host, interface, "down")
    return began_s


def link(lab: Lab, host: str, interface: str, state: str) -> None:
    """Pull its cable out of the switch (``down``), or put it there again (``up``)."""
    subprocess.run([*lab.inside(host), "ip", "link", "set", interface, state], check=True, timeout=10)


def cut(lab: Lab, host: str, port: int, store: str = "") -> None:
    """Have a node hear and say nothing any more at a port (0: none of them), and say nothing to a store at an address,
    without a word about it to anybody; neither: heal it."""
    here = [f"{kind} dport {port} drop" for kind in ("udp", "tcp")] if port else []
    there = [*here, *([f"ip daddr {store} tcp dport 6379 drop"] if store else [])]
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; {'; '.join(rules)}; }}\n"
        for hook, rules in (("output", there), ("input", here))
        if rules
    )
    lab.firewall(host, f"table ip cut\ndelete table ip cut\ntable ip cut {{\n{chains}}}\n")


def answers(lab: Lab, me: str, to: str, limit_s: float, since_s: float | None = None) -> float:
    """Ping a virtual address from the host ``cust`` until an answer comes; the seconds that it took since then."""
    began_s = time.monotonic() if since_s is None else since_s
    with lab.open_socket("cust") as sock:
        sock.bind((me, 0))
        sock.settimeout(PING_S)
        port = sock.getsockname()[1]
        while time.monotonic() - began_s < limit_s:
            ping = OPTIONS.format(to=to, me=me, port=port, n=uuid.uuid4().hex)
            with suppress(OSError):
                sock.sendto(ping.encode(), (to, 5060))
                sock.recv(4096)
                return time.monotonic() - began_s
    raise Failed(f"nobody answers at {to} within {limit_s:g} s")


def wait_until_ready(said: Callable[[], Sequence[Mapping[str, Any]]], limit_s: float) -> float:  # Any: JSON values
    """Wait until either node (``said``: their states) says that the other one could take over; the seconds it took."""
    why: list[str] = []

    def are_ready() -> bool:
        states = said()
        why[:] = [str(one.get("why_not", "no answer")) for one in states]
        return all(one.get("ready") for one in states)

    try:
        return wait(are_ready, limit_s, "HA ready")
    except Failed as error:
        raise Failed(f"{error}: {'; '.join(why)}") from None
