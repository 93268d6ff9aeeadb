"""Calls that ring while a row does something that they are to survive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import wait
from sbc.selftest.pair import PairSite
from sbc.selftest.site import Call

CALLS = 20
GIVEN_UP = 5  # of these, by their callers; the others are answered


def rang_on(two: PairSite, calls: Sequence[Call], measures: Measures) -> list[Call]:
    """Each of these rings on as if nothing had been: those that are answered come up, and are returned; the others are
    cancelled, and their callees hear of it. All are to have a record."""
    given_up, answered = calls[:GIVEN_UP], calls[GIVEN_UP:]
    ended = [call for call in calls if call.a.asked["INVITE"].status]
    cancels = [two.caller_of(call.a).cancel(call.a) for call in given_up if call not in ended]
    for call in answered:
        if call not in ended and not call.b.ended_by_far:
            two.callee.answer(call.b)
    up = [call for call in answered if _is_up(call)]
    gone = [call for call in given_up if call not in ended and _is_cancelled(call)]
    measures.note(f"run {measures.runs}: ringing calls carried {len(up) + len(gone)} of {len(calls)}")
    statuses = dict(Counter(call.a.asked["INVITE"].status for call in answered if call not in up))
    measures.expect(len(up) == len(answered), f"of {len(answered)} ringing calls {len(up)} came up, others: {statuses}")
    measures.expect(
        len(gone) == len(given_up) and all(cancel.status == 200 for cancel in cancels),
        f"of {len(given_up)} ringing calls {len(gone)} could be cancelled",
    )
    two.expect_records([call.a for call in (*up, *given_up)])
    return up


def _is_up(call: Call) -> bool:
    return _comes(lambda: (call.a.up and call.b.up) or call.a.asked["INVITE"].status >= 300) and call.a.up


def _is_cancelled(call: Call) -> bool:
    return _comes(lambda: call.a.asked["INVITE"].status == 487 and call.b.ended_by_far)


def _comes(holds: Callable[[], bool]) -> bool:
    try:
        wait(holds, 10, "what a call is to come to")
    except Failed:
        return False
    return True
