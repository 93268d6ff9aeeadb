"""What the times of a journal record are to whoever takes it up: the wall clock of its writer, as of now.

A record names times by the wall clock, because monotonic ones mean nothing on another machine. But a wall clock may be
set, and all timers and durations are of the monotonic one. So each record says by which clocks it was written: the boot
of the machine, and both readings of one moment. Whoever reads it in the same boot counts on by the monotonic clock,
which all processes of a boot share; on another machine only the wall clock has gone on. All times of a record are by
the difference of the two clocks at that moment, also of what had happened before it was last set.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sbc.b2bua.core import Core

FIELD: Final = "clock"
Written = tuple[str, float, float]  # boot, monotonic and wall-clock seconds


def written(core: Core, now: float) -> Written:
    """What a record says of its clocks; ``now`` is a monotonic time that is not after the writing."""
    return core.settings.boot, now, core.wall(now)


def wall_of_writer(core: Core, raw: Any, now: float, wall: float) -> float:  # Any: parsed JSON
    """What the clock by which a record was written shows now, in seconds since 1970; ``raw`` is its ``clock``.

    ``wall`` for a record without, of a former release. On another machine not before the moment of the writing: clocks
    of two machines differ. Raises ValueError for what :func:`written` cannot have written.
    """
    if raw is None:
        return wall
    if not isinstance(raw, list) or len(raw) != 3 or not isinstance(raw[0], str):
        raise ValueError("clock: not one")
    then, wall_then = raw[1], raw[2]
    for reading in (then, wall_then):
        if type(reading) not in (int, float) or not isfinite(reading) or not 0 <= reading < 1e11:
            raise ValueError("clock: no time")
    if is_ours(core, raw, now):
        return float(wall_then + (now - then))
    return max(wall, float(wall_then))


def is_ours(core: Core, raw: Any, now: float) -> bool:  # Any: parsed JSON
    """Whether the monotonic clock of a record is that of this process. If not, its times may be wrong by as much as two
    wall clocks differ."""
    return raw is not None and bool(raw[0]) and raw[0] == core.settings.boot and raw[1] <= now
