"""Processes die while calls are up: what the callers and callees notice, and what is left behind."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.support.callers import site, spread
from tests.support.loopback import loopback
from tests.support.sbc import eventually

HALF = 100


def test_no_call_is_lost_with_a_sip_worker(tmp_path: Path) -> None:
    """kill -9 of one of two SIP workers with 200 calls up: each is ended with BYE, by the caller or by the callee, at
    once after the death; the BYE is answered within a second and crosses; each call has one record."""
    with site(tmp_path, loopback(sip=2, media=2)) as at:
        pairs = at.establish(2 * HALF)
        owned = Counter(row["worker"] for row in at.sbc.calls())
        asked_early = at.ringing(10)

        print(f"calls {dict(owned)}")
        died = at.sbc.kill("sip 0")
        start = time.monotonic()
        asked = at.end(pairs)
        respawn_s = at.sbc.respawned("sip 0", died)
        ready_s = eventually(lambda: not at.sbc.ask("calls", limit=0)["no_answer"], 5, "an answer from the new one")
        print(f"respawn {respawn_s:.3f} s, answers {time.monotonic() - start - ready_s:.3f} s")
        print(f"BYE answered: {spread(one.took_s for one in asked)}, sent {Counter(one.sent for one in asked)}")
        assert max(one.took_s for one in asked) < 1.0
        for pair in asked_early:
            at.caller.cancel(pair.a)
        at.settled(210)
