"""Processes die while calls are up: what the callers and callees notice, and what is left behind."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.support.callers import site, spread
from tests.support.loopback import loopback
from tests.support.sbc import eventually


def test_no_call_is_lost_with_a_sip_worker(tmp_path: Path) -> None:
    """kill -9 of one of two SIP workers with 200 calls up: each is ended with BYE, by the caller or by the callee, at
    once after the death; the BYE is answered within a second and crosses; each call has one record. Calls that were
    ringing are lost with the worker, and leave nothing behind."""
    with site(tmp_path, loopback(sip=2, media=2)) as at:
        pairs = at.establish(200)
        ringing = at.ringing(20)
        owner = {row["a_call_id"]: row["worker"] for row in at.sbc.calls()}
        owned = Counter(owner[pair.a.call_id] for pair in pairs)
        assert min(owned.values()) > 50, owned

        died = at.sbc.kill("sip 0")
        start = time.monotonic()
        asked = at.end(pairs)
        respawn_s = at.sbc.respawned("sip 0", died)
        answers_s = eventually(lambda: not at.sbc.ask("calls", limit=0)["no_answer"], 5, "an answer from the new one")
        print(f"calls {dict(owned)}; there again {respawn_s:.3f} s, all ended {time.monotonic() - start:.3f} s")
        print(f"BYE answered: {spread(one.took_s for one in asked)}, sent {Counter(one.sent for one in asked)}")
        assert max(one.took_s for one in asked) < 1.0
        assert answers_s < 1.0

        lost = [pair for pair in ringing if owner[pair.a.call_id] == "sip 0"]
        for pair in lost[::2]:
            at.callee.answer(pair.b)  # of a call that nobody knows any more
        cancelled = [(pair, at.caller.cancel(pair.a)) for pair in ringing]
        eventually(lambda: all(cancel.status for _, cancel in cancelled), 5, "an answer to each CANCEL")
        for pair, cancel in cancelled:
            assert cancel.status == (481 if pair in lost else 200)
        assert at.sbc.total("CALLS_RESUMED") == owned["sip 0"]
        assert at.sbc.total("MEDIA_ORPHANS") == len(lost)
        at.settled(200 + len(ringing) - len(lost))
