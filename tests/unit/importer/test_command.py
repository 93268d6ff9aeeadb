"""``sbc import opensips``: files, report, exit code."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from sbc.cli import app
from sbc.config.loader import load
from sbc.routing.loader import load_routes

GOOD = 'listen=udp:10.0.0.1:5060\nroute { if (src_ip == 10.0.0.7) { sl_send_reply("404", "No"); } }\n'


def test_what_is_written_loads(tmp_path: Path) -> None:
    script = tmp_path / "opensips.cfg"
    script.write_text(GOOD)
    result = CliRunner().invoke(app, ["import", "opensips", str(script), "-o", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("Everything was mapped.\n")
    config = load(tmp_path / "new" / "sbc.yaml")
    assert config.routes == str(tmp_path / "new" / "routes.py")
    load_routes(config.routes)
    assert (tmp_path / "new" / "report.txt").read_text() == result.output


def test_nothing_is_written_over(tmp_path: Path) -> None:
    script = tmp_path / "opensips.cfg"
    script.write_text(GOOD)
    (tmp_path / "routes.py").write_text("mine")
    result = CliRunner().invoke(app, ["import", "opensips", str(script), "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert (tmp_path / "routes.py").read_text() == "mine"


def test_without_a_directory_the_report_is_shown_and_the_code_tells_of_gaps(tmp_path: Path) -> None:
    script = tmp_path / "opensips.cfg"
    script.write_text(GOOD + "route[x] { exit; }\nfailure_route { ds_mark_dst(); }\n")
    result = CliRunner().invoke(app, ["import", "opensips", str(script)])
    assert result.exit_code == 1
    assert f"{script}:4: failure_route {{ ds_mark_dst(); }}\n      ds_mark_dst() has no counterpart" in result.output
    assert sorted(one.name for one in tmp_path.iterdir()) == ["opensips.cfg"]
    shown = json.loads(CliRunner().invoke(app, ["import", "opensips", str(script), "--json"]).output)
    assert not shown["complete"]
    assert {"line": 4, "outcome": "not mapped"}.items() <= shown["items"][-1].items() or any(
        item["line"] == 4 and item["outcome"] == "not mapped" for item in shown["items"]
    )


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    script = tmp_path / "opensips.cfg"
    script.write_text("route { if }")
    result = CliRunner().invoke(app, ["import", "opensips", str(script)])
    assert result.exit_code == 2
    assert result.stderr == f"sbc: {script}:1:12: '(' is expected after 'if', not '}}'\n"
    result = CliRunner().invoke(app, ["import", "opensips", str(tmp_path / "none.cfg")])
    assert result.exit_code == 2
    assert "no such file or directory" in result.stderr
