"""Two machines and two groups of virtual addresses: each machine serves one group, and stands by for the other."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sbc.demo.phone import CallFailed
from sbc.management import client
from sbc.selftest import machines
from sbc.selftest.measure import Failed
from sbc.selftest.netns import Lab
from sbc.selftest.pair import CALLEE, CALLER, STORE
from sbc.selftest.pair_store import start_alone
from tests.support.agents import Agent
from tests.support.audio import Audio, Stream
from tests.support.callers import Pair, establish
from tests.support.pair import CONFIG
from tests.support.sbc import Sbc, eventually, running

OWN = {"m1": "10.77.0.11", "m2": "10.77.0.12"}
DIRECT = {"m1": "10.78.0.11", "m2": "10.78.0.12"}
HOSTS = {"cust": (CALLER, CALLEE), "m1": (OWN["m1"],), "m2": (OWN["m2"],), "red": (STORE,)}
VIRTUAL = {"east": ("10.77.0.100", "10.77.0.101"), "west": ("10.77.0.110", "10.77.0.111")}  # outside, core
PORT = {"east": 7400, "west": 7500}
HOME = {"east": "m1", "west": "m2"}
CALLS = 4  # of each group


@dataclass(slots=True)
class Site:
    """Two machines with an instance of each group."""

    lab: Lab
    directory: Path
    interfaces: dict[str, str]
    nodes: dict[tuple[str, str], Sbc] = field(default_factory=dict)  # by group and machine
    _ends: dict[tuple[str, str], ExitStack] = field(default_factory=dict)

    def start(self, group: str, machine: str) -> None:
        other = "m2" if machine == "m1" else "m1"
        outside, core = VIRTUAL[group]
        key = self.directory / f"{group}.key"
        key.write_text(f"{group}-0123456789abcdef0123456789abcdef\n")
        text = CONFIG.format(
            name=machine,
            key=key,
            sip=1,
            port=PORT[group],
            own=OWN[machine],
            other=OWN[other],
            direct=DIRECT[machine],
            other_direct=DIRECT[other],
            interface=self.interfaces[machine],
            outside=outside,
            core=core,
            caller=CALLER,
            callee=CALLEE,
            store=f"redis://{STORE}:6379/0",
            srtp="off",
        )
        text += f"  prefers: {str(HOME[group] == machine).lower()}\n"
        stack = self._ends[group, machine] = ExitStack()
        directory = self.directory / f"{group}-{machine}"
        try:
            run = running(directory, text, prefix=self.lab.inside(machine), node=group)
            self.nodes[group, machine] = stack.enter_context(run)
        except CallFailed as error:
            raise AssertionError(f"{group} on {machine}: {error}\n{(directory / 'sbc.log').read_text()}") from error

    def start_all(self, *which: tuple[str, str]) -> None:
        """Instances, at once."""
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.start, *one) for one in which]:
                done.result()

    def close(self) -> None:
        for stack in self._ends.values():
            try:
                stack.close()
            except Exception as error:
                print(f"stop: {error}")

    def die(self, machine: str) -> None:
        """Every process of both instances and the link, at once."""
        machines.die(self.lab, machine, self.interfaces[machine])

    def mend(self, machine: str) -> None:
        """The machine is there again, and starts both."""
        machines.link(self.lab, machine, self.interfaces[machine], "up")
        for group in VIRTUAL:
            try:
                self._ends.pop((group, machine)).close()
            except BaseException as error:  # the supervisor did not end in order
                print("ended:", type(error).__name__)
        self.start_all(*((group, machine) for group in VIRTUAL))

    def ask(self, group: str, machine: str, method: str, **params: object) -> dict[str, Any]:  # Any: JSON values
        path = self.directory / f"{group}-{machine}" / "run" / "ha.sock"
        try:
            found: dict[str, Any] = client.ask(str(path), method, params, timeout_s=5)
        except client.NotRunning:
            return {}
        return found

    def active(self) -> dict[str, list[str]]:
        """By group: the machines that serve it."""
        return {group: [m for m in OWN if self.ask(group, m, "status").get("role") == "active"] for group in VIRTUAL}

    def ready(self) -> None:
        """Each instance could take over from the other of its group."""
        try:
            machines.wait_until_ready(lambda: [self.ask(*which, "status") for which in self.nodes], 40)
        except Failed as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def logs(self) -> str:
        return "\n".join(f"--- {which}\n{node.log[-2500:]}" for which, node in self.nodes.items())


def test_a_machine_dies_and_the_other_one_serves_both_groups(tmp_path: Path) -> None:
    """Audio goes on in the calls of both groups. The machine that returns takes nothing; an order brings its group
    home, and then each call ends with one record, in the group that had it."""
    if os.geteuid() or shutil.which("nft") is None:
        pytest.skip("needs root, ip of iproute2 and nft")
    with Lab(f"aa{os.getpid()}") as lab, ExitStack() as stack:
        site = Site(lab, tmp_path, machines.network(lab, HOSTS, DIRECT))
        start_alone(lab, tmp_path, stack, STORE)
        stack.callback(site.close)
        opens = partial(lab.open_socket, "cust")
        near, far = (stack.enter_context(Audio(host, opens)) for host in (CALLER, CALLEE))
        caller = stack.enter_context(Agent(CALLER, 5060, audio_port=near.open, open_socket=opens))
        callee = stack.enter_context(Agent(CALLEE, 5060, audio_port=far.open, open_socket=opens))
        site.start_all(*HOME.items())
        eventually(lambda: site.active() == {"east": ["m1"], "west": ["m2"]}, 20, "each group at home")
        site.start_all(("west", "m1"), ("east", "m2"))
        site.ready()
        assert site.active() == {"east": ["m1"], "west": ["m2"]}

        def establish_all() -> dict[str, list[Pair]]:
            return {group: establish(caller, callee, (VIRTUAL[group][0], 5060), CALLS) for group in VIRTUAL}

        calls = establish_all()
        streams: list[Stream] = []
        for pair in (pair for pairs in calls.values() for pair in pairs):
            a, b = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
            a.far, b.far = pair.a.far_audio, pair.b.far_audio
            assert a.far[0] in (VIRTUAL["east"][0], VIRTUAL["west"][0])
            streams += (a, b)
        near.talk()
        far.talk()

        def hear_all(what: str) -> None:
            since = time.monotonic()
            eventually(lambda: all(s.heard and s.heard[-1][0] > since for s in streams), 30, f"audio {what}")

        hear_all("in all calls")
        time.sleep(1.0)  # the other machines are told of it
        site.ready()

        site.die("m1")
        eventually(lambda: site.active()["east"] == ["m2"], 20, "m2 serves both groups")
        hear_all("goes on")
        assert site.active() == {"east": ["m2"], "west": ["m2"]}
        near.talking = far.talking = False  # new calls have streams of their own, of which nobody sends
        time.sleep(0.1)
        more = establish_all()
        near.talking = far.talking = True

        site.mend("m1")
        site.ready()
        assert site.active() == {"east": ["m2"], "west": ["m2"]}, "nobody is preempted"
        assert site.ask("west", "m1", "switch", preferred=True) == {"from": "m2", "to": "m2"}
        assert site.ask("east", "m1", "switch", preferred=True) == {"from": "m2", "to": "m1"}
        eventually(lambda: site.active() == {"east": ["m1"], "west": ["m2"]}, 20, "each group at home again")
        hear_all("goes on at home")
        near.talking = far.talking = False

        for group in VIRTUAL:
            pairs = [*calls[group], *more[group]]
            asked = [caller.hang_up(p.a) if n % 2 else callee.hang_up(p.b) for n, p in enumerate(pairs)]
            answered: Callable[[], bool] = partial(lambda asked: all(one.status for one in asked), asked)
            eventually(answered, 30, f"an answer to each BYE of {group}")
            assert {one.status for one in asked} == {200}, site.logs()
            eventually(partial(lambda g: len(records(site, g)) >= 2 * CALLS, group), 20, f"records of {group}")
            assert len(set(records(site, group))) == len(records(site, group)) == 2 * CALLS


def records(site: Site, group: str) -> list[str]:
    return [cdr["id"] for which, node in site.nodes.items() if which[0] == group for cdr in node.cdrs()]
