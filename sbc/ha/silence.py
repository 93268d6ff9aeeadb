"""Ends the processes that speak for this node. The supervisor starts them anew, and they find that it is passive.

``SIGKILL`` is the whole point: no BYE, no record, no last word, and a process that hangs has no say. The sockets are
the supervisor's and stay.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sbc.telemetry.page import Page


class Speaking:
    """The processes behind some pages, as they are now: those that come later are not meant."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self._open: list[int] = []
        for page in pages:
            with suppress(OSError):
                if (pid := page.pid) and _is_ours(pid):
                    self._open.append(os.pidfd_open(pid))

    async def ended(self, timeout_s: float) -> bool:
        """Whether all of them have ended, within ``timeout_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._open:
            readable, _, _ = select.select(self._open, [], [], 0)
            for fd in readable:
                self._open.remove(fd)
                os.close(fd)
            if not self._open or loop.time() >= deadline:
                break
            await asyncio.sleep(0.002)
        return not self._open

    def kill(self) -> None:
        for fd in self._open:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()


def _is_ours(pid: int) -> bool:
    """A page may name a process that has ended, and the number may be a stranger's by now."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sbc: ")
