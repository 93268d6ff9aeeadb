"""An ``opensips.cfg`` as a configuration, routes and a report."""

from __future__ import annotations

from dataclasses import dataclass

from sbc.importer.module import Module
from sbc.importer.parser import parse
from sbc.importer.peers import Peers
from sbc.importer.report import Report
from sbc.importer.settings import Settings


@dataclass(frozen=True, slots=True)
class Imported:
    """What a script makes: the texts of ``sbc.yaml`` and ``routes.py``, and the report."""

    config: str
    routes: str
    report: Report


def import_opensips(text: str, file: str) -> Imported:
    """Bring a script over. Raises InputFault, which says where it cannot be read."""
    script = parse(text, file)
    report = Report(script)
    settings = Settings(script, report)
    peers = Peers(script, settings.own)
    routes = Module(script, peers, report).text()
    return Imported(settings.yaml(peers), routes, report)
