"""CDRs when the store is not the only thing that fails: the SIP workers die with it, or the disk takes nothing."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from tests.support.callers import site
from tests.support.loopback import loopback
from tests.support.sbc import eventually


def test_calls_that_have_ended_are_recorded_though_all_that_knew_of_them_dies(tmp_path: Path) -> None:
    """kill -9 of both SIP workers, the control worker and the store, 0.4 s after the last of 40 calls has ended."""
    with site(tmp_path, loopback(sip=2, media=1)) as at:
        at.end(at.establish(40))
        time.sleep(0.4)
        died = {name: at.sbc.kill(name) for name in ("control", "store", "sip 0", "sip 1")}
        written = len(at.sbc.cdrs())
        for name, pid in died.items():
            at.sbc.respawned(name, pid)
        at.settled(40)
        print(f"{written} of 40 were in the database when all died")


def test_a_disk_that_takes_nothing_costs_no_call_and_no_record(tmp_path: Path) -> None:
    """No file of the SIP worker may grow (its log neither): calls come and go, the cause is told, and what the store
    has not taken either goes to the disk when there is room."""
    with site(tmp_path, loopback(sip=1, media=1)) as at:
        pid = at.sbc.pids()["sip 0"]
        before = at.establish(10)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        at.end(before[:5])
        eventually(lambda: "spool_error" in at.sbc.ask("status")["cdr"], 5, "an alarm")
        said = at.sbc.ask("status")["cdr"]["spool_error"]
        assert said.startswith("sip 0: cannot write ")
        assert said.endswith("spool/sip-0: file too large")
        at.end(at.establish(10))
        at.end(before[5:])
        eventually(lambda: len(at.sbc.cdrs()) == 20, 10, "records by way of the store")
        assert "spool_error" in at.sbc.ask("status")["cdr"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        eventually(lambda: "spool_error" not in at.sbc.ask("status")["cdr"], 5, "the end of the alarm")
        at.end(at.establish(5))
        at.settled(25)
