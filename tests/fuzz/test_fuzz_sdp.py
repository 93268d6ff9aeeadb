"""Whatever is offered as a session description: a description or an SdpError, in bounded time; and what leaves for the
other side names nothing of the first one."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.protocol import Endpoint
from sbc.errors import SdpError
from sbc.sdp.description import MAX_BYTES, SessionDescription
from sbc.sdp.rewrite import Origin, names_of, rewrite, streams_of
from tests.support.shared import shared_data

OURS, ORIGIN = "203.0.113.9", Origin("-", 77, 3)
EXAMPLES = int(os.environ.get("SBC_FUZZ_EXAMPLES", "0"))  # of each test, for python -m tests.fuzz.run
# What only the first side has: its addresses, host names, user data and keys are all made of these.
SECRETS = ("192.0.2.77", "2001:db8::77", "pbx.secret.example", "s3cr3tkey")
SEED = "\r\n".join(
    [
        "v=0",
        "o=secretuser 1 1 IN IP4 192.0.2.77",
        "s=a",
        "e=me@pbx.secret.example",
        "c=IN IP4 192.0.2.77",
        "t=0 0",
        "a=ice-lite",
        "m=audio 49170 RTP/SAVP 0 8 101",
        "c=IN IP4 192.0.2.77",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=rtcp:49171 IN IP4 192.0.2.77",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:s3cr3tkey",
        "a=candidate:1 1 UDP 1 192.0.2.77 49170 typ host",
        "a=candidate:2 1 UDP 1 203.0.113.77 49170 typ srflx raddr 192.0.2.77 rport 9",
        "a=X-unknown: at 192.0.2.77",
        "a=sendonly",
        "m=video 0 RTP/AVP 31",
        "c=IN IP6 2001:db8::77",
        "",
    ]
).encode()
PIECES = [b"\r\n", b"\n", b"\r", b" ", b":", b"/", b"=", b"\0", b"\xff", b"m=audio 5 RTP/AVP 0\r\n", b"c=IN IP4 "]
PIECES += [b"a=crypto:", b"a=rtcp:", b"a=candidate:", b"65536", b"-1", b"4294967296", b"IP6", b"a=rtpmap:", b"a=fmtp:"]


def judge(data: bytes) -> bool:
    """Parsed both ways (they agree), and rewritten; whether it was a description."""
    outcomes: list[bytes | None] = []
    for parse in (SessionDescription.parse, SessionDescription.parse_any):
        try:
            outcomes.append(parse(data).to_bytes())
        except SdpError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1], "the short way and the long way"
    if outcomes[0] is None:
        return False
    sdp = SessionDescription.parse(data)
    try:
        streams = streams_of(sdp)
    except SdpError:
        return False
    endpoints = [Endpoint(OURS, 40_000 + 2 * at if it.port else 0, 40_001 + 2 * at) for at, it in enumerate(streams)]
    out = rewrite(sdp, endpoints, origin=ORIGIN, address=OURS)
    said = out.decode("utf-8", "surrogateescape")
    for name in names_of(sdp):
        assert name not in said or name in OURS, f"{name} in {said}"
    again = SessionDescription.parse(out)
    assert [it.port for it in again.streams] == [it.port for it in endpoints]
    assert all(it.address in (OURS, "0.0.0.0", "") for it in again.streams)
    return True


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(SEED)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 12))] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
    return bytes(data)


@settings(max_examples=EXAMPLES or 500)
@given(mutated())
def test_mutated_descriptions(data: bytes) -> None:
    judge(data)


@settings(max_examples=EXAMPLES or 200)
@given(st.binary(max_size=300))
def test_any_octets(data: bytes) -> None:
    judge(data)


@settings(max_examples=EXAMPLES or 300)
@given(st.permutations(SEED.decode().split("\r\n")[3:-1]), st.integers(0, 2**16))
def test_lines_in_any_order_tell_nothing(lines: list[str], drop: int) -> None:
    """Every secret of the first side is gone, in whatever section it stood."""
    kept = [line for at, line in enumerate(lines) if not drop >> at & 1]
    data = "\r\n".join(["v=0", "o=secretuser 1 1 IN IP4 192.0.2.77", "s=a", *kept, ""]).encode()
    try:
        sdp = SessionDescription.parse(data)
        streams = streams_of(sdp)
    except SdpError:
        return
    endpoints = [Endpoint(OURS, 40_000 if it.port else 0, 40_001) for it in streams]
    said = rewrite(sdp, endpoints, origin=ORIGIN, address=OURS).decode()
    assert not [secret for secret in (*SECRETS, "secretuser") if secret in said], said


def files() -> Iterator[bytes]:
    for folder in ("corpus/sdp", "sdp"):
        for path in sorted(shared_data(folder).rglob("*")):
            if path.is_file():
                yield path.read_bytes()


def test_the_corpus_cut_and_damaged() -> None:
    draw = random.Random(os.environ.get("FUZZ_SEED", "8866"))
    sound = 0
    for data in files():
        sound += judge(data)
        for _ in range(EXAMPLES // 20 or 15):
            judge(data[: draw.randrange(len(data) + 1)])
            damaged = bytearray(data or b"\0")
            for _ in range(draw.randrange(1, 5)):
                damaged[draw.randrange(len(damaged))] = draw.choice(b"\r\n\0 \t:/=@0m\xff")
            judge(bytes(damaged))
    assert sound > 10


@pytest.mark.parametrize(
    "line",
    [
        "a=x",
        "m=audio 5 RTP/AVP 0",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 40,
        "a=rtpmap:" + "1" * 200,
        "a=fmtp:101 " + ";".join(["a=b"] * 100),
        "c=IN IP4 " + "1." * 200,
        "a=candidate:" + "1 " * 300,
        "b=" + ":" * 500,
        "x" * 60_000,
        "a=rtcp-fb:" + "* " * 10_000,
    ],
)
def test_as_much_as_fits_takes_no_time(line: str) -> None:
    """The CPU that one description of the greatest length may cost: a bound that quadratic work does not meet."""
    head = b"v=0\r\no=- 1 1 IN IP4 192.0.2.77\r\ns=-\r\nc=IN IP4 192.0.2.77\r\nt=0 0\r\nm=audio 5 RTP/AVP 0\r\n"
    data = head + (line + "\r\n").encode() * ((MAX_BYTES - len(head)) // (len(line) + 2))
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        judge(data)
        best = min(best, time.thread_time() - start)
    assert best < 0.1
