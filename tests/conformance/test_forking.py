"""Ladders of calls to several targets at once: who wins, what becomes of the others, and what the caller is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from media.protocol import Delete, Offer, Reply
from sbc.b2bua.call import Call, Target
from sbc.b2bua.forking import MAX_AT_ONCE, by_q
from sbc.b2bua.subjects import Branch, ReplyEvent
from sbc.sip.flow import Flow
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    D_HOST,
    MEDIA_A,
    MEDIA_B,
    TARGET_B,
    TARGET_C,
    TARGET_D,
    Ladder,
    Phone,
    sdp,
)

BOTH = (TARGET_B, TARGET_C)


def dialling(*targets: Target | Sequence[Target], **options: Any) -> Ladder:  # Any: options of dial
    """A ladder whose calls go to these targets."""
    return Ladder(route=lambda f, call: f.core.dial(call, targets, f.now, **options))


def ringing(*phones: str, f: Ladder, offer: bool = True, extra: Sequence[tuple[str, str]] = ()) -> None:
    """A calls, and these phones get its INVITE."""
    f.a.request("INVITE", body=sdp(A_HOST) if offer else b"", extra=extra)
    f.a.expect(100)
    for name in phones:
        getattr(f, name).expect("INVITE")


def refuse(phone: Phone, status: int, extra: Sequence[tuple[str, str]] = ()) -> None:
    phone.reply(status, extra=extra)
    phone.expect("ACK")


def cancelled(phone: Phone) -> str | None:
    """The phone is told to stop, and does; what the reason is."""
    cancel = phone.expect("CANCEL")
    phone.reply(200, to=cancel)
    phone.reply(487)
    phone.expect("ACK")
    return cancel.get("Reason")


def hang_up(f: Ladder, callee: Phone) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    callee.reply(200, to=callee.expect("BYE"))


def attempts(f: Ladder) -> list[tuple[str, str, int]]:
    return [(one["gateway"], one["leg"], one["status"]) for one in f.cdr["attempts"]]


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


# media


def test_the_caller_hears_the_first_and_the_answer_of_the_second_is_the_answer() -> None:
    """RFC 3261 §13.2.1 leaves one description to a dialog: c's 183 is relayed without its own while A hears b."""
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(183, body=sdp(B_HOST))
    heard = f.a.expect(183)
    assert MEDIA_A.encode() in heard.body
    f.c.reply(183, body=sdp(C_HOST))
    assert f.a.expect(183).body == b""
    f.c.reply(180)
    assert f.a.expect(180).body == b""
    f.c.reply(200, body=sdp(C_HOST, codec="8"))
    answer = f.a.expect(200)
    assert b"RTP/AVP 8" in answer.body
    assert MEDIA_A.encode() in answer.body
    cancelled(f.b)
    f.a.ack()
    f.c.expect("ACK")
    f.a.request("INVITE", body=sdp(A_HOST, version=2))  # no offer is left open
    f.a.expect(100)
    f.c.reply(200, to=f.c.expect("INVITE"), body=sdp(C_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_a_description_that_was_withheld_is_the_answer_of_a_200_without_one() -> None:
    f = dialling(BOTH)
    ringing("b", "c", f=f)
    f.b.reply(183, body=sdp(B_HOST))
    f.a.expect(183)
    f.c.reply(183, body=sdp(C_HOST, codec="8"))
    f.a.expect(183)
    f.c.reply(200)
    assert b"RTP/AVP 8" in f.a.expect(200).body
    cancelled(f.b)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_whom_the_caller_hears_when_the_first_is_out() -> None:
    f = dialling((TARGET_B, TARGET_C, TARGET_D))
    ringing("b", "c", "d", f=f)
    f.b.reply(183, body=sdp(B_HOST))
    f.a.expect(183)
    f.c.reply(183, body=sdp(C_HOST, codec="8"))
    assert f.a.expect(183).body == b""
    refuse(f.b, 486)
    assert b"RTP/AVP 8" in f.a.expect(183).body
    refuse(f.c, 486)
    f.d.reply(183, body=sdp(D_HOST))
    assert f.a.expect(183).body
    refuse(f.d, 486)
    f.a.refused(486)
    f.over()


def test_a_reliable_answer_is_final_for_the_caller() -> None:
    """RFC 3262 §5: b's answer went reliably; c answers the call; A's 200 has no description, and media follow."""
    f = dialling(BOTH)
    ringing("b", "c", f=f, extra=[("Supported", "100rel")])
    assert f.b.invite is not None
    assert "100rel" in (f.b.invite.get("Supported") or "")
    f.b.reply(183, body=sdp(B_HOST), extra=[("Require", "100rel"), ("RSeq", "7")])
    f.b.reply(200, to=f.b.expect("PRACK"))
    progress = f.a.expect(183)
    assert progress.body
    f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
    f.a.expect(200)
    f.c.reply(183, body=sdp(C_HOST), extra=[("Require", "100rel"), ("RSeq", "9")])
    f.c.reply(200, to=f.c.expect("PRACK"))  # each branch has its own
    progress = f.a.expect(183)
    assert progress.body == b""
    f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
    f.a.expect(200)
    f.c.reply(200)
    assert f.a.expect(200).body == b""
    answered = f.media[-1] if not isinstance(f.media[-1], Delete) else f.media[-2]
    assert (answered.from_leg, answered.to_leg) == ("b2", "a")
    cancelled(f.b)
    f.a.ack(cseq=1)
    f.c.expect("ACK")
    hang_up(f, f.c)
    f.over()


def test_an_offer_of_the_branch_that_is_not_heard_has_to_wait() -> None:
    """UPDATE in c's early dialog while A has its session with b (RFC 3311 §5.2)."""
    f = dialling(BOTH)
    ringing("b", "c", f=f, extra=[("Supported", "100rel")])
    branch = f.a.branch
    for phone, rseq in ((f.b, "7"), (f.c, "9")):
        phone.reply(183, body=sdp(phone.host), extra=[("Require", "100rel"), ("RSeq", rseq)])
        phone.reply(200, to=phone.expect("PRACK"))
        progress = f.a.expect(183)
        f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
        f.a.expect(200)
    f.c.request("UPDATE", body=sdp(C_HOST, version=2))
    f.c.expect(491)
    f.b.request("UPDATE", body=sdp(B_HOST, version=2))
    f.a.reply(200, to=f.a.expect("UPDATE"), body=sdp(A_HOST, version=2))
    f.b.expect(200)
    f.a.branch = branch
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_a_call_without_offer_to_several() -> None:
    """The 2xx of the winner brings the offer, A's ACK the answer; no branch could make one earlier (no 100rel)."""
    f = dialling(BOTH)
    ringing("b", "c", f=f, offer=False, extra=[("Supported", "100rel")])
    for phone in (f.b, f.c):
        assert phone.invite is not None
        assert "100rel" not in (phone.invite.get("Supported") or "")
    f.b.reply(183, body=sdp(B_HOST))
    assert f.a.expect(183).body == b""
    f.c.reply(200, body=sdp(C_HOST))
    offer = f.a.expect(200)
    assert MEDIA_A.encode() in offer.body
    cancelled(f.b)
    f.a.ack(body=sdp(A_HOST))
    assert MEDIA_B.encode() in f.c.expect("ACK").body
    assert f.media_legs == {f.call.key: {"a", "b2"}}
    hang_up(f, f.c)
    f.over()


def test_the_media_worker_is_chosen_once() -> None:
    """The offers to the other branches wait for the first reply, which says where the session is."""
    f = dialling((TARGET_B, TARGET_C, TARGET_D))
    f.held_media = []
    ringing(f=f)
    assert [getattr(command.request, "to_leg", "") for command in f.held_media] == ["b1"]
    f.release_media()
    for phone in (f.b, f.c, f.d):
        phone.expect("INVITE")
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_a_branch_that_is_given_up_while_media_is_asked() -> None:
    """b answers before the endpoints for c are known: they are given back when they are."""
    f = dialling(BOTH)
    f.held_media = []
    ringing(f=f)
    first = f.held_media.pop()
    f.core.media_done(first.request_id, f.answer_media(first), f.now)
    f.drain()
    f.b.expect("INVITE")
    waiting, f.held_media = f.held_media, None
    assert [getattr(command.request, "to_leg", "") for command in waiting] == ["b2"]
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    (command,) = waiting
    f.core.media_done(command.request_id, f.answer_media(command), f.now)
    f.drain()
    assert f.media_legs == {f.call.key: {"a", "b1"}}
    f.c.nothing()
    f.a.ack()
    f.b.expect("ACK")
    hang_up(f, f.b)
    f.over()


def test_media_for_one_branch_only() -> None:
    """No endpoints for c: that branch fails, the call goes on with b."""
    f = dialling(BOTH)
    f.held_media = []
    ringing(f=f)
    first = f.held_media.pop()
    f.core.media_done(first.request_id, f.answer_media(first), f.now)
    f.drain()
    f.b.expect("INVITE")
    (command,) = f.held_media
    f.held_media = None
    refusal = Reply(ok=False, code="no_ports", reason="none free", worker="media-0")
    f.core.media_done(command.request_id, refusal, f.now)
    f.drain()
    f.c.nothing()
    refuse(f.b, 486)
    f.a.refused(486)
    assert [status for _, _, status in attempts(f)] == [486, 503]
    f.over()


def test_direct_media_to_several() -> None:
    """Without a relay both get A's description octet for octet, and A the winner's."""
    f = dialling(BOTH)
    f.engage = False
    ringing("b", "c", f=f)
    for phone in (f.b, f.c):
        assert phone.invite is not None
        assert phone.invite.body == sdp(A_HOST)
    f.b.reply(183, body=sdp(B_HOST))
    assert f.a.expect(183).body == sdp(B_HOST)
    f.c.reply(200, body=sdp(C_HOST))
    assert f.a.expect(200).body == sdp(C_HOST)
    cancelled(f.b)
    f.a.ack()
    f.c.expect("ACK")
    hang_up(f, f.c)
    assert not f.media
    f.over()


# one INVITE of ours, several early dialogs


def reliably(phone: Phone, tag: str, rseq: int, body: bytes, route: str) -> None:
    phone.reply(
        183,
        tag=tag,
        body=body,
        extra=[("Require", "100rel"), ("RSeq", str(rseq)), ("Record-Route", f"<sip:{route};lr>")],
    )


def test_early_dialogs_of_a_fork_downstream() -> None:
    """RFC 5407 §3.3: each has its own PRACK, CSeq and route; the second one answers; the first comes too late."""
    f = dialling(TARGET_B)
    ringing("b", f=f, extra=[("Supported", "100rel")])
    reliably(f.b, "one", 100, sdp(B_HOST), f"{B_HOST}:5070")
    prack = f.b.expect("PRACK")
    assert (prack.to_tag, prack.get("RAck"), prack.cseq_number) == ("one", "100 1 INVITE", 2)
    f.b.reply(200, to=prack)
    heard = f.a.expect(183)
    assert heard.body
    f.a.request("PRACK", extra=[("RAck", f"{heard.get('RSeq')} {heard.cseq_number} INVITE")])
    f.a.expect(200)
    reliably(f.b, "two", 500, sdp(B_HOST, 4002, codec="8"), f"{B_HOST}:5070;fork=two")
    prack = f.b.expect("PRACK")
    assert (prack.to_tag, prack.get("RAck"), prack.cseq_number) == ("two", "500 1 INVITE", 2)
    assert prack.get("Route") == f"<sip:{B_HOST}:5070;fork=two;lr>"
    f.b.reply(200, to=prack)
    progress = f.a.expect(183)
    assert progress.body == b""
    assert progress.to_tag == heard.to_tag  # A has one early dialog
    f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
    f.a.expect(200)

    f.a.request("UPDATE", body=sdp(A_HOST, version=2))  # goes to the one that A hears
    update = f.b.expect("UPDATE")
    assert (update.to_tag, update.cseq_number) == ("one", 3)
    f.b.reply(200, to=update, body=sdp(B_HOST, version=2))
    f.a.expect(200)

    f.b.reply(200, tag="two")
    assert f.a.expect(200).body == b""
    f.a.ack(cseq=1)
    ack = f.b.expect("ACK")
    assert (ack.to_tag, ack.get("Route")) == ("two", None)  # the 2xx has the last word on the route
    f.b.reply(200, tag="one", body=sdp(B_HOST))
    ack, bye = f.b.expect("ACK"), f.b.expect("BYE")
    assert (ack.to_tag, bye.to_tag, ack.cseq_number, bye.cseq_number) == ("one", "one", 1, 4)
    f.b.reply(200, to=bye)
    f.b.reply(200, tag="one", body=sdp(B_HOST))  # again: its ACK was lost
    f.b.expect("ACK")
    f.b.nothing()
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    assert (bye.to_tag, bye.cseq_number) == ("two", 3)
    f.b.reply(200, to=bye)
    f.over()


def test_an_offer_of_the_second_fork() -> None:
    """A made no offer; the first early dialog only rings, the second makes one reliably: A answers that in PRACK."""
    f = dialling(TARGET_B)
    ringing("b", f=f, offer=False, extra=[("Supported", "100rel")])
    f.b.reply(180, tag="one")
    f.a.expect(180)
    reliably(f.b, "two", 500, sdp(B_HOST), f"{B_HOST}:5070")
    offer = f.a.expect(183)
    assert MEDIA_A.encode() in offer.body
    f.b.nothing()
    reliably(f.b, "three", 900, sdp(B_HOST, 4004), f"{B_HOST}:5070")  # A can answer no second one
    f.b.nothing()
    f.a.request("PRACK", body=sdp(A_HOST), extra=[("RAck", f"{offer.get('RSeq')} {offer.cseq_number} INVITE")])
    prack = f.b.expect("PRACK")
    assert (prack.to_tag, MEDIA_B.encode() in prack.body) == ("two", True)
    f.b.reply(200, to=prack)
    f.a.expect(200)
    f.a.expect(183)
    f.b.reply(200, tag="two")
    assert f.a.expect(200).body == b""
    f.a.ack(cseq=1)
    assert f.b.expect("ACK").to_tag == "two"
    hang_up(f, f.b)
    f.over()


def fork_request(f: Ladder, tag: str, method: str, cseq: int, body: bytes = b"") -> None:
    """A request of b in the early dialog that has this tag."""
    invite = f.b.invite
    assert invite is not None
    contact = (invite.get("Contact") or "").partition("<")[2].partition(">")[0]
    f.b.dialog = (invite.call_id, f"{invite.get('To')};tag={tag}", invite.get("From") or "", contact)
    f.b.request(method, cseq=cseq, body=body)


def test_requests_of_the_early_dialogs_of_a_fork() -> None:
    f = dialling(TARGET_B)
    ringing("b", f=f)
    f.b.reply(183, tag="one", body=sdp(B_HOST))
    f.b.reply(183, tag="two", body=sdp(B_HOST, 4002))
    assert f.a.expect(183).body
    assert f.a.expect(183).body == b""
    fork_request(f, "two", "UPDATE", 1)
    f.b.expect(200)
    fork_request(f, "one", "INFO", 1)  # its own numbers: not out of order
    f.a.reply(200, to=f.a.expect("INFO"))
    f.b.expect(200)
    fork_request(f, "two", "UPDATE", 2, sdp(B_HOST, 4002, version=2))
    f.b.expect(491)
    fork_request(f, "two", "INFO", 2)
    f.b.expect(500)
    fork_request(f, "two", "INFO", 3)
    f.a.reply(200, to=f.a.expect("INFO"))
    f.b.expect(200)
    fork_request(f, "three", "UPDATE", 1)
    f.b.expect(481)
    f.b.reply(200, tag="one", body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    fork_request(f, "two", "UPDATE", 4)
    f.b.expect(481)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_an_early_dialog_that_is_over() -> None:
    """199 (RFC 6228) is not for A, whose early dialog lives; A then hears the other fork."""
    f = dialling(TARGET_B)
    ringing("b", f=f)
    f.b.reply(183, tag="one", body=sdp(B_HOST))
    f.b.reply(183, tag="two", body=sdp(B_HOST, 4002, codec="8"))
    f.a.expect(183)
    f.a.expect(183)
    f.b.reply(199, tag="one")
    assert b"RTP/AVP 8" in f.a.expect(183).body
    f.b.reply(199, tag="three")
    f.a.nothing()
    f.b.reply(200, tag="two")
    assert b"RTP/AVP 8" in f.a.expect(200).body
    f.a.ack()
    assert f.b.expect("ACK").to_tag == "two"
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


# redirects


def redirect(phone: Phone, *contacts: str, status: int = 302) -> None:
    refuse(phone, status, [("Contact", contact) for contact in contacts])


def test_by_default_nobody_is_redirected() -> None:
    f = dialling(TARGET_B)
    ringing("b", f=f)
    redirect(f.b, f"<sip:100@{C_HOST}:5070>")
    f.c.nothing()
    f.a.refused(480)
    assert [status for _, _, status in attempts(f)] == [302]
    f.over()


def test_contacts_are_tried_by_preference() -> None:
    """q=0.9 first, then both with 0.5 at once; the failure route hears of the end only."""
    heard = []
    f = dialling(TARGET_B, follow_redirects="realm", on_failure=lambda f, call: heard.append(call.best_status))
    ringing("b", f=f)
    redirect(
        f.b,
        f"<sip:200@{C_HOST}:5070>;q=0.5",
        f"<sip:100@{D_HOST}:5070;user=phone;maddr=203.0.113.1;lr?Replaces=x>;q=0.9",
        f"<sip:300@{B_HOST}:5070>;q=0.5",
    )
    invite = f.d.expect("INVITE")
    assert invite.uri == f"sip:100@{D_HOST}:5070;user=phone"
    f.c.nothing()
    refuse(f.d, 404)
    assert f.c.expect("INVITE").uri == f"sip:200@{C_HOST}:5070"
    assert f.b.expect("INVITE").uri == f"sip:300@{B_HOST}:5070"
    refuse(f.c, 486)
    assert not heard
    refuse(f.b, 503)
    assert heard == [404]
    f.a.refused(404)
    assert attempts(f) == [
        ("gw-b", "b1", 302),
        ("carrier-d", "b2", 404),
        ("carrier-c", "b3", 486),
        ("carrier-b", "b4", 503),
    ]
    assert f.counts["REDIRECTS_FOLLOWED"] == 1
    f.over()


def test_a_redirect_while_another_rings() -> None:
    f = dialling(BOTH, follow_redirects="realm")
    ringing("b", "c", f=f)
    f.c.reply(180)
    f.a.expect(180)
    redirect(f.b, f"<sip:100@{D_HOST}:5070>")
    f.d.expect("INVITE")
    f.d.reply(200, body=sdp(D_HOST))
    f.a.expect(200)
    cancelled(f.c)
    f.a.ack()
    f.d.expect("ACK")
    assert f.media_legs == {f.call.key: {"a", "b3"}}
    hang_up(f, f.d)
    f.over()


@pytest.mark.parametrize(
    "contact",
    [
        "<sip:+900666@203.0.113.66>",  # nobody's
        "<sip:alice@192.0.2.10:5070>",  # a peer of another realm
        "<sip:100@198.51.100.1:5060>",  # ourselves
        "<sip:100@elsewhere.example>",
        f"<sips:100@{C_HOST}>",
        "<tel:+900666>",
        "<mailto:x@example.com>",
        f"<sip:100@{C_HOST};transport=tcp>",  # we speak no TCP there
        TARGET_B.uri,  # tried already
        "*",
    ],
)
def test_where_no_redirect_leads(contact: str) -> None:
    f = dialling(TARGET_B, follow_redirects="realm")
    ringing("b", f=f)
    redirect(f.b, contact)
    f.a.refused(480)
    assert len(f.cdr["attempts"]) == 1
    f.over()


def test_what_a_peer_is_configured_to_be_allowed() -> None:
    """``peer``: to addresses of its own only; and never by 305."""
    for status, host, followed in ((302, B_HOST, True), (302, C_HOST, False), (305, B_HOST, False)):
        f = Ladder(follow_redirects={"carrier-b": "peer"})
        ringing("b", f=f)
        redirect(f.b, f"<sip:100@{host}:5070>", status=status)
        if followed:
            assert f.b.expect("INVITE").uri == f"sip:100@{B_HOST}:5070"
            refuse(f.b, 486)
        f.a.refused(486 if followed else 480)
        f.over()


def test_a_route_may_forbid_what_a_peer_is_allowed() -> None:
    f = Ladder(
        route=lambda f, call: f.core.dial(call, [TARGET_B], f.now, follow_redirects="never"),
        follow_redirects={"carrier-b": "realm"},
    )
    ringing("b", f=f)
    redirect(f.b, f"<sip:100@{C_HOST}:5070>")
    f.a.refused(480)
    f.over()


def test_redirects_in_a_circle_and_without_end() -> None:
    """b and c send the call to each other: each is asked once. One that always knows another number: ten times."""
    f = dialling(TARGET_B, follow_redirects="realm")
    ringing("b", f=f)
    redirect(f.b, TARGET_C.uri)
    f.c.expect("INVITE")
    redirect(f.c, TARGET_B.uri)
    f.a.refused(480)
    assert [status for _, _, status in attempts(f)] == [302, 302]
    f.over()

    f = dialling(TARGET_B, follow_redirects="realm")
    ringing("b", f=f)
    for number in range(10):
        redirect(f.b, f"<sip:{number}@{B_HOST}:5070>")
        f.b.expect("INVITE")
    redirect(f.b, f"<sip:more@{B_HOST}:5070>")
    f.a.refused(480)
    f.over()


def test_a_redirect_to_more_than_may_ring() -> None:
    """What is too many at once waits until all of the others have failed."""
    f = dialling((TARGET_B, TARGET_C), follow_redirects="realm")
    ringing("b", "c", f=f)
    redirect(f.b, ",".join(f"<sip:{number}@{D_HOST}:5070>" for number in range(12)))
    assert len(f.d.inbox) == MAX_AT_ONCE - 1
    invites = list(f.d.inbox)
    f.d.inbox.clear()
    for invite in invites:
        f.d.reply(404, to=invite)
        f.d.expect("ACK")
    f.d.nothing()
    refuse(f.c, 404)
    f.d.expect("INVITE")
    refuse(f.d, 404)
    f.a.refused(404)
    f.over()


def test_6xx_ends_redirects_too() -> None:
    f = dialling(TARGET_B, follow_redirects="realm")
    ringing("b", f=f)
    redirect(f.b, f"<sip:1@{C_HOST}:5070>;q=1", f"<sip:2@{D_HOST}:5070>;q=0.1")
    f.c.expect("INVITE")
    refuse(f.c, 600)
    f.d.nothing()
    f.a.refused(600)
    f.over()


def test_a_redirect_within_the_name_that_was_dialled() -> None:
    """Its servers are known: no look-up, and no other name is followed."""
    named = Target("sip:1@carrier.example", "outside", peer="carrier-b", servers=(Flow(1, "udp", B_HOST, 5070),))
    f = dialling(named, follow_redirects="peer")
    ringing("b", f=f)
    redirect(f.b, "<sip:2@CARRIER.example>", "<sip:3@other.example>")
    assert f.b.expect("INVITE").uri == "sip:2@CARRIER.example"
    refuse(f.b, 486)
    f.a.refused(486)
    f.over()


# loops


@pytest.mark.parametrize(
    ("given", "at_once", "told"), [("", 3, "20"), ("60", 3, "20"), ("7", 3, "2"), ("2", 2, "1"), ("1", 1, "1")]
)
def test_how_wide_a_request_may_spread(given: str, at_once: int, told: str) -> None:
    """RFC 5393 §5: the branches share what the request came with; what that is too little for is tried after."""
    f = dialling((TARGET_B, TARGET_C, TARGET_D))
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Max-Breadth", given)] if given else [])
    f.a.expect(100)
    phones = [f.b, f.c, f.d]
    for phone in phones[:at_once]:
        assert phone.expect("INVITE").get("Max-Breadth") == told
    for phone in phones[at_once:]:
        phone.nothing()
    for phone in phones[:at_once]:
        refuse(phone, 404)
    for phone in phones[at_once:]:
        phone.expect("INVITE")
        refuse(phone, 404)
    f.a.refused(404)
    f.over()


@pytest.mark.parametrize(("given", "told"), [("", None), ("7", "7"), ("x", None)])
def test_a_single_target_gets_all_of_the_breadth(given: str, told: str | None) -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Max-Breadth", given)] if given else [])
    f.a.expect(100)
    assert f.b.expect("INVITE").get("Max-Breadth") == told
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_no_breadth_at_all() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Max-Breadth", "0")])
    f.a.expect(100)
    f.a.refused(440)
    f.b.nothing()
    f.over()


def test_the_contacts_of_a_redirect_share_what_the_branch_had() -> None:
    f = dialling((TARGET_B, TARGET_C), follow_redirects="realm")
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Max-Breadth", "5")])
    f.a.expect(100)
    for phone in (f.b, f.c):
        assert phone.expect("INVITE").get("Max-Breadth") == "2"
    redirect(f.b, ",".join(f"<sip:{number}@{D_HOST}:5070>" for number in range(3)))
    assert [f.d.expect("INVITE").get("Max-Breadth") for _ in range(2)] == ["1", "1"]
    f.d.nothing()
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    f.over()


def test_a_loop_through_a_proxy() -> None:
    """B is a proxy that sends our INVITE back to us: once that is a spiral and a call, twice the same is a loop."""
    f = Ladder()
    ringing("b", f=f)
    first = f.b.invite
    assert first is not None
    through_proxy(f, first, hop=1)
    f.b.expect(100)
    second = f.b.expect("INVITE")
    assert (second.max_forwards, first.max_forwards) == (67, 69)
    through_proxy(f, second, hop=2)
    assert f.b.expect(482).reason == "Loop Detected"
    assert f.counts["LOOP_REFUSED"] == 1
    f.b.reply(482, to=second)
    f.b.expect("ACK")
    assert f.b.expect(482).call_id == first.call_id
    f.b.reply(482, to=first)
    f.b.expect("ACK")
    f.a.refused(482)
    f.over()


def through_proxy(f: Ladder, invite: Any, hop: int, uri: str = "sip:+4930123@198.51.100.1") -> None:
    """Our INVITE as a proxy at b would send it on to ``uri``."""
    lines = [f"INVITE {uri} SIP/2.0", f"Via: SIP/2.0/UDP {B_HOST}:5070;branch=z9hG4bKhop{hop};rport"]
    for name, value in invite.items():
        lines.append(f"{name}: {int(value) - 1 if name == 'Max-Forwards' else value}")
    f.deliver("\r\n".join([*lines, "", ""]).encode() + invite.body, Flow(1, "udp", B_HOST, 5070))


def test_a_spiral_to_somewhere_else_is_a_call() -> None:
    f = Ladder(route=lambda f, call: f.core.dial(call, [TARGET_B if "0123" in call.ruri else TARGET_C], f.now))
    ringing("b", f=f)
    assert f.b.invite is not None
    through_proxy(f, f.b.invite, hop=1, uri="sip:999@198.51.100.1")
    f.b.expect(100)
    f.c.expect("INVITE")
    refuse(f.c, 486)
    f.b.expect(486)
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
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
