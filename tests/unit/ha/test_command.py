"""What the commands show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sbc.ha.command import app, lines

FOUND: dict[str, Any] = {  # Any: JSON values
    "name": "left",
    "role": "active",
    "state": "active",
    "since": 0.0,
    "why": "the store gave it the lease",
    "token": 4,
    "preferred": "left",
    "decided_by": "lease",
    "addresses": ["192.0.2.10/24 on eth0"],
    "peer": {"name": "right", "state": "standby", "token": 4, "ready": True},
    "lease": {"state": "held here", "store": "answers"},
    "witness": [{"address": "192.0.2.1", "heard": True}, {"address": "198.51.100.1", "heard": False}],
    "replication": None,
    "media": {"role": "leads", "connected": True, "synced": True, "sessions": 0, "age_s": None},
    "heartbeats": [
        {"path": 0, "local": "10.9.0.1:7400", "peer": "10.9.0.2:7400", "heard": True, "age_s": 0.1},
        {"path": 1, "local": "10.8.0.1:7400", "peer": "10.8.0.2:7400", "heard": False, "age_s": None},
    ],
    "ready": True,
    "why_not": [],
}


def test_a_status_as_text() -> None:
    text = "\n".join(lines(FOUND))
    for part in (
        "left is active (active) since",
        "the store gave it the lease",
        "lease: held here; the store answers",
        "token 4, decided by lease, left is preferred",
        "peer: right is standby, token 4, ready",
        "media: the other node is told of all sessions",
        "witness: 192.0.2.1 answers",
        "witness: 198.51.100.1 does not answer, SILENT",
        "path 1: 10.8.0.1:7400 to 10.8.0.2:7400: never heard, SILENT",
        "HA ready: yes",
    ):
        assert part in text
    passive = {**FOUND, "media": {"role": "follows", "connected": True, "synced": True, "sessions": 7, "age_s": 0.1}}
    assert "media: 7 sessions kept ready" in lines(passive)
    unready = {**FOUND, "ready": False, "why_not": ["right is not heard", "the store does not answer"], "peer": None}
    assert lines(unready)[-1] == "HA ready: no, because right is not heard; the store does not answer"


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "ha.key"
    assert CliRunner().invoke(app, ["keygen", str(path)]).exit_code == 0
    assert len(path.read_text().strip()) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(app, ["keygen", str(path)])
    assert again.exit_code == 1
    assert len(path.read_text().strip()) == 64


def test_a_node_that_is_alone_says_so(tmp_path: Path) -> None:
    config = tmp_path / "sbc.yaml"
    config.write_text("realms: { one: { listen: [udp:127.0.0.1:5060], media: { address: 127.0.0.1 } } }\n")
    answer = CliRunner().invoke(app, ["status", "-c", str(config)])
    assert answer.exit_code == 1
    assert "this node is alone" in answer.output


@pytest.mark.parametrize(
    ("answer", "statuses", "said"),
    [
        (
            {"from": "left", "to": "right"},
            [("left", "active", "right", "standby"), ("left", "passive", "right", "active")],
            "right is active, left stands by",
        ),
        (
            {"from": "right", "to": "left"},  # asked of the passive node that is preferred
            [("left", "passive", "right", "active"), ("left", "active", "right", "standby")],
            "left is active, right stands by",
        ),
        ({"from": "left", "to": "left"}, [], "left is active already"),
    ],
)
def test_a_switch_waits_for_what_was_promised(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, str], statuses: list[tuple[str, str, str, str]], said: str
) -> None:
    asked: list[tuple[str, object]] = []
    waiting = iter(statuses)

    def ask(_config: str, method: str, _as_json: bool, params: object = None) -> object:
        asked.append((method, params))
        if method == "switch":
            return answer
        name, role, peer, state = next(waiting)
        return {"name": name, "role": role, "peer": {"name": peer, "state": state}}

    monkeypatch.setattr("sbc.ha.command._ask", ask)
    found = CliRunner().invoke(app, ["switch", "--preferred"])
    assert found.exit_code == 0, found.output
    assert found.output.strip() == said
    assert asked[0] == ("switch", {"preferred": True})
    assert len(asked) == 1 + len(statuses)
