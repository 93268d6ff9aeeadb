"""Tests of routes with pytest, in virtual time, that read like ladders.

::

    from sbc.testing import Sbc, staged

    sbc = staged("../sbc.yaml")  # a fixture of this name; the path is seen from this file


    def test_the_second_carrier_is_tried_when_the_first_is_down(sbc: Sbc) -> None:
        office, first, second = sbc.party("office"), sbc.party("carrier-a"), sbc.party("carrier-b")
        office.calls("+4930123")
        first.gets("INVITE")
        first.answers(503)
        assert second.gets("INVITE").uri == "sip:+4930123@203.0.113.77:5080"
        second.answers(180)
        office.gets(180)
        second.answers(200)
        office.gets(200)
        office.hangs_up()
        second.gets("BYE")
        sbc.is_over()


    def test_nobody_is_called_at_night(sbc: Sbc) -> None:
        report = sbc.dry_run("+4930123", "office", at="2026-12-24T03:00")
        assert (report.status, report.attempts) == (403, [])

Every test has a node of its own. ACKs, and the answers to BYE, CANCEL and PRACK, come by themselves; a failed
expectation tells everything that has happened, with the lines of the routes. ``sbc.after(60)`` lets a minute pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sbc.config.loader import load
from sbc.config.models import Config
from sbc.routing.routes import Routes
from sbc.simulator.command import moment
from sbc.simulator.dry_run import Trial, run
from sbc.simulator.party import Party
from sbc.simulator.report import Report
from sbc.simulator.stage import Stage

__all__ = ["Party", "Report", "Sbc", "Trial", "staged"]


class Sbc(Stage):
    """One node on its stage."""

    def dry_run(self, call: str, source: str, *, at: str = "", **fields: Any) -> Report:
        """One call with scripted answers, as ``sbc route test`` makes it. Any: the other fields of :class:`Trial`."""
        return run(self, Trial(source, call, at_s=moment(at), **fields))


def staged(
    config: str | Config | Mapping[str, Any],  # Any: what the YAML would hold
    routes: Routes | str | None = None,
    *,
    at: str = "",
    hosts: Mapping[str, Sequence[str]] | None = None,
) -> Callable[..., Iterator[Sbc]]:
    """A fixture: a fresh :class:`Sbc` for each test.

    ``config`` is a file (seen from the one that calls this), a Config, or what the file would hold; ``routes`` a
    Routes object or another module than the configuration names. Timer routes run as time passes.
    """
    beside = Path(sys._getframe(1).f_globals.get("__file__", ".")).resolve().parent
    module = str((beside / routes).resolve()) if isinstance(routes, str) else routes

    @pytest.fixture
    def stage() -> Iterator[Sbc]:
        made = Sbc(_config(config, beside), module, at_s=moment(at), hosts=hosts, timers=True)
        yield made
        made.close()

    return stage


def _config(given: str | Config | Mapping[str, Any], beside: Path) -> Config:  # Any: as above
    if isinstance(given, Config):
        return given
    return load(beside / given) if isinstance(given, str) else Config.model_validate(given)
