"""Calls by SIPp through a real SBC on loopback: many workers, one source address."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.loopback import loopback
from tests.support.sbc import eventually, running


@pytest.mark.peer("sipp")
def test_500_concurrent_calls_from_one_address_reach_every_worker(tmp_path: Path) -> None:
    """50 calls/s to 500 concurrent on 2 SIP and 2 media workers: none fails, nothing is sent twice, all work."""
    net = loopback(sip=2, media=2)
    with running(tmp_path / "sbc", net.text) as sbc, net.callee(tmp_path) as uas:
        with net.caller(tmp_path, "-r", "50", "-m", "550", "-d", "10500", "-l", "600") as uac:
            eventually(lambda: sbc.ask("calls", limit=0)["total"] >= 500, 20, "500 calls at the same time")
            up = sbc.calls()
            counted = uac.finish()
        assert counted.successful == 550
        assert counted.retransmissions == 0
        assert uas.counted().retransmissions == 0
        assert sbc.total("RETRANSMISSION_OUT") == 0
        assert sbc.total("RETRANSMISSION_IN") == 0
        # Half of the calls each, as far as chance goes: 150 of 500 is nine standard deviations away.
        for column in ("worker", "media_node"):
            share = Counter(call[column] for call in up)
            assert len(share) == 2
            assert min(share.values()) > 150, share
        eventually(lambda: len(sbc.cdrs()) >= 550, 10, "550 CDRs")
        cdrs = sbc.cdrs()
        assert len({cdr["id"] for cdr in cdrs}) == len(cdrs) == 550
        assert all(cdr["answered"] and cdr["hangup"] == "a" for cdr in cdrs)
