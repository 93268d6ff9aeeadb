"""Announcements before an answer, music for the side that is held, and recording, through the core."""

from __future__ import annotations

from typing import Any

import pytest

from media.protocol import Answer, Delete, Offer, Play, Record, Reply, Stop
from sbc.b2bua.announce import Announcement
from sbc.b2bua.call import Call
from sbc.b2bua.settings import MediaProfile, MediaProfiles, SrtpPolicies
from tests.support.ladder import A_HOST, B_HOST, MEDIA_A, TARGET_B, Ladder, dial_b, sdp


def announce(file: str = "gone.wav", then: Any = 404, limit_s: float = 30.0) -> Any:  # Any: a route of the ladder
    """A route that lets the caller hear a prompt."""

    def route(f: Ladder, call: Call) -> None:
        Announcement(f.core, call, file, then, limit_s=limit_s).begin(f.now)

    return route


def over(f: Ladder, number: int | None = None) -> None:
    """The media plane says that the prompt is over."""
    (play,) = (one for one in f.media if isinstance(one, Play))
    announcing = f.call.announcing
    assert announcing is not None
    announcing.played(play.number if number is None else number, f.now)
    f.drain()


def media(f: Ladder) -> list[str]:
    """What the media plane was asked, in short."""
    return [type(one).__name__ for one in f.media]


# Announcements


def test_a_caller_hears_why_before_the_refusal() -> None:
    """183 with our answer (RFC 3261 §13.2.1), the prompt, then the status."""
    f = Ladder(route=announce())
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    early = f.a.expect(183)
    assert media(f) == ["Offer", "Answer", "Play"]
    offer, answer, play = f.media
    assert (offer.from_leg, offer.to_leg, offer.to_srtp) == ("a", "prompt", "off")
    assert (answer.from_leg, answer.to_leg, answer.streams[0].address) == ("prompt", "a", "0.0.0.0")
    assert (play.leg, play.file, play.repeat, play.formats) == ("a", "gone.wav", 1, ["0 PCMU/8000"])
    body = early.body.decode()
    assert f"c=IN IP4 {MEDIA_A}\r\n" in body
    assert "m=audio 30002 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n" in body
    assert "a=" not in body.replace("a=rtpmap", "")
    f.a.nothing()
    over(f, number=1)  # of an announcement before
    f.a.nothing()
    over(f)
    f.a.refused(404)
    assert media(f)[3:] == ["Delete"]
    assert (f.cdr["status"], f.cdr["answered"], f.cdr["hangup"]) == (404, False, "sbc")
    f.over()


def test_the_first_codec_that_can_be_encoded_to_is_answered() -> None:
    f = Ladder(route=announce())
    offer = (
        f"v=0\r\no=x 1 1 IN IP4 {A_HOST}\r\ns=-\r\nc=IN IP4 {A_HOST}\r\nt=0 0\r\n"
        "m=video 5000 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n"
        "m=audio 4000 RTP/AVP 96 18 8 0 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
    )
    f.a.request("INVITE", body=offer.encode())
    f.a.expect(100)
    body = f.a.expect(183).body.decode()
    assert "m=video 0 RTP/AVP 97\r\nm=audio 30006 RTP/AVP 8\r\n" in body
    assert [stream.port for stream in f.media[1].streams] == [0, 9]
    assert f.media[2].formats == ["8"]
    over(f)
    f.a.refused(404)
    f.over()


def test_after_the_announcement_the_call_goes_on() -> None:
    """The route that it names dials; what B answers is the answer, and the leg that stood for us is gone."""
    f = Ladder(route=announce("wait.wav", dial_b))
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    early = f.a.expect(183)
    f.b.nothing()
    over(f)
    f.b.expect("INVITE")
    dropped = [one for one in f.media if isinstance(one, Delete)]
    assert [(one.leg) for one in dropped] == ["prompt"]
    f.b.reply(180)
    f.a.expect(180)
    f.b.reply(200, body=sdp(B_HOST))
    answered = f.a.expect(200)
    assert answered.to_tag == early.to_tag
    assert b"m=audio 30002 " in answered.body  # where it heard the prompt
    f.a.ack()
    f.b.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.expect("BYE")
    f.b.reply(200)
    assert f.cdr["answered"]
    f.over()


def test_after_a_failure_the_caller_hears_of_it() -> None:
    f = Ladder(
        route=lambda f, call: f.core.dial(call, [TARGET_B], f.now, on_failure=announce("busy.wav", 486)),
    )
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.expect(183)
    f.a.nothing()
    over(f)
    f.a.refused(486)
    f.over()


