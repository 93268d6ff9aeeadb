"""ZMTP framing: the octets of the RFC, any cut of the stream, and what a hostile peer may try."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.zmtp import GREETING, GREETING_BYTES, MAX_FRAMES, Incoming, ZmtpError, encode, opening, parse_endpoint

# RFC 37/ZMTP: greeting of version 3.1 with NULL, then READY of a DEALER without identity
DEALER = (
    bytes.fromhex("ff00000000000000007f0301")
    + b"NULL"
    + bytes(48)
    + b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
)
LIMIT = 4096


def joined(limit: int = LIMIT) -> Incoming:
    incoming = Incoming(b"ROUTER", limit)
    assert incoming.feed(DEALER) == []
    assert incoming.ready
    return incoming


def test_the_opening_is_what_the_rfc_says() -> None:
    assert len(GREETING) == GREETING_BYTES
    assert opening(b"DEALER") == DEALER
    incoming = Incoming(b"ROUTER", LIMIT)
    incoming.feed(opening(b"DEALER", b"sip-3"))
    assert incoming.identity == b"sip-3"


def test_frames_are_short_up_to_255_octets_and_long_beyond() -> None:
    assert encode((b"1", b"ab")) == b"\x01\x011\x00\x02ab"
    assert encode((b"x" * 255,))[:2] == b"\x00\xff"
    assert encode((b"1", b"x" * 256))[:12] == b"\x01\x011\x02" + (256).to_bytes(8, "big")


messages = st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=MAX_FRAMES), max_size=8)


@given(messages, st.lists(st.integers(1, 400), max_size=40))
def test_any_cut_of_the_stream_gives_the_same_messages(sent: list[list[bytes]], cuts: list[int]) -> None:
    stream = DEALER + b"".join(map(encode, sent))
    incoming = Incoming(b"ROUTER", LIMIT)
    got = []
    for cut in cuts:
        got += incoming.feed(stream[:cut])
        stream = stream[cut:]
    assert got + incoming.feed(stream) == sent


@given(st.binary(max_size=300))
def test_noise_is_an_error_or_nothing(noise: bytes) -> None:
    for incoming in (Incoming(b"ROUTER", LIMIT), joined()):
        try:
            incoming.feed(noise)
        except ZmtpError:
            continue


@pytest.mark.parametrize(
    "hostile",
    [
        b"GET / HTTP/1.1\r\n",
        b"\xff" + bytes(8) + b"\x7f\x01",  # ZMTP 1 or 2
        b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(55, b"\0"),
        GREETING + encode((b"1", b"2")),  # a message before READY
        opening(b"PUB"),
        GREETING + b"\x04\x0e\x05READY\x0bSocket-",  # ends within its metadata
        GREETING + b"\x04\x06\x05ERROR",
        DEALER + b"\x02" + (2**40).to_bytes(8, "big"),
        DEALER + b"\x01\x00" * (MAX_FRAMES + 1),
        DEALER + b"\x04\x09\x05ERROR\x02no",
    ],
)
def test_what_no_dealer_sends_ends_the_connection(hostile: bytes) -> None:
    with pytest.raises(ZmtpError):
        Incoming(b"ROUTER", LIMIT).feed(hostile)


def test_a_ping_is_answered_with_its_context() -> None:
    incoming = joined()
    assert incoming.feed(b"\x04\x0a\x04PING\x00\x0aabc" + encode((b"m",))) == [[b"m"]]
    assert incoming.answer == b"\x04\x08\x04PONGabc"


def test_endpoints() -> None:
    assert parse_endpoint("ipc:///run/sbc/media-0.sock") == (socket.AF_UNIX, "/run/sbc/media-0.sock")
    assert parse_endpoint("tcp://127.0.0.1:7000") == (socket.AF_INET, ("127.0.0.1", 7000))
    assert parse_endpoint("tcp://[::1]:7000") == (socket.AF_INET6, ("::1", 7000))
    for wrong in ("ipc://", "udp://1.1.1.1:5", "tcp://1.1.1.1", "tcp://1.1.1.1:x", "tcp://1.1.1.1:70000", ""):
        with pytest.raises(ValueError, match="neither"):
            parse_endpoint(wrong)
