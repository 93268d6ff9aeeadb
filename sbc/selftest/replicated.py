"""Stores that outlive their master: one with replicas and three sentinels, and a cluster. All on 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sbc.errors import ConfigError, StoreError
from sbc.selftest.measure import NotTried
from sbc.selftest.node import dying_with_us, wait
from sbc.selftest.store import PREFIX, Store
from sbc.store.finding import locate
from sbc.store.topology import SLOTS, slot_of
from sbc.store.url import parse_store_url
from sbc.supervisor.embedded_store import find_server

HOST = "127.0.0.1"
SERVICE = "selftest"
DOWN_AFTER_MS = 500
MASTERS = 3
HIGHEST_PORT = 55_000  # a cluster's bus has the port that is 10,000 higher
QUICK_SYNC = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class Replicated(Store):
    """What both kinds have in common: servers by their port, one of which is the master of our keys."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.servers: dict[int, subprocess.Popen[bytes]] = {}
        self.watchers: list[int] = []

    def master(self) -> int:
        """The port of the master, as those know who decide; 0 where none is known."""
        with suppress(StoreError):
            return asyncio.run(locate(parse_store_url(self.url, "/"), PREFIX))[0].port
        return 0

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.master() or 1, socket_timeout=5)

    def kill_master(self) -> int:
        """kill -9 of the master; its port."""
        port = self.master()
        self.servers[port].kill()
        self.servers[port].wait()
        return port

    def others(self) -> list[int]:
        """The ports of all servers that are not the master of our keys."""
        master = self.master()
        return [port for port, process in self.servers.items() if port != master and process.poll() is None]

    def stop_replicas(self, stopped: bool) -> None:
        """Have the replicas hear nothing of what is written from now on, or go on."""
        for port in self.replicas():
            os.kill(self.servers[port].pid, signal.SIGSTOP if stopped else signal.SIGCONT)
        if stopped:  # else the kernel would keep it for them
            asked(self.master(), "CLIENT", "KILL", "TYPE", "REPLICA")

    def replicas(self) -> list[int]:
        """The ports of those that may take our master's place."""
        raise NotImplementedError

    def order_switch(self) -> None:
        """Have a replica take the place of the master, which lives on. ResponseError where it cannot be yet."""
        raise NotImplementedError

    def pause(self, stopped: bool) -> None:
        os.kill(self.servers[self.master()].pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    def kill(self) -> None:
        for process in self.servers.values():
            process.kill()
            process.wait()
        self.servers.clear()

    def _run(self, port: int, words: Sequence[str], *, sentinel: str = "") -> None:
        try:
            program = find_server()
        except ConfigError as error:
            raise NotTried(error.faults[0]) from error
        place = self.folder / str(port)
        place.mkdir(parents=True)
        command = [*dying_with_us(), program]
        if sentinel:
            (place / "sentinel.conf").write_text(sentinel)
            command += [str(place / "sentinel.conf"), "--sentinel"]
        else:
            command += ["--port", str(port), "--bind", HOST, "--dir", str(place), "--save", "", "--appendonly", "no"]
            command += words
        self.servers[port] = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=place
        )
        wait(lambda: answers(port), 10, f"an answer of the server at port {port}")


class Sentinelled(Replicated):
    """A master, two replicas, three sentinels that hold a server for dead after half a second."""

    @property
    def url(self) -> str:
        return f"sentinel://{','.join(f'{HOST}:{port}' for port in self.watchers)}/{SERVICE}"

    def start(self) -> None:
        first, *others = free_ports(3)
        self._run(first, QUICK_SYNC)
        for port in others:
            self._run(port, [*QUICK_SYNC, "--replicaof", HOST, str(first)])
        for port in others:
            wait(lambda port=port: linked(port), 20, "replicas that have a copy")  # type: ignore[misc]
        self.watchers = free_ports(3)
        for port in self.watchers:
            self._run(port, (), sentinel=sentinel_settings((HOST, port), (HOST, first)))
        wait(lambda: all(map(self._knows_all, self.watchers)), 20, "sentinels that know each other and the replicas")

    def _knows_all(self, port: int) -> bool:
        told = asked(port, "SENTINEL", "MASTER", SERVICE)
        fields = dict(zip(told[::2], told[1::2], strict=True))
        return bool(fields["num-slaves"] == "2" and fields["num-other-sentinels"] == "2")

    def replicas(self) -> list[int]:
        return [port for port in self.others() if port not in self.watchers]

    def order_switch(self) -> None:
        asked(self.watchers[0], "SENTINEL", "FAILOVER", SERVICE)


