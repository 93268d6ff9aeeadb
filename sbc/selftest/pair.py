"""Two nodes with virtual addresses, their store, and callers and callees that outlive them: hosts of a network that is
made of namespaces."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sbc.management.client import ManagementError, ask
from sbc.selftest import machines
from sbc.selftest.agents import Agent, Asked, UaCall
from sbc.selftest.certificate import self_signed
from sbc.selftest.measure import Failed, Measures, NotTried
from sbc.selftest.netns import Lab
from sbc.selftest.node import Node, wait
from sbc.selftest.pair_store import Watched, start_alone
from sbc.selftest.phones import TlsPhone, WssPhone
from sbc.selftest.releases import Releases
from sbc.selftest.site import PACE_S, Call, Site
from sbc.selftest.talk import BEFORE_S, INTERVAL_S, Talk

CALLER, CALLEE, SMALL, STORE = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.5"
OWN = {"a": "10.77.0.11", "b": "10.77.0.12"}
DIRECT = {"a": "10.78.0.11", "b": "10.78.0.12"}
HOSTS = {"cust": (CALLER, CALLEE, SMALL), "a": (OWN["a"],), "b": (OWN["b"],), "red": (STORE,)}
OUTSIDE, CORE = "10.77.0.100", "10.77.0.101"  # the virtual addresses
SMALL_CALLS = 4  # what the customer at SMALL may have at a time
SMALL_TRIES = 24
PATH_PORT = 7400
CERTIFICATE = "sbc.pem"  # with its key
CONFIG = """\
node: pair
run_dir: {folder}/run
state_dir: {folder}/state
database: sqlite:///{folder}/state/sbc.db
workers: {{ sip: 2, media: 1 }}
store: {store}
realms:
  outside:
    listen: [udp:{outside}:5060, tls:{outside}:5061, wss:{outside}:8443]
    tls: {{ certificate: {certificate}, key: {certificate} }}
    media: {{ address: {outside}, ports: 10000-14999, srtp: optional }}
  core:
    listen: [udp:{core}:5060]
    media: {{ address: {core}, ports: 20000-24999 }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {caller}, direction: from_carrier, calls_to: pbx }}
  small: {{ realm: outside, addresses: {small}, direction: from_small, calls_to: pbx, max_calls: {small_calls} }}
  pbx: {{ realm: core, addresses: {callee}, direction: from_pbx, gateway: "sip:{callee}:5060" }}
timers: {{ drain_timeout_s: 0.3, media_timeout_ms: 3000, media_silence_s: 120 }}
management: {{ metrics: "" }}
log: {{ level: info, format: json }}
ha:
  name: {name}
  key_file: {key}
  paths:
    - {{ local: "{own}:{port}", peer: "{other}:{port}" }}
    - {{ local: "{direct}:{port}", peer: "{other_direct}:{port}" }}
