"""Descriptions of browsers: what the media plane hears of them, what a carrier sees, and what they are told."""

from __future__ import annotations

import pytest

from media.protocol import Endpoint, Ice
from sbc.errors import SdpError
from sbc.sdp.codecs import CodecFilter
from sbc.sdp.description import SessionDescription
from sbc.sdp.webrtc import PLAIN, Shape, Transport, streams_with
from tests.support.shared import shared_data

BROWSER, DTLS = Transport(True, True), Transport(True)
OURS = "203.0.113.9"
FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)
OFFER = (
    "v=0\r\no=- 4 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=extmap-allow-mixed\r\n"
    "a=msid-semantic: WMS x\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 110 126\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"
    "a=ice-ufrag:5+Ix\r\na=ice-pwd:uK8IlylxzDMUhrkVzdmj0M+v\r\na=ice-options:trickle\r\n"
    f"a=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\na=mid:0\r\n"
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"
    "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendrecv\r\na=msid:- 06574f1e\r\n"
    "a=rtcp-mux\r\na=rtcp-rsize\r\n"
    "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n"
    "a=candidate:1 1 udp 2122262783 8a0c3b36-1b2c.local 45076 typ host\r\n"
    "a=ssrc:3262661846 cname:yFbnkIWTHwPXy6MO\r\n"
)
CARRIER = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n"
    "m=audio 6000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n"
)
OF_BROWSERS = (
    *("a=ice", "a=candidate", "a=end-of", "a=fingerprint", "a=setup", "a=mid", "a=group", "a=extmap", "a=rtcp-fb"),
    *("a=rtcp-rsize", "a=rtcp-mux", "a=msid", "a=ssrc", "a=bundle", "SAVP", "AVPF", "0.0.0.0", ".local", "127.0.0.1"),
)


def endpoint(port: int = 30000, setup: str = "actpass") -> Endpoint:
    """What a media worker shows to a leg with ICE."""
    made = Endpoint(OURS, port, port, "UDP/TLS/RTP/SAVPF", fingerprint=FINGERPRINT)
    made.setup = "passive" if setup == "passive" else "actpass"
    made.ice = Ice("ours", "p" * 24)
    return made


def shaped(text: str, endpoints: list[Endpoint], giving: Transport, taking: Transport, asked: str = "") -> list[str]:
    """The lines that the receiver gets in answer to ``asked``, without that in an offer."""
    sdp = SessionDescription.parse(text.encode())
    streams_with(sdp, giving)
    return Shape(giving, taking, asked.encode(), "").text(sdp, endpoints, OURS).split("\r\n")


def test_what_the_media_plane_is_told() -> None:
    (stream,) = streams_with(SessionDescription.parse(OFFER.encode()), BROWSER)
    assert (stream.address, stream.port, stream.rtcp_port, stream.rtcp_mux) == ("0.0.0.0", 9, 0, True)
    assert stream.ice == Ice("5+Ix", "uK8IlylxzDMUhrkVzdmj0M+v")
    assert (stream.fingerprints, stream.setup) == ([FINGERPRINT], "actpass")
    assert "uK8Ilylx" not in repr(stream)


def test_what_the_session_says_holds_for_its_streams() -> None:
    moved = OFFER.replace(f"a=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\n", "").replace(
        "t=0 0\r\n", f"t=0 0\r\na=fingerprint:{FINGERPRINT}\r\na=setup:active\r\n"
    )
    (stream,) = streams_with(SessionDescription.parse(moved.encode()), BROWSER)
    assert (stream.fingerprints, stream.setup) == ([FINGERPRINT], "active")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", "RTP/AVP where DTLS-SRTP is required"),
        ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "RTP/SAVPF where DTLS-SRTP is required"),
        (f"a=fingerprint:{FINGERPRINT}\r\n", "", "DTLS-SRTP without a usable a=fingerprint"),
        (FINGERPRINT, "sha-256 AB:CD", "DTLS-SRTP without a usable a=fingerprint"),
        ("a=ice-ufrag:5+Ix\r\n", "", "ICE without usable a=ice-ufrag and a=ice-pwd"),
        ("a=ice-ufrag:5+Ix", "a=ice-ufrag:5 +x", "ICE without usable a=ice-ufrag and a=ice-pwd"),
        ("uK8IlylxzDMUhrkVzdmj0M+v", "short", "ICE without usable a=ice-ufrag and a=ice-pwd"),
        ("a=rtcp-mux\r\n", "", "ICE without a=rtcp-mux"),
    ],
)
def test_what_cannot_be_served_is_refused(old: str, new: str, why: str) -> None:
    assert old in OFFER
    with pytest.raises(SdpError, match=why.replace("+", r"\+")) as refused:
        streams_with(SessionDescription.parse(OFFER.replace(old, new).encode()), BROWSER)
    assert refused.value.status == 488


