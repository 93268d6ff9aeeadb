"""The memory of media sessions, one segment for each media worker: files in memory (tmpfs), so that they outlive every
process of the node, but neither the machine nor an orderly stop with nothing up.

A file lies in run_dir where that is a tmpfs, else in /dev/shm under a name that follows from run_dir. Nobody else can
read it (it holds keys), and what is not ours alone is left alone. The lock on it ends with the last process that has
it open: a predecessor that still ends is waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sbc.config.models import Config
from sbc.supervisor import sockets
from sbc.telemetry import log

SHARED = Path("/dev/shm")  # not for secrets by itself: see _open
LOCK_WAIT_S = 5.0
LOCK_LOOK_S = 0.02
MOST_WORKERS = 1024  # of a former run


@dataclass(frozen=True, slots=True)
class Reader:
    """What the media side knows of a segment: its size; why it cannot be gone on with ("is damaged"), or ""; and how
    many sessions it holds."""

    size: int
    fault: Callable[[int], str] = lambda fd: ""
    sessions: Callable[[int], int] = lambda fd: 0


class Segments:
    """``fds`` by worker. ``lasting``: calls may outlive all of us, so their media shall."""

    def __init__(self, config: Config, count: int, reader: Reader, *, lasting: bool) -> None:
        self._reader = reader
        self._log = log.get()
        self._paths: list[Path | None] = []
        self.fds: list[int] = []
        for slot in range(count):
            path = place(config, slot) if lasting else None
            fd = -1 if path is None else self._open(path)
            if fd < 0:
                path, fd = None, sockets.memory(f"sbc-media-{slot}", reader.size)
            self._paths.append(path)
            self.fds.append(fd)
        for slot in range(count, MOST_WORKERS if lasting else count):
            path = place(config, slot)
            if not path.exists() and not path.is_symlink():
                break
            self._log.warning("media of calls are lost: there are fewer media workers than before", file=str(path))
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """The workers have ended: what holds no session is removed."""
        for path, fd in zip(self._paths, self.fds, strict=True):
            if path is not None and not self._reader.sessions(fd):
                path.unlink(missing_ok=True)
                aside(path).unlink(missing_ok=True)
            os.close(fd)

    def _open(self, path: Path) -> int:
        """The file that is there if it can be gone on with, else a new one; -1 where there can be none."""
        try:
            fd = self._former(path)
            if fd < 0:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size < self._reader.size:
                os.ftruncate(fd, self._reader.size)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            self._log.warning(
                "media memory cannot be a file: media of calls will not outlive this process",
                file=str(path),
                reason=why,
            )
            return -1
        return fd

    def _former(self, path: Path) -> int:
        """What a former run has left and can be gone on with, locked, or -1. Raises OSError where something is in the
        way that is not ours to move."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        found = os.fstat(fd)
        reason = ""
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            os.close(fd)
            raise PermissionError(1, "there is something there that is not ours")
        if found.st_mode & 0o077:
            reason = "could be read by others"
        elif not _locked(fd):
            reason = "is still in use by a process that does not end"
        reason = reason or self._reader.fault(fd)
        if not reason:
            return fd
        os.close(fd)
        os.rename(path, aside(path))
        self._log.warning(
            f"media memory of the former run {reason}: it is set aside, and its calls have no media until they are"
            " described anew",
            file=str(aside(path)),
        )
        return -1


def place(config: Config, slot: int) -> Path:
    """Where the state of a media worker lies."""
    run_dir = Path(config.run_dir).resolve()
    if _filesystem(run_dir) == "tmpfs":
        return run_dir / f"media-{slot}.state"
    name = hashlib.sha256(f"{os.geteuid()}\0{run_dir}".encode()).hexdigest()[:20]
    return SHARED / f"sbc-{name}-media-{slot}.state"


def aside(path: Path) -> Path:
    """Where one goes that cannot be gone on with."""
    return path.with_suffix(".aside")


def _filesystem(path: Path) -> str:
    """The kind of file system that a directory is on, "" where that cannot be told."""
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if line.split()[2] == wanted:
                return line.partition(" - ")[2].split()[0]
    except (OSError, IndexError):
        pass
    return ""


def _locked(fd: int) -> bool:
    """Take the lock, when those who have it have ended."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(LOCK_LOOK_S)
