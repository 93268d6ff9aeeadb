"""Lines for the log about connections: whoever makes us write them must not fill the disk with them."""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 60.0
LINES: Final = 3  # of one event and source in a window; what more there is, is a number in the next line
SOURCES_MAX: Final = 4096
LINES_MAX: Final = 100  # in a window, whatever the events and sources


class Notes:
    """Which events are worth a line now."""

    __slots__ = ("_from", "_left", "_seen")

    def __init__(self) -> None:
        self._from = 0.0
        self._left = LINES_MAX
        self._seen: dict[tuple[str, str], int] = {}

    def wanted(self, event: str, host: str, now: float) -> int:
        """-1: no line. Otherwise how many like it had none since the last: 0, or more at the first of a new window."""
        key = (event, host)
        unsaid = 0
        if now - self._from >= WINDOW_S:
            unsaid = max(0, self._seen.get(key, 0) - LINES)
            self._from, self._left, self._seen = now, LINES_MAX, {}
        seen = self._seen.get(key, 0)
        if seen or len(self._seen) < SOURCES_MAX:
            self._seen[key] = seen + 1
        if seen >= LINES or self._left <= 0:
            return -1
        self._left -= 1
        return unsaid
