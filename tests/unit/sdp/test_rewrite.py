"""What leaves for the other side: pairs of texts, and the promise that nothing of the first side is in them."""

from __future__ import annotations

import re

import pytest

from media.protocol import Endpoint
from sbc.errors import EndpointMismatch, Fault, SdpError
from sbc.sdp.description import SessionDescription
from sbc.sdp.rewrite import Origin, keep_sections, relabel, rewrite, streams_of
from tests.support.shared import shared_data

OURS = "203.0.113.9"
ORIGIN = Origin("-", 77, 3)


def lines(*text: str) -> bytes:
    return "".join(line + "\r\n" for line in text).encode()


def rewritten(data: bytes, *endpoints: Endpoint, address: str = OURS) -> bytes:
    return rewrite(SessionDescription.parse(data), endpoints, origin=ORIGIN, address=address)


def test_a_usual_offer() -> None:
    offer = lines(
        "v=0",
        "o=alice 2890844526 2890844526 IN IP4 pc33.atlanta.example.com",
        "s=Asterisk PBX 18",
        "i=Alice's line",
        "u=http://10.0.0.1/",
        "e=alice@example.com",
        "p=+1 555",
        "c=IN IP4 192.0.2.1",
        "b=AS:64",
        "t=0 0",
        "k=clear:secret",
        "a=tool:softphone 1.2",
        "m=audio 49170 RTP/AVP 0 18 101",
        "i=media of alice",
        "c=IN IP4 192.0.2.1",
        "a=rtpmap:0 PCMU/8000",
        "a=fmtp:18 annexb=no",
        "a=rtcp:53020 IN IP4 192.0.2.1",
        "a=ptime:20",
        "a=X-vendor:keep me as  I am",
        "a=X-nat:0",
        "a=X-real-ip:10.0.0.7",
        "a=alt:1 1 : abc def 10.0.0.7 5060",
        "a=sendrecv",
    )
    assert rewritten(offer, Endpoint(OURS, 40000, 40001)) == lines(
        "v=0",
        "o=- 77 3 IN IP4 203.0.113.9",
        "s=-",
        "c=IN IP4 203.0.113.9",
        "b=AS:64",
        "t=0 0",
        "m=audio 40000 RTP/AVP 0 18 101",
        "a=rtpmap:0 PCMU/8000",
        "a=fmtp:18 annexb=no",
        "a=ptime:20",
        "a=X-vendor:keep me as  I am",
        "a=X-nat:0",
        "a=sendrecv",
        "a=rtcp:40001",
    )


def test_keys_and_candidates_stay_behind() -> None:
    offer = lines(
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "a=ice-lite",
        "a=fingerprint:sha-256 AA:BB",
        "m=audio 4000 RTP/AVP 0",
        "c=IN IP4 192.0.2.1",
        "a=candidate:1 1 UDP 2130706431 10.0.0.7 4000 typ host",
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789012345678901",
        "a=setup:actpass",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
        "a=mid:0",
        "a=rtcp-mux",
    )
    assert rewritten(offer, Endpoint(OURS, 40000, 40000)) == lines(
        "v=0",
        "o=- 77 3 IN IP4 203.0.113.9",
        "s=-",
        "c=IN IP4 203.0.113.9",
        "t=0 0",
        "m=audio 40000 RTP/AVP 0",
        "a=mid:0",
        "a=rtcp-mux",
    )


def test_a_rejected_stream_and_one_of_the_other_family() -> None:
    offer = lines(
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=-",
        "c=IN IP4 192.0.2.1",
        "t=0 0",
        "m=audio 4000 RTP/AVP 0",
        "m=video 0 RTP/AVP 31",
        "m=audio 4002 RTP/AVP 8",
    )
    out = rewritten(offer, Endpoint(OURS, 5000, 5001), Endpoint("", 0, 0), Endpoint("2001:db8::9", 5002, 5005))
    assert out == lines(
        "v=0",
        "o=- 77 3 IN IP4 203.0.113.9",
        "s=-",
        "c=IN IP4 203.0.113.9",
        "t=0 0",
        "m=audio 5000 RTP/AVP 0",
        "m=video 0 RTP/AVP 31",
        "m=audio 5002 RTP/AVP 8",
        "c=IN IP6 2001:db8::9",
        "a=rtcp:5005",
    )


def test_hold_stays_hold() -> None:
    offer = lines("v=0", "o=- 1 2 IN IP4 192.0.2.1", "s=-", "c=IN IP4 0.0.0.0", "t=0 0", "m=audio 4000 RTP/AVP 0")
    assert b"m=audio 5000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n" in rewritten(offer, Endpoint(OURS, 5000, 5001))
    assert b"\r\nc=IN IP6 ::\r\n" in rewritten(offer, Endpoint("2001:db8::9", 5000, 5001), address="2001:db8::9")
    held = lines(
        "v=0", "o=- 1 2 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "m=audio 4 RTP/AVP 0", "a=sendonly"
    )
    assert rewritten(held, Endpoint(OURS, 5000, 5001)).endswith(b"m=audio 5000 RTP/AVP 0\r\na=sendonly\r\n")


def test_missing_lines_are_supplied_and_hostile_values_left_out() -> None:
    offer = lines(
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "c=IN IP4 192.0.2.1",
        "m=audio 4000 RTP/AVP 0",
        "f=invalid",
        "a=ptime:4294967295",
        "a=maxptime:0.125",
    )
    assert rewritten(offer, Endpoint(OURS, 5000, 5001)) == lines(
        "v=0", "o=- 77 3 IN IP4 203.0.113.9", "s=-", "c=IN IP4 203.0.113.9", "t=0 0", "m=audio 5000 RTP/AVP 0",
        "a=maxptime:0.125",
    )  # fmt: skip


