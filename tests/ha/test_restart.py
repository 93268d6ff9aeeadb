"""The whole SBC is stopped and started again, or dies, with calls up."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.callers import Site, agents, site, spread
from tests.support.loopback import loopback
from tests.support.sbc import eventually, has_ended, running
from tests.support.store import StoreServer

TIMERS = "timers: { drain_timeout_s: 0.3 }\n"


@pytest.mark.parametrize("after", [3, 1])
def test_calls_outlive_a_restart_with_another_number_of_sip_workers(tmp_path: Path, after: int) -> None:
    """Stopped with 2 SIP workers and 20 calls up, started with 3 and with 1: the stop ends no call, each can be ended
    by either side afterwards, and has one record. Its media session is still there. Calls that ring go on ringing."""
    store = StoreServer(tmp_path)
    store.start()
    url = f"unix://{store.path}"
    net = loopback(sip=2, media=1, store=url, more=TIMERS)
    try:
        with agents(net) as (caller, callee):
            with running(tmp_path / "sbc", net.text) as sbc:
                at = Site(sbc, net, caller, callee)
                pairs, ringing = at.establish(20), at.ringing(4)
                stopped_with = at.media_sessions()
            for pair in [*pairs, *ringing]:
                assert not pair.a.got, "the stop has said something to the caller"
                assert not pair.b.got, "the stop has said something to the callee"
            text = net.text.replace("sip: 2,", f"sip: {after},")
            with running(tmp_path / "sbc", text) as sbc:
                at = Site(sbc, net, caller, callee)
                owned = Counter(row["worker"] for row in sbc.calls())
                print(f"media sessions before {stopped_with}, after {at.media_sessions()}; calls {dict(owned)}")
                assert sum(owned.values()) == at.media_sessions() == stopped_with == 24
                assert len(owned) == after or 1 < len(owned) < after  # chance may leave one without
                assert sbc.total("SETUPS_CARRIED") == 4
                for pair in ringing:
                    callee.answer(pair.b)
                eventually(lambda: all(pair.a.up and pair.b.up for pair in ringing), 10, "those that rang are up")
                asked = at.end([*pairs, *ringing])
                print(f"BYE answered: {spread(one.took_s for one in asked)}")
                at.settled(24)
                assert all(cdr["resumed"] for cdr in sbc.cdrs())
    finally:
        store.kill()


def test_a_stop_lets_calls_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    """SIGTERM: a call that is up ends normally and is recorded, a new INVITE gets 503, then everything has ended."""
    net = loopback(sip=2, media=1, more="timers: { drain_timeout_s: 20 }\n")
    with site(tmp_path, net) as at:
        pairs = at.establish(4)
        os.kill(at.sbc.main_pid, signal.SIGTERM)
        eventually(lambda: at.sbc.log.count('"draining"') == 2, 5, "both workers draining")
        refused = at.place(6)
        eventually(lambda: all(call.asked["INVITE"].status for call in refused), 5, "an answer to new calls")
        assert {call.asked["INVITE"].status for call in refused} == {503}
        time.sleep(1)
        assert all(at.sbc.pids().get(name) for name in ("sip 0", "sip 1", "media 0", "control", "store"))
        at.end(pairs)
        gone_s = eventually(lambda: has_ended(at.sbc.main_pid), 10, "the end of it all")
        print(f"ended {gone_s:.3f} s after the last call")
        assert len(at.sbc.cdrs()) == 4


def test_a_killed_keeper_leaves_nobody_behind(tmp_path: Path) -> None:
    """kill -9 of the keeper: all others end by themselves, calls up or not, and another SBC can start in the same
    place at once. The embedded store ends with them, so the calls of that time are not known any more."""
    net = loopback(sip=2, media=1)
    with site(tmp_path, net) as at:
        at.end(at.establish(2))
        at.settled(2)
        left_up = at.establish(2)
        children = at.sbc.pids()
        assert len(children) == 5
        children["supervisor"] = at.sbc.supervisor_pid
        os.kill(at.sbc.main_pid, signal.SIGKILL)
        gone_s = eventually(lambda: all(has_ended(pid) for pid in children.values()), 10, "the end of all children")
        print(f"children ended {gone_s:.3f} s after the keeper")
        assert gone_s < 3
        with running(tmp_path / "sbc", net.text) as sbc:
            again = Site(sbc, net, at.caller, at.callee)
            print("calls known after that start:", len(sbc.calls()), "of", len(left_up))
            again.end(again.establish(2))
            again.settled(4)
