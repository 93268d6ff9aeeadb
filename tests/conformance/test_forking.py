"""Ladders of calls to several targets at once: who wins, what becomes of the others, and what the caller is told."""

from __future__ import annotations

import pytest

from media.protocol import Delete, Offer
from sbc.b2bua.call import Call, Target
from sbc.b2bua.forking import MAX_AT_ONCE, by_q
from sbc.b2bua.subjects import Branch, ReplyEvent
from sbc.sip.flow import Flow
from tests.support.forks import BOTH, attempts, cancelled, dialling, hang_up, refuse, ringing
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    D_HOST,
    TARGET_B,
    TARGET_C,
    TARGET_D,
    Ladder,
    sdp,
)

# who wins


def test_the_first_answer_wins_and_the_others_are_told_why() -> None:
    """Both ring; c answers; b gets CANCEL (RFC 3326: answered elsewhere) and its endpoints are given back."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(180)
    f.a.expect(180)
    f.c.reply(180)
    f.a.expect(180)
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    assert Delete(f.call.key, "b1") in f.media
    assert f.media_legs == {f.call.key: {"a", "b2"}}
    assert cancelled(f.b) == 'SIP;cause=200;text="Call completed elsewhere"'
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    assert attempts(f) == [("gw-b", "b1", 487), ("gw-c", "b2", 200)]
    assert f.cdr["b_peer"] == "carrier-c"
    assert "FAILOVERS" not in f.counts
    f.over()


def test_each_branch_has_identifiers_and_endpoints_of_its_own() -> None:
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    one, two = f.b.invite, f.c.invite
    assert one is not None
    assert two is not None
    assert one.call_id != two.call_id
    assert one.from_tag != two.from_tag
    assert one.branch != two.branch
    assert one.body != two.body
    offers = [request for request in f.media if isinstance(request, Offer)]
    assert [(offer.from_leg, offer.to_leg) for offer in offers] == [("a", "b1"), ("a", "b2")]
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_two_answers_that_cross() -> None:
    """b's 200 was on its way when c's arrived: it is acknowledged, then ended; the CANCEL comes too late for it."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(180)
    f.c.reply(200, body=sdp(C_HOST))
    f.b.expect("CANCEL")
    f.b.reply(200, body=sdp(B_HOST))
    ack, bye = f.b.expect("ACK"), f.b.expect("BYE")
    assert (ack.to_tag, bye.to_tag) == ("tag-of-b", "tag-of-b")
    f.b.reply(200, to=bye)
    f.b.again()
    f.b.nothing()
    f.a.expect(180)
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_requests_of_the_one_that_lost_reach_nobody() -> None:
    """What b asks in the dialog that its late 200 opened, before it has seen our BYE, is no part of the call."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    f.b.reply(200, body=sdp(B_HOST))
    f.b.expect("ACK")
    bye = f.b.expect("BYE")
    for method in ("UPDATE", "INFO", "INVITE"):
        f.b.request(method, body=sdp(B_HOST, version=2))
        f.b.expect(481)
    f.a.nothing()
    f.b.reply(200, to=bye)
    hang_up(f, f.c)
    f.over()


def test_two_answers_of_which_one_waits_for_its_route() -> None:
    """Both are with the reply route; the one that comes out first wins, the other is ended in its own dialog."""
    f = dialling(BOTH, on_reply=lambda f, event: None)
    ringing("b", "c", f=f)
    f.held_routes = []
    f.b.reply(200, body=sdp(B_HOST))
    f.c.reply(200, body=sdp(C_HOST))
    of_b, of_c = f.held_routes
    f.held_routes = None
    f.run(of_c)
    f.run(of_b)
    f.drain()
    f.a.expect(200)
    f.b.expect("ACK")
    bye = f.b.expect("BYE")
    assert (bye.to_tag, bye.uri) == ("tag-of-b", f"sip:b@{B_HOST}:5070")
    f.b.reply(200, to=bye)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_the_caller_gives_up_while_several_ring() -> None:
    f = dialling((TARGET_B, TARGET_C, TARGET_D))
    ringing("b", "c", "d", f=f)
    f.b.reply(180)
    f.c.reply(100)
    f.a.expect(180)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    assert cancelled(f.b) is None
    assert cancelled(f.c) is None
    f.d.nothing()  # no provisional yet, so no CANCEL (RFC 3261 §9.1)
    f.d.reply(180)
    cancelled(f.d)
    assert [status for _, _, status in attempts(f)] == [487, 487, 487]
    f.over()


# nobody wins


def test_6xx_ends_all() -> None:
    """RFC 3261 §16.7 step 5: the others are cancelled, and neither a further group nor a failure is asked for more."""
    heard = []

    def on_failure(f: Ladder, call: Call) -> None:
        heard.append((call.best_status, call.has_next))
        assert not f.core.dial_next(call, f.now)

    f = dialling(BOTH, TARGET_D, on_failure=on_failure)
    ringing("b", "c", f=f)
    f.b.reply(180)
    f.a.expect(180)
    refuse(f.c, 603)
    assert cancelled(f.b) == "SIP;cause=603"
    f.a.refused(603)
    f.d.nothing()
    assert heard == [(603, False)]
    assert [status for _, _, status in attempts(f)] == [487, 603]
    f.over()


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (486, 503, 486),
        (503, 486, 486),
        (408, 404, 404),
        (500, 484, 484),
        (401, 486, 486),
        (407, 503, 403),
        (302, 486, 486),
        (302, 503, 480),
        (503, 500, 500),
        (480, 486, 480),
        (486, 600, 600),
    ],
)
def test_the_best_answer_of_all(first: int, second: int, told: int) -> None:
    """RFC 3261 §16.7 step 6; challenges and redirects are for us, 408 and 503 are no answers."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    refuse(f.b, first)
    f.a.nothing()
    refuse(f.c, second)
    f.a.refused(told)
    f.over()


