"""Descriptions with another address in them."""

from __future__ import annotations

import pytest

from sbc.routing.sdp_fix import ACTIVE, CONNECTION, ORIGIN, SdpFix

OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 8\r\nm=video 4002 RTP/AVP 96\r\nc=IN IP4 10.0.0.8\r\n"
)


def test_each_flag_changes_its_lines_and_no_others() -> None:
    fixed = SdpFix(CONNECTION, "192.0.2.1").of(OFFER)
    assert fixed == OFFER.replace(b"c=IN IP4 10.0.0.7", b"c=IN IP4 192.0.2.1").replace(b"10.0.0.8", b"192.0.2.1")
    assert SdpFix(ORIGIN, "192.0.2.1").of(OFFER) == OFFER.replace(b"1 1 IN IP4 10.0.0.7", b"1 1 IN IP4 192.0.2.1")
    active = SdpFix(ACTIVE, "192.0.2.1").of(OFFER)
    assert active == OFFER.replace(b"m=audio", b"a=direction:active\r\nm=audio")


def test_an_address_of_version_6_is_said_so() -> None:
    assert b"c=IN IP6 2001:db8::1\r\n" in SdpFix(CONNECTION, "2001:db8::1").of(OFFER)


def test_what_is_no_description_and_what_was_fixed_stay_as_they_are() -> None:
    fix = SdpFix(ACTIVE + CONNECTION + ORIGIN, "192.0.2.1")
    assert fix.of(b"") == b""
    assert fix.of(b"<xml/>") == b"<xml/>"
    assert fix.of(fix.of(OFFER)) == fix.of(OFFER)


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match=r"sip\.example"):
        SdpFix(CONNECTION, "sip.example")
