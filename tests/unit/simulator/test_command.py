"""`sbc route test` as an operator meets it: sentences, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sbc.cli import app
from sbc.config.loader import check_text
from sbc.simulator import Stage, Trial, run
from tests.unit.simulator.world import CONFIG, GIVEN

YAML = """\
run_dir: run
realms:
  inside: { listen: [udp:192.0.2.1:5060], media: { address: 192.0.2.2 } }
  outside: { listen: [udp:203.0.113.1:5060], media: { address: 203.0.113.2 } }
peers:
  office: { realm: inside, addresses: 192.0.2.10, calls_to: carrier }
  carrier: { realm: outside, addresses: 203.0.113.77, gateway: "sip:203.0.113.77" }
"""
MESSAGE = """\
INVITE sip:+4930@192.0.2.1 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx
Max-Forwards: 70
From: <sip:42@192.0.2.10>;tag=1
To: <sip:+4930@192.0.2.1>
Call-ID: one
CSeq: 1 INVITE
Contact: <sip:42@192.0.2.10>
Content-Type: application/sdp
Content-Length: 1

v=0
o=- 1 1 IN IP4 192.0.2.10
s=-
c=IN IP4 192.0.2.10
t=0 0
m=audio 4000 RTP/AVP 8
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sbc.yaml"
    path.write_text(YAML)
    return path


