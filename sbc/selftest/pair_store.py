"""Stores of a pair: one server on a machine of its own, or one on either node and sentinels that watch them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import redis

from sbc.errors import ConfigError
from sbc.selftest.measure import NotTried
from sbc.selftest.netns import Lab
from sbc.selftest.node import wait
from sbc.selftest.replicated import QUICK_SYNC, SERVICE, asked, linked, sentinel_settings
from sbc.supervisor.embedded_store import find_server

SERVER_PORT, SENTINEL_PORT = 6379, 26379
PREFIX = "sbc:{pair}:"


def server_program() -> str:
    """Of Redis or Valkey. NotTried where there is none."""
    try:
        return find_server()
    except ConfigError as error:
        raise NotTried(error.faults[0]) from error


def start_alone(lab: Lab, folder: Path, stack: ExitStack, address: str) -> None:
    """One server without a replica, in the host ``red``."""
    words = [server_program(), "--bind", address, "--port", str(SERVER_PORT), "--protected-mode", "no"]
    words += ["--save", "", "--dir", str(folder)]
    out = subprocess.DEVNULL
    store = subprocess.Popen([*lab.inside("red"), *words], stdout=out, stderr=out, start_new_session=True)
    stack.callback(store.wait)
    stack.callback(store.kill)

    def listens() -> bool:
        with suppress(OSError):
            lab.connect("cust", (address, SERVER_PORT)).close()
            return True
        return False

    wait(listens, 10, "a store")


class Watched:
    """A server on either node, three sentinels: one on each, the third one elsewhere. ``hosts`` are the addresses of
    ``a``, ``b`` and ``red``. Questions go by Unix sockets, which no network namespace is in the way of."""

    def __init__(self, lab: Lab, folder: Path, stack: ExitStack, hosts: Mapping[str, str]) -> None:
        self._program = server_program()
        self._hosts = hosts
        self._lab = lab
        self._folder = folder
        self._stack = stack
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"sentinel://{','.join(f'{host}:{SENTINEL_PORT}' for host in self._hosts.values())}/{SERVICE}"

    def start(self) -> None:
        """All of them; the server of ``a`` is the master. NotTried where there is no such program."""
        self.serve("a")
        self.serve("b", "--replicaof", self._hosts["a"], str(SERVER_PORT))
        wait(lambda: linked(self._socket("b")), 20, "a replica that has a copy")
        for name in self._hosts:
            self.watch(name)
        wait(lambda: all(map(self._knows_all, self._hosts)), 20, "sentinels that know each other and the replica")

    def serve(self, name: str, *words: str) -> None:
        """Start the server of a node, empty. Sentinels tell it whom to follow."""
        self._socket(name).unlink(missing_ok=True)
        given = ["--bind", self._hosts[name], "--port", str(SERVER_PORT), "--protected-mode", "no", *QUICK_SYNC, *words]
        given += ["--save", "", "--appendonly", "no", "--unixsocket", str(self._socket(name))]
        place = self._place("server", name)
        self._servers[name] = self._run(name, [self._program, *given, "--dir", str(place)])
        wait(lambda: _answers(self._socket(name)), 10, f"an answer of the server of {name}")

    def watch(self, name: str) -> None:
        """Start a sentinel."""
        place = self._place("sentinel", name)
        file = place / "sentinel.conf"
        if not file.exists():  # else it is as the sentinel itself left it, who knows of the master
            ends = (self._hosts[name], SENTINEL_PORT), (self._hosts["a"], SERVER_PORT)
            file.write_text(f"{sentinel_settings(*ends)}unixsocket {place / 'socket'}\nprotected-mode no\n")
        (place / "socket").unlink(missing_ok=True)
        self._run(name, [self._program, str(file), "--sentinel"])
        wait(lambda: _answers(place / "socket"), 10, f"an answer of the sentinel of {name}")

    def kill(self, name: str) -> None:
        """kill -9 of the server of a node."""
        self._servers[name].kill()
        self._servers[name].wait()

    def isolate(self, name: str, on: bool) -> None:
        """Have nobody outside reach server and sentinel of a node, nor these anybody; or end that."""
        ports = f"{{ {SERVER_PORT}, {SENTINEL_PORT} }}"
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; {way} != lo tcp {end} {ports} drop; {way} != lo tcp "
            f"{other} {ports} drop; }}\n"
            for hook, way, end, other in (
                ("output", "oifname", "dport", "sport"),
                ("input", "iifname", "dport", "sport"),
            )
            if on
        )
        self._lab.firewall(name, f"table ip apart\ndelete table ip apart\ntable ip apart {{\n{chains}}}\n")

    def master(self) -> str:
        """The node whose server is the master, as the sentinel that belongs to neither knows; empty: none of them."""
        with suppress(redis.RedisError):
            told = asked(self._place("sentinel", "red") / "socket", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            return next((name for name, host in self._hosts.items() if told and told[0] == host), "")
        return ""

    def leads(self, name: str) -> bool:
        """Whether the server of this node takes itself for the master as well."""
        with suppress(redis.RedisError):
            return "role:master" in asked(self._socket(name), "INFO", "replication")
        return False

    def call_keys(self, name: str) -> list[bytes]:
        """The keys of all call records in the server of a node."""
        with redis.Redis(unix_socket_path=str(self._socket(name)), socket_timeout=5) as client:
            return list(client.scan_iter(PREFIX + "call:*", count=1000))

    def _knows_all(self, name: str) -> bool:
        told = asked(self._place("sentinel", name) / "socket", "SENTINEL", "MASTER", SERVICE)
        fields = dict(zip(told[::2], told[1::2], strict=True))
        return bool(fields["num-slaves"] == "1" and fields["num-other-sentinels"] == "2")

    def _place(self, kind: str, name: str) -> Path:
        place = self._folder / f"{kind}-{name}"
        place.mkdir(exist_ok=True)
        return place

    def _socket(self, name: str) -> Path:
        return self._place("server", name) / "socket"

    def _run(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        out = subprocess.DEVNULL
        process = subprocess.Popen([*self._lab.inside(name), *words], stdout=out, stderr=out, start_new_session=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


def _answers(path: Path) -> bool:
    try:
        return bool(asked(path, "PING") == "PONG")
    except (redis.ConnectionError, redis.TimeoutError):
        return False
