"""A release that was installed while the former one runs takes over, process by process, with calls up.

The supervisor of the former release has the new one tried: an interpreter of its own imports everything, reads the
configuration and looks at the formats of what is shared. If that is well the supervisor ends, and the keeper starts
one of the new release, which adopts what lives and replaces it: SIP workers are relieved one after the other, media
workers, the control worker and the one that elects are ended, and their successors go on. Where a process of the new
release does not come to serve, a supervisor of the former release takes over again.

How far it has come is in ``run_dir/upgrade.json``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sbc import __version__
from sbc.supervisor import inheritance, process
from sbc.supervisor.child import Group, State
from sbc.supervisor.keeper import EXIT_BACK, EXIT_UPGRADE
from sbc.supervisor.kept import Kept
from sbc.supervisor.members import Estate, Member
from sbc.supervisor.relief import Phase, Relief
from sbc.telemetry import log

FILE = "upgrade.json"
TRY_LIMIT_S = 60.0
START_LIMIT_S = 40.0  # for one successor
MEDIA_PAUSE_S = 3.0  # for as long as a media worker takes at most to be replaced, new calls wait for it
MEDIA_ARRIVES_S = 0.5  # until what waits has reached the successor
OUTPUT_MOST = 100_000
ORDER = (Group.SIP, Group.MEDIA, Group.HA, Group.CONTROL)


class Upgrade:
    """One supervisor's part of it. ``exit_code`` is set once that one is to end."""

    def __init__(self, estate: Estate, kept: Kept, relief: Relief) -> None:
        self._estate = estate
        self._kept = kept
        self._relief = relief
        self._log = log.get()
        self._pid = 0  # of the one that tries
        self._output = -1
        self._deadline = 0.0
        self._left: deque[Member] = deque()
        self._present: Member | None = None
        self._is_way_back = False  # a former release takes over again: what was told of that stays told
        self.exit_code: int | None = None

    @property
    def is_under_way(self) -> bool:
        return bool(self._pid or self._left or self._present is not None or self.exit_code is not None)

    # the former release

    def attempt(self, busy: str) -> None:
        """Have the installed release tried. ``busy``: why that cannot be now."""
        if self._relief.phase in (Phase.STARTING, Phase.LEAVING):
            busy = busy or "SIP workers are being relieved"
        if not self._estate.config_path:
            busy = "a media node takes a new release by a restart"
        if busy:
            self._tell("refused", [busy])
            return
        self._tell("tried")
        self._output = os.memfd_create("sbc-trial", os.MFD_CLOEXEC)
        try:
            self._pid = inheritance.spawn(inheritance.describe(self._estate, self._kept), "try", self._output)
        except OSError as error:
            self._refuse([f"it cannot be started: {error}"])
            return
        self._deadline = time.monotonic() + TRY_LIMIT_S

    def ended(self, pid: int, status: int) -> bool:
        """A child has ended; whether it was one of ours."""
        if not self._pid or pid != self._pid:
            return False
        self._pid = 0
        said = os.pread(self._output, OUTPUT_MOST, max(0, os.fstat(self._output).st_size - OUTPUT_MOST))
        os.close(self._output)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            self._log.info("the installed release takes over")
            self.exit_code = EXIT_UPGRADE
            return True
        lines = said.decode("utf-8", "replace").strip().splitlines()
        if any(line.startswith("Traceback") for line in lines):
            lines = [f"it does not start: {lines[-1]}", *_places(lines)]
        self._refuse(lines or [f"it does not start: {process.describe_exit(status)}"])
        return True

    def _refuse(self, reasons: Sequence[str]) -> None:
        self._log.error("the installed release is refused, the present one serves on", faults=list(reasons))
        self._tell("refused", reasons)

    # the new release

    def begin_to_replace(self, living: Sequence[Member]) -> bool:
        """Replace those of another release, if there are any."""
        former = [m for m in living if m.group in ORDER and m.page.version != __version__ and not m.page.is_leaving]
        self._left = deque(sorted(former, key=lambda member: ORDER.index(member.group)))
        last = self._last()
        if last.get("state") == "tried" and last.get("version") == __version__:
            self._tell("failed", ["its supervisor did not begin; the log says why"])
        self._is_way_back = self._last().get("state") == "failed"
        if self._left:
            self._tell("under way")
        return bool(self._left)

    def look(self, now: float) -> None:
        """Go on as far as it has come."""
        if self._pid and now > self._deadline:
            self._deadline = now + TRY_LIMIT_S
            inheritance.end(self._pid)
        if self._present is not None:
            self._look_at(self._present, now)
        elif self._left and self._relief.phase in (Phase.DONE, Phase.FAILED):
            self._replace(self._left.popleft(), now)

    def _replace(self, member: Member, now: float) -> None:
        self._present, self._deadline = member, now + START_LIMIT_S
        if member.page.version == __version__:  # it has died, and begun anew
            return
        if member.group is Group.SIP and not self._estate.is_passive:
            if member.child.state is not State.READY:  # it will be of this release, when it serves
                return
            seats = self._estate.seats
            seats.look()
            free = self._relief.free()
            numbers = list(seats.numbers)
            # As many more as there are seats, if that one is free: so numbers alternate.
            wanted = [number for number in free if number % len(numbers) == member.seat] or free
            numbers[member.seat] = wanted[0]
            self._relief.begin(numbers, now)
            return
        member.replaced = True
        if member.group is Group.MEDIA:
            self._estate.seats.pause_media(MEDIA_PAUSE_S)
        # Its successor has all that the process which elects had; a farewell would hand over to the other node.
        member.send(signal.SIGKILL if member.group is Group.HA else signal.SIGTERM)

    def _look_at(self, member: Member, now: float) -> None:
        relief = self._relief
        if relief.phase is Phase.FAILED:
            self._go_back(relief.reason)
        elif relief.phase is not Phase.DONE:
            return
        elif member.child.state is State.STOPPED or (
            member.child.state is State.READY and member.page.version == __version__
        ):
            if member.group is Group.MEDIA:
                self._estate.seats.pause_media(MEDIA_ARRIVES_S)
            member.replaced, self._present = False, None
            if not self._left:
                self._log.info("upgraded", version=__version__)
                self._tell("done")
        elif now > self._deadline or (member.replaced and member.child.failures > 2):
            said = member.last_words.read()
            self._go_back(f"{member.name} does not come to serve" + (f": {said}" if said else ""))

    def _go_back(self, reason: str) -> None:
        self._log.error("the new release does not work out, the former one goes on", reason=reason)
        self._tell("failed", [reason])
        self.exit_code = EXIT_BACK

    # for the operator

    def _last(self) -> dict[str, Any]:  # Any: JSON values
        try:
            found: dict[str, Any] = json.loads((Path(self._estate.config.run_dir) / FILE).read_text())  # Any: as above
        except (OSError, ValueError):
            return {}
        return found

    def _tell(self, state: str, reasons: Sequence[str] = ()) -> None:
        if self._is_way_back and state in ("under way", "done"):
            return
        path = Path(self._estate.config.run_dir) / FILE
        text: dict[str, Any] = {"state": state, "reasons": list(reasons), "version": __version__, "at": time.time()}
        with suppress(OSError):
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(text))
            fresh.rename(path)


def _places(lines: Sequence[str]) -> list[str]:
    """Where the last line of a traceback came from."""
    return [line.strip() for line in lines if line.startswith("  File ")][-1:]
