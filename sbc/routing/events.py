"""What event routes act on."""

from __future__ import annotations

from sbc.routing.call import EstablishedCall


class MediaTimeout:
    """The event ``media.timeout``: no packet came from ``leg`` for ``silent_s``."""

    __slots__ = ("call", "leg", "silent_s")

    def __init__(self, call: EstablishedCall, leg: str, silent_s: float) -> None:
        self.call = call
        self.leg = leg
        self.silent_s = silent_s


class MediaDtmf:
    """The event ``media.dtmf``: ``digit`` (0-9, *, #, A-D or flash) was pressed on ``leg``. Only in calls of which a
    profile says how digits are wanted."""

    __slots__ = ("call", "digit", "duration_ms", "leg")

    def __init__(self, call: EstablishedCall, leg: str, digit: str, duration_ms: int) -> None:
        self.call = call
        self.leg = leg
        self.digit = digit
        self.duration_ms = duration_ms
