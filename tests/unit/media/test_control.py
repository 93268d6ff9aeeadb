"""Requests off the wire: what does not fit the protocol is refused, never raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.protocol import (
    Answer,
    Delete,
    Drain,
    Engage,
    ListSessions,
    Offer,
    Query,
    Reply,
    Stream,
    StreamStats,
    decode_reply,
    decode_request,
    encode,
    encode_reply,
)

STREAM = Stream("192.0.2.1", 4000, "video", "RTP/SAVPF", 4001, True, "sendonly", 90000)


@pytest.mark.parametrize(
    "request_",
    [
        Engage("s"),
        Offer("s", "a", "b1", "x", "y", [STREAM], "192.0.2.9", from_latch="learn", silence_s=3.5),
        Answer("s", "b1", "a", [STREAM]),
        Delete("s", "b1"),
        Query("s"),
        ListSessions(5, 6, "sbc1/"),
        Drain(on=False),
    ],
)
def test_every_request_survives_the_wire(request_: Offer) -> None:
    assert decode_request(encode(request_)) == request_


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"do":"explode"}',
        b'{"do":["offer"]}',
        b'{"do":"query"}',
        b'{"do":"query","session":5}',
        b'{"do":"query","session":null}',
        b'{"do":"query","session":"s","more":1}',
        b'{"do":"drain","on":1}',
        b'{"do":"list","limit":-1}',
        b'{"do":"list","limit":true}',
        b'{"do":"answer","session":"s","from_leg":"b","to_leg":"a","streams":{}}',
        b'{"do":"answer","session":"s","from_leg":"b","to_leg":"a","streams":[7]}',
        b'{"do":"answer","session":"s","from_leg":"b","to_leg":"a","streams":[{"address":"1.1.1.1","port":"5"}]}',
        b'{"do":"answer","session":"s","from_leg":"b","to_leg":"a",'
        b'"streams":[{"address":"1.1.1.1","port":5,"direction":"up"}]}',
        b'{"do":"query","session":"\xff"}',
    ],
)
def test_what_does_not_fit_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_request(body)


@given(st.binary(max_size=200))
def test_noise_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_request(body)


def test_replies_survive_the_wire() -> None:
    reply = Reply(ok=False, code="full", elsewhere=True, stats={"a": [StreamStats(packets_in=5, remote="192.0.2.1:5")]})
    assert decode_reply(encode_reply(reply)) == reply
