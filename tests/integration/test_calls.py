"""Calls by SIPp through a real SBC on loopback: many workers, one source address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sbc import eventually, free_port, running
from tests.support.sipp import Sipp

CALLER, CALLEE = "127.0.1.11", "127.0.1.12"
OUTSIDE, CORE = "127.0.1.1", "127.0.1.2"

CONFIG = """\
workers: {{ sip: {sip}, media: {media} }}
store: {store}
realms:
  outside:
    listen: [udp:{outside}:{outside_port}]
    media: {{ address: {outside}, ports: 30000-35999 }}
  core:
    listen: [udp:{core}:{core_port}]
    media: {{ address: {core}, ports: 36000-41999 }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {caller}, direction: from_carrier, calls_to: pbx }}
  pbx: {{ realm: core, addresses: {callee}, direction: from_pbx, gateway: "sip:{callee}:{callee_port}" }}
"""


def config(*, sip: int = 2, media: int = 2, store: str = "embedded") -> tuple[str, int, int]:
    """A configuration, the SBC's port towards the caller, and the port where the callee is expected."""
    outside_port, callee_port = free_port(OUTSIDE), free_port(CALLEE)
    text = CONFIG.format(
        sip=sip,
        media=media,
        store=store,
        outside=OUTSIDE,
        core=CORE,
        caller=CALLER,
        callee=CALLEE,
        outside_port=outside_port,
        core_port=free_port(CORE),
        callee_port=callee_port,
    )
    return text, outside_port, callee_port


def callee(directory: Path, port: int, *words: str, scenario: str = "uas") -> Sipp:
    return Sipp(scenario, directory, "-i", CALLEE, "-p", str(port), "-mi", CALLEE, *words)


def caller(directory: Path, port: int, *words: str, scenario: str = "uac") -> Sipp:
    return Sipp(scenario, directory, "-i", CALLER, "-mi", CALLER, "-s", "1001", f"{OUTSIDE}:{port}", *words)


@pytest.mark.peer("sipp")
def test_500_concurrent_calls_from_one_address_reach_every_worker(tmp_path: Path) -> None:
    """50 calls/s to 500 concurrent on 2 SIP and 2 media workers: none fails, nothing is sent twice, all work."""
    text, port, far = config()
    with running(tmp_path / "sbc", text) as sbc:
        uas = callee(tmp_path, far)
        uac = caller(tmp_path, port, "-r", "50", "-m", "700", "-d", "10000", "-l", "600")
        eventually(lambda: len(sbc.calls()) >= 495, 20, "495 calls at the same time")
        used = {call["media_node"] for call in sbc.calls()}
        counted = uac.finish()
        uas.stop()
        assert counted.successful == 700
        assert counted.retransmissions == 0
        assert uas.counted().retransmissions == 0
        assert used == {"media-0", "media-1"}
        started = {name: process["counters"]["CALLS_STARTED"] for name, process in sbc.ask("status")["processes"].items()
                   if name.startswith("sip")}
        assert len(started) == 2
        assert min(started.values()) > 200
        eventually(lambda: len(sbc.cdrs()) == 700, 10, "700 CDRs")
