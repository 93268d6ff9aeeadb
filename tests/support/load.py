"""Ten calls a second, from a thread of its own, while a test does something to the SBC."""

from __future__ import annotations

import threading

from tests.support.agents import UaCall
from tests.support.callers import Site


class Load:
    """``placed`` are the calls so far."""

    def __init__(self, at: Site) -> None:
        self.placed: list[UaCall] = []
        self._at = at
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.placed += self._at.place(1)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