def test_an_address_hidden_in_a_known_line_is_found() -> None:
    offer = lines(
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=-",
        "c=IN IP4 192.0.2.1",
        "t=0 0",
        "m=audio 4000 RTP/AVP 0 96",
        "a=fmtp:96 server=192.0.2.1",
        "a=fmtp:0 fine",
        "a=ssrc:1 cname:alice@host.example.com",
        "a=ssrc:1 cname:random",
        "a=X-v6:2001:db8::7",
    )
    out = rewritten(offer, Endpoint(OURS, 5000, 5001))
    assert out.endswith(b"m=audio 5000 RTP/AVP 0 96\r\na=fmtp:0 fine\r\na=ssrc:1 cname:random\r\n")


def test_both_sides_on_one_address_lose_nothing_of_ours() -> None:
    offer = lines("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0", "m=audio 4000 RTP/AVP 0")
    out = rewritten(offer, Endpoint("127.0.0.1", 5000, 5001), address="127.0.0.1")
    assert out == offer.replace(b"o=- 1 1", b"o=- 77 3").replace(b"4000", b"5000")


def test_direct_media_keeps_all_but_the_origin() -> None:
    offer = lines(
        "v=0", "o=alice 1 1 IN IP4 192.0.2.1", "s=phone", "e=a@b.example", "c=IN IP4 192.0.2.1", "t=0 0",
        "a=ice-lite", "m=audio 4000 RTP/SAVP 0", "a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host", "k=x",
    )  # fmt: skip
    assert relabel(SessionDescription.parse(offer), origin=ORIGIN, address=OURS) == lines(
        "v=0", "o=- 77 3 IN IP4 203.0.113.9", "s=-", "c=IN IP4 192.0.2.1", "t=0 0",
        "a=ice-lite", "m=audio 4000 RTP/SAVP 0", "a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host",
    )  # fmt: skip


def test_another_number_of_endpoints_is_the_medias_fault() -> None:
    offer = lines("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "m=audio 4000 RTP/AVP 0")
    with pytest.raises(EndpointMismatch) as mismatch:
        rewritten(offer)
    assert (mismatch.value.fault, mismatch.value.status, mismatch.value.try_elsewhere) == (Fault.MEDIA, 500, True)


def test_nothing_of_any_real_description_leaks() -> None:
    files = [*shared_data("sdp", "real").iterdir(), *shared_data("sdp", "transform").iterdir()]
    files += shared_data("corpus", "sdp").iterdir()
    tried = 0
    for file in sorted(files):
        try:
            sdp = SessionDescription.parse(file.read_bytes())
            streams = streams_of(sdp)
        except SdpError:
            continue
        tried += 1
        endpoints = [
            Endpoint(OURS, 40000 + 2 * i, 40001 + 2 * i) if s.port else Endpoint("", 0, 0)
            for i, s in enumerate(streams)
        ]
        out = rewrite(sdp, endpoints, origin=ORIGIN, address=OURS)
        again = SessionDescription.parse(out)
        assert [(s.kind, s.port) for s in streams_of(again)] == [
            (s.kind, e.port) for s, e in zip(streams, endpoints, strict=True)
        ], file.name
        assert rewrite(again, endpoints, origin=ORIGIN, address=OURS) == out, file.name
        direct = relabel(sdp, origin=ORIGIN, address=OURS)
        assert relabel(SessionDescription.parse(direct), origin=ORIGIN, address=OURS) == direct, file.name
        text = out.decode("utf-8", "surrogateescape")
        addresses = set(re.findall(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])", text)) - {OURS, "0.0.0.0"}
        assert not addresses, (file.name, addresses)
        for secret in ("a=crypto", "a=candidate", "a=ice-", "a=fingerprint", "a=setup", "k=", "a=group"):
            assert f"\n{secret}" not in text, (file.name, secret)
        for name in {sdp.origin[5], sdp.origin[0]} - {"-", "0.0.0.0", "alice", "bob"}:
            assert name not in text, (file.name, name)
    assert tried > 20


@pytest.mark.parametrize(
    ("name", "refused"),
    [("a04", True), ("a05", True), ("a09", True), ("a10", True), ("a19", True), ("a20", True), ("a21", True),
     ("a22", False), ("a23", False)],
)  # fmt: skip
def test_attacks_by_description_are_refused_or_lose_their_sting(name: str, refused: bool) -> None:
    (file,) = shared_data("sip", "attacks").glob(f"{name}-*.sip")
    body = file.read_bytes().partition(b"\r\n\r\n")[2]
    assert body.startswith(b"v=0")
    if refused:
        with pytest.raises(SdpError):
            SessionDescription.parse(body)
    else:
        out = rewritten(body, Endpoint(OURS, 40000, 40001))
        assert b"ptime" not in out
        assert b"m=audio 40000 RTP/AVP " in out


def test_an_offer_keeps_the_sections_that_its_receiver_has() -> None:
    """RFC 3264 §8: never fewer m= lines than before; those that the offer lacks are rejected ones."""
    offer = lines("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "m=audio 4000 RTP/AVP 0")
    sdp = SessionDescription.parse(offer)
    former = "s=-\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\nm=video 40002 RTP/AVP 31 96\r\na=rtpmap:96 H264/90000\r\n"
    keep_sections(sdp, former)
    assert [(media.kind, media.port, media.formats) for media in sdp.streams[1:]] == [("video", 0, ["31", "96"])]
    assert [stream.port for stream in streams_of(sdp)] == [4000, 0]
    keep_sections(sdp, former)
    assert len(sdp.streams) == 2
