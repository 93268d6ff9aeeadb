"""A pair of SBCs in network namespaces: customers, two nodes and a store on one network, and a second path between
the nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sbc.management import client
from sbc.selftest.netns import Lab
from sbc.supervisor.embedded_store import find_server
from tests.support.agents import Agent, UaCall
from tests.support.audio import Audio
from tests.support.callers import PACE_S, Pair
from tests.support.sbc import Sbc, eventually, running

CALLER, CALLEE, STORE = "10.77.0.1", "10.77.0.2", "10.77.0.5"
OWN = {"a": "10.77.0.11", "b": "10.77.0.12"}
DIRECT = {"a": "10.78.0.11", "b": "10.78.0.12"}
OUTSIDE, CORE = "10.77.0.100", "10.77.0.101"  # the virtual addresses
CONFIG = """\
workers: {{ sip: 2, media: 1 }}
store: {store}
realms:
  outside:
    listen: [udp:{outside}:5060]
    media: {{ address: {outside}, ports: 10000-10999 }}
  core:
    listen: [udp:{core}:5060]
    media: {{ address: {core}, ports: 20000-20999, srtp: {srtp} }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {caller}, direction: from_carrier, calls_to: pbx }}
  pbx: {{ realm: core, addresses: {callee}, direction: from_pbx, gateway: "sip:{callee}:5060" }}
timers: {{ drain_timeout_s: 0.3, media_timeout_ms: 3000 }}
ha:
  name: {name}
  key_file: {key}
  paths:
    - {{ local: "{own}:7400", peer: "{other}:7400" }}
    - {{ local: "{direct}:7400", peer: "{other_direct}:7400" }}
  addresses: [{outside}/24 on {interface}, {core}/24 on {interface}]
"""
OPTIONS = (
    "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {me}:{port};branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n"
    "From: <sip:ping@{me}>;tag={n}\r\nTo: <sip:{to}>\r\nCall-ID: {n}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


@dataclass(slots=True)
class Duo:
    """Both nodes, and agents on both sides that outlive them."""

    lab: Lab
    directory: Path
    embedded: bool
    keepalived: bool
    caller: Agent
    callee: Agent
    near: Audio
    far: Audio
    secure: bool = False
    routed: bool = False
    nodes: dict[str, Sbc] = field(default_factory=dict)
    _ends: dict[str, ExitStack] = field(default_factory=dict)
    _interfaces: dict[str, str] = field(default_factory=dict)

    # --- nodes

    def start(self, name: str) -> Sbc:
        other = "b" if name == "a" else "a"
        text = CONFIG.format(
            name=name,
            store="embedded" if self.embedded else f"redis://{STORE}:6379/0",
            key=self.directory / "pair.key",
            own=OWN[name],
            other=OWN[other],
            direct=DIRECT[name],
            other_direct=DIRECT[other],
            interface=self._interfaces[name],
            outside=OUTSIDE,
            core=CORE,
            caller=CALLER,
            callee=CALLEE,
            srtp="required" if self.secure else "off",
        )
        if self.routed:
            text += f"  witness: [{STORE}]\n"
        if self.keepalived:
            text = text.partition("  addresses:")[0] + "  decided_by: keepalived\n"
        self._ends[name] = ExitStack()
        run = running(self.directory / name, text, prefix=self.lab.inside(name), node="pair")
        self.nodes[name] = self._ends[name].enter_context(run)
        return self.nodes[name]

    def stop(self, name: str) -> None:
        """In order."""
        self._ends.pop(name).close()

    def die(self, name: str) -> float:
        """Every process and the link, at once; when that was (monotonic seconds)."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.lab.hosts[name]], capture_output=True, text=True, check=True
        )
        began = time.monotonic()
        pids = [int(pid) for pid in found.stdout.split()]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody is to see another one die
            for pid in pids:
                os.kill(pid, number)
        self.cable(name, "down")
        return began

    def cable(self, name: str, state: str) -> None:
        """Pull it out of the switch (``down``), or put it there again (``up``)."""
        subprocess.run([*self.lab.inside(name), "ip", "link", "set", self._interfaces[name], state], check=True)

    def mend(self, name: str) -> None:
        """The machine is there again, without a process; its address comes back with its link."""
        self.cable(name, "up")
        with_log = self._ends.pop(name)
        try:
            with_log.close()
        except BaseException as error:  # the supervisor did not end in order
            print("ended:", type(error).__name__, error)

    def status(self, name: str) -> dict[str, Any]:  # Any: JSON values
        """What ``sbc ha status`` asks; nothing where nobody answers."""
        try:
            found: dict[str, Any] = client.ask(str(self.directory / name / "run" / "ha.sock"), "status", timeout_s=2)
        except client.ManagementError:
            return {}
        return found

    def roles(self) -> dict[str, str]:
        return {name: str(self.status(name).get("role", "gone")) for name in self.nodes}

    def ready(self, timeout_s: float = 20.0) -> None:
        """Wait until either node says that the other one could take over."""
        why = "nothing"

        def are_ready() -> bool:
            nonlocal why
            said = [self.status(name) for name in self.nodes]
            why = str([one.get("why_not", "gone") for one in said])
            return all(one.get("ready") for one in said)

        try:
            eventually(are_ready, timeout_s, "HA ready")
        except AssertionError as error:
            raise AssertionError(f"{error}: {why}\n" + "\n".join(n.log[-3000:] for n in self.nodes.values())) from None

    def order(self, name: str, method: str) -> None:
        client.ask(str(self.directory / name / "run" / "ha.sock"), method)

    def holds(self, name: str) -> bool:
        """Whether a virtual address is on this node."""
        words = [*self.lab.inside(name), "ip", "-j", "address"]
        links = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        own = {row["local"] for link in links for row in link.get("addr_info", ())}
        return bool({OUTSIDE, CORE} & own)

    # --- calls

    def establish(self, count: int) -> list[Pair]:
        placed: list[UaCall] = []
        for _ in range(count):
            placed.append(self.caller.call((OUTSIDE, 5060), f"1{len(self.caller.calls):06}"))
            time.sleep(PACE_S)
        eventually(lambda: all(call.up for call in placed), 15, f"{count} calls answered")
        far = {call.number: call for call in self.callee.all_calls()}
        pairs = [Pair(call, far[call.number]) for call in placed]
        eventually(lambda: all(pair.b.up for pair in pairs), 15, f"{count} calls acknowledged")
        return pairs

    def answers(self, limit_s: float, since_s: float | None = None) -> float:
        """Ping the virtual address every 20 ms until an answer comes; the seconds that it took since then."""
        began = time.monotonic() if since_s is None else since_s
        with self.lab.open_socket("cust") as sock:
            sock.bind((CALLER, 0))
            sock.settimeout(0.02)
            port = sock.getsockname()[1]
            while time.monotonic() - began < limit_s:
                ping = OPTIONS.format(to=OUTSIDE, me=CALLER, port=port, n=uuid.uuid4().hex)
                try:
                    sock.sendto(ping.encode(), (OUTSIDE, 5060))
                    sock.recv(4096)
                except OSError:
                    continue
                return time.monotonic() - began
        raise AssertionError(f"nobody answers at {OUTSIDE} within {limit_s:g} s\n{self.logs()}")

    def cdrs(self) -> list[str]:
        """The ids of all records on both nodes."""
        return [cdr["id"] for node in self.nodes.values() for cdr in node.cdrs()]

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{node.log[-4000:]}" for name, node in self.nodes.items())


