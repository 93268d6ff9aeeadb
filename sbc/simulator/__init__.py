"""Dry runs: the real core and the real routes in virtual time, with scripted peers. Nothing leaves the process."""

from sbc.simulator.dry_run import Trial, run
from sbc.simulator.party import Party
from sbc.simulator.report import Report
from sbc.simulator.stage import Stage

__all__ = ["Party", "Report", "Stage", "Trial", "run"]