def test_a_caller_may_give_up_in_the_middle() -> None:
    f = Ladder(route=announce())
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.expect(183)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    assert f.cdr["status"] == 487
    f.over()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        sdp(A_HOST, direction="sendonly"),
        sdp(A_HOST, direction="inactive"),
        sdp(A_HOST).replace(b"PCMU", b"G729").replace(b"AVP 0", b"AVP 18").replace(b":0 ", b":18 "),
        sdp(A_HOST, 0),
    ],
)
def test_who_cannot_hear_it_is_spared_the_wait(body: bytes) -> None:
    f = Ladder(route=announce())
    f.a.request("INVITE", body=body)
    f.a.expect(100)
    f.a.refused(404)
    assert f.media == []
    assert [note.event for note in f.notes] == ["announcement not heard"]
    f.over()


FULL = Reply(ok=False, code="full", reason="sessions are in use", worker="media-0")


@pytest.mark.parametrize("refused", ["Offer", "Answer", "Play"])
def test_a_media_plane_that_refuses_holds_up_nobody(refused: str) -> None:
    f = Ladder(route=announce())
    f.held_media = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    while f.held_media:
        (command,) = f.held_media
        asked = type(command.request).__name__
        reply = FULL if asked == refused else f.answer_media(command)
        f.held_media = []
        f.core.media_done(command.request_id, reply, f.now)
        f.drain()
    if refused == "Play":
        f.a.expect(183)
    f.a.refused(404)
    assert media(f)[-2 if refused != "Offer" else -1] == refused
    assert f.notes[-1].event == "announcement not heard"


def test_a_prompt_that_never_ends_is_stopped() -> None:
    f = Ladder(route=announce(limit_s=5.0))
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.expect(183)
    f.after(4.9)
    f.a.nothing()
    f.after(0.2)
    f.a.refused(404)
    assert any(isinstance(one, Stop) for one in f.media)
    f.over()


def test_a_caller_who_insists_gets_it_reliably() -> None:
    """RFC 3262 §3: and then it has its answer for good."""
    f = Ladder(route=announce())
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Require", "100rel")])
    f.a.expect(100)
    early = f.a.expect(183)
    assert early.get("RSeq") is not None
    f.a.request("PRACK", extra=[("RAck", f"{early.get('RSeq')} 1 INVITE")])
    f.a.expect(200)
    over(f)
    f.a.refused(404)
    f.over()


def test_srtp_of_the_caller_ends_at_us() -> None:
    policies = SrtpPolicies({"inside": "required", "outside": "off"}, {})
    f = Ladder(route=announce(), srtp=policies)
    f.a.request("INVITE", body=sdp(A_HOST).replace(b"RTP/AVP", b"RTP/SAVP"))
    f.a.expect(100)
    f.a.expect(183)
    offer, answer, _ = f.media
    assert isinstance(offer, Offer)
    assert isinstance(answer, Answer)
    assert (offer.from_srtp, offer.to_srtp, answer.streams[0].protocol) == ("required", "off", "RTP/AVP")


# Music


def held(f: Ladder, description: bytes, answer: bytes) -> tuple[str, str]:
    """B changes the session; what A is told, and what B is answered."""
    f.b.request("INVITE", body=description)
    f.b.expect(100)
    told = f.a.expect("INVITE").body.decode()
    f.a.reply(200, body=answer)
    answered = f.b.expect(200).body.decode()
    f.b.ack()
    f.a.expect("ACK")
    return told, answered


def music_call(music: str = "music.wav") -> Ladder:
    """A call that is up; A's side has music."""
    profiles = MediaProfiles({"default": MediaProfile(music=music)}, {})
    f = Ladder(media_profiles=profiles)
    f.set_up(rings=False)
    f.media.clear()
    return f


