"""A Redis of our own on a Unix socket: the store behind Kamailio's topology hiding."""

from __future__ import annotations

import socket
from pathlib import Path

from bench.machine import require_program
from bench.peers.templates import fill
from bench.processes import Process, wait_until


def start(core: int, directory: Path) -> tuple[Process, Path]:
    """The server and its socket; nothing is written to disk."""
    path = directory / "redis.sock"
    config = fill("redis.conf.in", directory / "redis.conf", SOCKET=path, DIRECTORY=directory)
    process = Process("redis", [require_program("redis-server", "redis-server"), config], core, directory)
    wait_until(path.exists, process, "its socket")
    return process, path


def key_count(path: Path) -> int:
    """DBSIZE."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(str(path))
        connection.sendall(b"DBSIZE\r\n")
        return int(connection.recv(64).strip().lstrip(b":"))
