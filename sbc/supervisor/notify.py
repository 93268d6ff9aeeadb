"""Telling systemd: ready, reloading, stopping, and that we are alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Any


class Notify:
    """Does nothing where systemd did not ask for it.

    systemd hears the main process only, which is the keeper: the supervisor's messages go to it and are passed on.
    """

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")  # not for our children
        self._path = "\0" + path[1:] if path.startswith("@") else path
        watchdog_us = int(os.environ.pop("WATCHDOG_USEC", "0") or 0)
        self.period_s = watchdog_us / 2e6 if path else 0.0
        self._next_s = 0.0
        self._main_pid = os.getpid()
        self.relayed, self._relay = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.relayed.setblocking(False)
        self._is_sender = False

    def describe(self) -> dict[str, Any]:  # Any: JSON values
        """For :meth:`of`."""
        return {"path": self._path, "pid": self._main_pid, "fds": [self.relayed.fileno(), self._relay.fileno()]}

    @classmethod
    def of(cls, described: dict[str, Any]) -> Notify:  # Any: JSON values
        """That of our parent."""
        notify = cls()
        notify.close()
        notify._path, notify._main_pid = described["path"], described["pid"]
        notify.relayed, notify._relay = (socket.socket(fileno=fd) for fd in described["fds"])
        return notify

    def become_sender(self) -> None:
        """In the supervisor: what is sent goes to the keeper from now on."""
        self._is_sender = True

    def relay(self) -> None:
        """In the keeper, when ``relayed`` is readable: pass one message on."""
        with suppress(BlockingIOError):
            self.send(self.relayed.recv(4096).decode())

    def close(self) -> None:
        """In a process that has nothing to tell."""
        self.relayed.close()
        self._relay.close()

    def send(self, text: str) -> None:
        # Whoever does not read must not stop us.
        if self._path and self._is_sender:
            with suppress(OSError):
                self._relay.send(text.encode(), socket.MSG_DONTWAIT)
        elif self._path:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(text.encode(), socket.MSG_DONTWAIT, self._path)

    def ready(self, status: str) -> None:
        self.send(f"READY=1\nSTATUS={status}\nMAINPID={self._main_pid}")

    def reloading(self) -> None:
        self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self.send("STOPPING=1\nSTATUS=draining")

    def alive(self, now: float) -> None:
        """To be called often; sends WATCHDOG=1 twice per period."""
        if self.period_s and now >= self._next_s:
            self._next_s = now + self.period_s
            self.send("WATCHDOG=1")
