"""Shards: SipHash-2-4 against its reference, Call-IDs of ours, and the peek that comes before parsing."""

from __future__ import annotations

from collections import Counter

import pytest

from sbc.sip.ids import SHARDS, Ids
from sbc.sip.message import Message, peek_call_id
from sbc.sip.shard import shard_of, shard_of_datagram, siphash24
from tests.unit.sip.messages import request

KEY = bytes(range(16))
MASK = (1 << 64) - 1


def reference_siphash24(data: bytes, key: bytes) -> int:
    """SipHash-2-4 as its paper has it (Aumasson, Bernstein 2012)."""

    def rotate(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_siphash_vectors() -> None:
    # The paper's appendix A, and the first of the reference implementation's vectors
    assert siphash24(bytes(range(15)), KEY) == 0xA129CA6149BE45E5
    assert siphash24(b"", KEY) == 0x726FDB47DD0E0E31


@pytest.mark.parametrize("length", [*range(33), 63, 64, 255, 256, 257])
def test_siphash_is_its_reference(length: int) -> None:
    data = bytes(i * 37 & 0xFF for i in range(length))
    assert siphash24(data, KEY[::-1]) == reference_siphash24(data, KEY[::-1])


def test_our_call_ids_name_their_shard() -> None:
    ids = Ids()
    for shard in range(SHARDS):
        call_id = ids.call_id(shard)
        assert shard_of(call_id, KEY) == shard
        assert shard_of(call_id.encode(), KEY) == shard


@pytest.mark.parametrize("call_id", ["", "a", "a84b4c76e66710@10.0.0.1", "A" * 24, "a" * 23, "a" * 25, "a" * 23 + "1"])
def test_other_call_ids_are_hashed(call_id: str) -> None:
    assert shard_of(call_id, KEY) == reference_siphash24(call_id.encode(), KEY) & 1023


def test_hashed_shards_spread() -> None:
    counts = Counter(shard_of(f"call-{i}@192.0.2.1", KEY) % 2 for i in range(2000))
    assert abs(counts[0] - counts[1]) < 200


def test_key_length() -> None:
    for wrong in (b"", KEY[:15], KEY + b"x"):
        with pytest.raises(ValueError, match="16 octets"):
            shard_of("x", wrong)
        with pytest.raises(ValueError, match="16 octets"):
            shard_of_datagram(b"x", wrong)


@pytest.mark.parametrize(
    "line",
    ["Call-ID: x@y", "i:x@y", "I \t: x@y ", "CALL-id\t:\r\n\t x@y", "call-ID:x@y\r\n ", "Call-ID: x@y\r\nCall-ID: z"],
)
def test_peek_reads_as_the_parser_does(line: str) -> None:
    data = request("In-Reply-To: no", Via="Via: SIP/2.0/UDP a\r\nX-Call-ID: no\r\nIdx: no", Call_ID=line)
    for octets in (data, data.replace(b"\r\n", b"\n"), b"\r\n" + data):
        assert peek_call_id(octets) == b"x@y"
        assert shard_of_datagram(octets, KEY) == shard_of("x@y", KEY)
    if line.count("x@y") == 1 and "z" not in line:
        assert Message.parse(data).call_id == "x@y"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"x",
        b"OPTIONS a\r\nCall-ID",
        b"OPTIONS a\r\nCall-ID:",
        b"OPTIONS a\r\nCall-ID: \r\n\r\n",
        b"OPTIONS a\r\n\r\nCall-ID: body\r\n",
        b"OPTIONS a\n\nCall-ID: body\r\n",
        b"Call-ID: in-the-start-line\r\n\r\n",
        b"OPTIONS a\r\nSubject: a\r\n Call-ID: folded\r\n\r\n",
        b"OPTIONS a\r\ni",
        b"OPTIONS a\r\ni \t",
    ],
)
def test_nothing_to_peek(data: bytes) -> None:
    assert peek_call_id(data) is None
    assert shard_of_datagram(data, KEY) == -1
