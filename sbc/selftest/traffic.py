"""Calls that come and go while a row does something else."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType

from sbc.selftest.agents import Asked, UaCall
from sbc.selftest.background import Background
from sbc.selftest.measure import Failed
from sbc.selftest.node import wait
from sbc.selftest.site import Site


class Traffic(Background):
    """A call every ``interval_s``, each held for ``hold_s``, until the end of the block. Then each call
    that is up is ended, and all answers have come."""

    def __init__(self, site: Site, *, interval_s: float = 0.05, hold_s: float = 0.4) -> None:
        super().__init__()
        self.placed: list[UaCall] = []
        self.byes: list[Asked] = []
        self.silent: list[UaCall] = []
        self._site = site
        self._interval_s = interval_s
        self._hold_s = hold_s
        self._held: list[tuple[float, UaCall]] = []

    @property
    def answered(self) -> list[UaCall]:
        return [call for call in self.placed if call.up]

    @property
    def failed(self) -> list[UaCall]:
        """Those that have a final answer which is no 2xx, or had none until their caller gave up."""
        return [call for call in self.placed if not call.up and call.asked["INVITE"].status]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is not None:
            return
        self._give_up(10.0)
        for _, call in self._held:
            self._end(call)
        wait(lambda: all(bye.status for bye in self.byes), 40, "answers to all BYEs")
        self._site.expect_records(self.answered)

    def _give_up(self, limit_s: float) -> None:
        """What has no final answer by then is cancelled by its caller; such calls are in ``silent``."""
        with suppress(Failed):
            wait(lambda: all(_decided(call) for call in self.placed), limit_s, "answers to all INVITEs")
        self.silent = [call for call in self.placed if not _decided(call)]
        cancels = [self._site.caller.cancel(call) for call in self.silent]
        wait(lambda: all(cancel.status for cancel in cancels), 40, "answers to all CANCELs")
        wait(lambda: all(_decided(call) or call.asked["CANCEL"].status != 200 for call in self.silent), 40, "487")

    def _run(self) -> None:
        due = time.monotonic()
        while self._running:
            now = time.monotonic()
            if now >= due:
                due += self._interval_s
                self.placed.append(self._site.invite())
                self._held.append((now + self._hold_s, self.placed[-1]))
            ready = [call for until, call in self._held if until <= now and call.asked["INVITE"].status]
            for call in ready:
                self._end(call)
            self._held = [(until, call) for until, call in self._held if call not in ready]
            time.sleep(0.005)

    def _end(self, call: UaCall) -> None:
        if call.up and not call.ended_by_far:
            self.byes.append(self._site.caller.hang_up(call))


def _decided(call: UaCall) -> bool:
    return call.up or call.asked["INVITE"].status != 0
