"""Values of a=crypto: which of them are keys that we can use."""

from __future__ import annotations

import base64

import pytest

from media.protocol import Endpoint, Stream
from media.sdes import read_key, write_key
from media.srtp import Suite
from tests.support.secure import SUITES, master

KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"  # RFC 4568 §1
CM = f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"


@pytest.mark.parametrize("suite", SUITES)
def test_what_we_write_we_read(suite: Suite) -> None:
    key = read_key(write_key(7, suite, master(suite)))
    assert key == (7, suite, master(suite), b"")


@pytest.mark.parametrize(
    ("more", "mki"),
    [
        ("", b""),
        ("|2^31", b""),
        ("|1048576", b""),
        ("|2^20|1:4", b"\0\0\0\1"),
        ("|1:4", b"\0\0\0\1"),
        ("|1066:2", b"\x04\x2a"),
        (" WSH=128", b""),
        (" KDR=0 FEC_ORDER=FEC_SRTP", b""),
        (" -maybe=4", b""),
    ],
)
def test_what_a_line_may_add(more: str, mki: bytes) -> None:
    key = read_key(CM + more)
    assert key is not None
    assert (key.tag, key.master, key.mki) == (1, base64.b64decode(KEY), mki)


def test_padding_may_be_missing() -> None:
    value = write_key(1, Suite.AEAD_AES_128_GCM, master(Suite.AEAD_AES_128_GCM))
    assert value.endswith("=")
    assert read_key(value.rstrip("=")) == read_key(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "1 AES_CM_128_HMAC_SHA1_80",
        f"x AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
        f"1234567890 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
        f"1 F8_128_HMAC_SHA1_80 inline:{KEY}",
        f"1 NULL_HMAC_SHA1_80 inline:{KEY}",
        f"1 AES_256_CM_HMAC_SHA1_80 inline:{KEY}",
        f"1 AES_CM_128_HMAC_SHA1_80 uri:{KEY}",
        "1 AES_CM_128_HMAC_SHA1_80 inline:",
        "1 AES_CM_128_HMAC_SHA1_80 inline:!" + KEY[1:],
        "1 AES_CM_128_HMAC_SHA1_80 inline:" + KEY[:-4],
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4;inline:{KEY}|2^20|2:4",
        CM + "|never",
        CM + "|2^20|2^20",
        CM + "|2^20|1:4|1:4",
        CM + "|1:17",
        CM + "|1:0",
        CM + "|256:1",
        CM + " UNENCRYPTED_SRTP",
        CM + " UNENCRYPTED_SRTCP",
        CM + " UNAUTHENTICATED_SRTP",
        CM + " KDR=4",
        CM + f" FEC_KEY=inline:{KEY}",
        CM + " something",
    ],
)
def test_what_is_no_key_for_us(value: str) -> None:
    assert read_key(value) is None


def test_keys_do_not_show_where_objects_are_printed() -> None:
    key = read_key(CM)
    for thing in (Stream("192.0.2.1", 4000, keys=[CM]), Endpoint("192.0.2.1", 4000, 4001, "RTP/SAVP", [CM]), key):
        for text in (repr(thing), str([thing])):
            assert KEY not in text
            assert repr(base64.b64decode(KEY))[2:12] not in text
    assert "4000" in repr(Stream("192.0.2.1", 4000))