"""
ADDRESSES = "  addresses: [{outside}/24 on {interface}, {core}/24 on {interface}]\n"
BY_KEEPALIVED = "  decided_by: keepalived\n"


class Half(Node):
    """One of the two. ``text`` is its configuration, ``inside`` the words that put a command into its host."""

    def __init__(self, folder: Path, text: str, inside: Sequence[str]) -> None:
        self.folder = folder
        self.port = self.callee_port = self.core_port = 5060
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "sbc.yaml"
        self.text = text
        self.config.write_text(text)
        self.inside = inside
        self.main_pid = 0
        self._stack = ExitStack()
        self._before = []

    def run_release(self, releases: Releases) -> None:
        """Before the start: it is of the release that is in place there."""
        self._before = releases.prefix

    def ha(self, method: str) -> Any:  # Any: JSON values
        """A question or an order to its process ``ha``; raises ManagementError."""
        return ask(str(self.folder / "run" / "ha.sock"), method, timeout_s=2)


@dataclass(slots=True)
class Ends:
    """Callers with RTP and with SRTP, a callee, and a customer with few channels who is also a phone that registers."""

    caller: Agent
    safe: Agent | None  # None: without pylibsrtp nobody speaks SRTP
    small: Agent
    phones: tuple[TlsPhone, ...]  # by TLS and by WSS, with SRTP; none without pylibsrtp
    callee: Agent
    near: Talk
    far: Talk


class Span(NamedTuple):
    """How long something was the case, and since when all was as it should be."""

    seconds: float
    took_s: float


class PairSite(Site):
    """Calls through the virtual addresses of ``a`` and ``b``. ``node`` is the active one of them, as far as known."""

    def __init__(self, folder: Path, lab: Lab, interfaces: dict[str, str], ends: Ends, nodes: dict[str, Half]) -> None:
        self.lab = lab
        self.interfaces = interfaces
        self.ends = ends
        self.nodes = nodes
        super().__init__(folder, self.nodes["a"], None, (ends.caller, ends.callee, ends.near, ends.far), is_apart=True)
        self.releases: dict[str, Releases] = {}  # by node, where each has one of its own
        self.watched: Watched | None = None  # its store, where it lies on both nodes
        self._safe: set[str] = set()  # Call-IDs of the callers with SRTP

    # -- nodes

    @property
    def active(self) -> str:
        return next(name for name, node in self.nodes.items() if node is self.node)

    @property
    def other(self) -> str:
        return "b" if self.active == "a" else "a"

    def begin(self, limit_s: float = 90.0) -> None:
        """Start both, ``a`` first, and wait until either says that the other one could take over."""
        self.nodes["a"].start()
        wait(lambda: self.role("a") == "active", limit_s, "a is active")
        self.nodes["b"].start()
        self.ready()

    def status(self, name: str) -> dict[str, Any]:  # Any: JSON values
        """What ``sbc ha status`` asks; nothing where nobody answers."""
        with suppress(ManagementError):
            found: dict[str, Any] = self.nodes[name].ha("status")  # Any: JSON values
            return found
        return {}

    def role(self, name: str) -> str:
        return str(self.status(name).get("role", "gone"))

    def roles(self) -> dict[str, str]:
        return {name: self.role(name) for name in self.nodes}

    def ready(self, limit_s: float = 60.0) -> float:
        """Wait until either node says that the other one could take over; the seconds that it took."""
        return machines.wait_until_ready(lambda: [self.status(name) for name in self.nodes], limit_s)

    def taken_over(self, limit_s: float = 15.0) -> None:
        """Wait until the other node says that it is active, and go by it from now on."""
        other = self.other
        wait(lambda: self.role(other) == "active", limit_s, f"{other} is active")
        self.node = self.nodes[other]

    def switch(self) -> None:
        """Order the active node to hand over. Failed where it refuses."""
        try:
            self.node_half.ha("switch")
        except ManagementError as error:
            raise Failed(f"a planned switch is refused: {error}") from error

    @property
    def node_half(self) -> Half:
        return self.nodes[self.active]

    def die(self, name: str) -> float:
        """Every process and the link, at once; when that was (monotonic seconds)."""
        return machines.die(self.lab, name, self.interfaces[name])

    def mend(self, name: str) -> None:
        """The machine is there again, without a process."""
        self.cable(name, "up")
        self.nodes[name].close()

    def cable(self, name: str, state: str) -> None:
        """Pull it out of the switch (``down``), or put it there again (``up``)."""
        machines.link(self.lab, name, self.interfaces[name], state)

    def cut(self, name: str, *, beats: bool = False, store: bool = False) -> None:
        """Have a node hear and say nothing there any more, without a word about it to anybody; neither: heal it."""
        machines.cut(self.lab, name, PATH_PORT * beats, STORE * store)

    def holds(self, name: str) -> bool:
        """Whether a virtual address is on this node."""
        with suppress(OSError):
            known = Path(f"/proc/{self.nodes[name].main_pid}/net/fib_trie").read_text().split()
            return OUTSIDE in known or CORE in known
        return False

    def one_owner(self, former: str, owner: str, limit_s: float = 15.0) -> Span:
        """Wait until ``owner`` alone has the addresses; how long both had them."""
        both_s, began_s = 0.0, time.monotonic()
        last_s = began_s
        while True:
            holds = self.holds(former), self.holds(owner)
            now_s = time.monotonic()
            both_s += (now_s - last_s) * all(holds)
            if holds == (False, True):
                return Span(both_s, now_s - began_s)
            if now_s - began_s > limit_s:
                raise Failed(f"not within {limit_s:g} s: {owner} alone has the addresses")
            last_s = now_s
            time.sleep(0.005)

    def answers(self, limit_s: float = 15.0, since_s: float | None = None) -> float:
        """Ping a virtual address until an answer comes; the seconds that it took since then."""
        return machines.answers(self.lab, CALLER, OUTSIDE, limit_s, since_s)

    # -- calls

    def begun(self, measures: Measures) -> list[Call]:
        """As many calls as the row has, with audio that was measured without a fault, and nodes that are ready."""
        calls = self.establish(self.calls)
        self.control(calls, measures)
        self.ready()
        return calls

    def invite(self, *, rings: bool = False) -> UaCall:
        self._number += 1
        return self.caller.call((OUTSIDE, 5060), f"{2 if rings else 1}{self._number:06}")

    def _place(self, count: int, *, rings: bool = False) -> list[UaCall]:
        """Every other one with SRTP at the caller."""
        placed = []
        for n in range(count):
            if n % 2 and self.ends.safe is not None:
                self._number += 1
                call = self.ends.safe.call((OUTSIDE, 5060), f"{2 if rings else 1}{self._number:06}")
                self._safe.add(call.call_id)
            else:
                call = self.invite(rings=rings)
            placed.append(call)
            time.sleep(PACE_S)
        return placed

    def call_from(self, phone: TlsPhone) -> Call:
        """A call of a phone, with audio."""
        self._number += 1
        placed = phone.call((OUTSIDE, 5060), f"1{self._number:06}")
        wait(lambda: placed.up or placed.asked["INVITE"].status != 0, 35, "an answer to a call of a phone")
        if not placed.up:
            raise Failed(f"a call by {phone.transport} was answered with {placed.asked['INVITE'].status}")
        self.expect_records([placed])
        far = self._far_calls()
        wait(lambda: far[placed.number].up, 15, "a call of a phone acknowledged")
        return self._talking(placed, far[placed.number])

    def hang_up(self, calls: Sequence[Call]) -> list[Asked]:
        return [
            self.callee.hang_up(call.b) if n % 2 else self.caller_of(call.a).hang_up(call.a)
            for n, call in enumerate(calls)
        ]

    def caller_of(self, call: UaCall) -> Agent:
        if call.call_id in self._safe and self.ends.safe is not None:
            return self.ends.safe
        return self.caller

    # -- audio

    def measure_gap(
        self,
        calls: Sequence[Call],
        fault_at: float,
        measures: Measures,
        *,
        max_s: float,
        p99_s: float | None = None,
        p50_s: float | None = None,
        what: str = "gap",
    ) -> None:
        """As above; and again, apart, where SRTP arrives."""
        super().measure_gap(calls, fault_at, measures, max_s=max_s, p99_s=p99_s, p50_s=p50_s, what=what)
        start, end = fault_at - BEFORE_S, time.time() - INTERVAL_S
        safe = [stream.gap(start, end) for call in calls for stream in call.streams if stream.is_secure]
        if safe:
            measures.add(f"{what}, of these where SRTP comes", safe)

    # -- limits and registrations

    def fill_up(self) -> list[UaCall]:
        """Calls of the small customer until he gets no more; those that came up."""
        calls = [self.ends.small.call((OUTSIDE, 5060), f"17{n:05}") for n in range(SMALL_TRIES)]
        wait(lambda: all(call.up or call.asked["INVITE"].status for call in calls), 35, "answers to a small customer")
        up = [call for call in calls if call.up]
        self.expect_records(up)
        return up

    def register(self) -> str:
        """Register a phone; the user part by which it is reached."""
        asked = self.ends.small.register_at((OUTSIDE, 5060))
        wait(lambda: asked.status != 0, 35, "an answer to REGISTER")
        if asked.status != 200 or not self.callee.registered:
            raise Failed(f"REGISTER was answered with {asked.status}")
        return self.callee.registered[-1].partition("sip:")[2].partition("@")[0]

    def reaches_phone(self, user: str) -> bool:
        """Whether a call to the phone from the other side comes up; it is ended."""
        call = self.callee.call((CORE, 5060), user)
        wait(lambda: call.asked["INVITE"].status != 0, 35, "an answer to a call to a registered phone")
        if call.up:
            self.expect_records([call])
            ended = self.callee.hang_up(call)
            wait(lambda: ended.status != 0, 35, "an answer to its BYE")
        return call.up

    # -- afterwards

    def recorded(self) -> Counter[str]:
        return Counter(str(cdr["a_call_id"]) for node in self.nodes.values() for cdr in node.cdrs())


def _config(folder: Path, name: str, interface: str, *, store: str, keepalived: bool) -> str:
    other = "b" if name == "a" else "a"
    return (CONFIG + (BY_KEEPALIVED if keepalived else ADDRESSES)).format(
        **{"folder": folder / name, "name": name, "key": folder / "pair.key", "interface": interface},
        **{"certificate": folder / CERTIFICATE},
        **{"store": store, "small_calls": SMALL_CALLS},
        **{"own": OWN[name], "other": OWN[other], "direct": DIRECT[name], "other_direct": DIRECT[other]},
        **{"outside": OUTSIDE, "core": CORE, "caller": CALLER, "callee": CALLEE, "small": SMALL, "port": PATH_PORT},
    )


def needs_root() -> None:
    """Hosts, cables and a firewall are to be made."""
    if os.geteuid() != 0:
        raise NotTried("two nodes need network namespaces of their own: run it as root")
    missing = [program for program in ("ip", "nft") if shutil.which(program) is None]
    if missing:
        raise NotTried(f"two nodes need {' and '.join(missing)}: install iproute2 and nftables")


@contextmanager
def pair_site(
    folder: Path, *, embedded: bool = False, keepalived: bool = False, watched: bool = False, releases: bool = False
) -> Iterator[PairSite]:
    """The network with its store and both ends until the end of the block; then nothing of it is left. Nodes are still
    to be started. ``watched``: the store is on both nodes, and sentinels say which one counts. ``releases``: each node
    has a copy of the product. NotTried where this machine lacks something."""
    needs_root()
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "pair.key"
    key.write_text(os.urandom(32).hex() + "\n")
    key.chmod(0o600)
    self_signed(folder / CERTIFICATE, OUTSIDE)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        lab = stack.enter_context(Lab(f"st{os.getpid()}"))
        interfaces = machines.network(lab, HOSTS, DIRECT)
        sentinels = Watched(lab, folder, stack, {**OWN, "red": STORE}) if watched else None
        store = "embedded" if embedded else f"redis://{STORE}:6379/0"
        if sentinels is not None:
            sentinels.start()
            store = sentinels.url
        elif not embedded:
            start_alone(lab, folder, stack, STORE)
        opens = partial(lab.open_socket, "cust")
        near, far = (stack.enter_context(Talk(host, side, opens)) for side, host in enumerate((CALLER, CALLEE)))
        agent = partial(_agent, stack, opens)
        safe = agent(CALLER, 5062, near, secure=True) if find_spec("pylibsrtp") is not None else None
        phones = tuple(
            stack.enter_context(
                kind(
                    (CALLER, port),
                    (OUTSIDE, to),
                    folder / CERTIFICATE,
                    near.open,
                    partial(lab.open_socket, "cust", kind=socket.SOCK_STREAM),
                )
            )
            for kind, port, to in ((TlsPhone, 5061, 5061), (WssPhone, 5063, 8443))
            if safe is not None
        )
        small, callee = agent(SMALL, 5060, near), agent(CALLEE, 5060, far)
        ends = Ends(agent(CALLER, 5060, near), safe, small, phones, callee, near, far)
        nodes = {}
        for name in ("a", "b"):
            text = _config(folder, name, interfaces[name], store=store, keepalived=keepalived)
            nodes[name] = Half(folder / name, text, lab.inside(name))
            stack.callback(nodes[name].close)
        made = PairSite(folder, lab, interfaces, ends, nodes)
        made.watched = sentinels
        if releases:
            made.releases = {name: Releases(folder / f"releases-{name}") for name in nodes}
            for name, node in nodes.items():
                node.run_release(made.releases[name])
        yield made


def _agent(
    stack: ExitStack, opens: Callable[[], Any], host: str, port: int, talk: Talk, *, secure: bool = False
) -> Agent:
    return stack.enter_context(Agent(host, port, audio_port=talk.open, open_socket=opens, secure=secure))