@pytest.mark.parametrize(
    ("holding", "told_b"),
    [
        (sdp(B_HOST, version=2, direction="sendonly"), "recvonly"),
        (sdp(B_HOST, version=2, direction="inactive"), "inactive"),
        (sdp("0.0.0.0", version=2), "recvonly"),
    ],
)
def test_who_is_held_hears_music(holding: bytes, told_b: str) -> None:
    """RFC 3264 §8.4, RFC 6337 §5.3: A is asked to listen, B is answered what it asked for."""
    f = music_call()
    told, answered = held(f, holding, sdp(A_HOST, version=2, direction="recvonly"))
    assert "a=sendonly\r\n" in told
    assert f"c=IN IP4 {MEDIA_A}\r\n" in told
    assert "0.0.0.0" not in told
    assert "inactive" not in told
    assert f"a={told_b}\r\n" in answered
    play = f.media[-1]
    assert isinstance(play, Play)
    assert (play.leg, play.file, play.repeat, play.formats) == ("a", "music.wav", 0, ["0 PCMU/8000"])
    f.media.clear()
    told, answered = held(f, holding.replace(b"77 2 ", b"77 3 "), sdp(A_HOST, version=2, direction="recvonly"))
    assert media(f) == ["Offer", "Answer"]  # it goes on
    told, answered = held(f, sdp(B_HOST, version=4), sdp(A_HOST, version=3))
    assert "a=sendrecv\r\n" in told
    assert "a=sendrecv\r\n" in answered
    assert isinstance(f.media[-1], Stop)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.expect("BYE")
    f.b.reply(200)
    f.over()


def test_who_holds_hears_none() -> None:
    """Neither A where A holds, nor A where it wants to hear nothing itself."""
    f = music_call()
    f.a.request("INVITE", body=sdp(A_HOST, version=2, direction="sendonly"))
    f.a.expect(100)
    assert b"a=sendonly\r\n" in f.b.expect("INVITE").body
    f.b.reply(200, body=sdp(B_HOST, version=2, direction="recvonly"))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    assert media(f) == ["Offer", "Answer"]
    held(f, sdp(B_HOST, version=3, direction="sendonly"), sdp(A_HOST, version=3, direction="inactive"))
    assert media(f) == ["Offer", "Answer", "Offer", "Answer"]


def test_without_music_a_hold_passes_as_it_is() -> None:
    f = music_call("")
    told, _ = held(f, sdp(B_HOST, version=2, direction="inactive"), sdp(A_HOST, version=2, direction="inactive"))
    assert "a=inactive\r\n" in told
    assert media(f) == ["Offer", "Answer"]


def test_music_that_is_missing_is_told() -> None:
    f = music_call()
    f.feature_refusals[Play] = [Reply(ok=False, code="no_file", reason="no such prompt", worker="media-0")]
    held(f, sdp(B_HOST, version=2, direction="sendonly"), sdp(A_HOST, version=2, direction="recvonly"))
    assert [note.event for note in f.notes] == ["no music for the held side"]
    assert f.call.a.music == ""


# Recording


def recorded_call(profile: MediaProfile, **refusals: list[Reply]) -> Ladder:
    f = Ladder(media_profiles=MediaProfiles({}, {"carrier-b": profile}))
    f.feature_refusals[Record] = refusals.get("record", [])
    f.set_up(rings=False)
    return f


def hang_up(f: Ladder) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    f.b.expect("BYE")
    f.b.reply(200)


def test_calls_are_recorded_where_a_profile_says_so() -> None:
    f = recorded_call(MediaProfile(record="wav"))
    request = f.media[-1]
    assert isinstance(request, Record)
    assert (request.left, request.format, request.formats) == ("a", "wav", ["0 PCMU/8000"])
    assert request.file == f"2023-11-14/223000-{f.call.key}"  # of the INVITE, in UTC
    hang_up(f)
    assert f.cdr["recording"] == request.file + ".wav"
    f.over()


def test_a_codec_that_no_wav_can_have_is_recorded_as_packets() -> None:
    refusal = Reply(ok=False, code="no_codec", reason="G729", worker="media-0")
    f = recorded_call(MediaProfile(record="wav"), record=[refusal])
    assert [one.format for one in f.media if isinstance(one, Record)] == ["wav", "pcap"]
    assert "pcap" in f.notes[-1].event
    hang_up(f)
    assert f.cdr["recording"].endswith(".pcap")


def test_a_call_that_is_not_recorded_goes_on() -> None:
    refusal = Reply(ok=False, code="no_file", reason="no directory of recordings", worker="media-0")
    f = recorded_call(MediaProfile(record="pcap"), record=[refusal])
    assert f.notes[-1].event == "a call is not recorded"
    hang_up(f)
    assert f.cdr["recording"] == ""
    f.over()


def test_the_name_survives_the_worker() -> None:
    f = recorded_call(MediaProfile(record="wav"))
    key, record = f.call.key, f.records[f.call.key]
    file = f.call.recording
    assert file
    g = Ladder(seed=1)
    g.core.resume(record, g.now, g.wall)
    assert g.core.calls[key].recording == file
