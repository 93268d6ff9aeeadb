"""Warnings of ``sbc check``: what is allowed, and yet hardly meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sbc.cli import app
from sbc.config import loader
from sbc.config.advice import advice
from tests.unit.config.test_loader import GOOD


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("embedded", ""),
        ("none", ""),
        ("redis://h", ""),
        ("sentinel://a,b,c/s", ""),
        ("sentinel://a/s", "one sentinel is named"),
        ("sentinel://a,b/s", "2 sentinels are named"),
        ("cluster://a", "one node of the cluster is named"),
        ("cluster://a,b,c", ""),
    ],
)
def test_a_store_that_hardly_outlives_its_master(store: str, said: str) -> None:
    config, faults = loader.check_text(f"store: {store}\n{GOOD}", "sbc.yaml")
    assert config is not None, faults
    told = advice(config)
    assert [said in text for text in told] == ([True] if said else [])


def test_check_tells_and_does_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "sbc.yaml"
    path.write_text(f"store: sentinel://a/s\n{GOOD}")
    shown = CliRunner().invoke(app, ["check", "-c", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "warning: store: one sentinel is named" in shown.output
    told = json.loads(CliRunner().invoke(app, ["check", "-c", str(path), "--json"]).output)
    assert told["ok"]
    assert len(told["warnings"]) == 1
