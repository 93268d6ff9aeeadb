"""One bench at a time on a machine: all use the same addresses and the same two cores."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.figures import NotMeasuredError

NAME = "portcullis-bench.lock"


@contextmanager
def alone() -> Iterator[None]:
    """Until the end of the block no other bench begins; NotMeasuredError names the process that is first.

    The lock is the kernel's and ends with its process, however that ends: what the file says is for people only.
    """
    path = Path(tempfile.gettempdir(), NAME)
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's file
        held = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(held, 20, 0).decode(errors="replace").strip() or "unknown"
            raise NotMeasuredError(
                f"another bench runs on this machine, process {who}: wait for it or end it"
            ) from None
        with suppress(OSError):
            os.ftruncate(held, 0)
            os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(held)
