"""The number of SIP workers changes by a reload, with calls up and new ones coming."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.support.callers import site
from tests.support.load import Load
from tests.support.loopback import loopback
from tests.support.sbc import eventually


def test_more_and_fewer_sip_workers_without_a_lost_call(tmp_path: Path) -> None:
    """2, then 3, then 1: every call that was up, rang or came meanwhile is up and can be ended by either side; each has
    one record. Media workers cannot change so, and that is said."""
    net = loopback(sip=2, media=1)
    with site(tmp_path, net) as at:
        path = at.sbc.directory / "sbc.yaml"
        text = path.read_text()

        def workers() -> set[str]:
            return {name for name in at.sbc.pids() if name.startswith("sip")}

        def change(sip: int, media: int = 1) -> None:
            path.write_text(text.replace("sip: 2, media: 1", f"sip: {sip}, media: {media}"))
            os.kill(at.sbc.main_pid, signal.SIGHUP)

        pairs = at.establish(30)
        for rounds, sip in enumerate((3, 1), 1):
            ringing = at.ringing(3)
            with Load(at) as load:
                for pair in ringing:
                    threading.Timer(1.0, at.callee.answer, [pair.b]).start()
                change(sip)
                eventually(
                    lambda n=rounds: at.sbc.log.count("SIP workers relieved") == n,  # type: ignore[misc]
                    60,
                    f"{sip} SIP workers: {at.sbc.log}",
                )
            pairs += at.pairs([*load.placed, *[pair.a for pair in ringing]])
            eventually(lambda n=sip: len(workers()) == n, 5, f"{sip} SIP workers: {workers()}")  # type: ignore[misc]
            rows = [row for row in at.sbc.ask("status")["processes"] if row["kind"] == "sip"]
            assert {row["state"] for row in rows} == {"ready"}
            up = len(pairs)
            eventually(lambda n=up: len(at.sbc.calls()) == n, 10, "all calls")  # type: ignore[misc]
            assert {row["worker"] for row in at.sbc.calls()} == workers()
        assert all(pair.a.got == [] for pair in pairs)

        change(1, media=2)
        eventually(lambda: "workers.media: a change takes a restart" in at.sbc.log, 5, "a refusal")

        # A worker that dies is followed by one of its seat, and so is a supervisor by one that knows the seats.
        os.kill(at.sbc.supervisor_pid, signal.SIGKILL)
        eventually(lambda: "took over from a supervisor that died" in at.sbc.log, 10, "another supervisor")
        (name,) = workers()
        died = at.sbc.kill(name)
        at.sbc.respawned(name, died)
        eventually(lambda: len(at.sbc.calls()) == len(pairs), 10, "all calls with the successor")
        at.end(pairs)
        at.settled(len(pairs))
