"""Refusals told as others, on either side, and what lets another target be tried."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.config.reply_codes import ReplyCode
from sbc.policy.reply_codes import ReplyCodes, ReplyPolicies
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, TARGET_B, TARGET_C, Ladder, sdp

Table = dict[str, Any]  # Any: what the YAML would hold


def table(given: Table) -> ReplyCodes:
    return ReplyCodes({key: ReplyCode.model_validate(row) for key, row in given.items()})


def ladder(inbound: Table | None = None, outbound: Table | None = None, **failover: frozenset[int]) -> Ladder:
    policies = ReplyPolicies(
        {"carrier-b": table(inbound)} if inbound else {},
        {"phones": table(outbound)} if outbound else {},
        {"carrier-b": failover["b"]} if failover else {},
    )
    return Ladder(
        replies=policies, route=lambda f, call: f.core.dial(call, [TARGET_B, TARGET_C], f.now) if failover
        else f.core.dial(call, [TARGET_B], f.now),
    )  # fmt: skip


def refused(f: Ladder, status: int, told: int, *extra: tuple[str, str]) -> Message:
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(status, extra=extra)
    f.b.expect("ACK")
    msg = f.a.expect(told)
    f.a.ack()
    return msg


def test_a_refusal_is_told_as_another() -> None:
    f = ladder({"503": 500, "5xx": 502}, {"500": {"status": 404, "reason": "Nowhere", "cause": 1}})
    msg = refused(f, 503, 404, ("Retry-After", "5"), ("Reason", "Q.850;cause=41"))
    assert (msg.reason, msg.get_all("Reason")) == ("Nowhere", ["Q.850;cause=1"])
    assert f.cdr["status"] == 404


def test_the_narrowest_row_counts_and_the_cause_that_came_stays() -> None:
    f = ladder({"480-486": 600, "486": {"status": 480, "reason": "Away"}})
    msg = refused(f, 486, 480, ("Reason", "Q.850;cause=17"))
    assert (msg.reason, msg.get("Reason")) == ("Away", "Q.850;cause=17")


@pytest.mark.parametrize(("came", "told"), [(487, 487), (407, 403), (302, 480), (500, 500)])
def test_what_is_told_as_it_was(came: int, told: int) -> None:
    """A challenge is 403 and a redirect 480 before any table; what asks something of the caller stays itself."""
    f = ladder({"481-487": 603})
    refused(f, came, told)


def test_a_refusal_of_ours_is_told_by_the_callers_table() -> None:
    f = ladder(None, {"404": 604})
    f.route = lambda _, call: f.core.reject(call, 404, f.now)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.expect(604)


@pytest.mark.parametrize(("came", "tried"), [(503, False), (486, True)])
def test_failover_by_what_came(came: int, tried: bool) -> None:
    f = ladder({"486": 500}, b=frozenset({486}))
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(came)
    f.b.expect("ACK")
    if tried:
        f.c.expect("INVITE")
        assert not f.a.inbox
    else:
        f.a.expect(came)
        assert not f.c.inbox
