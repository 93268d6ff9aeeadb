"""The supervisor with real processes, signals and sockets, and workers that are fakes (tests/support/fake_node.py)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WAIT_S = 10.0


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Node:
    """A running node of fakes, its log, and a socket to talk to its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "sbc.yaml"
        self.log_path = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, *, direction: str = "one", extra: str = "", workers: str = "{ sip: 2, media: 1 }") -> None:
        self.config.write_text(
            f"""\
run_dir: run
state_dir: state
database: sqlite:///state/sbc.db
store: unix:///nowhere
workers: {workers}
realms:
  core:
    listen: [udp:127.0.0.1:{self.port}]
    media: {{ address: 127.0.0.1, ports: 20000-20099 }}
peers:
  b: {{ realm: core, addresses: 127.0.0.9, direction: {direction} }}
timers: {{ drain_timeout_s: 3 }}
{extra}
"""
        )

    def start(self, **environment: str) -> None:
        with self.log_path.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fake_node", str(self.config)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stderr=output,
                stdout=output,
            )

    def lines(self, event: str = "") -> list[dict[str, Any]]:  # Any: JSON values
        rows = [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [row for row in rows if not event or row["event"] == event]

    def until(self, found: Callable[[], object], what: str) -> Any:  # Any: whatever `found` returns
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if result := found():
                return result
            time.sleep(0.01)
        raise AssertionError(f"no {what} within {WAIT_S:.0f} s; the log:\n{self.log_path.read_text()}")

    def said(self, event: str, count: int = 1) -> list[dict[str, Any]]:  # Any: JSON values
        rows = self.until(lambda: len(self.lines(event)) >= count and self.lines(event), f"{count} lines {event!r}")
        assert isinstance(rows, list)
        return rows

    def up(self, **environment: str) -> None:
        self.start(**environment)
        self.said("serving")
        self.said("fake control")

    def pids(self) -> dict[str, int]:
        """Process name to pid of the children, by their titles."""
        assert self.process is not None
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with suppress(OSError):  # it may end while we look
                title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
                found[title] = int(pid)
        return found

    def respawned(self, name: str, before: int) -> None:
        """Wait until ``name`` is another process than ``before``."""
        self.until(lambda: self.pids().get(name, before) != before, f"respawn of {name}")

    def client(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", self.port))
        sock.settimeout(WAIT_S)
        return sock

    def client_of(self, slot: int) -> socket.socket:
        """A socket whose packets the kernel gives to this slot."""
        for _ in range(200):
            sock = self.client()
            sock.send(b"who")
            if sock.recv(100).startswith(b"%d:" % slot):
                return sock
            sock.close()
        raise AssertionError(f"no source port leads to slot {slot}")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()  # its children get SIGTERM from the kernel
            self.process.wait()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.write()
    yield made
    made.end()


def test_it_names_its_processes_and_gives_each_what_is_its_own(node: Node) -> None:
    node.up()
    assert set(node.pids()) == {"sbc: sip 0", "sbc: sip 1", "sbc: media 0", "sbc: control"}
    assert node.process is not None
    title = Path(f"/proc/{node.process.pid}/cmdline").read_bytes().rstrip(b"\0")
    assert title == b"sbc: supervisor"
    assert node.said("fake control")[0]["pages"] == ["control", "media 0", "sip 0", "sip 1", "supervisor"]
    # Each SIP worker holds its own UDP socket, its inbox and two write ends, and nothing of its neighbour.
    for name in ("sbc: sip 0", "sbc: sip 1"):
        folder = Path(f"/proc/{node.pids()[name]}/fd")
        links = [os.readlink(entry) for entry in folder.iterdir()]
        assert len([link for link in links if link.startswith("socket:")]) == 4
        assert not [link for link in links if "memfd" in link or "supervisor.pid" in link]
    for name, pid in node.pids().items():
        shown = Path(f"/proc/{pid}/status").read_text()
        assert "Threads:\t1\n" in shown, name


def test_a_killed_worker_comes_back_and_reads_what_arrived_meanwhile(node: Node) -> None:
    node.up()
    client = node.client_of(1)
    before = node.pids()["sbc: sip 1"]
    os.kill(before, signal.SIGSTOP)
    client.send(b"waiting")  # queued in the socket, unread
    os.kill(before, signal.SIGKILL)
    killed_s = time.monotonic()
    slot, pid, data = client.recv(100).split(b":")
    assert (slot, data) == (b"1", b"waiting")
    assert int(pid) != before
    assert time.monotonic() - killed_s < 1.0
    died = node.said("worker died")
    assert [(d["worker"], d["pid"], d["how"], d["calls"]) for d in died] == [("sip 1", before, "SIGKILL", 0)]


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly(node: Node) -> None:
    node.up()
    client = node.client_of(0)
    for _ in range(4):
        pid = node.pids()["sbc: sip 0"]
        client.send(b"fail")
        node.respawned("sbc: sip 0", pid)
    waits = [row["wait_s"] for row in node.lines("worker starts again")]
    assert waits == pytest.approx([0.1, 0.2, 0.4], abs=0.02)  # and the first at once
    assert {row["reason"] for row in node.lines("worker died")} == {"told to fail"}
    client.send(b"hello")
    assert client.recv(100).endswith(b":hello")


def test_a_worker_that_cannot_start_stops_the_node_with_the_reason(node: Node) -> None:
    node.start(FAKE_BOOT="fail")
    assert node.wait() == 1
    reason = node.lines("cannot start")[0]["reason"]
    assert reason == "sip 1 ended before it served (exit code 70): no such table: gateways"
    assert not node.lines("serving")


def test_the_watchdog_ends_a_worker_that_hangs_and_only_that(node: Node) -> None:
    node.up()
    other = node.pids()["sbc: sip 0"]
    before = node.pids()["sbc: sip 1"]
    os.kill(before, signal.SIGSTOP)
    stopped_s = time.monotonic()
    hangs = node.said("worker hangs, ending it")
    assert 2.5 < time.monotonic() - stopped_s < 5.0
    assert [(row["worker"], row["pid"]) for row in hangs] == [("sip 1", before)]
    node.respawned("sbc: sip 1", before)
    assert node.pids()["sbc: sip 0"] == other
    assert len(node.lines("worker died")) == 1


def test_a_media_worker_finds_the_memory_of_the_one_before(node: Node) -> None:
    node.up()
    os.kill(node.pids()["sbc: media 0"], signal.SIGKILL)
    assert [row["lives"] for row in node.said("fake media", 2)] == [1, 2]
    assert node.lines("fake media")[0]["ports"] == [20000, 20099]


def test_datagrams_can_be_handed_to_the_other_worker(node: Node) -> None:
    node.up()
    node.client_of(0).send(b"give")
    given = node.said("fake was given")[0]
    assert (given["process"], given["by"]) == ("sip 1", 0)


def test_stopping_drains_sip_first_and_the_rest_after_it(node: Node) -> None:
    node.up(FAKE_DRAIN_S="0.5")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    ended = [row["worker"] for row in node.lines("worker ended")]
    assert set(ended[:2]) == {"sip 0", "sip 1"}
    assert ended[2:] == ["media 0", "control"]
    assert len(node.lines("fake drains")) == 2
    assert not node.lines("worker died")


def test_a_second_stop_hurries(node: Node) -> None:
    node.up(FAKE_DRAIN_S="60")
    node.signal(signal.SIGTERM)
    node.said("fake drains", 2)
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert {row["worker"] for row in node.said("worker takes too long to stop, ending it")} == {"sip 0", "sip 1"}


def test_a_reload_with_faults_keeps_the_old_configuration(node: Node) -> None:
    node.up()
    before = node.pids()
    node.write(extra="wrokers: 3")
    node.signal(signal.SIGHUP)
    refused = node.said("configuration refused, the old one serves on")[0]
    assert refused["faults"] == [f"{node.config}:13:1: wrokers: unknown key, did you mean 'workers'?"]
    node.write(workers="{ sip: 3, media: 1 }")
    node.signal(signal.SIGHUP)
    assert node.said("configuration refused, the old one serves on", 2)[1]["faults"] == [
        "workers: a change takes a restart"
    ]
    assert not node.lines("fake reloads")
    assert node.pids() == before
    client = node.client()
    client.send(b"still here")
    assert client.recv(100).endswith(b":still here")


def test_a_reload_without_faults_reaches_every_worker(node: Node) -> None:
    node.up()
    before = node.pids()
    node.write(direction="two")
    node.signal(signal.SIGHUP)
    assert {row["process"] for row in node.said("fake reloads", 2)} == {"sip 0", "sip 1"}
    assert {row["node"] for row in node.lines("fake reloads")} == {"two"}
    assert {name: pid for name, pid in node.pids().items() if "sip" in name} == {
        name: pid for name, pid in before.items() if "sip" in name
    }


def test_the_state_of_every_child_goes_to_the_log(node: Node) -> None:
    node.up()
    node.signal(signal.SIGUSR1)
    states = node.said("state", 4)
    assert {row["worker"]: row["state"] for row in states} == dict.fromkeys(
        ("sip 0", "sip 1", "media 0", "control"), "ready"
    )


def test_a_second_supervisor_refuses(node: Node) -> None:
    node.up()
    assert node.process is not None
    second = Node(node.folder)
    second.port = node.port
    second.start()
    assert second.wait() == 1
    assert f"an SBC runs there already (pid {node.process.pid})" in node.log_path.read_text()
    assert node.process.poll() is None


def test_a_port_that_is_taken_is_named(node: Node) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        # Even a stranger that would share the port: half of the calls would go to it.
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", node.port))
        node.start()
        assert node.wait() == 1
    expected = f"realms.core.listen: udp:127.0.0.1:{node.port}: another program listens there"
    assert expected in node.log_path.read_text()


def test_the_shard_key_is_made_once(node: Node) -> None:
    node.up()
    path = node.folder / "state" / "shard.key"
    key = path.read_bytes()
    assert len(key) == 16
    assert path.stat().st_mode & 0o777 == 0o600
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    node.log_path.unlink()
    node.up()
    assert path.read_bytes() == key


def test_the_embedded_store_is_a_child_that_comes_back_empty(node: Node) -> None:
    node.config.write_text(node.config.read_text().replace("store: unix:///nowhere", "store: embedded"))
    node.up()

    def command(text: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WAIT_S)
            sock.connect(str(node.folder / "run" / "store.sock"))
            sock.sendall(text + b"\r\n")
            return sock.recv(1000)

    def store_pid() -> int:
        return next((pid for name, pid in node.pids().items() if name.startswith("sbc: store")), 0)

    assert command(b"SET call 1") == b"+OK\r\n"
    assert (node.folder / "run" / "store.sock").stat().st_mode & 0o777 == 0o700
    before = store_pid()
    os.kill(before, signal.SIGKILL)
    assert node.said("worker died")[0]["worker"] == "store"
    node.until(lambda: store_pid() not in (0, before), "respawn of the store")

    def answers() -> bool:
        try:
            return command(b"GET call") == b"$-1\r\n"
        except OSError:
            return False

    node.until(answers, "answer of the new store")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert [row["worker"] for row in node.lines("worker ended")][-1] == "store"


def test_workers_end_when_the_supervisor_is_killed(node: Node) -> None:
    node.up()
    pids = node.pids().values()
    node.signal(signal.SIGKILL)
    node.wait()
    node.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "end of the workers")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_workers_run_as_the_configured_user(node: Node, tmp_path: Path) -> None:
    import pwd

    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    node.write(extra="user: nobody")
    node.up()
    nobody = pwd.getpwnam("nobody").pw_uid
    assert node.said("fake control")[0]["user"] == nobody
    assert (node.folder / "run").stat().st_uid == nobody
    pid = node.pids()["sbc: sip 0"]
    os.kill(pid, signal.SIGKILL)  # and so does the next life
    node.respawned("sbc: sip 0", pid)
    node.until(lambda: f"Uid:\t{nobody}\t" in Path(f"/proc/{node.pids()['sbc: sip 0']}/status").read_text(), "user")
