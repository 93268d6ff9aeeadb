"""Several requests or replies in one message: what is packed comes out again, bounded, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.protocol import (
    ID_BYTES,
    MAX_BATCH,
    MAX_BATCH_BYTES,
    VERSION,
    Endpoint,
    Ice,
    Offer,
    Query,
    Reply,
    Stream,
    decode_reply,
    decode_request,
    encode,
    encode_reply,
    items,
    messages,
)


def numbered(bodies: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(number.to_bytes(ID_BYTES, "big"), body) for number, body in enumerate(bodies, 1)]


def test_one_request_is_its_id_and_its_body() -> None:
    body = encode(Query("s"))
    assert list(messages([(b"\0\0\0\0\0\0\0\5", body)])) == [(VERSION, b"\0\0\0\0\0\0\0\5", body)]


def test_several_are_ids_and_lines() -> None:
    assert list(messages([(b"A" * 8, b"{}"), (b"B" * 8, b"[]")])) == [(VERSION, b"A" * 8 + b"B" * 8, b"{}\n[]")]


@given(st.lists(st.binary(max_size=40).map(lambda body: body.replace(b"\n", b"")), max_size=3 * MAX_BATCH))
def test_what_is_packed_comes_out_in_its_order(bodies: list[bytes]) -> None:
    sent = numbered(bodies)
    packed = list(messages(sent))
    assert [item for message in packed for item in items(message)] == sent
    assert len(packed) == -(-len(sent) // MAX_BATCH)


@given(st.lists(st.integers(1, 2 * MAX_BATCH_BYTES), min_size=1, max_size=12))
def test_a_message_is_bounded_unless_one_body_is_longer(sizes: list[int]) -> None:
    sent = numbered([b"x" * size for size in sizes])
    packed = list(messages(sent))
    assert [item for message in packed for item in items(message)] == sent
    for message in packed:
        found = items(message)
        assert len(found) == 1 or sum(len(body) for _, body in found) <= MAX_BATCH_BYTES


@given(st.text(max_size=30))
def test_no_body_of_ours_has_two_lines(text: str) -> None:
    assert b"\n" not in encode(Offer(text, "a\n", "b1", "x", "y", [Stream(text, 5)]))
    assert b"\n" not in encode_reply(Reply(ok=False, code="malformed", reason=text + "\n", sessions=[text]))


def test_a_lone_body_may_have_many_lines() -> None:
    assert items([VERSION, b"A" * 8, b"{\n}\n"]) == [(b"A" * 8, b"{\n}\n")]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [VERSION],
        [VERSION, b"A" * 8],
        [b"1", b"A" * 8, b"{}"],
        [VERSION, b"A" * 8, b"{}", b""],
        [VERSION, b"", b"{}"],
        [VERSION, b"A" * 7, b"{}"],
        [VERSION, b"A" * 12, b"{}"],
        [VERSION, b"A" * 16, b"{}"],
        [VERSION, b"A" * 16, b"{}\n{}\n{}"],
        [VERSION, b"A" * 8 * (MAX_BATCH + 1), b"\n".join([b"{}"] * (MAX_BATCH + 1))],
        [VERSION, b"A" * 8 * MAX_BATCH, b"\n" * 100_000],
    ],
)
def test_frames_that_do_not_fit_are_a_value_error(frames: list[bytes]) -> None:
    with pytest.raises(ValueError, match="not "):
        items(frames)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_noise_is_a_value_error_or_items(frames: list[bytes]) -> None:
    try:
        found = items(frames)
    except ValueError:
        return
    assert found
    assert all(len(item_id) == ID_BYTES for item_id, _ in found)


def test_ice_fingerprints_setup_and_formats_cross() -> None:
    stream = Stream("192.0.2.1", 9, protocol="UDP/TLS/RTP/SAVPF", rtcp_mux=True)
    stream.ice, stream.fingerprints, stream.setup = Ice("abcd", "x" * 22), ["sha-256 AA:BB"], "actpass"
    stream.formats = ["111 opus/48000/2 minptime=10", "0", "101 telephone-event/8000 0-16"]
    request = Offer("s", "a", "b1", "x", "y", [stream], from_srtp="dtls", from_ice="lite")
    assert decode_request(encode(request)) == request
    shown = Endpoint("192.0.2.2", 4000, 4000, "UDP/TLS/RTP/SAVPF")
    shown.ice, shown.fingerprint, shown.setup, shown.formats = Ice("efgh", "y" * 24), "sha-256 CC", "passive", ["0"]
    reply = Reply(endpoints=[shown])
    assert decode_reply(encode_reply(reply)) == reply


def test_what_a_plain_call_does_not_use_is_not_on_the_wire() -> None:
    body = encode(Offer("s", "a", "b1", "x", "y", [Stream("192.0.2.1", 5000)]))
    assert body == (
        b'{"do":"offer","session":"s","from_leg":"a","to_leg":"b1","from_realm":"x","to_realm":"y",'
        b'"streams":[{"address":"192.0.2.1","port":5000}]}'
    )


@pytest.mark.parametrize("part", [b'"setup":"holdconn"', b'"ice":{"ufrag":"a"}', b'"fingerprints":"sha-256 AA"'])
def test_a_value_that_does_not_fit_is_refused(part: bytes) -> None:
    whole = b'{"do":"offer","session":"s","from_leg":"a","to_leg":"b1","from_realm":"x","to_realm":"y","streams":[%b]}'
    with pytest.raises(ValueError, match="streams"):
        decode_request(whole % (b'{"address":"192.0.2.1","port":5000,' + part + b"}"))


def test_a_password_is_not_printed() -> None:
    stream = Stream("192.0.2.1", 9, ice=Ice("abcd", "hush-hush"))
    assert "abcd" in repr(stream)
    assert "hush" not in repr(stream)
