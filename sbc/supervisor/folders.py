"""The run and state folders: made, owned by the right user, locked against a second supervisor, and the shard key."""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.ha.beat import key_of

SHARD_KEY_BYTES = 16


def prepare(config: Config) -> None:
    """Make run_dir and state_dir (0750) and give them to the configured user; raises ConfigError."""
    account = account_of(config)
    for key in ("run_dir", "state_dir"):
        path = Path(getattr(config, key))
        try:
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
            if account is not None:
                os.chown(path, account.pw_uid, account.pw_gid)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "permission denied")
        except OSError as error:
            raise ConfigError([f"{key}: cannot use {path}: {(error.strerror or str(error)).lower()}"]) from error
    prepare_spool(config)


def prepare_spool(config: Config) -> None:
    """Make a folder for CDRs that the configuration names. What fails here, the workers tell: calls go on without."""
    if not config.cdr.spool:
        return
    with suppress(OSError):
        os.makedirs(config.cdr.spool, 0o750, exist_ok=True)
        account = account_of(config)
        if account is not None:
            os.chown(config.cdr.spool, account.pw_uid, account.pw_gid)


def account_of(config: Config) -> pwd.struct_passwd | None:
    """The account to change to, None for staying who we are; raises ConfigError when that cannot be."""
    if not config.user:
        return None
    try:
        account = pwd.getpwnam(config.user)
    except KeyError as error:
        raise ConfigError([f"user: there is no user '{config.user}' on this machine"]) from error
    if account.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ConfigError([f"user: only root can change to '{config.user}'; start as root, or remove the key"])
    return account


class Lock:
    """The lock of a run_dir; it ends with the process that took it."""

    def __init__(self, run_dir: str) -> None:
        """Raises ConfigError when another supervisor holds it."""
        path = os.path.join(run_dir, "supervisor.pid")
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self.fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self.fd)
            raise ConfigError([f"run_dir: an SBC runs there already (pid {pid}): {run_dir}"]) from None
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)

    @classmethod
    def of(cls, fd: int) -> Lock:
        """One that our parent has taken."""
        lock = object.__new__(cls)
        lock.fd = fd
        return lock

    def close(self) -> None:
        """In a child: let go of the inherited descriptor; the lock is the supervisor's until its own is closed."""
        os.close(self.fd)


def shared_key(config: Config) -> bytes:
    """What both nodes of a pair have, empty for a node that is alone. Raises ConfigError."""
    if config.ha is None:
        return b""
    try:
        return Path(config.ha.key_file).read_bytes().strip()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([f"ha.key_file: cannot read {config.ha.key_file}: {reason}"]) from error


def shard_key(config: Config) -> bytes:
    """16 octets that calls keep their shard by: random, made once per state_dir; that of a pair follows from its key.
    Raises ConfigError."""
    if config.ha is not None:
        return key_of(shared_key(config), "shard")[:SHARD_KEY_BYTES]
    path = Path(config.state_dir) / "shard.key"
    key = _kept(path, lambda: os.urandom(SHARD_KEY_BYTES))
    if len(key) != SHARD_KEY_BYTES:
        raise ConfigError([f"state_dir: {path} should hold {SHARD_KEY_BYTES} octets, not {len(key)}"])
    return key


def media_keys(state_dir: str, shared: bytes = b"") -> tuple[bytes, bytes]:
    """Our CURVE public and secret key for media control, in Z85: made once per state_dir, or that of the pair which
    has the key ``shared``. Raises ConfigError."""
    import zmq  # kept out of the import of the command line
    from zmq.utils import z85

    if shared:
        secret = z85.encode(key_of(shared, "media"))
        return zmq.curve_public(secret), secret
    path = Path(state_dir) / "media.key"
    secret = _kept(path, lambda: zmq.curve_keypair()[1] + b"\n").strip()
    try:
        return zmq.curve_public(secret), secret
    except (zmq.ZMQError, ValueError):
        raise ConfigError([f"state_dir: {path} should hold a CURVE secret key of 40 characters"]) from None


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """What a file of ours holds, made at the first time. Raises ConfigError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError([f"state_dir: cannot read {path}: {(error.strerror or str(error)).lower()}"]) from error
    data = make()
    # A crash between the two leaves no half key behind.
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(fresh, path)
    return data