def test_a_carrier_sees_nothing_of_the_browser() -> None:
    lines = shaped(OFFER, [Endpoint(OURS, 30000, 30001, "RTP/AVPF")], BROWSER, PLAIN)
    assert "m=audio 30000 RTP/AVP 111 0 110 126" in lines
    assert "a=rtpmap:111 opus/48000/2" in lines
    assert "a=fmtp:111 minptime=10;useinbandfec=1" in lines
    assert not [line for line in lines for word in OF_BROWSERS if word in line]


@pytest.mark.parametrize("name", ["chromium_audio_video", "firefox_audio_video", "safari-audio-video", "chrome-audio"])
def test_real_browsers_towards_a_carrier(name: str) -> None:
    """Video goes by the codecs of the carrier's profile, data by itself."""
    sdp = SessionDescription.parse((shared_data("sdp/real") / f"{name}.sdp").read_bytes())
    assert CodecFilter(allow=frozenset({"pcmu", "pcma"})).apply(sdp)
    streams = streams_with(sdp, BROWSER)
    assert streams[0].ice is not None
    assert [stream.port > 0 for stream in streams[:2]] == [True, False][: len(streams[:2])]
    endpoints = [Endpoint(OURS, 30000 if index == 0 else 0, 0) for index in range(len(streams))]
    text = Shape(BROWSER, PLAIN, b"", "").text(sdp, endpoints, OURS)
    assert not [word for word in OF_BROWSERS if word in text.replace("0.0.0.0", "").replace("DTLS/SCTP", "")]
    assert "opus" not in text
    assert len(text) < 400


def test_a_browser_is_answered_with_what_it_offered() -> None:
    lines = shaped(CARRIER, [endpoint(setup="passive")], PLAIN, BROWSER, OFFER)
    session, media = lines[: lines.index("m=audio 30000 UDP/TLS/RTP/SAVPF 0 101")], lines[lines.index("a=ptime:20") :]
    assert session == [
        *("s=-", f"c=IN IP4 {OURS}", "t=0 0", "a=group:BUNDLE 0", "a=ice-lite", "a=ice-options:ice2"),
    ]
    assert media == [
        *("a=ptime:20", "a=sendrecv", "a=rtcp-mux", "a=mid:0", "a=ice-ufrag:ours", "a=ice-pwd:" + "p" * 24),
        *(f"a=fingerprint:{FINGERPRINT}", "a=setup:passive"),
        *(f"a=candidate:1 1 udp 2130706431 {OURS} 30000 typ host", "a=end-of-candidates", ""),
    ]


def test_no_bundle_and_no_mid_where_none_was_offered() -> None:
    bare = OFFER.replace("a=group:BUNDLE 0\r\n", "").replace("a=mid:0\r\n", "")
    text = "\r\n".join(shaped(CARRIER, [endpoint()], PLAIN, BROWSER, bare))
    assert "a=mid" not in text
    assert "a=group" not in text


def test_a_browser_that_is_called_gets_names_of_ours() -> None:
    lines = shaped(CARRIER, [endpoint()], PLAIN, BROWSER)
    assert "a=group:BUNDLE 0" in lines
    assert "a=mid:0" in lines
    assert "a=setup:actpass" in lines
    assert "m=audio 30000 UDP/TLS/RTP/SAVPF 0 101" in lines


def test_a_direction_is_always_said() -> None:
    """RFC 8829 §5.2.1; a carrier may leave it out, or say it for the whole session."""
    assert "a=sendrecv" in shaped(CARRIER.replace("a=sendrecv\r\n", ""), [endpoint()], PLAIN, BROWSER, OFFER)
    session = CARRIER.replace("a=sendrecv\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=inactive\r\n")
    assert shaped(session, [endpoint()], PLAIN, BROWSER, OFFER).count("a=inactive") == 2


def test_a_later_offer_keeps_the_browsers_names() -> None:
    former = "\r\n".join(shaped(CARRIER, [endpoint()], PLAIN, BROWSER, OFFER.replace("mid:0", "mid:audio")))
    sdp = SessionDescription.parse((CARRIER + "m=video 7000 RTP/AVP 31\r\n").encode())
    streams_with(sdp, PLAIN)
    text = Shape(PLAIN, BROWSER, b"", former).text(sdp, [endpoint(), endpoint(30002)], OURS)
    assert "a=group:BUNDLE audio\r\n" in text
    assert "a=mid:audio\r\n" in text
    assert "a=mid:1\r\n" in text