def test_the_failure_route_runs_once_for_a_group_and_the_next_group_follows() -> None:
    heard = []

    def on_failure(f: Ladder, call: Call) -> None:
        heard.append([(attempt.leg, attempt.group, attempt.status) for attempt in call.attempts])
        assert call.has_next
        f.core.dial_next(call, f.now, on_failure=on_failure)

    f = dialling(BOTH, TARGET_D, on_failure=on_failure)
    ringing("b", "c", f=f)
    refuse(f.b, 486)
    assert not heard
    refuse(f.c, 408)
    assert heard == [[("b1", 1, 486), ("b2", 1, 408)]]
    f.d.expect("INVITE")
    assert f.media_legs == {f.call.key: {"a", "b3"}}
    f.d.reply(200, body=sdp(D_HOST))
    f.a.expect(200)
    f.a.ack()
    f.d.expect("ACK")
    hang_up(f, f.d)
    assert f.counts["FAILOVERS"] == 1
    f.over()


@pytest.mark.parametrize(("answers", "goes_on"), [((408, 503), True), ((480, 486), False), ((486, 503), False)])
def test_without_a_failure_route_the_next_group_is_tried_where_it_may_do_better(
    answers: tuple[int, int], goes_on: bool
) -> None:
    f = dialling(BOTH, TARGET_D)
    ringing("b", "c", f=f)
    for phone, status in zip((f.b, f.c), answers, strict=True):
        refuse(phone, status)
    if goes_on:
        f.d.expect("INVITE")
        refuse(f.d, 486)
    else:
        f.d.nothing()
    f.a.refused(486 if goes_on else min(answers))
    f.over()


def test_a_branch_that_is_dropped_or_cannot_be_dialled_holds_up_nobody() -> None:
    def on_branch(f: Ladder, branch: Branch) -> None:
        if branch.target.gateway == "gw-b":
            branch.drop()

    nowhere = Target("sip:x@host.example", "outside", gateway="nowhere")
    f = dialling((nowhere, TARGET_B, TARGET_C), on_branch=on_branch)
    ringing("c", f=f)
    f.b.nothing()
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    assert f.media_legs == {f.call.key: {"a", "b3"}}
    hang_up(f, f.c)
    assert attempts(f) == [("nowhere", "b1", 503), ("gw-b", "b2", 480), ("gw-c", "b3", 200)]
    f.over()


def test_a_group_to_nowhere_is_a_failure() -> None:
    nowhere = Target("sip:x@host.example", "outside")
    f = dialling((nowhere, nowhere), TARGET_B)
    ringing("b", f=f)
    refuse(f.b, 486)
    f.a.refused(486)
    f.over()