class Clustered(Replicated):
    """Three masters, and a replica of the one that has our keys."""

    @property
    def url(self) -> str:
        return f"cluster://{','.join(f'{HOST}:{port}' for port in list(self.servers)[:MASTERS])}"

    def start(self) -> None:
        ports = free_ports(MASTERS + 1)
        for port in ports:
            words = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor")
            self._run(port, [*QUICK_SYNC, *words, "0"])
        bounds = [SLOTS * n // MASTERS for n in range(MASTERS + 1)]
        for number, port in enumerate(ports):
            asked(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < MASTERS:
                asked(port, "CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            if number:
                asked(port, "CLUSTER", "MEET", HOST, ports[0])
        owner = next(n for n in range(MASTERS) if bounds[n] <= slot_of(PREFIX) < bounds[n + 1])
        self._wait_for(ports, f"cluster_known_nodes:{len(ports)}\r\n")
        identity = asked(ports[owner], "CLUSTER", "MYID")
        wait(lambda: self._follows(ports[-1], identity), 20, "a node that knows whom to follow")
        wait(lambda: linked(ports[-1]), 20, "a replica that has a copy")
        self._wait_for(ports, "cluster_state:ok\r\n")
        self._ours = (ports[owner], ports[-1])

    def _wait_for(self, ports: list[int], text: str) -> None:
        wait(lambda: all(text in asked(port, "CLUSTER", "INFO") for port in ports), 20, f"{text.strip()} of all nodes")

    def _follows(self, port: int, identity: str) -> bool:
        with suppress(redis.ResponseError):
            asked(port, "CLUSTER", "REPLICATE", identity)
            return True
        return False

    def replicas(self) -> list[int]:
        return [port for port in self.others() if port in self._ours]

    def order_switch(self) -> None:
        asked(self.replicas()[0], "CLUSTER", "FAILOVER")


def sentinel_settings(own: tuple[str, int], master: tuple[str, int]) -> str:
    """The configuration of one of three sentinels, which listens at ``own``."""
    return (
        f"port {own[1]}\nbind {own[0]}\nsentinel monitor {SERVICE} {master[0]} {master[1]} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SERVICE} 3000\nsentinel parallel-syncs {SERVICE} 2\n"
    )


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody has now, with room for a bus above them."""
    sockets: list[socket.socket] = []
    found: list[int] = []
    try:
        while len(found) < count:
            sockets.append(socket.socket())
            sockets[-1].bind((HOST, 0))
            port = sockets[-1].getsockname()[1]
            if port < HIGHEST_PORT:
                found.append(port)
    finally:
        for one in sockets:
            one.close()
    return found


def answers(port: int) -> bool:
    """Whether a server answers there."""
    try:
        return bool(asked(port, "PING") == "PONG")
    except redis.AuthenticationError:
        return True
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def asked(server: int | Path, *words: str | int) -> Any:  # Any: a reply
    """What the server at a port here, or at a Unix socket, replies."""
    once = Retry(NoBackoff(), 0)
    at: dict[str, Any] = (  # Any: arguments
        {"host": HOST, "port": server} if isinstance(server, int) else {"unix_socket_path": str(server)}
    )
    with redis.Redis(**at, socket_timeout=5, decode_responses=True, protocol=2, retry=once) as client:
        client.response_callbacks.clear()  # replies as they come
        return client.execute_command(*words)


def linked(server: int | Path) -> bool:
    """Whether the replica there has a copy of its master."""
    return "master_link_status:up" in asked(server, "INFO", "replication")
