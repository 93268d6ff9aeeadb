"""The short way through a usual session description says what the Python parser says, or nothing."""

from __future__ import annotations

import random

import pytest

from sbc.errors import SdpError
from sbc.sdp._usual import usual_description
from sbc.sdp.description import _ATTRIBUTE_OWNERS, _STATIC_CLOCKS_HZ, MediaDescription, SessionDescription
from sbc.sdp.rewrite import streams_of

USUAL = (
    b"v=0\r\no=user1 53655765 2353687637 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 6000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
)
LINES = [
    *("v=0", "o=- 1 1 IN IP4 192.0.2.1", "o=a b 1 1 IN IP4 192.0.2.1", "o= 1 1 IN IP4 192.0.2.1", "o=- 1 1 IN IP4 "),
    *("s=-", "s= ", "s=", "t=0 0", "b=AS:64", "k=clear:x", "u=http://x", "c=IN IP4 192.0.2.7", "c=IN IP4 192.0.2.07"),
    *(
        "c=IN IP4 0.0.0.0",
        "c=IN IP4 224.0.0.1/127",
        "c=IN IP6 ::1",
        "c=IN IP4 host",
        "c=IN IP4 1.2.3.4.5",
        "c=in ip4 1.2.3.4",
    ),
    *(
        "m=audio 0 RTP/AVP 0",
        "m=audio 65536 RTP/AVP 0",
        "m=audio 5 RTP/AVP",
        "m=audio 5/2 RTP/AVP 0",
        "m=audio 05 RTP/AVP 0",
    ),
    *("m=audio 5000 RTP/AVP 9 128", "m=audio 5000 RTP/AVP 14 ", "m=video 5000 RTP/AVP 31", "m=audio 5 RTP/SAVP 0"),
    *(
        "a=rtpmap:8 PCMA/16000",
        "a=rtpmap:0 PCMU",
        "a=rtpmap:128 X/1",
        "a=rtpmap:8 X/0",
        "a=rtpmap:8 X/8000/2",
        "a=rtpmap:8 X/8k",
    ),
    *("a=rtpmap:08 X/1", "a=ptime:0", "a=ptime:20.5", "a=maxptime:150", "a=ptime:1000", "a=ptime:9999", "a=ptime"),
    *(
        "a=sendonly",
        "a=SendOnly",
        "a=inactive:",
        "a=recvonly x",
        "a=rtcp:6001",
        "a=rtcp:6001 IN IP4 192.0.2.9",
        "a=rtcp:x",
    ),
    *(
        "a=rtcp:65536",
        "a=rtcp-mux",
        "a=rtcp-mux:1",
        "a=tool:x",
        "a=crypto:1 A B",
        "a=candidate:1 1 UDP 1 192.0.2.1 1 typ host",
    ),
    *(
        "a=mid:0",
        "a=x-unknown:1",
        "a=x-unknown:192.0.2.1",
        "a=silenceSupp:off - - - -",
        "a=",
        "a=:",
        "",
        "x=1",
        "A=1",
        "a= ",
        "a=\x7f",
    ),
    *("a=fmtp:101 é", "a=fmtp:1\t2", "a=fmtp:1\r2"),
]


def seen(sdp: SessionDescription) -> object:
    fields = [getattr(sdp, name) for name in SessionDescription.__slots__ if name != "streams"]
    return fields, [[getattr(media, name) for name in MediaDescription.__slots__] for media in sdp.streams]


def usual(data: bytes) -> SessionDescription | None:
    return usual_description(SessionDescription, MediaDescription, _ATTRIBUTE_OWNERS, _STATIC_CLOCKS_HZ, data)


def test_the_usual_call_takes_the_short_way() -> None:
    for data in (USUAL, USUAL.replace(b"\r\n", b"\n"), USUAL[:-2]):
        sdp = usual(data)
        assert sdp is not None
        assert seen(sdp) == seen(SessionDescription.parse_any(data))
        assert streams_of(sdp)[0].port == 6000


@pytest.mark.parametrize("seed", range(40))
def test_the_short_way_never_says_anything_else(seed: int) -> None:
    draw = random.Random(seed)
    taken = 0
    for _ in range(400):
        lines = USUAL.decode().split("\r\n")[:-1]
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            at = draw.randrange(len(lines))
            match draw.randrange(4):
                case 0:
                    lines.insert(at, draw.choice(LINES))
                case 1:
                    lines[at] = draw.choice(LINES)
                case 2:
                    del lines[at]
                case _:
                    cut = draw.randrange(len(lines[at]) + 1)
                    lines[at] = (
                        lines[at][:cut] + draw.choice(("", " ", "0", "\0", "x", ":", "\r")) + lines[at][cut + 1 :]
                    )
        data = draw.choice(("\r\n", "\r\n", "\n")).join([*lines, draw.choice(("", "", "\r\n"))]).encode()
        short = usual(data)
        if short is None:
            continue
        taken += 1
        try:
            reference = SessionDescription.parse_any(data)
        except SdpError as error:
            pytest.fail(f"{data!r} was taken, but: {error}")
        assert seen(short) == seen(reference), data
    assert taken > 50
