"""Workers outlive their supervisor and never the keeper: the kernel sends a signal when the last write end of a pipe is
closed, and only the keeper has one.

PR_SET_PDEATHSIG would not do, because it fires for every parent in turn, and the first one is the supervisor.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal

F_SETSIG = 10  # <linux/fcntl.h>


class Lifeline:
    """Made by the keeper before its first fork."""

    def __init__(self, end: int = -1) -> None:
        """``end``: that of a child, which has not taken it yet."""
        self._read, self._write = os.pipe2(os.O_CLOEXEC) if end < 0 else (end, -1)
        self._own = -1

    @property
    def end(self) -> int:
        """The end that children get."""
        return self._read

    def let_go(self) -> None:
        """In the keeper's child: from now on only the keeper holds it."""
        os.close(self._write)
        self._write = -1

    def take(self) -> None:
        """In a child, before a change of user: get an end of one's own, for who is sent a signal, and which, belongs to
        the open file, which a fork shares."""
        if self._own >= 0:  # that of our parent
            os.close(self._own)
        self._own = os.open(f"/proc/self/fd/{self._read}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def arm(self, number: signal.Signals = signal.SIGTERM, *, over_exec: bool = False) -> None:
        """After ``take`` and a change of user: get ``number`` when the keeper ends; at once if it has."""
        fcntl.fcntl(self._own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._own, F_SETSIG, number)
        fcntl.fcntl(self._own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        os.set_inheritable(self._own, over_exec)
        if self.is_cut():
            os.kill(os.getpid(), number)

    def is_cut(self) -> bool:
        """After ``take``: whether the keeper has ended."""
        poll = select.poll()
        poll.register(self._own, 0)  # a hang-up is told in any case
        return bool(poll.poll(0))

    def close(self) -> None:
        """Let go of everything."""
        for fd in (self._read, self._write, self._own):
            if fd >= 0:
                os.close(fd)
        self._read = self._write = self._own = -1
