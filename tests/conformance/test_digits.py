"""Digits between sides that want them differently, and codecs of profiles, through the core."""

from __future__ import annotations

import pytest

from media.protocol import Answer, Dtmf
from sbc.b2bua import digits
from sbc.b2bua.settings import MediaProfile, MediaProfiles
from sbc.sdp.negotiate import Digits, Wish
from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp


def stage(a: Digits, b: Digits) -> Ladder:
    """A call that is up, whose sides want digits so."""
    f = Ladder(
        media_profiles=MediaProfiles(
            {"default": MediaProfile(wish=Wish(digits=a))}, {"carrier-b": MediaProfile(wish=Wish(digits=b))}
        )
    )
    f.set_up(offer=sdp(A_HOST), answer=sdp(B_HOST))
    return f


@pytest.mark.parametrize(
    ("kind", "body", "digit", "duration_ms"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5", 160),
        ("application/dtmf-relay", b"Signal= #\r\nDuration= 1\r\n", "#", 40),
        ("application/dtmf-relay", b"Signal=10\r\n", "*", 100),
        ("application/dtmf", b"7", "7", 100),
    ],
)
def test_info_becomes_events(kind: str, body: bytes, digit: str, duration_ms: int) -> None:
    f = stage("pass", "rfc4733")
    f.a.request("INFO", body=body, content_type=kind)
    f.a.expect(200)
    f.b.nothing()
    assert f.media[-1] == Dtmf(f.call.key, "b1", digit, duration_ms)


@pytest.mark.parametrize(("b", "body"), [("pass", b"Signal=5\r\n"), ("rfc4733", b"Signal=flash\r\n")])
def test_info_that_is_for_nobody_here_crosses(b: Digits, body: bytes) -> None:
    f = stage("rfc4733", b)
    f.a.request("INFO", body=body, content_type="application/dtmf-relay")
    assert f.b.expect("INFO").body == body


def test_events_become_info_one_at_a_time() -> None:
    f = stage("pass", "info")
    for digit in "12":
        digits.heard(f.core, f.call, "a", digit, 100, f.now)
    f.drain()
    first = f.b.expect("INFO")
    assert first.get("Content-Type") == "application/dtmf-relay"
    assert first.body == b"Signal=1\r\nDuration=100\r\n"
    f.b.nothing()
    f.b.reply(200, to=first)
    second = f.b.expect("INFO")
    assert second.body == b"Signal=2\r\nDuration=100\r\n"
    f.b.reply(415, to=second)
    digits.heard(f.core, f.call, "b1", "3", 100, f.now)  # A takes them as they come
    f.drain()
    f.a.nothing()


def test_a_side_that_wants_info_is_offered_no_events() -> None:
    event = b"a=rtpmap:101 telephone-event/8000\r\n"
    offer = sdp(A_HOST).replace(b"RTP/AVP 0", b"RTP/AVP 0 101") + event
    profiles = MediaProfiles({}, {"carrier-b": MediaProfile(wish=Wish(("pcma",), "info"))})
    f = Ladder(media_profiles=profiles)
    f.a.request("INVITE", body=offer)
    f.a.expect(100)
    shown = f.b.expect("INVITE").body
    assert b" RTP/AVP 0 8\r\n" in shown
    assert event not in shown
    f.b.reply(200, body=sdp(B_HOST).replace(b"RTP/AVP 0\r\na=rtpmap:0 PCMU", b"RTP/AVP 8\r\na=rtpmap:8 PCMA"))
    assert b" RTP/AVP 0 101\r\n" in f.a.expect(200).body
    answer = f.media[-1]
    assert isinstance(answer, Answer)
    assert answer.processing[0].to_answerer is not None
    assert [one.to for one in answer.processing[0].to_answerer.formats] == [8, -1]
