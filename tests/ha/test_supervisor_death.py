"""The supervisor dies while calls are up (P5): nobody notices, and another one sees to the workers as it did."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.support.audio import Audio
from tests.support.callers import site, spread, talk
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.sbc import eventually, has_ended

TAKEN_OVER = "took over from a supervisor that died"


def test_calls_go_on_and_another_supervisor_adopts_the_workers(tmp_path: Path) -> None:
    """kill -9 of the supervisor with 40 calls up: no worker is another process, audio goes on, BYE is answered. The new
    one starts a SIP worker, a media worker and the store again when they die, reloads, drains and ends everything."""
    net = loopback(sip=2, media=1, more="timers: { drain_timeout_s: 10 }\n")
    with Audio(CALLER) as near, Audio(CALLEE) as far, site(tmp_path, net, near.open, far.open) as at:
        pairs = at.establish(40)
        talk(pairs, near, far)
        workers, first = at.sbc.pids(), at.sbc.supervisor_pid
        assert set(workers) == {"sip 0", "sip 1", "media 0", "control", "store"}

        start = time.monotonic()
        os.kill(first, signal.SIGKILL)
        asked = at.end(pairs[:10])
        took_s = eventually(lambda: TAKEN_OVER in at.sbc.log, 3, "another supervisor")
        print(f"another supervisor at most {time.monotonic() - start:.3f} s after the death, {took_s:.3f} s after BYEs")
        print(f"BYE meanwhile {spread(one.took_s for one in asked)}")
        assert at.sbc.pids() == workers
        assert at.sbc.supervisor_pid not in (0, first)
        time.sleep(0.3)
        left = [near.streams[pair.a.audio_port] for pair in pairs[10:]]
        silences = [stream.longest_silence(start, time.monotonic()) for stream in left]
        print(f"silence {spread(silences)}")
        assert max(silences) < 0.5

        for name in ("sip 0", "media 0", "sip 0", "store"):  # adopted ones, and one of its own
            died = at.sbc.kill(name)
            respawn_s = at.sbc.respawned(name, died)
            print(f"{name} there again {respawn_s:.3f} s")
            eventually(lambda: len(at.sbc.calls()) == 30, 10, "all calls with their workers")  # one fault at a time
        assert {name: pid for name, pid in at.sbc.pids().items() if name in ("sip 1", "control")} == {
            name: workers[name] for name in ("sip 1", "control")
        }
        at.end(pairs[10:20])
        eventually(lambda: len(at.sbc.cdrs()) == 20, 15, "the records of ended calls, which the store had lost")
        near.talking = far.talking = False
        pairs = pairs[20:] + at.establish(5)

        os.kill(at.sbc.main_pid, signal.SIGHUP)
        eventually(lambda: at.sbc.total("RELOADS") == 2, 5, "both SIP workers with the configuration as it is")

        os.kill(at.sbc.main_pid, signal.SIGTERM)
        eventually(lambda: at.sbc.log.count('"draining"') == 2, 5, "both workers draining")
        at.end(pairs)
        eventually(lambda: has_ended(at.sbc.main_pid), 15, "the end of it all")
        assert all(has_ended(pid) for pid in workers.values())
        ids = [cdr["id"] for cdr in at.sbc.cdrs()]
        assert len(ids) == len(set(ids)) == 45
