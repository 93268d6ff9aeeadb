"""How wide a request may spread (Max-Breadth, RFC 5393), and requests that come back."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.sip.flow import Flow
from tests.support.forks import dialling, redirect, refuse, ringing
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    D_HOST,
    TARGET_B,
    TARGET_C,
    TARGET_D,
    Ladder,
    sdp,
)

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
