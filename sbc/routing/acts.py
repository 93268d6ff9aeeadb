"""Marks the moments in which the core acts for a route, in which a route is not to be ended."""

from __future__ import annotations


class Acts:
    """``with acts:`` around what the core does. Who would raise an exception in the route (the watchdog) waits until
    ``depth`` is 0 again: the core is never left in the middle of a change."""

    __slots__ = ("depth",)

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.depth -= 1
