"""Telling systemd: ready, reloading, stopping, and that we are alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


class Notify:
    """Does nothing where systemd did not ask for it."""

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")  # not for our children
        self._path = "\0" + path[1:] if path.startswith("@") else path
        watchdog_us = int(os.environ.pop("WATCHDOG_USEC", "0") or 0)
        self.period_s = watchdog_us / 2e6 if path else 0.0
        self._next_s = 0.0

    def send(self, text: str) -> None:
        if self._path:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                # A service manager that does not read must not stop us.
                sock.sendto(text.encode(), socket.MSG_DONTWAIT, self._path)

    def ready(self, status: str) -> None:
        self.send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self.send("STOPPING=1\nSTATUS=draining")

    def alive(self, now: float) -> None:
        """To be called often; sends WATCHDOG=1 twice per period."""
        if self.period_s and now >= self._next_s:
            self._next_s = now + self.period_s
            self.send("WATCHDOG=1")
