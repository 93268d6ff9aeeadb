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
from pathlib import Path
from typing import Any

import pytest

from sbc.routing.versions import Versions, Wish
from sbc.supervisor.members import sip_capacity
from tests.support.sbc import children, has_ended

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0


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

    @property
    def supervisor_pid(self) -> int:
        """0 while there is none."""
        assert self.process is not None
        return next((pid for pid, title in children(self.process.pid).items() if title == "sbc: supervisor"), 0)

    def pids(self) -> dict[str, int]:
        """Process name to pid of the workers, by their titles, whoever is their parent."""
        assert self.process is not None
        supervisor = self.supervisor_pid
        found = {**children(self.process.pid), **children(supervisor)}
        return {title: pid for pid, title in found.items() if pid != supervisor}

    def respawned(self, name: str, before: int) -> None:
        """Wait until ``name`` is another process than ``before``."""
        self.until(lambda: self.pids().get(name, before) != before, f"respawn of {name}")

    def supervisor_killed(self) -> None:
        """``kill -9`` the supervisor, and wait until another one has taken over."""
        count = len(self.lines("took over from a supervisor that died"))
        before = self.supervisor_pid
        os.kill(before, signal.SIGKILL)
        self.said("took over from a supervisor that died", count + 1)
        self.until(lambda: self.supervisor_pid not in (0, before), "title of the new supervisor")

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
            self.process.kill()  # all others get SIGTERM from the kernel
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
    assert title == b"sbc: keeper"
    assert node.said("fake control")[0]["pages"] == ["control", "media 0", "sip 0", "sip 1", "supervisor"]
    # Each SIP worker holds its own UDP socket, its inbox and the write ends, and nothing of its neighbour.
    for name in ("sbc: sip 0", "sbc: sip 1"):
        folder = Path(f"/proc/{node.pids()[name]}/fd")
        links = [os.readlink(entry) for entry in folder.iterdir()]
        assert len([link for link in links if link.startswith("socket:")]) == 2 + sip_capacity(2)
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
    for _ in range(6):
        pid = node.pids()["sbc: sip 0"]
        client.send(b"fail")
        node.respawned("sbc: sip 0", pid)
    waits = [row["wait_s"] for row in node.lines("worker starts again")]
    assert waits == pytest.approx([0.1, 0.2, 0.4], abs=0.02)  # and the first three at once
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


def test_the_watchdog_has_less_patience_with_media_workers(node: Node) -> None:
    node.up()
    before = node.pids()["sbc: media 0"]
    os.kill(before, signal.SIGSTOP)
    hangs = node.said("worker hangs, ending it")
    assert [(row["worker"], row["pid"]) for row in hangs] == [("media 0", before)]
    assert 0.9 <= hangs[0]["silent_s"] < 2.5
    node.respawned("sbc: media 0", before)
    assert len(node.lines("worker died")) == 1


def test_a_node_that_was_frozen_ends_nobody(node: Node) -> None:
    node.up()
    workers = node.pids()
    pids = [node.supervisor_pid, *workers.values()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.5)
    assert node.pids() == workers
    assert not node.lines("worker hangs, ending it")


def test_where_memory_runs_out_the_kernel_ends_a_worker_first(node: Node) -> None:
    node.up()

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    if score(node.supervisor_pid) >= score(os.getpid()):
        pytest.skip("we may not lower the score of our processes")
    assert score(node.supervisor_pid) == -900
    assert {score(pid) for pid in node.pids().values()} == {0}


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
    node.write(workers="{ sip: 2, media: 2 }")
    node.signal(signal.SIGHUP)
    (fault,) = node.said("configuration refused, the old one serves on", 2)[1]["faults"]
    assert fault.startswith("workers.media: a change takes a restart, since media workers share out the RTP ports")
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


def test_nothing_is_left_when_the_keeper_is_killed(node: Node) -> None:
    """Its workers, those that a second supervisor has adopted and those that it has started; and a start follows."""
    node.config.write_text(node.config.read_text().replace("store: unix:///nowhere", "store: embedded"))
    node.up()
    node.supervisor_killed()
    old = node.pids()["sbc: sip 0"]
    os.kill(old, signal.SIGKILL)
    node.respawned("sbc: sip 0", old)
    pids = [node.supervisor_pid, *node.pids().values()]
    assert len(pids) == 6
    node.signal(signal.SIGKILL)
    node.wait()
    node.until(lambda: all(has_ended(pid) for pid in pids), "end of everybody")
    assert node.lines("the keeper died, ending everything")
    node.log_path.unlink()
    node.up()


def test_nothing_is_left_when_keeper_and_supervisor_are_killed(node: Node) -> None:
    node.up()
    pids = node.pids().values()
    os.kill(node.supervisor_pid, signal.SIGSTOP)
    os.kill(node.supervisor_pid, signal.SIGKILL)
    node.signal(signal.SIGKILL)
    node.wait()
    node.until(lambda: all(has_ended(pid) for pid in pids), "end of the workers")


