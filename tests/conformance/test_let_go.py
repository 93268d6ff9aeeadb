"""Calls that a later owner has: this worker lets them go, and nobody hears of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from media.protocol import Delete
from sbc.dialog.session_timer import Policy
from tests.support.ladder import A_HOST, B_HOST, OUR_A, Ladder, hunt, sdp


def in_setup(f: Ladder) -> None:
    f.held_routes = []
    f.a.request("INVITE", body=sdp(A_HOST))


def calling(f: Ladder) -> None:
    f.a.request("INVITE", body=sdp(A_HOST))


def ringing(f: Ladder) -> None:
    calling(f)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.after(1)


def reliably(f: Ladder) -> None:
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Supported", "100rel")])
    f.b.expect("INVITE")
    f.b.reply(183, body=sdp(B_HOST), extra=[("Require", "100rel"), ("RSeq", "1")])


def with_media_under_way(f: Ladder) -> None:
    f.held_media = []
    calling(f)


def committing(f: Ladder) -> None:
    f.hold_journal = True
    ringing(f)
    f.b.reply(200, body=sdp(B_HOST))


def unacknowledged(f: Ladder) -> None:
    ringing(f)
    f.b.reply(200, body=sdp(B_HOST))


def up(f: Ladder) -> None:
    f.set_up()


def held(f: Ladder) -> None:
    f.set_up()
    f.a.request("INVITE", body=sdp(A_HOST, version=2, direction="sendonly"))


STATES = [in_setup, calling, ringing, reliably, with_media_under_way, committing, unacknowledged, up, held]


@pytest.mark.parametrize("until", STATES)
def test_nobody_hears_of_it(until: Callable[[Ladder], None]) -> None:
    f = Ladder(route=hunt, session_timers=Policy(120, 90), ping_interval_s=60.0)
    until(f)
    key = f.call.key
    f.a.inbox.clear()
    f.b.inbox.clear()
    media = len(f.media)
    f.core.lost(key, f.now)
    f.drain()
    assert not f.core.calls
    f.held_routes = None
    f.release_media()
    for save in f.saves:
        f.core.saved(save.key, save.version, True, f.now)
    f.drain()
    f.after(400)
    assert not f.a.inbox
    assert not f.b.inbox
    assert not f.cdrs
    assert Delete(key) not in f.media
    assert len(f.media) == media
    assert not f.core.legs
    assert not len(f.core.layer)
    assert f.core.next_timer() is None
    assert f.peers.open == 0
    assert f.counts["CALLS_ACTIVE"] == 0
    assert not f.counts.get("CORE_FAULTS")


def test_what_comes_for_it_later_is_not_answered_as_if_it_were_lost() -> None:
    """A 200 of its callee belongs to the owner: no ACK, no BYE."""
    f = Ladder()
    ringing(f)
    f.core.lost(f.call.key, f.now)
    f.b.inbox.clear()
    f.b.reply(200, body=sdp(B_HOST))
    f.b.nothing()


def test_a_call_that_is_over_or_unknown_is_no_loss() -> None:
    f = Ladder()
    f.set_up()
    key = f.call.key
    f.a.request("BYE")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.core.lost(key, f.now)
    f.core.lost("nobody", f.now)
    assert len(f.cdrs) == 1
    f.over()


def test_new_calls_are_refused_while_they_would_be_unprotected() -> None:
    """``unprotected: refuse``: those that are up go on."""
    f = Ladder()
    f.set_up()
    f.core.unprotected = True
    f.e.request("INVITE", body=sdp(f.e.host), uri=f"sip:1@{OUR_A}")
    assert f.e.refused(503).get("Retry-After") == "5"
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.counts["UNPROTECTED_REFUSED"] == 1
    f.core.unprotected = False
    f.e.cseq, f.e.dialog = 1, None
    f.e.request("INVITE", body=sdp(f.e.host), uri=f"sip:1@{OUR_A}")
    f.e.expect(100)
