"""Two nodes whose addresses a VRRP daemon moves: keepalived itself, with the files that come with the product."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sbc.selftest.measure import Measures, NotTried
from sbc.selftest.node import wait
from sbc.selftest.pair import CORE, OUTSIDE, PairSite, pair_site

CONF = Path(__file__).parents[2] / "conf" / "keepalived"
SBC = Path(sys.executable).parent / "sbc"
CALLS = 6


@pytest.fixture
def two(tmp_path: Path) -> Iterator[PairSite]:
    """A pair of which nobody has said yet who is active."""
    try:
        with pair_site(tmp_path / "pair", keepalived=True) as made:
            for node in made.nodes.values():
                node.start()
            yield made
    except NotTried as reason:
        pytest.skip(str(reason))


def script_of(two: PairSite, name: str) -> Path:
    """The notify script of a node, with its own configuration."""
    script = two.folder / name / "notify.sh"
    where = f"SBC='{SBC}' SBC_CONFIG='{two.nodes[name].config}'"
    script.write_text(f'#!/bin/sh\n{where} exec {CONF / "sbc-notify.sh"} "$@"\n')
    script.chmod(0o755)
    return script


def start_keepalived(two: PairSite, name: str, stack: ExitStack) -> None:
    """The shipped configuration, with what it says is to be changed."""
    interface, folder = two.interfaces[name], two.folder / name
    text = (CONF / "keepalived.conf").read_text()
    for former, own in (
        ("/etc/keepalived/sbc-notify.sh", str(script_of(two, name))),
        ("interface eth0", f"interface {interface}"),
        ("192.0.2.10/24 dev eth0", f"{OUTSIDE}/24 dev {interface}"),
        ("192.0.2.11/24 dev eth1", f"{CORE}/24 dev {interface}"),
        ("priority 100", f"priority {100 if name == 'a' else 90}"),
        ("enable_script_security", ""),  # which the folders of a test do not satisfy
    ):
        assert former in text, former
        text = text.replace(former, own)
    (folder / "keepalived.conf").write_text(text)
    words = ["keepalived", "--dont-fork", "--log-console", "--vrrp", "-f", str(folder / "keepalived.conf")]
    words += ["-p", str(folder / "keepalived.pid"), "-r", str(folder / "vrrp.pid")]
    log = stack.enter_context((folder / "keepalived.log").open("wb"))
    process = subprocess.Popen([*two.lab.inside(name), *words], stdout=log, stderr=log)
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)


def test_keepalived_moves_address_and_calls_when_the_master_dies(two: PairSite) -> None:
    """Every process of the master dies, keepalived among them, and its link goes down: the backup becomes master, tells
    its SBC, and audio goes on there; then BYE works."""
    if shutil.which("keepalived") is None:
        pytest.skip("keepalived is not installed: apt-get install keepalived")
    with ExitStack() as stack:
        start_keepalived(two, "a", stack)
        wait(lambda: two.role("a") == "active" and two.holds("a"), 30, "a is master")
        start_keepalived(two, "b", stack)
        measures = Measures()
        calls = two.establish(CALLS)
        two.heard_again(calls, time.time(), 10)
        time.sleep(1.5)  # the backup has heard the master, and its check has passed
        assert two.roles() == {"a": "active", "b": "passive"}
        fault_at, died_s = time.time(), two.die("a")
        two.taken_over(20)
        took_s = time.monotonic() - died_s
        two.heard_again(calls, time.time(), 10)
        assert two.holds("b")
        two.measure_gap(calls, fault_at, measures, max_s=10)
        two.end(calls, measures)
        two.settled(measures)
        gaps = measures.metrics["gap"]
        print(f"master died: active after {took_s:.2f} s, gap p50 {gaps.at(0.5):.2f} s, max {gaps.at(1):.2f} s")
        assert not measures.reasons()


def test_the_later_one_of_two_masters_serves(two: PairSite) -> None:
    """A node is what the script tells it to be, and of two that were told to be active the former one falls silent."""

    def notify(name: str, *words: str) -> int:
        command = [*two.lab.inside(name), str(script_of(two, name)), *words]
        return subprocess.run(command, env=os.environ, check=False, timeout=30).returncode

    assert two.roles() == {"a": "passive", "b": "passive"}
    assert notify("a", "check") == 0
    for name, other in (("a", "b"), ("b", "a")):
        assert notify(name, "INSTANCE", "SBC", "MASTER", "100") == 0
        wait(lambda o=other: two.role(o) == "passive", 5, "one is passive")  # type: ignore[misc]
        wait(lambda n=name: two.role(n) == "active", 5, "the other is active")  # type: ignore[misc]
    wait(lambda: two.status("a")["state"] == "standby", 5, "its processes have ended")
    assert two.status("b")["token"] == 2
    assert notify("b", "INSTANCE", "SBC", "BACKUP", "90") == 0
    wait(lambda: two.roles() == {"a": "passive", "b": "passive"}, 5, "nobody is active")
    time.sleep(1.5)
    assert two.roles() == {"a": "passive", "b": "passive"}, "one took over that nobody had told to"
