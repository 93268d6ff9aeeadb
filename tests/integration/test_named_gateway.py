"""A carrier known by its name only: calls through a real SBC while its first server is dead, and then the DNS."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.loopback import CALLEE, CORE, NETWORK, loopback
from tests.support.name_server import NameServer, serving
from tests.support.sbc import eventually, running

DEAD = f"{NETWORK}.99"  # where nobody listens
TTL_MIN_S = 5.0


@pytest.mark.slow
@pytest.mark.peer("sipp")
def test_a_dead_server_costs_one_call_a_wait_and_a_dead_dns_none(tmp_path: Path) -> None:
    dns = NameServer(
        {
            ("pbx.example", "NAPTR"): ['10 10 "s" "SIP+D2U" "" _sip._udp.pbx.example.'],
            ("one.pbx.example", "A"): [DEAD],
            ("two.pbx.example", "A"): [CALLEE],
        },
        ttl_s=1,
    )
    with serving(dns, CORE) as (host, port):
        net = loopback(more=f"name_servers: ['{host}:{port}']\ntimers: {{ t1_ms: 20 }}\n")
        dns.zone["_sip._udp.pbx.example", "SRV"] = [
            f"0 0 {net.callee_port} one.pbx.example.",
            f"1 0 {net.callee_port} two.pbx.example.",
        ]
        text = net.text.replace(f"sip:{CALLEE}:{net.callee_port}", "sip:pbx.example")
        text = text.replace(f"addresses: {CALLEE},", f"addresses: [{CALLEE}, {DEAD}],")
        with running(tmp_path / "sbc", text) as sbc, net.callee(tmp_path):
            with net.caller(tmp_path, "-r", "1", "-m", "1", "-d", "100") as uac:
                assert uac.finish().successful == 1
            eventually(lambda: len(sbc.cdrs()) == 1, 10, "a CDR")
            (cdr,) = sbc.cdrs()
            assert [(one["gateway"], one["uri"], one["status"]) for one in cdr["attempts"]] == [
                ("pbx", "sip:1001@pbx.example", 408),
                ("pbx", "sip:1001@pbx.example", 200),
            ]

            with net.caller(tmp_path, "-r", "20", "-m", "40", "-d", "100") as uac:
                assert uac.finish().successful == 40
            eventually(lambda: len(sbc.cdrs()) == 41, 10, "41 CDRs")
            assert [len(cdr["attempts"]) for cdr in sbc.cdrs()].count(1) == 40, "the dead server is avoided"
            assert sum(dns.asked.values()) <= 8, dns.asked

            dns.dead = True
            time.sleep(TTL_MIN_S + 0.5)
            with net.caller(tmp_path, "-r", "20", "-m", "40", "-d", "100") as uac:
                counted = uac.finish()
            assert counted.successful == 40
            assert counted.retransmissions == 0
            eventually(lambda: len(sbc.cdrs()) == 81, 10, "81 CDRs")
            slowest = max(one["pdd_ms"] for cdr in sbc.cdrs()[41:] for one in cdr["attempts"])
            assert slowest < 400
            assert sbc.total("DNS_TIMEOUTS") >= 1
            assert sbc.total("RESOLVE_FAILED") == 0


@pytest.mark.peer("sipp")
def test_a_name_that_leads_nowhere_is_503(tmp_path: Path) -> None:
    with serving(NameServer({}), CORE) as (host, port):
        net = loopback(more=f"name_servers: ['{host}:{port}']\n")
        text = net.text.replace(f"sip:{CALLEE}:{net.callee_port}", "sip:pbx.example")
        with running(tmp_path / "sbc", text) as sbc:
            with net.caller(tmp_path, "-r", "5", "-m", "5") as uac:
                assert uac.finish(expect_success=False).failed == 5
            eventually(lambda: len(sbc.cdrs()) == 5, 10, "5 CDRs")
            assert {(cdr["status"], cdr["answered"]) for cdr in sbc.cdrs()} == {(503, False)}
            assert sbc.total("RESOLVE_FAILED") == 5
            assert "name of a gateway leads nowhere" in sbc.log
