"""Every process dies in its turn while calls come and go."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path

from tests.support.agents import Asked, UaCall
from tests.support.callers import site, spread
from tests.support.loopback import OUTSIDE, loopback
from tests.support.sbc import eventually

RATE, HOLD_S, TRAFFIC_S = 80, 0.4, 7.0
# When who dies. A SIP worker takes its memory of calls along, which the store holds alone until a successor has them:
# that is what lies between the death of the one and that of the other.
DEATHS = [(1.0, "sip 0"), (1.5, "media 0"), (2.0, "sip 1"), (2.3, "media 1"), (4.2, "store"), (5.0, "sip 0")]
DEATHS += [(5.5, "control"), (6.0, "sip 1")]


def test_nothing_is_lost_in_silence_while_one_process_after_the_other_dies(tmp_path: Path) -> None:
    """Every answered call can be ended, and has one record or (killed between its BYE and its record, until media has
    been silent for too long) is still known; only calls that were being set up at a death may be lost."""
    with site(tmp_path, loopback(sip=2, media=2)) as at:
        calls: list[UaCall] = []
        talking: deque[tuple[float, UaCall]] = deque()
        byes: list[Asked] = []
        deaths = deque(DEATHS)
        start = time.monotonic()
        while (now := time.monotonic() - start) < TRAFFIC_S:
            if deaths and now >= deaths[0][0]:
                at.sbc.kill(deaths.popleft()[1])
            if len(calls) < now * RATE:
                calls.append(at.caller.call((OUTSIDE, at.net.port), f"1{len(calls):06}"))
                talking.append((now + HOLD_S, calls[-1]))
            if talking and talking[0][0] <= now:
                _, call = talking.popleft()
                if call.up:
                    byes.append(at.caller.hang_up(call))
                elif not call.asked["INVITE"].status:
                    talking.append((now + HOLD_S, call))
            time.sleep(0.002)
        time.sleep(1)
        byes += [at.caller.hang_up(call) for call in calls if call.up and "BYE" not in call.asked]
        eventually(lambda: all(bye.status for bye in byes), 10, "an answer to every BYE")

        answers = Counter(call.asked["INVITE"].status for call in calls)
        print(f"INVITE {dict(answers)}; BYE {spread(bye.took_s for bye in byes)}")
        assert {bye.status for bye in byes} == {200}
        assert answers[200] > len(calls) * 0.95
        answered = {call.call_id for call in calls if call.up}

        def accounted() -> bool:
            known = {row["a_call_id"] for row in at.sbc.calls()} | {cdr["a_call_id"] for cdr in at.sbc.cdrs()}
            return answered <= known

        eventually(accounted, 10, "a record of every answered call that is not known any more")
        live = at.sbc.calls()
        recorded = Counter(cdr["a_call_id"] for cdr in at.sbc.cdrs())
        print(f"{len(recorded)} records, {len(live)} calls killed between BYE and record, {len(calls)} calls in all")
        assert set(recorded.values()) == {1}
        assert all(row["resumed"] for row in live)
        assert len(live) < 20
        eventually(lambda: at.media_sessions() == len(live), 10, "no media session without a call")
