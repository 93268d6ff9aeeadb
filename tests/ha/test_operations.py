"""What the supervisor sees to while calls are up: a worker that dies or hangs, and a new configuration."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.support.agents import Agent
from tests.support.callers import site, spread
from tests.support.loopback import NETWORK, OUTSIDE, loopback
from tests.support.sbc import eventually

NEWCOMER = f"{NETWORK}.14"


def test_each_call_has_one_record_though_the_control_worker_dies(tmp_path: Path) -> None:
    """kill -9 of the control worker, three times, between and amid calls that end."""
    with site(tmp_path, loopback(sip=2, media=1)) as at:
        pairs = at.establish(120)
        took = []
        for round_ in range(3):
            at.end(pairs[40 * round_ : 40 * round_ + 20])
            died = at.sbc.kill("control")
            at.end(pairs[40 * round_ + 20 : 40 * (round_ + 1)])
            took.append(at.sbc.respawned("control", died))
        print("control there again", [round(seconds, 3) for seconds in took])
        start = time.monotonic()
        assert at.sbc.ask("ping") == "pong"
        print(f"the last one answers {time.monotonic() - start:.3f} s later")
        at.settled(120)


def test_a_sip_worker_that_hangs_is_replaced_and_its_calls_live(tmp_path: Path) -> None:
    """SIGSTOP of a SIP worker: the watchdog ends it within four seconds and its successor has its calls."""
    with site(tmp_path, loopback(sip=2, media=1)) as at:
        pairs = at.establish(40)
        hung = at.sbc.pids()["sip 1"]
        os.kill(hung, signal.SIGSTOP)
        asked = [at.caller.hang_up(pair.a) for pair in pairs[:10]]  # some of them at the one that hangs
        replaced_s = at.sbc.respawned("sip 1", hung)
        eventually(lambda: all(one.status == 200 for one in asked), 5, "an answer to every BYE")
        print(f"replaced after {replaced_s:.2f} s; BYE meanwhile {spread(one.took_s for one in asked)}")
        assert replaced_s < 4.5
        eventually(lambda: all(pair.b.ended_by_far for pair in pairs[:10]), 5, "each BYE at the callee")
        at.end(pairs[10:])
        at.settled(40)


def test_a_reload_takes_over_a_good_file_and_refuses_a_bad_one(tmp_path: Path) -> None:
    """SIGHUP with a fault in the file: refused, the old configuration serves. With a new peer: its calls are taken.
    A call that is up notices nothing."""
    net = loopback(sip=2, media=1)
    with site(tmp_path, net) as at, Agent(NEWCOMER) as newcomer:
        path = at.sbc.directory / "sbc.yaml"
        good = path.read_text()
        pairs = at.establish(4)

        path.write_text(good.replace("direction: from_pbx", "directon: from_pbx"))
        os.kill(at.sbc.main_pid, signal.SIGHUP)
        eventually(lambda: "did you mean 'direction'" in at.sbc.log, 5, "a refusal in the log")
        assert "configuration reloaded" not in at.sbc.log
        pairs += at.establish(4)

        unknown = newcomer.call((OUTSIDE, net.port), "1900000")
        time.sleep(0.7)
        assert not unknown.asked["INVITE"].provisional
        assert not unknown.asked["INVITE"].status

        peer = f"  newcomer: {{ realm: outside, addresses: {NEWCOMER}, direction: from_carrier, calls_to: pbx }}\n"
        path.write_text(good.replace("  pbx:", peer + "  pbx:"))
        os.kill(at.sbc.main_pid, signal.SIGHUP)
        reloaded_s = eventually(lambda: "configuration reloaded" in at.sbc.log, 5, "a reload")
        eventually(lambda: at.sbc.total("RELOADS") == 2, 5, "both workers with the new configuration")
        taken = [newcomer.call((OUTSIDE, net.port), f"19{n:05}") for n in range(1, 9)]  # on both workers
        taken.append(unknown)  # sent again until somebody knew its source
        eventually(lambda: all(call.up for call in taken), 10, "calls of the new peer")
        print(f"reloaded {reloaded_s:.3f} s after the signal")
        asked = [newcomer.hang_up(call) for call in taken]
        eventually(lambda: all(bye.status == 200 for bye in asked), 5, "an answer to every BYE")
        at.end(pairs)
        at.settled(8 + 9)
        assert all(pair.a.got in ([], ["BYE"]) for pair in pairs)
