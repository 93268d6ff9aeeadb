"""Ladders of calls that are redirected (3xx): who may, whereto, and how far."""

from __future__ import annotations

import pytest

from sbc.b2bua.call import Target
from sbc.b2bua.forking import MAX_AT_ONCE
from sbc.sip.flow import Flow
from tests.support.forks import BOTH, attempts, cancelled, dialling, hang_up, redirect, refuse, ringing
from tests.support.ladder import (
    B_HOST,
    C_HOST,
    D_HOST,
    TARGET_B,
    TARGET_C,
    Ladder,
    sdp,
)


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
