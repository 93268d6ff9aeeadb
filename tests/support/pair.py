"""A pair of SBCs in network namespaces: customers, two nodes and a store on one network, and a second path between
the nodes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sbc.management import client
from sbc.selftest import machines
from sbc.selftest.measure import Failed
from sbc.selftest.netns import Lab
from sbc.selftest.pair import CALLEE, CALLER, CORE, DIRECT, HOSTS, OUTSIDE, OWN, PATH_PORT, STORE
from sbc.selftest.pair_store import start_alone
from tests.support.agents import Agent
from tests.support.audio import Audio
from tests.support.callers import Pair, establish
from tests.support.sbc import Sbc, running

CONFIG = """\
workers: {{ sip: {sip}, media: 1 }}
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
    - {{ local: "{own}:{port}", peer: "{other}:{port}" }}
    - {{ local: "{direct}:{port}", peer: "{other_direct}:{port}" }}
  addresses: [{outside}/24 on {interface}, {core}/24 on {interface}]
"""


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
            sip=2,
            port=PATH_PORT,
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
        return machines.die(self.lab, name, self._interfaces[name])

    def cable(self, name: str, state: str) -> None:
        """Pull it out of the switch (``down``), or put it there again (``up``)."""
        machines.link(self.lab, name, self._interfaces[name], state)

    def cut(self, name: str, *, beats: bool = False, store: bool = False) -> None:
        """Have a node hear and say nothing there any more, without a word about it to anybody; neither: heal it."""
        machines.cut(self.lab, name, PATH_PORT * beats, STORE * store)

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
        try:
            machines.wait_until_ready(lambda: [self.status(name) for name in self.nodes], timeout_s)
        except Failed as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

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
        return establish(self.caller, self.callee, (OUTSIDE, 5060), count)

    def answers(self, limit_s: float, since_s: float | None = None) -> float:
        """Ping the virtual address until an answer comes; the seconds that it took since then."""
        try:
            return machines.answers(self.lab, CALLER, OUTSIDE, limit_s, since_s)
        except Failed as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def cdrs(self) -> list[str]:
        """The ids of all records on both nodes."""
        return [cdr["id"] for node in self.nodes.values() for cdr in node.cdrs()]

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{node.log[-4000:]}" for name, node in self.nodes.items())


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
        interfaces = machines.network(lab, HOSTS, DIRECT)
        if not embedded:
            start_alone(lab, directory, stack, STORE)
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