def test_of_a_bundle_the_first_that_lives_stays() -> None:
    """Each stream has a port of its own; one that exists in the bundle alone is rejected (RFC 9143 §7.3.3)."""
    two = OFFER.replace("BUNDLE 0", "BUNDLE 0 1") + (
        "m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n"
    )
    streams = streams_with(SessionDescription.parse(two.encode()), BROWSER)
    assert [stream.port for stream in streams] == [9, 0]
    answer = CARRIER.replace("m=audio 6000", "m=audio 0") + "m=video 6002 RTP/AVP 96\r\n"
    lines = shaped(answer, [Endpoint(OURS, 0, 0), endpoint(30002)], PLAIN, BROWSER, two)
    assert "a=group:BUNDLE 1" in lines
    assert "m=audio 0 UDP/TLS/RTP/SAVPF 0" in lines
    assert [line for line in lines if line.startswith("a=mid")] == ["a=mid:0", "a=mid:1"]
    assert sum(line.startswith("a=ice-ufrag") for line in lines) == 1


def test_a_carriers_answer_is_of_the_protocol_that_it_was_offered() -> None:
    """And it gets no feedback that it did not ask for."""
    answer = OFFER.replace("a=mid:0", "a=mid:0\r\na=rtcp-fb:0 nack")
    lines = shaped(answer, [Endpoint(OURS, 30000, 30001, "RTP/AVPF")], BROWSER, PLAIN, CARRIER)
    assert "m=audio 30000 RTP/AVP 111 0 110 126" in lines
    assert not [line for line in lines for word in OF_BROWSERS if word in line]


def test_two_browsers_agree_on_what_is_between_them() -> None:
    lines = shaped(OFFER, [endpoint()], BROWSER, BROWSER)
    assert "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level" in lines
    assert "a=rtcp-fb:111 transport-cc" in lines
    assert "a=msid:- 06574f1e" in lines
    assert "a=ice-ufrag:ours" in lines
    text = "\n".join(lines)
    for gone in ("5+Ix", "uK8I", ".local", "sdes:mid", "trickle"):
        assert gone not in text


@pytest.mark.parametrize(("said", "told"), [("sendrecv", "sendonly"), ("recvonly", "inactive"), ("sendonly",) * 2])
def test_a_hold_by_the_null_address_is_said_in_words(said: str, told: str) -> None:
    held = CARRIER.replace("c=IN IP4 192.0.2.7", "c=IN IP4 0.0.0.0").replace("sendrecv", said)
    lines = shaped(held, [endpoint()], PLAIN, BROWSER)
    assert [line for line in lines if line[2:] in ("sendrecv", "recvonly", "sendonly", "inactive")] == ["a=" + told]
    assert "c=IN IP4 0.0.0.0" not in lines


def test_a_leg_with_dtls_and_without_ice() -> None:
    """RFC 5763: it is where it says that it is, and is told of no candidates."""
    text = OFFER.replace("c=IN IP4 0.0.0.0", "c=IN IP4 192.0.2.9").replace("SAVPF", "SAVP")
    (stream,) = streams_with(SessionDescription.parse(text.encode()), DTLS)
    assert (stream.address, stream.ice, stream.fingerprints) == ("192.0.2.9", None, [FINGERPRINT])
    ours = Endpoint(OURS, 30000, 30001, "UDP/TLS/RTP/SAVP", fingerprint=FINGERPRINT, setup="passive")
    lines = shaped(CARRIER, [ours], PLAIN, DTLS, text)
    assert lines[-3:] == [f"a=fingerprint:{FINGERPRINT}", "a=setup:passive", ""]
    assert not [line for line in lines if "ice" in line or "mid" in line or "candidate" in line]


def test_endpoints_without_a_transport_reach_no_browser() -> None:
    with pytest.raises(SdpError):
        shaped(CARRIER, [Endpoint(OURS, 30000, 30001)], PLAIN, BROWSER)


@pytest.mark.parametrize("folder", ["corpus/sdp", "sdp/real", "sdp/transform"])
def test_whatever_comes_is_written_or_refused(folder: str) -> None:
    """Towards a carrier and towards a browser, as an offer and as an answer to one."""
    written = 0
    for file in sorted(shared_data(folder).iterdir()):
        for taking in (PLAIN, BROWSER, DTLS):
            for asked in (b"", OFFER.encode()):
                for giving in (PLAIN, BROWSER):
                    try:
                        sdp = SessionDescription.parse(file.read_bytes())
                        streams = streams_with(sdp, giving)
                        made = [endpoint() if stream.port else Endpoint(OURS, 0, 0) for stream in streams]
                        text = Shape(giving, taking, asked, "").text(sdp, made, OURS)
                    except SdpError:
                        continue
                    written += 1
                    assert text.startswith("s=-\r\n")
                    assert ("a=ice-pwd:ppp" in text) == (
                        taking.ice and any(one.is_rtp and one.port for one in sdp.streams)
                    )
    assert written
