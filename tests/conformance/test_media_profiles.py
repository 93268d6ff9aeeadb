"""Media profiles through the core: what each side's profile asks of the media plane, and of the codecs of offers."""

from __future__ import annotations

from typing import Any

import pytest

from media.protocol import Answer, Offer, Srtp
from sbc.b2bua.settings import MediaProfile, MediaProfiles, SrtpPolicies
from sbc.sdp.codecs import CodecFilter
from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp

OFFER = (
    b"v=0\r\no=phone 77 1 IN IP4 " + A_HOST.encode() + b"\r\ns=talk\r\nc=IN IP4 " + A_HOST.encode() + b"\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 96 0 8 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
)


def stage(
    named: MediaProfile | None = None,
    carrier: MediaProfile | None = None,
    **changes: Any,  # Any: fields of CoreSettings
) -> Ladder:
    """Calls of A are engaged under ``default``, which is ``named`` here; B's peer has ``carrier``."""
    profiles = MediaProfiles(
        {"default": named} if named is not None else {}, {"carrier-b": carrier} if carrier is not None else {}
    )
    return Ladder(media_profiles=profiles, **changes)


def call(f: Ladder, offer: bytes = OFFER) -> tuple[Offer, Answer]:
    """What the media plane was asked in the course of a call."""
    f.set_up(offer=offer, rings=False)
    offered, answered = f.media
    assert isinstance(offered, Offer)
    assert isinstance(answered, Answer)
    return offered, answered


def test_without_profiles_nothing_is_said() -> None:
    offered, answered = call(stage())
    assert (offered.from_latch, offered.silence_s, answered.from_latch) == ("", 0.0, "")


def test_each_side_is_latched_by_its_own_profile() -> None:
    """And the caller's says how long silence may last."""
    f = stage(MediaProfile(latch="learn", silence_s=20.0), MediaProfile(latch="fixed", silence_s=90.0))
    offered, answered = call(f)
    assert (offered.from_latch, answered.from_latch) == ("learn", "fixed")
    assert offered.silence_s == 20.0


def test_an_offer_of_the_called_side_keeps_the_patience_of_the_caller() -> None:
    f = stage(MediaProfile(latch="learn", silence_s=20.0), MediaProfile(latch="fixed", silence_s=90.0))
    call(f)
    f.b.request("INVITE", body=sdp(B_HOST, version=2, port=4100))
    f.b.expect(100)
    f.a.expect("INVITE")
    again = f.media[-1]
    assert isinstance(again, Offer)
    assert (again.from_leg, again.from_latch, again.silence_s) == ("b1", "fixed", 20.0)


def test_a_profile_with_srtp_goes_before_the_realm() -> None:
    policies = SrtpPolicies({"inside": "optional", "outside": "optional"}, {})
    offered, _ = call(stage(MediaProfile(srtp="off"), MediaProfile(srtp="required"), srtp=policies))
    assert (offered.from_srtp, offered.to_srtp) == ("off", "required")
    offered, _ = call(stage(None, MediaProfile(srtp="required")))
    assert (offered.from_srtp, offered.to_srtp) == ("off", "required")


def test_what_is_sent_to_a_side_is_marked_by_its_profile() -> None:
    offered, _ = call(stage(MediaProfile(dscp=46), MediaProfile(dscp=34)))
    assert (offered.from_dscp, offered.to_dscp) == (46, 34)
    offered, _ = call(stage(None, MediaProfile(dscp=34)))
    assert (offered.from_dscp, offered.to_dscp) == (0, 34)


def test_codecs_are_those_that_both_sides_may_have() -> None:
    f = stage(
        MediaProfile(codecs=CodecFilter(strip=frozenset({"opus"}))),
        MediaProfile(codecs=CodecFilter(order=("pcma",))),
    )
    f.a.request("INVITE", body=OFFER)
    f.a.expect(100)
    body = f.b.expect("INVITE").body.decode()
    assert " RTP/AVP 8 0 101\r\n" in body
    assert "opus" not in body
    assert "a=rtpmap:101 telephone-event/8000\r\n" in body


def test_an_offer_without_an_allowed_codec_is_488_and_costs_no_ports() -> None:
    f = stage(carrier=MediaProfile(codecs=CodecFilter(allow=frozenset({"g729"}))))
    f.a.request("INVITE", body=OFFER)
    f.a.expect(100)
    f.a.expect(488)
    assert f.media == []


class Counted(dict[str, Srtp]):
    """Policies that count who asks."""

    asked = 0

    def __getitem__(self, realm: str) -> Srtp:
        self.asked += 1
        return super().__getitem__(realm)


@pytest.mark.parametrize(("dtls", "asked"), [(False, 2), (True, 4)])
def test_an_answer_asks_for_no_policy_where_nobody_speaks_dtls(dtls: bool, asked: int) -> None:
    realms = Counted(inside="optional", outside="optional")
    offered, _ = call(stage(srtp=SrtpPolicies(realms, {}, dtls)))
    assert (offered.from_srtp, offered.to_srtp) == ("optional", "optional")
    assert realms.asked == asked
