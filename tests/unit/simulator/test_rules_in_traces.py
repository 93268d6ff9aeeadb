"""What a dry run shows of the rules that changed a message."""

from __future__ import annotations

import copy

from sbc.config.models import Config
from sbc.simulator.dry_run import Trial, run
from sbc.simulator.stage import Stage
from tests.unit.simulator.world import GIVEN


def sentences(**keys: object) -> list[str]:
    given = copy.deepcopy(GIVEN) | keys["top"]  # type: ignore[operator]
    given["peers"]["office"].update(keys["office"])
    given["peers"]["carrier-b"].update(keys["carrier"])
    given["peers"]["office"]["calls_to"] = "carrier-b"
    stage = Stage(Config.model_validate(given))
    try:
        report = run(stage, Trial("office", "+4930123", headers=[("X-Account", "42")]))
        assert report.status == 200
        return [step.text for step in report.steps if step.kind == "rule"]
    finally:
        stage.close()


def test_each_rule_shows_before_and_after() -> None:
    said = sentences(
        top={
            "header_rules": {
                "come": [
                    {"name": "number", "when": {"methods": "INVITE"}, "do": [{"store": "X-Account", "as": "account"}]}
                ],
                "leave": [{"when": {"methods": "INVITE"}, "do": [{"set": "From.host", "to": "example.com"}]}],
            }
        },
        office={"header_rules": {"in": "come"}},
        carrier={"header_rules": {"out": "leave"}},
    )
    assert said == ["Rule number: stores account = 42.", "Rule leave.1: From.host: 203.0.113.1 → example.com."]
