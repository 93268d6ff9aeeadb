"""When a call that nobody has answered yet goes into the journal: once it has been in setup for some time.

Most machines answer at once, and their calls are written once, with the answer. A person takes seconds: such a call is
written after ``setup_record_after_s``, and again when a branch is sent, rings or fails. One timer looks at all that
begin, whatever their number, and runs only while there are some.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sbc.b2bua import setup_snapshot
from sbc.b2bua.effects import SaveCall
from sbc.b2bua.snapshot import Json
from sbc.b2bua.tables import CallState
from sbc.errors import SipSyntaxError

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core

SWEEP_S = 0.1
IN_SETUP = (CallState.SETUP, CallState.RINGING)  # ANSWERING is short, and ends with the record of the answer


class SetupJournal:
    """The calls of one core that are young."""

    __slots__ = ("_core", "_watching", "_young")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._young: deque[tuple[float, str]] = deque()  # by age: when it began, and its key
        self._watching = False

    def begun(self, call: Call, now: float) -> None:
        """A call is to be written if it is still in setup after a while."""
        after_s = self._core.settings.setup_record_after_s
        if not after_s:
            return
        self._young.append((now + after_s, call.key))
        if not self._watching:
            self._watching = True
            self._core.timers.start(after_s, self._sweep, now)

    def save(self, call: Call, part: Json | None = None) -> SaveCall | None:
        """The record of a call in setup, a version above the last; None where it cannot be written. ``part`` is what
        it has besides where the call is to go on elsewhere."""
        call.version += 1
        try:
            record = setup_snapshot.encode(self._core, call, part)
        except SipSyntaxError as error:
            self._core.note("warning", "a call in setup cannot be recorded", call, reason=error.reason)
            return None
        call.saved = True
        return SaveCall(call.key, call.shard, call.version, record)

    def _sweep(self, now: float) -> None:
        core, young = self._core, self._young
        self._watching = False
        try:
            while young and young[0][0] <= now:
                call = core.calls.get(young.popleft()[1])
                if call is not None and not call.saved and call.state in IN_SETUP:
                    effect = self.save(call)
                    if effect is not None:
                        core.emit(effect)
        finally:
            if young:
                self._watching = True
                core.timers.start(SWEEP_S, self._sweep, now)
