"""Who sends a request decides what becomes of it: by configuration and small routes, by routes alone, and by a script
that was imported. All three send the same octets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbc.config.loader import check_text, load
from sbc.config.models import Config
from sbc.importer.opensips import import_opensips
from sbc.routing import Failure, Request, Routes
from sbc.routing.loader import load_routes
from sbc.simulator.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/unit/importer/scripts/directions.cfg"

by_hand = Routes()


@by_hand.route
async def main(request: Request) -> None:
    """All by source address: the configuration knows peers, and no directions."""
    host, _ = request.source
    if host == "10.10.11.11" and request.method == "NOTIFY":
        request.log.info(f"NOTIFY about a reboot from {request.from_.uri} to {request.uri}")
        return await ten(request)
    flagged = host in ("10.10.11.12", "10.10.11.13", "10.10.11.100")
    if host in ("10.10.11.12", "10.10.11.13"):
        if request.method == "INVITE":
            request.log.info(f"INVITE from {request.from_.uri} to {request.uri}")
        else:
            request.log.info(f"{request.method} from {request.from_.uri.user}")
    if not flagged:
        await request.reject(403, "Forbidden")
    elif request.makes_call:
        request.call.flags.add("1")
        if host != "10.10.11.100":
            request.fix_sdp(11, address="204.1.7.4")
        await request.call.dial(f"sip:{request.called_number}@198.51.100.7", on_failure=failed)
    else:
        await request.relay(f"sip:{request.called_number}@198.51.100.7")
    return None


async def ten(request: Request) -> None:
    await request.reply(200, "OK")


@by_hand.failure_route
async def failed(failure: Failure) -> None:
    if "1" in failure.call.flags:
        failure.call.log.info(f"failed with {failure.best_status}")


PLAIN = {
    "realms": {
        "core": {"listen": ["udp:10.10.11.11:5060"], "media": {"address": "10.10.11.11"}},
        "outside": {
            "listen": ["udp:10.0.0.5:5060"],
            "advertise": "204.1.7.4",
            "media": {"address": "10.0.0.5", "advertise": "204.1.7.4"},
        },
    },
    "peers": {
        "inside": {"realm": "core", "addresses": "10.10.11.0/24"},
        "carrier": {"realm": "outside", "addresses": "198.51.100.7", "gateway": "sip:198.51.100.7"},
    },
}


def configured() -> Stage:
    return Stage(load(ROOT / "conf/directions.yaml"), at_s=0)


def written() -> Stage:
    return Stage(Config.model_validate(PLAIN), by_hand, at_s=0)


def imported(folder: Path) -> Stage:
    made = import_opensips(SCRIPT.read_text(), "directions.cfg")
    assert made.report.complete
    (folder / "routes.py").write_text(made.routes)
    text = made.config.replace("routes: routes.py\n", "")
    # The Call-ID of a relayed request follows from the name of its realm, which the importer cannot know.
    text = text.replace("net-10-10-11-11", "core").replace("net-10-0-0-5", "outside")
    config, faults = check_text(text, "sbc.yaml")
    assert config is not None, faults
    return Stage(config, load_routes(str(folder / "routes.py")), at_s=0)


@pytest.fixture(params=["configured", "written", "imported"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "imported":
        return imported(tmp_path)
    return configured() if request.param == "configured" else written()


def logged(stage: Stage) -> list[str]:
    return [step.text for step in stage.trace.steps if step.kind == "log"]


def test_a_notify_of_this_node_is_logged_and_goes_to_its_own_route(stage: Stage) -> None:
    itself = stage.source("10.10.11.11")
    itself.calls("sip:ops@10.10.11.11", caller="watchdog", method="NOTIFY")
    itself.gets(200)
    [line] = logged(stage)
    assert "sip:watchdog@10.10.11.11" in line
    assert "sip:ops@10.10.11.11" in line
    stage.is_over()


@pytest.mark.parametrize("address", ["10.10.11.12", "10.10.11.13"])
def test_the_description_of_a_media_server_leaves_with_the_public_address(stage: Stage, address: str) -> None:
    server, carrier = stage.source(address), stage.source("198.51.100.7")
    server.calls("+4930123")
    invite = carrier.gets("INVITE")
    lines = invite.body.decode().splitlines()
    assert [line for line in lines if line.startswith("c=")] == ["c=IN IP4 204.1.7.4"]
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("o=")] == ["204.1.7.4"]
    assert "a=direction:active" in lines
    assert address not in invite.body.decode()
    [line] = logged(stage)
    assert f"sip:1000@{address}" in line
    assert "sip:+4930123@" in line


def test_another_request_of_a_media_server_is_logged_by_method_and_user(stage: Stage) -> None:
    server, carrier = stage.source("10.10.11.13"), stage.source("198.51.100.7")
    server.calls("+4930123", caller="box", method="MESSAGE")
    assert carrier.gets("MESSAGE").uri == "sip:+4930123@198.51.100.7"
    carrier.answers(200)
    server.gets(200)
    [line] = logged(stage)
    assert "MESSAGE" in line
    assert "box" in line


def test_the_flag_is_there_in_the_failure_route(stage: Stage) -> None:
    voice, carrier = stage.source("10.10.11.100"), stage.source("198.51.100.7")
    voice.calls("+4930123")
    invite = carrier.gets("INVITE")
    assert b"a=direction:active" not in invite.body
    carrier.answers(486)
    voice.gets(486)
    [line] = logged(stage)
    assert "486" in line
    stage.is_over()


def test_nobody_else_gets_through(stage: Stage) -> None:
    carrier = stage.source("198.51.100.7")
    carrier.calls("100")
    carrier.gets(403)
    itself = stage.source("10.10.11.11")
    itself.calls("100")
    itself.gets(403)
    stage.is_over()


def octets(stage: Stage) -> list[bytes]:
    """All that a node sends in all of it. Identifiers are counted up on a stage, so nothing is random."""
    names = {"10.10.11.11": "itself", "10.10.11.12": "first", "10.10.11.13": "second", "10.10.11.100": "voice"}
    carrier = stage.source("198.51.100.7")
    for address, name in names.items():
        party = stage.source(address)
        party.name = name  # which its Call-IDs begin with
        party.calls("sip:ops@10.10.11.11", method="NOTIFY")
        party.calls("+4930123")
        if address != "10.10.11.11":
            for status in (180, 200) if name != "second" else (486,):
                while carrier.inbox and (carrier.line is None or carrier.line.request is None):
                    message = carrier.inbox[0]
                    carrier.gets(message.method if message.is_request else message.status)
                    if message.is_request and message.method == "NOTIFY":
                        carrier.answers(481)
                carrier.answers(status)
            if name != "second":
                party.turns_to(party.opened)
                party.hangs_up()
    stage.after(200)
    sent = [seen.data for seen in stage.trace.messages if not seen.sender]
    stage.close()
    return sent


def test_all_three_send_the_same_octets(tmp_path: Path) -> None:
    first, second, third = octets(configured()), octets(written()), octets(imported(tmp_path))
    assert len(first) > 20
    assert [data.split(b"\r\n")[0] for data in first] == [data.split(b"\r\n")[0] for data in third]
    assert first == third
    assert second == third
