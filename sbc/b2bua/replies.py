"""Refusals of calls as their callers are told them (``sbc.policy.reply_codes``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua.call import Call, Outcome

if TYPE_CHECKING:
    from sbc.policy.reply_codes import ReplyCodes, ReplyPolicies

# Where a Retry-After means something (RFC 3261 §20.33)
_WITH_RETRY_AFTER = frozenset({404, 413, 480, 486, 500, 503, 600, 603})


def from_peer(policies: ReplyPolicies, call: Call, status: int, outcome: Outcome) -> Outcome:
    """``outcome`` by the table of the peer whose branch failed with ``status``."""
    peer = next((leg.peer for leg in call.branches if leg.attempt is not None and leg.attempt.status == status), "")
    return _told(policies.inbound.get(peer), outcome)


def for_caller(policies: ReplyPolicies, call: Call, outcome: Outcome) -> Outcome:
    """``outcome`` by the table of the peer that calls."""
    return _told(policies.outbound.get(call.a.peer), outcome)


def _told(table: ReplyCodes | None, outcome: Outcome) -> Outcome:
    told = table.find(outcome.status) if table is not None else None
    if told is None:
        return outcome
    headers = [item for item in outcome.headers if item[0] != "Retry-After" or told.status in _WITH_RETRY_AFTER]
    if told.cause:
        headers = [item for item in headers if item[0] != "Reason"]
        headers.append(("Reason", f"Q.850;cause={told.cause}"))
    reason = told.reason or (outcome.reason if told.status == outcome.status else "")
    cause = told.cause or outcome.cause
    return outcome._replace(status=told.status, reason=reason, headers=tuple(headers), cause=cause)
