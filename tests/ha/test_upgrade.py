"""Another release takes over, process by process, while calls are up and new ones come."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from sbc.worker import journals as journals_module
from tests.support.audio import Audio
from tests.support.callers import Site, agents, spread, talk
from tests.support.load import Load
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.releases import Releases
from tests.support.sbc import eventually, running


def test_no_call_is_lost_and_no_setup_fails(tmp_path: Path) -> None:
    """40 calls talk, some ring, ten a second come: afterwards all processes are of the new release, all calls are up,
    and each can be ended by either side and has one record. A release that is broken is refused, and calls go on."""
    releases = Releases(tmp_path)
    net = loopback(sip=2, media=1)
    with (
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        agents(net, near.open, far.open) as (caller, callee),
        running(tmp_path / "sbc", net.text, prefix=releases.prefix) as sbc,
    ):
        at = Site(sbc, net, caller, callee)
        pairs = at.establish(40)
        everyone = talk(pairs, near, far)
        ringing = at.ringing(4)
        before = at.sbc.pids()
        start = time.monotonic()

        releases.install("0.1.1", spoil=("sbc/worker/relief.py", "def broken(:\n"))
        outcome = releases.upgrade(sbc)
        assert outcome["state"] == "refused"
        assert "SyntaxError" in str(outcome["reasons"])
        assert at.sbc.pids() == before

        # This one loads, and its workers do not start: that is found out at the first one, and nothing has changed.
        journals = Path(journals_module.__file__).read_text()
        text = journals.replace("    config = slot.config\n", "    raise RuntimeError('no such table')\n")
        releases.install("0.1.2", spoil=("sbc/worker/journals.py", text))
        outcome = releases.upgrade(sbc)
        assert outcome["state"] == "failed"
        assert outcome["reasons"] == ["sip 2 ended before it was ready: no such table"]
        eventually(lambda: sbc.log.count("took over from a supervisor that died") == 1, 15, "the former release")
        assert at.sbc.pids() == before

        releases.install("9.9.9")
        with Load(at) as load:
            time.sleep(0.5)
            for pair in ringing[:2]:  # answered while a worker is relieved
                threading.Timer(2.0, callee.answer, [pair.b]).start()
            for pair in ringing[2:]:
                threading.Timer(4.0, caller.cancel, [pair.a]).start()
            outcome = releases.upgrade(sbc)
        print(f"upgraded in {time.monotonic() - start:.1f} s, {len(load.placed)} calls came: {outcome}")
        assert outcome["state"] == "done", sbc.log
        silence_s = [stream.longest_silence(start, time.monotonic()) for stream in everyone]
        print(f"silence {spread(silence_s)}")
        statuses = [call.asked["INVITE"].status for call in load.placed]
        eventually(lambda: all(call.up for call in load.placed), 10, f"all calls that came: {statuses}")
        assert {row["version"] for row in at.sbc.ask("status")["processes"]} == {"9.9.9"}
        assert not set(at.sbc.pids().values()) & {pid for name, pid in before.items() if name != "store"}
        near.talking = far.talking = False
        pairs += at.pairs(load.placed)
        pairs += at.pairs([pair.a for pair in ringing[:2]])
        assert all(pair.a.got in ([], ["BYE"]) for pair in pairs)
        at.end(pairs)
        assert {pair.a.asked["INVITE"].status for pair in ringing[2:]} == {487}
        at.settled(len(pairs) + 2)
        assert max(silence_s) < 2  # 0.1 s on a machine with nothing else to do