def test_one_of_the_group_rings_too_long() -> None:
    """Its own time is up, and it is cancelled; the other rings on."""
    slow = Target(TARGET_B.uri, "outside", peer="carrier-b", timeout_s=3)
    f = dialling((slow, TARGET_C))
    ringing("b", "c", f=f)
    f.b.reply(180)
    f.c.reply(180)
    f.after(3)
    cancelled(f.b)
    assert f.media_legs == {f.call.key: {"a", "b2"}}
    f.c.reply(200, body=sdp(C_HOST))
    for status in (180, 180, 200):
        f.a.expect(status)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    assert [status for _, _, status in attempts(f)] == [408, 200]
    f.over()


def test_one_of_the_group_cannot_be_reached() -> None:
    """A transport error is a 503 (RFC 3261 §8.1.3.1), of that branch."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.core.transport_failed(Flow(1, "udp", B_HOST, 5070), f.now)
    f.drain()
    refuse(f.c, 486)
    f.a.refused(486)
    assert [status for _, _, status in attempts(f)] == [503, 486]
    f.over()


def test_a_callee_that_ends_its_early_dialog_ends_nothing_else() -> None:
    """BYE of a ringing callee is against RFC 3261 §15, and is taken as 480 of that branch."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(180)
    f.a.expect(180)
    f.b.request("BYE")
    f.b.expect(200)
    cancelled(f.b)
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    assert [status for _, _, status in attempts(f)] == [480, 200]
    f.over()


def test_how_many_at_once() -> None:
    f = Ladder()
    f.route = lambda f, call: None
    f.held_routes = []
    f.a.request("INVITE", body=sdp(A_HOST))
    for group in ([TARGET_B] * (MAX_AT_ONCE + 1), []):
        with pytest.raises(ValueError, match=f"a group has from 1 to {MAX_AT_ONCE}"):
            f.core.dial(f.call, [group], f.now)
    f.core.dial(f.call, [[TARGET_B] * MAX_AT_ONCE], f.now)
    f.drain()
    assert len(f.b.inbox) == MAX_AT_ONCE
    f.a.cancel()
    f.held_routes = None
    f.over()


def test_by_q() -> None:
    """RFC 3261 §16.6: the highest q first, equal ones at once, in the order given."""

    def target(name: str, q: float) -> Target:
        return Target(f"sip:{name}@{B_HOST}", "outside", q=q)

    voicemail, desk, mobile, home = target("v", 0), target("d", 1), target("m", 1.0), target("h", 0.5)
    assert by_q([voicemail, desk, mobile, home]) == [[desk, mobile], [home], [voicemail]]
    assert by_q([]) == []
    for q in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="not within 0 to 1"):
            by_q([target("x", q)])


# the servers of a name


def test_the_servers_of_one_name_are_tried_within_their_branch() -> None:
    """b's first server is silent, then its second says 503; c rings all the while, and is held up by neither."""
    servers = (Flow(1, "udp", B_HOST, 5071), Flow(1, "udp", B_HOST, 5072), Flow(1, "udp", D_HOST, 5070))
    named = Target("sip:+4930123@carrier.example", "outside", peer="carrier-b", gateway="gw-b", servers=servers)
    heard = []
    f = dialling((named, TARGET_C), on_failure=lambda f, call: heard.append(call.best_status))
    ringing("b", "c", f=f)
    f.c.reply(180)
    f.a.expect(180)
    f.after(33)
    f.b.inbox.clear()
    assert f.failed_servers == [servers[0]]
    second = [leg for leg in f.call.branches if leg.flow == servers[1]]
    assert [leg.name for leg in second] == ["b3"]
    f.core.transport_failed(servers[1], f.now)
    f.drain()
    f.d.expect("INVITE")
    assert f.failed_servers == [servers[0], servers[1]]
    assert f.media_legs == {f.call.key: {"a", "b2", "b4"}}
    refuse(f.d, 486)  # an answer of the user: the name's last word
    assert not heard
    refuse(f.c, 404)
    assert heard == [404]
    f.a.refused(404)
    assert [(leg, status) for _, leg, status in attempts(f)] == [("b1", 408), ("b2", 404), ("b3", 503), ("b4", 486)]
    f.over()


def test_the_reply_route_sees_every_branch() -> None:
    seen = []

    def on_reply(f: Ladder, event: ReplyEvent) -> None:
        seen.append((event.leg.name, event.status))

    f = dialling(BOTH, on_reply=on_reply)
    ringing("b", "c", f=f)
    f.b.reply(180)
    f.c.reply(183)
    refuse(f.b, 486)
    refuse(f.c, 404)
    assert seen == [("b1", 180), ("b2", 183), ("b1", 486), ("b2", 404)]
    f.over()
