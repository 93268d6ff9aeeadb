"""A real store for tests: the server that the product embeds, on a Unix socket in a folder of the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

from sbc.errors import ConfigError
from sbc.store.url import StoreAddress
from sbc.supervisor.embedded_store import find_server


def records(path: Path) -> int:
    """How many call records the store at this socket holds."""
    with redis.Redis(unix_socket_path=str(path)) as store:
        return sum(1 for _ in store.scan_iter("sbc:{test}:call:*", count=1000))


class StoreServer:
    """One server process; ``kill``, ``pause`` and ``start`` again as the test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "store.sock")
        self.address = StoreAddress(path=self.path)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start, empty, and wait until it answers."""
        try:
            program = find_server()
        except ConfigError as error:
            if os.environ.get("SBC_REQUIRE_PEERS") == "1":
                pytest.fail(str(error))
            pytest.skip(str(error))
        arguments = ["--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program, *arguments, "--dir", str(self.folder), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 5
        while not self._answers():
            assert time.monotonic() < deadline, "the store did not start"
            time.sleep(0.005)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.settimeout(0.5)
            sock.connect(self.path)
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it: it accepts connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
