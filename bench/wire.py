"""Whether a system did the SBC's job to one traced call, or only a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import sipp
from bench.figures import NotMeasuredError


@dataclass(frozen=True, slots=True)
class Anchors:
    """The addresses at which each side must find its media."""

    for_caller: str
    for_callee: str


def check_hidden(
    caller_wire: str, callee_wire: str, anchors: Anchors | None, *, apart_from: Sequence[str] = ()
) -> None:
    """Neither side's address on the other side's wire, and the media anchored; else NotMeasuredError says what shows.

    Lines that start with one of ``apart_from`` are not looked at. ``anchors`` None: media goes directly, so the lines
    that carry its address are not looked at either.
    """
    skipped = (*apart_from, *(() if anchors else ("c=", "o=")))
    for wire, secret, whose in ((callee_wire, sipp.CALLER, "caller"), (caller_wire, sipp.CALLEE, "callee")):
        leaks = [line for line in wire.splitlines() if secret in line and not line.startswith(skipped)]
        if leaks:
            raise NotMeasuredError(f"the {whose}'s address shows on the other side: {leaks[0]!r}")
    if anchors is not None:
        for wire, address in ((caller_wire, anchors.for_caller), (callee_wire, anchors.for_callee)):
            if f"c=IN IP4 {address}" not in wire:
                raise NotMeasuredError(f"media is not anchored at {address}")