def _network(lab: Lab) -> dict[str, str]:
    """One network of all, and a cable between the nodes; the interfaces of the nodes in the former."""
    lab.host("lan")
    lab.bridge("lan")
    for host in ("cust", "a", "b", "red"):
        lab.host(host)
    found = {}
    for host, addresses in {"cust": (CALLER, CALLEE), "a": (OWN["a"],), "b": (OWN["b"],), "red": (STORE,)}.items():
        found[host] = lab.plug("lan", host, *(f"{address}/24" for address in addresses))
    lab.wire("a", f"{DIRECT['a']}/24", "b", f"{DIRECT['b']}/24")
    return found


@contextmanager
def duo(
    directory: Path, *, embedded: bool = False, keepalived: bool = False, audio: bool = False, routed: bool = False
) -> Iterator[Duo]:
    """The network with its store and agents; nodes are started by the test. ``audio``: the caller speaks RTP and the
    callee SRTP, by ``near`` and ``far``, which talk when they are told to; without it nobody does. ``routed``: the host
    of the store is a router, and the witness."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pair.key").write_text("0123456789abcdef" * 4 + "\n")
    with Lab(f"du{os.getpid()}") as lab, ExitStack() as stack:
        interfaces = _network(lab)
        if not embedded:
            words = [find_server(), "--bind", STORE, "--port", "6379", "--protected-mode", "no", "--save", ""]
            store = subprocess.Popen([*lab.inside("red"), *words], stdout=subprocess.DEVNULL)
            stack.callback(store.wait)
            stack.callback(store.kill)
            eventually(lambda: _listens(lab), 10, "a store")
        opens = partial(lab.open_socket, "cust")
        near, far = (stack.enter_context(Audio(host, opens)) for host in (CALLER, CALLEE))
        ports = (near.open, far.open) if audio else (None, None)
        caller = stack.enter_context(Agent(CALLER, 5060, audio_port=ports[0], open_socket=opens))
        callee = stack.enter_context(Agent(CALLEE, 5060, audio_port=ports[1], open_socket=opens, secure=audio))
        made = Duo(lab, directory, embedded, keepalived, caller, callee, near, far, audio, routed)
        made._interfaces = interfaces
        try:
            yield made
        finally:
            for name in list(made._ends):
                try:
                    made.stop(name)
                except Exception as error:
                    print(f"stop of {name}: {error}")


def _listens(lab: Lab) -> bool:
    try:
        lab.connect("cust", (STORE, 6379)).close()
    except OSError:
        return False
    return True


def cut(lab: Lab, host: str, *, beats: bool = False, store: bool = False) -> None:
    """Have a node hear and say nothing there any more, without a word about it to anybody."""
    rules = ["udp dport 7400 drop"] * beats + [f"ip daddr {STORE} tcp dport 6379 drop"] * store
    came = ["udp dport 7400 drop"] * beats
    chains = (("out", "output", rules), ("in", "input", came))
    text = "".join(
        f"chain {name} {{ type filter hook {hook} priority 0; {'; '.join(lines)}; }}\n"
        for name, hook, lines in chains
        if lines
    )
    lab.firewall(host, f"table ip cut\ndelete table ip cut\ntable ip cut {{\n{text}}}\n")


def heal(lab: Lab, host: str) -> None:
    lab.firewall(host, "table ip cut\ndelete table ip cut\n")
