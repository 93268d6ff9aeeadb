"""How busy this thread is: the share of time in which it ran or wanted to run."""

from __future__ import annotations

import os
import time


class BusyMeter:
    """Reads what the kernel's scheduler knows of the calling thread.

    Time on a processor alone would say 50 % to a worker that shares a saturated one, so the time spent waiting for a
    processor counts too. Without schedstat in this kernel, processor time has to do.
    """

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            self._fd = -1

    def read(self) -> float:
        """Seconds run and waited since the thread began."""
        if self._fd < 0:
            return time.thread_time()
        ran, waited, _ = os.pread(self._fd, 128, 0).split()
        return (int(ran) + int(waited)) / 1e9

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
