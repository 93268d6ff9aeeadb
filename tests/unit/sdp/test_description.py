"""Reading session descriptions: what real ones say, and what hostile ones get."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc.errors import SdpError
from sbc.sdp.description import MAX_BYTES, SessionDescription
from sbc.sdp.rewrite import is_held, streams_of
from tests.support.shared import shared_data

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
AUDIO = HEAD + "m=audio 49170 RTP/AVP 0 8 101\r\n"


def parse(text: str) -> SessionDescription:
    return SessionDescription.parse(text.encode("utf-8", "surrogateescape"))


def test_a_usual_offer() -> None:
    sdp = parse(AUDIO + "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n")
    (stream,) = streams_of(sdp)
    assert (stream.address, stream.port, stream.kind, stream.protocol) == ("192.0.2.1", 49170, "audio", "RTP/AVP")
    assert (stream.rtcp_port, stream.rtcp_mux, stream.direction, stream.clock_rate_hz) == (0, False, "sendrecv", 8000)
    assert sdp.streams[0].formats == ["0", "8", "101"]


def test_lines_come_back_octet_for_octet() -> None:
    text = (
        "v=0\r\no=J\xf6rg 1 1 IN IP4 192.0.2.1\r\ns= \r\nc=IN IP4 192.0.2.1\r\nb=AS:64\r\nt=0 0\r\nr=604800 3600 0\r\n"
        "a=X-odd:  two blanks\t\r\nm=audio 4000/2 RTP/AVP  0\r\na=goo:\xff\xfe\r\nf=what\r\n"
    ).encode("latin-1")
    assert SessionDescription.parse(text).to_bytes() == text
    assert SessionDescription.parse(text.replace(b"\r\n", b"\n")).to_bytes() == text


def test_a_section_overrules_the_session() -> None:
    sdp = parse(
        HEAD.replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n")
        + "m=audio 4000 RTP/AVP 9\r\nm=video 6000 RTP/AVPF 107\r\nc=IN IP6 2001:db8::1\r\na=recvonly\r\n"
        + "a=rtpmap:107 H264/90000\r\na=rtcp:6010 IN IP4 192.0.2.9\r\n"
    )
    audio, video = streams_of(sdp)
    assert (audio.address, audio.direction, audio.clock_rate_hz) == ("192.0.2.1", "sendonly", 8000)
    assert (video.address, video.direction, video.clock_rate_hz) == ("2001:db8::1", "recvonly", 90000)
    assert video.rtcp_port == 6010


@pytest.mark.parametrize(
    ("line", "direction"),
    [("a=SendOnly", "sendonly"), ("a=inactive", "inactive"), ("a=sendonly:x", "sendrecv"), ("a=sideways", "sendrecv")],
)
def test_directions_in_any_case_and_unknown_ones_ignored(line: str, direction: str) -> None:
    assert streams_of(parse(AUDIO + line + "\r\n"))[0].direction == direction


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (AUDIO, False),
        (AUDIO + "a=sendonly\r\n", True),
        (AUDIO + "a=inactive\r\n", True),
        (AUDIO + "a=recvonly\r\n", False),
        (AUDIO + "c=IN IP4 0.0.0.0\r\n", True),
    ],
)
def test_hold_in_its_three_forms(text: str, held: bool) -> None:
    assert is_held(streams_of(parse(text))[0]) is held


def test_addresses_are_canonical() -> None:
    sdp = parse(AUDIO + "c=IN IP6 ::ffff:192.0.2.7\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:DB8:0:0::1\r\n")
    assert [stream.address for stream in streams_of(sdp)] == ["192.0.2.7", "2001:db8::1"]


def test_the_first_payload_types_clock() -> None:
    sdp = parse(HEAD + "m=audio 4 RTP/AVP 111 0\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:111 opus/48000/2\r\n")
    assert sdp.streams[0].clock_rate_hz == 48000
    assert parse(HEAD + "m=audio 4 RTP/AVP 10\r\n").streams[0].clock_rate_hz == 44100
    assert parse(HEAD + "m=audio 4 RTP/AVP 96\r\na=rtpmap:96 x/0\r\n").streams[0].clock_rate_hz == 8000


def test_secure_profiles_are_reported_not_refused() -> None:
    sdp = parse(HEAD + "m=audio 4000 RTP/SAVP 0\r\nm=audio 4002 UDP/TLS/RTP/SAVPF 0\r\nm=image 4004 udptl t38\r\n")
    assert [stream.protocol for stream in streams_of(sdp)] == ["RTP/SAVP", "UDP/TLS/RTP/SAVPF", "UDPTL"]
    assert [media.secure for media in sdp.streams] == [True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\r\n\r\n",
        "s=-\r\n" + HEAD,
        "v=1\r\n",
        "v=0\r\n",
        HEAD + HEAD,
        HEAD + "nonsense\r\n",
        HEAD + "A=b\r\n",
        HEAD + "\r\nm=audio 4000 RTP/AVP 0\r\n",
        HEAD + "m=audio 4000 RTP/AVP\r\n",
        HEAD + "m=audio 4000\r\n",
        HEAD + "m=audio 65536 RTP/AVP 0\r\n",
        HEAD + "m=audio -1 RTP/AVP 0\r\n",
        HEAD + "m=audio ٤٠ RTP/AVP 0\r\n",
        HEAD + "m=audio 4294967336 RTP/AVP 0\r\n",
        HEAD + "m=audio " + "9" * 5000 + " RTP/AVP 0\r\n",
        HEAD + "m=audio 4000 RTP/AVP 128\r\n",
        HEAD + "m=audio 4000 RTP/AVP 4294967296\r\n",
        HEAD + "m=" + "A" * 1000 + " 4000 RTP/AVP 0\r\n",
        HEAD + "m=audio 4000 RTP/AVP " + "0 " * 129 + "\r\n",
        AUDIO + "a=rtpmap:65535 telephone-event/8000\r\n",
        AUDIO + "a=fmtp\0:101 0-16\r\n",
        AUDIO + "a=sendrecv\ra=inactive\r\n",
        AUDIO + "a=rtcp:70000\r\n",
        AUDIO + "c=IN IP4\r\n",
        AUDIO + "c=IN IP4 127.0.0." + "1" * 512 + "\r\n",
        AUDIO + "c=IN IP4 1.2.3\r\n",
        AUDIO + "c=IN IP6 fe80::1%eth0\r\n",
        AUDIO + "c=XX IP4 192.0.2.1\r\n",
        AUDIO + "a=x\r\n" * 200,
        AUDIO + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19\r\n" * 17,
        HEAD + "m=audio 4000 RTP/AVP 0\r\n" * 17,
        "v=0\r\no=- " + "1" * 100 + " 1 IN IP4 192.0.2.1\r\n",
        "v=0\r\no=- 1 IN IP4 192.0.2.1\r\n",
        AUDIO + "a=x:" + "y" * MAX_BYTES,
    ],
    ids=range(35),
)
def test_what_breaks_the_grammar_or_a_limit(text: str) -> None:
    with pytest.raises(SdpError) as refusal:
        parse(text)
    assert refusal.value.status == 488
    assert str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "v=0\no=SIP user 1 1 IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 0 \n",
        AUDIO + "a=rtcp IN IP4 1.2.3.4",
        AUDIO + "\n\n",
    ],
)
def test_what_phones_get_wrong_without_harm(text: str) -> None:
    assert len(parse(text).streams) == 1


def test_a_host_name_or_no_address_cannot_be_relayed() -> None:
    named = parse(AUDIO + "c=IN IP4 media.example.com\r\n")
    with pytest.raises(SdpError, match="host name"):
        streams_of(named)
    with pytest.raises(SdpError, match="without a c="):
        streams_of(parse(AUDIO.replace("c=IN IP4 192.0.2.1\r\n", "")))
    rejected = parse(AUDIO.replace("c=IN IP4 192.0.2.1\r\n", "").replace("49170", "0"))
    assert streams_of(rejected)[0].port == 0


@pytest.mark.parametrize("folder", ["sdp/real", "sdp/transform"])
def test_descriptions_of_real_devices_parse(folder: str) -> None:
    files = sorted(shared_data(*folder.split("/")).iterdir())
    assert len(files) > 5
    for file in files:
        data = file.read_bytes()
        sdp = SessionDescription.parse(data)
        assert sdp.to_bytes().split() == data.split(), file.name
        assert len(streams_of(sdp)) == data.count(b"\nm="), file.name


def test_the_fuzzer_corpus_gives_a_value_or_a_typed_error() -> None:
    parsed = 0
    for file in sorted(shared_data("corpus", "sdp").iterdir()):
        try:
            streams_of(SessionDescription.parse(file.read_bytes()))
            parsed += 1
        except SdpError:
            pass
    assert parsed > 5


LINES = st.sampled_from(
    [*AUDIO.splitlines(), "a=sendonly", "c=IN IP4 0.0.0.0", "a=rtcp:9", "a=rtcp-mux", "m=video 0 RTP/AVP 31", "k=x", ""]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(st.one_of(LINES, st.text(max_size=20)), max_size=30)))
def test_anything_gives_a_value_or_a_typed_error(lines: bytes | list[str]) -> None:
    data = lines if isinstance(lines, bytes) else "\r\n".join(["v=0", *lines]).encode("utf-8", "replace")
    try:
        sdp = SessionDescription.parse(data)
        streams_of(sdp)
    except SdpError:
        return
    assert SessionDescription.parse(sdp.to_bytes()).to_bytes() == sdp.to_bytes()
