"""Signals as a queue: the C-level receiver writes the number into a pipe, and the loop reads it when it is ready."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)


class SignalQueue:
    """Catches :data:`HANDLED` until closed. One per process, in its main thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        self._acts: dict[int, Callable[[], None]] = {}
        self._before = {number: signal.signal(number, _ignore) for number in HANDLED}
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def watch(self, sock: socket.socket, act: Callable[[], None]) -> None:
        """Have ``wait`` call this whenever the socket is readable."""
        self._acts[sock.fileno()] = act
        self._poll.register(sock, select.POLLIN)

    def wait(self, timeout_s: float) -> list[int]:
        """Signals that have come, waiting at most ``timeout_s`` for the first; each number once."""
        for fd, _ in self._poll.poll(max(0.0, timeout_s) * 1000):
            if fd != self._read:
                self._acts[fd]()
        try:
            octets = os.read(self._read, 4096)
        except BlockingIOError:
            return []
        return list(dict.fromkeys(octets))

    def close(self) -> None:
        """Restore what was before."""
        signal.set_wakeup_fd(-1)
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._read)
        os.close(self._write)

    def forget(self) -> None:
        """In a forked child: leave the parent's pipe alone and take every signal at its default.

        The others are ignored until the worker installs its own, so that a reload cannot end a worker that is just
        starting.
        """
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        os.close(self._read)
        os.close(self._write)


def _ignore(_number: int, _frame: object) -> None:
    """A Python-level receiver must exist for the number to reach the pipe; it does nothing."""
