"""A store of the fault tests' own, apart from the node, so that it can be away for as long as a row likes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import redis

from sbc.errors import ConfigError
from sbc.selftest.measure import NotTried
from sbc.selftest.node import dying_with_us, wait
from sbc.supervisor.embedded_store import find_server

PREFIX = "sbc:{selftest}:"
SNAPSHOT = "dump.rdb"  # as servers name it


class Store:
    """One server process on a Unix socket, without a disk. ``port``: where it listens on 127.0.0.1 as well."""

    port = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "store.sock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start, empty, and wait until it answers. NotTried where there is no such program."""
        try:
            program = find_server()
        except ConfigError as error:
            raise NotTried(error.faults[0]) from error
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path]
        words += ["--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*dying_with_us(), program, *words, "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait(self._answers, 10, "an answer of the store")

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except (redis.RedisError, OSError):
            return False

    def client(self) -> redis.Redis:
        """To look into it, or to spoil what is there."""
        return redis.Redis(unix_socket_path=self.path, socket_timeout=5)

    def call_keys(self) -> list[bytes]:
        """The keys of all call records."""
        return list(self.client().scan_iter(PREFIX + "call:*", count=1000))

    def pause(self, stopped: bool) -> None:
        """Have it accept connections and answer nothing, or go on."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    def snapshot(self) -> bytes:
        """Everything that it has, for :meth:`put_back`."""
        self.client().save()
        file = self.folder / SNAPSHOT
        try:
            return file.read_bytes()
        finally:
            file.unlink()

    def put_back(self, snapshot: bytes) -> None:
        """Before a start: it begins with that."""
        (self.folder / SNAPSHOT).write_bytes(snapshot)

    def headers(self) -> dict[bytes, list[int]]:
        """Format, epoch of the owner and version of each call record (:mod:`sbc.store.journal`), by key."""
        client = self.client()
        found = {key: bytes(client.get(key) or b"") for key in self.call_keys()}  # type: ignore[arg-type]
        return {key: [int(word) for word in value.split(b"\n")[0].split()] for key, value in found.items() if value}

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
