"""Processes die while calls are up: what the callers and callees notice, and what is left behind."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.support.callers import site, spread
from tests.support.loopback import loopback
from tests.support.sbc import eventually
from tests.support.store import records


def test_no_call_is_lost_with_a_sip_worker(tmp_path: Path) -> None:
    """kill -9 of one of two SIP workers with 200 calls up: each is ended with BYE, by the caller or by the callee, at
    once after the death; the BYE is answered within a second and crosses; each call has one record. Calls that were
    ringing end: the caller has a final answer at once, the callee a CANCEL, or ACK and BYE where he answers at that
    moment, and there is one record that says why."""
    with site(tmp_path, loopback(sip=2, media=2)) as at:
        pairs = at.establish(200)
        ringing = at.ringing(20)
        stored = at.sbc.directory / "run" / "store.sock"
        eventually(lambda: records(stored) == 220, 5, "a record of each call, also of those that ring")
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
        assert len(lost) > 2
        for pair in lost[::2]:
            with suppress(AssertionError):  # it does not ring any more
                at.callee.answer(pair.b)  # too late, or just before the CANCEL
        eventually(lambda: all(pair.a.asked["INVITE"].status for pair in lost), 8, "a final answer to each caller")
        print(f"callers told: {spread(pair.a.asked['INVITE'].took_s for pair in lost)} after their INVITE")
        for pair in lost:
            refusal = pair.a.asked["INVITE"].reply
            assert refusal is not None
            assert (refusal.status, refusal.one("reason")) == (500, "Q.850;cause=41")
        eventually(lambda: all(pair.b.ended_by_far for pair in lost), 8, "each callee told")
        assert all("BYE" in pair.b.got or "CANCEL" in pair.b.got for pair in lost)
        assert not any(pair.b.answer and not pair.b.up for pair in lost), "a 200 without ACK"

        cancelled = [(pair, at.caller.cancel(pair.a)) for pair in ringing]
        eventually(lambda: all(cancel.status for _, cancel in cancelled), 5, "an answer to each CANCEL")
        assert {cancel.status for _, cancel in cancelled} == {200}, "lost ones are remembered as well"
        assert at.sbc.total("CALLS_RESUMED") == owned["sip 0"]
        assert at.sbc.total("SETUPS_LOST") == len(lost)
        assert at.sbc.total("MEDIA_ORPHANS") == 0
        at.settled(200 + len(ringing))
        notes = Counter(cdr["note"] for cdr in at.sbc.cdrs() if not cdr["answered"])
        assert notes == {"": len(ringing) - len(lost), "the worker died while the call was being set up": len(lost)}
        assert records(stored) == 0


def test_a_callee_that_answers_a_call_that_was_too_young_is_hung_up_on(tmp_path: Path) -> None:
    """Calls that had not been in setup long enough to be in the journal, when their worker was killed: who answers them
    gets ACK and BYE, and no media session is left."""
    with site(tmp_path, loopback(more="timers: { setup_record_after_ms: 60000 }\n")) as at:
        ringing = at.ringing(10)
        at.sbc.respawned("sip 0", at.sbc.kill("sip 0"))
        for pair in ringing:
            at.callee.answer(pair.b)
        took_s = eventually(lambda: all(pair.b.ended_by_far for pair in ringing), 10, "each callee hung up on")
        print(f"all ended {took_s:.3f} s after the answers")
        assert all(pair.b.up for pair in ringing), "acknowledged"
        assert all(pair.b.got == ["BYE"] for pair in ringing)
        assert at.sbc.total("STRAY_ANSWERS_ENDED") == 10
        at.settled(0)
