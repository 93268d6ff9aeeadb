"""Media that leave the relay and come back while the call is up (RFC 3725 §7, RFC 3264 §8), in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from media.protocol import Record, Reply
from sbc.b2bua import reanchor
from sbc.b2bua.settings import MediaProfile, MediaProfiles, RealmSettings
from sbc.sdp.negotiate import Wish
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, MEDIA_A, MEDIA_B, OUR_A, Ladder, Phone, sdp


class Call:
    """A call that is up, and what became of the changes that were asked for."""

    def __init__(self, *, engage: bool = True, **settings: Any) -> None:  # Any: as the ladder takes them
        self.f = Ladder(engage=engage, **settings)
        self.f.set_up()
        self.key = self.f.call.key
        self.ends: list[str] = []

    def move(self, profile: str | None) -> str:
        f = self.f
        why = f.core.move_media(f.call, profile, lambda reason, _: self.ends.append(reason), f.now)
        f.drain()
        return why

    def asked(self) -> Message:
        """A is asked for an offer."""
        invite = self.f.a.expect("INVITE")
        assert invite.body == b""
        return invite

    def wait(self, seconds: float) -> None:
        """Until A is asked, for so long at most."""
        end = self.f.now + seconds
        while not self.f.a.inbox and self.f.now < end:
            self.f.after(0.01)

    def well(self) -> tuple[bytes, bytes]:
        """Both accept; what B was offered and A was answered."""
        f = self.f
        f.a.reply(200, to=self.asked(), body=sdp(A_HOST, 4700, version=2))
        offer = f.b.expect("INVITE")
        f.b.reply(200, to=offer, body=sdp(B_HOST, 4800, version=2))
        assert f.b.expect("ACK").body == b""
        return offer.body, f.a.expect("ACK").body

    def hang_up(self, side: str = "a") -> None:
        f = self.f
        one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
        one.request("BYE")
        one.expect(200)
        other.reply(200, to=other.expect("BYE"))
        assert f.cdr["answered"] is True
        f.over()


def origin(body: bytes) -> tuple[bytes, int]:
    """What o= says of the session, and its version."""
    user, session_id, version, rest = body.partition(b"\r\no=")[2].partition(b"\r\n")[0].split(b" ", 3)
    return b" ".join((user, session_id, rest)), int(version)


def told(phone: Phone) -> list[bytes]:
    """Every description that it was sent."""
    return [msg.body for data in phone.all if (msg := Message.parse(data)).body]


def test_directly_and_back() -> None:
    call = Call()
    f = call.f
    assert call.move(None) == ""
    offer, answer = call.well()
    assert call.ends == [""]
    assert f"c=IN IP4 {A_HOST}".encode() in offer
    assert b"m=audio 4700 " in offer
    assert f"c=IN IP4 {B_HOST}".encode() in answer
    assert b"m=audio 4800 " in answer
    assert not f.media_legs  # the relay has nothing of it any more
    assert f.call.describe()["media"] == "direct"
    assert call.move("default") == ""
    offer, answer = call.well()
    assert call.ends == ["", ""]
    assert MEDIA_B.encode() in offer
    assert A_HOST.encode() not in offer
    assert MEDIA_A.encode() in answer
    assert B_HOST.encode() not in answer
    f.only_two_legs()
    for phone in (f.a, f.b):  # one session in o=, its version rises by each change (RFC 3264 §8)
        origins = [origin(body) for body in told(phone)]
        assert len({name for name, _ in origins}) == 1
        assert [version for _, version in origins] == [1, 2, 3]
    call.hang_up()
    assert f.cdr["media"]["a"]["packets"] == 300  # of both sessions


def test_a_call_that_never_was_relayed_goes_on_from_the_o_line_that_it_had() -> None:
    call = Call(engage=False)
    f = call.f
    assert call.move("default") == ""
    call.well()
    for phone in (f.a, f.b):
        origins = [origin(body) for body in told(phone)]
        assert origins[0][0] == origins[1][0]
        assert [version for _, version in origins] == [1, 2]
    f.only_two_legs()
    call.hang_up()


@pytest.mark.parametrize("profile", [None, "default"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_refusal_leaves_everything_as_it_was(side: str, profile: str | None) -> None:
    call = Call(engage=profile is None)
    f = call.f
    before = f.call.a.sdp_out
    media = dict(f.media_legs)
    b_before = f.call.b.sdp_out if f.call.b else b""
    assert call.move(profile) == ""
    if side == "a":
        call.f.a.reply(488, to=call.asked())
        f.a.expect("ACK")
        f.b.nothing()
    else:
        f.a.reply(200, to=call.asked(), body=sdp(A_HOST, 4700, version=2))
        f.b.reply(488, to=f.b.expect("INVITE"))
        f.b.expect("ACK")
        assert f.a.expect("ACK").body == before
    assert call.ends == [f"leg {'a' if side == 'a' else 'b1'} has refused with 488"]
    assert f.call.b is not None
    assert (f.call.a.sdp_out, f.call.b.sdp_out, f.media_legs) == (before, b_before, media)
    assert (f.call.media_profile is None) == (profile is not None)
    f.a.request("INVITE", body=sdp(A_HOST, 4000, version=3, direction="sendonly"))  # and the call goes on
    f.a.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, version=2, direction="recvonly"))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    call.hang_up("b")


@pytest.mark.parametrize("side", ["a", "b"])
def test_glare_is_tried_again(side: str) -> None:
    call = Call()
    f = call.f
    call.move(None)
    if side == "a":
        f.a.reply(491, to=call.asked())
        f.a.expect("ACK")
    else:
        f.a.reply(200, to=call.asked(), body=sdp(A_HOST, 4700, version=2))
        f.b.reply(491, to=f.b.expect("INVITE"))
        f.b.expect("ACK")
        f.a.expect("ACK")
    assert not call.ends
    call.wait(4.0)
    call.well()
    assert call.ends == [""]
    call.hang_up()


def test_a_change_of_the_side_itself_goes_first() -> None:
    call = Call()
    f = call.f
    f.b.request("INVITE", body=sdp(B_HOST, 4900, version=2))
    f.b.expect(100)
    hold = f.a.expect("INVITE")
    assert call.move(None) == ""
    f.a.nothing()
    f.a.reply(200, to=hold, body=sdp(A_HOST, version=2))
    f.b.expect(200)
    f.b.ack()
    f.a.expect("ACK")
    call.wait(4.0)
    call.well()
    call.hang_up()


def test_what_comes_meanwhile_is_glare() -> None:
    call = Call()
    f = call.f
    call.move(None)
    invite = call.asked()
    f.b.request("INVITE", body=sdp(B_HOST, 4900, version=2))
    f.b.refused(491)
    f.a.reply(200, to=invite, body=sdp(A_HOST, 4700, version=2))
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4800, version=2))
    f.b.expect("ACK")
    f.a.expect("ACK")
    assert call.ends == [""]
    call.hang_up()


@pytest.mark.parametrize("profile", [None, "default"])
@pytest.mark.parametrize("by", ["a", "b"])
@pytest.mark.parametrize("at", ["asked", "offered"])
def test_bye_in_the_middle(at: str, by: str, profile: str | None) -> None:
    call = Call(engage=profile is None)
    f = call.f
    call.move(profile)
    invite = call.asked()
    if at == "offered":
        f.a.reply(200, to=invite, body=sdp(A_HOST, 4700, version=2))
        offer = f.b.expect("INVITE")
    one, other = (f.a, f.b) if by == "a" else (f.b, f.a)
    one.request("BYE")
    one.expect(200)
    if at == "offered" and by == "b":
        f.a.expect("ACK")  # owed before the BYE
    other.reply(200, to=other.expect("BYE"))
    if at == "asked":
        f.a.reply(487, to=invite)
    else:
        f.b.reply(487, to=offer)
    f.after(40.0)
    assert call.ends == ["the call has ended"]
    f.over()


@pytest.mark.parametrize("at", ["asked", "offered", "accepted"])
def test_the_worker_dies_in_the_middle(at: str) -> None:
    """A successor brings both sides back to what the record says, by one more exchange."""
    call = Call()
    f = call.f
    before = f.call.a.sdp_out
    call.move(None)
    invite = call.asked()
    if at != "asked":
        f.a.reply(200, to=invite, body=sdp(A_HOST, 4700, version=2))
        offer = f.b.expect("INVITE")
    f.dies()
    f.a.reply(200, to=invite, body=sdp(A_HOST, 4700, version=2))  # again, or for the first time
    assert f.a.expect("ACK").body == before
    if at == "accepted":
        f.b.reply(200, to=offer, body=sdp(B_HOST, 4800, version=2))
        assert f.b.expect("ACK").body == b""
    call.wait(reanchor.SETTLE_S + 0.1)
    offer_, answer = call.well()
    assert MEDIA_B.encode() in offer_
    assert MEDIA_A.encode() in answer
    f.after(5.0)
    f.a.nothing()
    f.b.nothing()
    f.only_two_legs()
    call.hang_up()


def test_statistics_survive_the_worker() -> None:
    call = Call()
    f = call.f
    call.move(None)
    call.well()
    f.dies()
    call.hang_up()
    assert f.cdr["media"]["a"]["packets"] == 150


def test_the_answer_of_b_that_nobody_can_use_is_taken_back() -> None:
    """B has accepted the direct offer with an address behind NAT: A keeps the relay, and B is offered it again."""
    call = Call()
    f = call.f
    call.move(None)
    f.a.reply(200, to=call.asked(), body=sdp(A_HOST, 4700, version=2))
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp("10.1.2.3", 4800, version=2))
    f.b.expect("ACK")
    f.a.expect("ACK")
    again = f.b.expect("INVITE")
    assert MEDIA_B.encode() in again.body
    f.b.reply(200, to=again, body=sdp(B_HOST, version=3))
    f.b.expect("ACK")
    assert call.ends == ["leg b1 is behind NAT"]
    call.hang_up()


NAT = {
    "inside": RealmSettings("inside", trusted=True, nat="always"),
    "outside": RealmSettings("outside"),
}
LEARN = MediaProfiles(peers={"carrier-b": MediaProfile(latch="learn")})


def on_a(profile: MediaProfile) -> dict[str, Any]:  # Any: fields of CoreSettings
    return {"media_profiles": MediaProfiles({"default": profile}, {})}


def on_b(profile: MediaProfile) -> dict[str, Any]:  # Any: as above
    return {"media_profiles": MediaProfiles({}, {"carrier-b": profile})}


def transcodes(leg: str, names: str) -> str:
    return f"the media profile of leg {leg} transcodes ({names})"


def converts(leg: str, how: str) -> str:
    return f"the media profile of leg {leg} converts digits (dtmf: {how})"


@pytest.mark.parametrize(
    ("settings", "offer", "why"),
    [
        ({"realms": NAT}, sdp(A_HOST), "leg a is behind NAT"),
        ({"media_profiles": LEARN}, sdp(A_HOST), "leg b1 is behind NAT"),
        ({}, sdp("10.9.8.7"), "leg a is behind NAT"),
        (on_a(MediaProfile(wish=Wish(("pcma", "opus")))), sdp(A_HOST), transcodes("a", "pcma, opus")),
        (on_b(MediaProfile(wish=Wish(("pcma",), "info"))), sdp(A_HOST), transcodes("b1", "pcma")),
        (on_a(MediaProfile(wish=Wish(digits="info"))), sdp(A_HOST), converts("a", "info")),
        (on_b(MediaProfile(wish=Wish(digits="rfc4733"))), sdp(A_HOST), converts("b1", "rfc4733")),
        (on_a(MediaProfile(music="music.wav")), sdp(A_HOST), "the media profile of leg a plays or records"),
        (on_b(MediaProfile(record="wav")), sdp(A_HOST), "the call is recorded"),
    ],
)
def test_why_it_cannot_be(settings: dict[str, Any], offer: bytes, why: str) -> None:  # Any: as above
    f = Ladder(**settings)
    f.set_up(offer=offer)
    assert reanchor.begin(f.core, f.call, None, lambda *_: None, f.now) == why
    assert reanchor.begin(f.core, f.call, "default", lambda *_: None, f.now) == "its media are relayed already"
    f.a.nothing()


@pytest.mark.parametrize("ok", [True, False])
def test_a_recording_holds_media_here_and_so_does_the_wish_for_one(ok: bool) -> None:
    f = Ladder(**on_b(MediaProfile(record="pcap")))
    if not ok:
        f.feature_refusals[Record] = [Reply(ok=False, code="disk", reason="full", worker="media-0")]
    f.set_up()
    why = "the call is recorded" if ok else "the media profile of leg b1 plays or records"
    assert reanchor.begin(f.core, f.call, None, lambda *_: None, f.now) == why


@pytest.mark.parametrize("kind", ["music", "prompt"])
def test_what_a_leg_hears_holds_media_here_whatever_its_profile_says(kind: str) -> None:
    call = Call()
    leg = call.f.call.a
    setattr(leg, kind, "music.wav")
    assert call.move(None) == "leg a hears music.wav"
    setattr(leg, kind, "")
    assert call.move(None) == ""


def test_keys_of_ours_hold_media_here() -> None:
    call = Call()
    leg = call.f.call.a
    leg.sdp_out += b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"
    assert call.move(None) == "leg a speaks SRTP with keys of ours"


def test_our_own_address_is_in_no_direct_description() -> None:
    call = Call()
    call.move(None)
    offer, answer = call.well()
    for body in (offer, answer):
        rest = body.partition(b"\r\ns=")[2]
        assert not [ours for ours in (OUR_A, MEDIA_A, MEDIA_B) if f"{ours}\r".encode() in rest]
