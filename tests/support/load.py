"""Ten calls a second, from a thread of its own, while a test does something to the SBC."""

from __future__ import annotations

import time

from sbc.selftest.background import Background
from tests.support.agents import UaCall
from tests.support.callers import Site


class Load(Background):
    """``placed`` are the calls so far."""

    def __init__(self, at: Site) -> None:
        super().__init__()
        self.placed: list[UaCall] = []
        self._at = at

    def _run(self) -> None:
        while self._running:
            self.placed += self._at.place(1)
            time.sleep(0.1)
