"""Codecs of an offer: which stay, in which order, and what goes with those that do not."""

from __future__ import annotations

import pytest

from media.protocol import Endpoint
from sbc.errors import SdpError
from sbc.sdp.codecs import CodecFilter
from sbc.sdp.description import SessionDescription
from sbc.sdp.rewrite import anchored
from tests.support.shared import shared_data

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
AUDIO = (
    HEAD + "m=audio 49170 RTP/AVP 0 8 18 96 9 101 13\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:18 G729/8000\r\n"
    "a=fmtp:18 annexb=no\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n"
)
VIDEO = (
    "m=video 49180 RTP/AVPF 107 108 109\r\na=rtpmap:107 H264/90000\r\na=rtcp-fb:107 nack pli\r\n"
    "a=rtpmap:108 rtx/90000\r\na=fmtp:108 apt=107;rtx-time=200\r\na=rtpmap:109 VP8/90000\r\n"
)


def names(*given: str) -> frozenset[str]:
    return frozenset(given)


def filtered(codecs: CodecFilter, text: str = AUDIO) -> SessionDescription:
    sdp = SessionDescription.parse(text.encode())
    codecs.apply(sdp)
    return sdp


@pytest.mark.parametrize(
    ("codecs", "formats"),
    [
        (CodecFilter(), "0 8 18 96 9 101 13"),
        (CodecFilter(allow=names("pcma", "pcmu")), "0 8 101 13"),
        (CodecFilter(allow=names("opus/48000", "l16")), "96 101 13"),
        (CodecFilter(strip=names("g729", "cn")), "0 8 96 9 101"),
        (CodecFilter(allow=names("pcma"), strip=names("telephone-event")), "8 13"),
        (CodecFilter(order=("g722", "opus")), "9 96 0 8 18 101 13"),
        (CodecFilter(allow=names("pcma", "g722"), order=("pcma/8000",)), "8 9 101 13"),
        (CodecFilter(strip=names("pcma"), order=("opus", "pcma")), "96 0 18 9 101 13"),
    ],
)
def test_what_stays_and_in_which_order(codecs: CodecFilter, formats: str) -> None:
    assert filtered(codecs).streams[0].formats == formats.split()


def test_lines_go_with_their_codec_and_others_pass_octet_for_octet() -> None:
    sdp = filtered(CodecFilter(strip=names("g729", "opus")))
    text = anchored(sdp, [Endpoint("203.0.113.5", 4000, 4001)], "203.0.113.5")
    assert text == (
        "s=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 9 101 13\r\na=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n"
    )


def test_the_clock_is_that_of_the_codec_that_is_now_first() -> None:
    assert filtered(CodecFilter(order=("opus",))).streams[0].clock_rate_hz == 48000
    assert filtered(CodecFilter(order=("g722",))).streams[0].clock_rate_hz == 8000


def test_retransmissions_go_with_what_they_are_of() -> None:
    both = AUDIO + VIDEO
    assert filtered(CodecFilter(strip=names("h264")), both).streams[1].formats == ["109"]
    video = filtered(CodecFilter(strip=names("vp8")), both).streams[1]
    assert video.formats == ["107", "108"]
    assert "a=rtcp-fb:107 nack pli" in video.passing


def test_a_stream_without_a_codec_is_rejected_and_keeps_its_place() -> None:
    sdp = SessionDescription.parse((AUDIO + VIDEO).encode())
    assert CodecFilter(allow=names("pcma")).apply(sdp)
    assert [(media.port, media.formats[0]) for media in sdp.streams] == [(49170, "8"), (0, "107")]
    assert not CodecFilter(allow=names("g723")).apply(SessionDescription.parse(AUDIO.encode())), "events alone are none"


def test_what_is_not_rtp_is_left_alone() -> None:
    fax = HEAD + "m=image 4000 udptl t38\r\n"
    assert filtered(CodecFilter(allow=names("pcma")), fax).streams[0].port == 4000


def test_descriptions_of_real_phones_and_browsers() -> None:
    """Whatever they say: what is left is what was there, without the stripped, and no line of a format that is gone."""
    seen = 0
    for path in sorted(shared_data("sdp", "real").rglob("*")):
        if not path.is_file():
            continue
        try:
            before = SessionDescription.parse(path.read_bytes())
            after = SessionDescription.parse(path.read_bytes())
        except SdpError:
            continue
        CodecFilter(strip=names("pcmu", "opus", "vp8")).apply(after)
        for one, other in zip(before.streams, after.streams, strict=True):
            if not other.port:
                continue
            seen += 1
            assert [number for number in one.formats if number in other.formats] == other.formats
            for gone in set(one.formats).difference(other.formats):
                assert not any(line.startswith((f"a=rtpmap:{gone} ", f"a=fmtp:{gone} ")) for line in other.passing)
            assert not any(line.lower().startswith("a=rtpmap:") and " opus/" in line.lower() for line in other.passing)
    assert seen > 0


@pytest.mark.parametrize(
    ("codecs", "formats"),
    [
        (CodecFilter(allow=names("pcma", "pcmu")), "0 8 13 126"),
        (CodecFilter(allow=names("opus")), "111 13 110"),
        (CodecFilter(allow=names("opus", "g722")), "111 9 13 110 126"),
        (CodecFilter(), "111 63 9 0 8 13 110 126"),
    ],
)
def test_a_companion_of_the_clock_stays(codecs: CodecFilter, formats: str) -> None:
    """A browser has telephone-event for 48 kHz and for 8 kHz; CN has but one."""
    text = (shared_data("sdp", "real") / "chromium_audio_video.sdp").read_text()
    assert filtered(codecs, text).streams[0].formats == formats.split()