def tried(config: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["route", "test", "-c", str(config), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_number(config: Path) -> None:
    code, out, _ = tried(config, "+4930", "-s", "office")
    assert code == 0
    assert "carrier gets INVITE for sip:+4930@203.0.113.77, by udp:203.0.113.1:5060 to 203.0.113.77:5060." in out
    assert out.endswith("Result: 200 OK, answered by carrier.\nAs expected.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--answer", "carrier=503"), 1, "expected that the call is answered, got 503 Service Unavailable"),
        (("--answer", "carrier=503", "--expect", "503"), 0, "As expected"),
        (("--expect", "486"), 1, "expected 486 Busy Here, got 200 OK"),
        (("--by", "office"), 1, "expected an answer by office, got one by carrier"),
        (("--cancel", "3", "--answer", "carrier=180+timeout", "--expect", "487"), 0, "office sends CANCEL"),
        (("--messages", "--header", "Subject: x", "--from", "42"), 0, "| From: <sip:42@203.0.113.1>;tag="),
    ],
)
def test_expectations(config: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    got, out, _ = tried(config, "1", "-s", "office", *arguments)
    assert (got, said in out) == (code, True), out


def test_nobody_answers_a_stranger(config: Path) -> None:
    assert tried(config, "1", "-s", "198.51.100.1", "--expect", "0")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "who sends it? --source names a peer (office, carrier) or an address"),
        (("-s", "office", "--answer", "carrier"), "--answer takes NAME=VALUE, not 'carrier'"),
        (("-s", "office", "--answer", "carrier=maybe"), "'maybe' in 'maybe' is no answer"),
        (("-s", "office", "--at", "soon"), "--at takes a time such as 2026-12-24T18:00, not 'soon'"),
        (("-s", "office", "--header", "x"), "--header takes 'Name: value', not 'x'"),
    ],
)
def test_what_makes_no_sense(config: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = tried(config, "1", *arguments)
    assert (code, said in err) == (1, True), err


def test_other_routes_and_those_that_cannot_be_loaded(config: Path, tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text(
        "from sbc.routing import Routes, Request\nroutes = Routes()\n"
        "@routes.route\nasync def main(request: Request) -> None:\n    await request.reject(480)\n"
    )
    assert tried(config, "1", "-s", "office", "--routes", str(module), "--expect", "480")[0] == 0
    module.write_text("import nothing_of_this_name\n")
    code, _, err = tried(config, "1", "-s", "office", "--routes", str(module))
    assert (code, f"{module}:1: ModuleNotFoundError" in err) == (1, True)
    module.write_text(
        "from sbc.routing import Routes, Request, Node\nroutes = Routes()\n"
        "@routes.route\nasync def main(request: Request) -> None: ...\n"
        "@routes.startup_route\nasync def load(node: Node) -> None:\n    raise OSError('no table')\n"
    )
    code, _, err = tried(config, "1", "-s", "office", "--routes", str(module))
    assert (code, err) == (1, f"sbc: a startup route failed: {module}:7: OSError: no table\n")


def test_a_message_from_a_file(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "invite.sip"
    file.write_text(MESSAGE)
    code, out, _ = tried(config, str(file), "-s", "office", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["status"], report["by"]) == (0, True, 200, "carrier")
    assert report["attempts"] == [{"gateway": "carrier", "uri": "sip:+4930@203.0.113.77", "status": 200}]
    first = report["messages"][0]
    assert (first["from"], first["text"].splitlines()[9]) == ("office", "Content-Length: 89")
    assert report["cdr"]["from"] == "sip:42@192.0.2.10"


def test_the_dry_runs_of_the_configuration(config: Path) -> None:
    assert tried(config) == (0, "no dry runs are configured (dry_runs)\n", "")
    config.write_text(
        YAML
        + "dry_runs:\n  - { call: 1, source: office, answers: { carrier: 503 }, expect: 503 }\n".replace(
            "call: 1", 'call: "1"'
        )
        + '  - { call: "2", source: carrier }\n'
        + '  - { call: "3", source: nobody }\n'
        + '  - { call: "4", source: office, at: "2026-12-24T18:00", headers: { X-A: b }, calls: { office: 3 } }\n'
    )
    code, out, _ = tried(config)
    assert code == 1
    lines = [line for line in out.splitlines() if not line.startswith("  ")]
    assert lines == [
        "good: dry run 1, INVITE 1 from office",
        "FAILED: dry run 2, INVITE 2 from carrier: expected 200 OK, got 404 Not Found",
        "FAILED: dry run 3, INVITE 3 from nobody: 'nobody' is no peer and no address",
        "good: dry run 4, INVITE 4 from office",
        "4 dry runs, 2 failed",
    ]
    assert "Rejects the call with 404 Not Found. (" in out
    report = json.loads(tried(config, "--json")[1])
    assert [row["ok"] for row in report["dry_runs"]] == [True, False, False, True]


def test_a_dry_run_that_is_no_dry_run() -> None:
    _, faults = check_text(YAML + "dry_runs:\n  - { call: '1', source: office, expcet: 200 }\n", "x.yaml")
    assert [str(fault) for fault in faults] == ["x.yaml:9:34: dry_runs.0.expcet: unknown key, did you mean 'expect'?"]


def test_srtp_is_offered_and_asked_for_as_the_policies_say() -> None:
    given = {**GIVEN, "realms": {**GIVEN["realms"]}}
    given["realms"]["outside"] = {**given["realms"]["outside"], "media": {"address": "203.0.113.2", "srtp": "required"}}
    given["peers"] = {**given["peers"], "carrier-b": {**given["peers"]["carrier-b"], "calls_to": "carrier-a"}}
    stage = Stage(type(CONFIG).model_validate(given))
    report = run(stage, Trial("office", "1"))
    assert report.is_answered
    assert b"RTP/SAVP" in report.sent_to("carrier-a")[0]
    (answer,) = [m.data for m in report.messages if m.receiver == "office" and m.data.startswith(b"SIP/2.0 200 OK")][:1]
    assert b"RTP/AVP" in answer
    assert b"a=crypto" not in answer
    report = run(stage, Trial("carrier-b", "1"))
    assert report.status == 488
    assert "Media refused: leg a, code unsupported, reason RTP is offered where SRTP is required." in report.rejected
    stage.close()


def test_a_browser_is_offered_what_it_takes() -> None:
    given = {**GIVEN, "peers": {**GIVEN["peers"], "office": {**GIVEN["peers"]["office"], "calls_to": "carrier-b"}}}
    given["peers"]["carrier-b"] = {**given["peers"]["carrier-b"], "profile": "webrtc"}
    stage = Stage(type(CONFIG).model_validate(given))
    report = run(stage, Trial("office", "1"))
    assert report.by == "carrier-b", report.rejected
    (invite,) = report.sent_to("carrier-b")
    assert all(
        part in invite for part in (b"UDP/TLS/RTP/SAVPF", b"a=ice-ufrag:", b"a=fingerprint:", b"a=setup:actpass")
    )
    answer = next(m.data for m in report.messages if m.receiver == "office" and m.data.startswith(b"SIP/2.0 200 OK"))
    assert b"RTP/AVP 8" in answer
    assert b"fingerprint" not in answer
    stage.close()