def test_a_killed_supervisor_is_replaced_and_the_workers_live(node: Node) -> None:
    node.up()
    workers, first = node.pids(), node.supervisor_pid
    killed_s = time.monotonic()
    node.supervisor_killed()
    print(f"another supervisor serves {time.monotonic() - killed_s:.3f} s after the death of the first")
    assert node.pids() == workers
    died = node.lines("supervisor died")
    assert [(row["pid"], row["how"], row["workers"]) for row in died] == [(first, "SIGKILL", 4)]
    client = node.client_of(1)
    client.send(b"still here")
    assert client.recv(100) == b"1:%d:still here" % workers["sbc: sip 1"]

    # a worker of the first supervisor dies, then one of the second
    for before in (workers["sbc: sip 1"], 0):
        pid = before or node.pids()["sbc: sip 1"]
        client.send(b"die")
        node.respawned("sbc: sip 1", pid)
    assert [(row["worker"], row["how"]) for row in node.said("worker died", 2)] == [("sip 1", "exit code 3")] * 2

    node.write(direction="two")
    node.signal(signal.SIGHUP)
    assert {row["process"] for row in node.said("fake reloads", 2)} == {"sip 0", "sip 1"}
    node.signal(signal.SIGUSR1)
    states = {row["worker"]: (row["state"], row["pid"]) for row in node.said("state", 4)}
    assert states["sip 0"] == ("ready", workers["sbc: sip 0"])

    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    ended = [row["worker"] for row in node.lines("worker ended")]
    assert set(ended[:2]) == {"sip 0", "sip 1"}
    assert ended[2:] == ["media 0", "control"]
    assert all(has_ended(pid) for pid in workers.values())


def test_the_watchdog_ends_an_adopted_worker_that_hangs(node: Node) -> None:
    node.up()
    node.supervisor_killed()
    before = node.pids()["sbc: media 0"]
    os.kill(before, signal.SIGSTOP)
    assert [row["pid"] for row in node.said("worker hangs, ending it")] == [before]
    node.respawned("sbc: media 0", before)
    assert [row["lives"] for row in node.said("fake media", 2)] == [1, 2]


def test_a_worker_that_dies_with_its_supervisor_is_started_again(node: Node) -> None:
    node.up()
    before = node.pids()["sbc: sip 0"]
    os.kill(node.supervisor_pid, signal.SIGSTOP)
    os.kill(before, signal.SIGKILL)
    node.supervisor_killed()
    node.respawned("sbc: sip 0", before)
    assert [(row["worker"], row["pid"], row["how"]) for row in node.said("worker died")] == [
        ("sip 0", before, "SIGKILL")
    ]


def test_what_a_reload_brought_outlives_the_supervisor_and_what_was_not_reloaded_does_not_come(node: Node) -> None:
    node.write(extra="log: { level: debug }")
    node.up()
    node.write(extra="log: { level: info }")
    node.signal(signal.SIGHUP)
    node.said("configuration reloaded")
    node.write(extra="log: { level: debug }")  # nobody asked for this
    node.supervisor_killed()
    started = len(node.lines("worker started"))
    before = node.pids()["sbc: sip 0"]
    os.kill(before, signal.SIGKILL)
    node.respawned("sbc: sip 0", before)
    assert len(node.lines("worker started")) == started, "a line of the debug level"


def test_a_supervisor_that_dies_in_a_stop_is_followed_by_one_that_goes_on_with_it(node: Node) -> None:
    node.up(FAKE_DRAIN_S="2")
    node.signal(signal.SIGTERM)
    node.said("fake drains", 2)
    os.kill(node.supervisor_pid, signal.SIGKILL)
    assert node.wait() == 0
    assert not node.lines("fake is hurried")
    assert [row["worker"] for row in node.lines("worker ended")][2:] == ["media 0", "control"]


def test_a_reload_that_was_being_proven_is_refused_when_the_supervisor_dies(node: Node) -> None:
    routes = node.folder / "routes.py"
    routes.write_text("import time\ntime.sleep(60)\n")
    node.write(extra="routes: routes.py")
    node.up()
    routes.write_text("import time\ntime.sleep(61)\n")
    node.signal(signal.SIGHUP)
    proof = node.until(lambda: node.pids().get("sbc: routes"), "a process that tries the routes")
    node.supervisor_killed()
    faults = node.said("configuration refused, the old one serves on")[0]["faults"]
    assert faults == ["the process that tried them was ended with the supervisor"]
    node.until(lambda: has_ended(proof), "end of the proof")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


def test_a_wish_for_a_reload_needs_no_signal(node: Node) -> None:
    """Who leaves it may be of a user that cannot send the supervisor one."""
    routes = node.folder / "routes.py"
    text = "from sbc.routing import Request, Routes\nroutes = Routes()\n@routes.route\n"
    text += "async def main(request: Request) -> None: "
    routes.write_text(text + "pass\n")
    node.write(extra="routes: routes.py")
    node.up()
    versions = Versions(str(node.folder / "state"))
    routes.write_text(text + "await request.reject(480)\n")
    versions.wish(Wish())
    node.until(lambda: versions.read().current == 2, "the new routes")
    assert not versions.has_wish
    versions.wish(Wish(1))
    node.until(lambda: versions.read().current == 3, "the old ones")
    assert versions.read().versions[-1].by == "rollback to 1"


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
