"""Ladders of calls that fail: the next target, the best answer, what the caller is told."""

from __future__ import annotations

import pytest

from media.protocol import Delete
from sbc.b2bua.call import Call, Target
from tests.support.ladder import A_HOST, B_HOST, C_HOST, TARGET_B, TARGET_C, Ladder, hunt, sdp


def test_failover_to_the_second_target() -> None:
    """503 from b: the failure route goes on to c; b's endpoints are given back; the CDR tells both attempts."""
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(503)
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    assert Delete(f.call.key, "b1") in f.media
    f.a.request("BYE")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("BYE"))
    assert [(t["gateway"], t["status"]) for t in f.cdr["attempts"]] == [("gw-b", 503), ("gw-c", 200)]
    assert f.counts["FAILOVERS"] == 1
    f.over()


def test_busy_is_not_failed_over() -> None:
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.c.nothing()
    f.over()


def test_every_target_fails() -> None:
    """The best answer goes to A: 404 of the first beats 503 of the second (RFC 3261 §16.7 step 6)."""

    def both(ladder: Ladder, call: Call) -> None:
        def on_failure(ladder: Ladder, call: Call) -> None:
            ladder.core.dial_next(call, ladder.now)

        ladder.core.dial(call, [TARGET_B, TARGET_C], ladder.now, on_failure=on_failure)

    f = Ladder(route=both)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(404, extra=[("Reason", 'Q.850;cause=1;text="no such host"')])
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(503)
    f.c.expect("ACK")
    assert f.a.refused(404).get("Reason") == "Q.850;cause=1"
    f.over()


@pytest.mark.parametrize(
    ("answer", "refusal", "by"), [(486, 486, "b"), (401, 403, "b"), (486, 480, "sbc"), (0, 408, "sbc")]
)
def test_a_failure_route_passes_the_failure_on(answer: int, refusal: int, by: str) -> None:
    """To reject with the best status is to relay what B said; any other status, and a silence, is our own word."""

    def route(ladder: Ladder, call: Call) -> None:
        def on_failure(ladder: Ladder, call: Call) -> None:
            ladder.core.reject(call, call.best_status if refusal != 480 else 480, ladder.now)

        ladder.core.dial(call, [Target(TARGET_B.uri, "outside", timeout_s=3)], ladder.now, on_failure=on_failure)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(answer or 180, extra=[("Reason", "Q.850;cause=17")])
    if answer:
        f.b.expect("ACK")
    else:
        f.a.expect(180)
        f.after(3)
        f.b.reply(200, to=f.b.expect("CANCEL"))
        f.b.reply(487)
        f.b.expect("ACK")
    assert f.a.refused(refusal).get("Reason") == ("Q.850;cause=17" if by == "b" else None)
    assert f.cdr["hangup"] == by
    f.over()


def test_target_with_its_own_timeout() -> None:
    """A gateway that rings too long is cancelled, and the next one is tried."""

    def route(ladder: Ladder, call: Call) -> None:
        def on_failure(ladder: Ladder, call: Call) -> None:
            ladder.core.dial_next(call, ladder.now)

        slow = Target(TARGET_B.uri, "outside", peer="carrier-b", timeout_s=3)
        ladder.core.dial(call, [slow, TARGET_C], ladder.now, on_failure=on_failure)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(100)
    f.after(3)
    cancel = f.b.expect("CANCEL")
    f.c.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))  # too late: it crossed
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.b.reply(200, to=cancel)
    f.c.reply(486)
    f.c.expect("ACK")
    f.a.refused(486)
    f.over()


@pytest.mark.parametrize(("theirs", "ours"), [(302, 480), (401, 403), (407, 403), (480, 480), (503, 503), (603, 603)])
def test_what_a_is_told(theirs: int, ours: int) -> None:
    """Neither a redirection nor a challenge of B's side crosses."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(theirs, extra=[("WWW-Authenticate", f'Digest realm="{B_HOST}", nonce="x"')])
    f.b.expect("ACK")
    assert f.a.refused(ours).get("WWW-Authenticate") is None
    f.over()


def test_second_answer_of_a_downstream_fork() -> None:
    """RFC 3261 §13.2.2.4: a further 2xx with another tag gets ACK and BYE of its own."""
    f = Ladder()
    f.set_up()
    f.b.reply(200, body=sdp(B_HOST), tag="other-fork")
    ack, bye = f.b.expect("ACK"), f.b.expect("BYE")
    assert ack.to_tag == bye.to_tag == "other-fork"
    assert bye.cseq_number == ack.cseq_number + 1
    f.b.reply(200, to=bye)
    f.a.nothing()
    f.a.request("BYE")  # the call is unharmed
    f.a.expect(200)
