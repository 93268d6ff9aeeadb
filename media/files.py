"""Files that are named over the wire: they stay within their directory, and nobody waits for the disk that relays."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable

TURN_S = 0.2


class FileRefused(Exception):
    """``code`` is one of the protocol's refusals, ``reason`` a sentence that names no directory."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def inside(directory: str, name: str) -> str:
    """The path of a file below ``directory``, which need not exist. Raises FileRefused (``no_file``) for a name that
    is absolute or leads outside, also by a symbolic link."""
    parts = name.split("/")
    if not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise FileRefused("no_file", f"{name!r} is no name of a file here")
    root = os.path.realpath(directory)
    path = os.path.realpath(os.path.join(root, name))
    if not path.startswith(root.rstrip("/") + "/"):
        raise FileRefused("no_file", f"{name!r} is no name of a file here")
    return path


class Clerk:
    """One thread for whatever may wait for a disk, begun with the first job. Jobs run in order; while ``turn`` returns
    True it runs every TURN_S as well. ``wake`` makes ``fd`` readable, which ends the wait of the relay."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.turn: Callable[[], bool] = lambda: False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run this in the thread; it must not raise."""
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="media files", daemon=True)
            self._thread.start()

    @property
    def pending(self) -> bool:
        """Whether jobs wait for the thread."""
        return not self._jobs.empty()

    def wake(self) -> None:
        """Of the thread: there is something to take."""
        os.eventfd_write(self.fd, 1)

    def heard(self) -> None:
        """Of the relay: it has been woken."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self, last: Callable[[], None]) -> None:
        """Wait for what is under way, and for ``last`` where there was anything."""
        if self._thread is not None:
            self._jobs.put(last)
            self._jobs.put(None)
            self._thread.join(5)
            self._thread = None
        os.close(self.fd)

    def _run(self) -> None:
        again = False
        while True:
            try:
                job = self._jobs.get(timeout=TURN_S if again else None)
            except queue.Empty:
                again = self.turn()
                continue
            if job is None:
                return
            job()
            again = self.turn()
