"""A row of the fault table: what is broken, what is promised all the same, and how it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sbc.selftest.measure import Measures
from sbc.selftest.site import Setup, Site

Run = Callable[[Site, Measures], None]


@dataclass(frozen=True, slots=True)
class Row:
    """``run`` is called for each run, on one site for all of them; it raises Failed, or NotTried at the first one.

    ``limit_s`` bounds one run. ``check`` raises NotTried where this machine lacks something, before a site is made.
    ``is_beside``: another product in the place of the SBC. It has promised nothing, and so nothing that it does fails.
    """

    id: str
    fault: str
    expected: str
    run: Run
    setup: Setup = field(default_factory=Setup)
    limit_s: float = 60.0
    check: Callable[[], None] = lambda: None
    is_beside: bool = False
