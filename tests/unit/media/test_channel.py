"""The stream between two nodes of a pair: nobody else can read, write, repeat or cut it unnoticed."""

from __future__ import annotations

import pytest

from media.replication.channel import HELLO_BYTES, MESSAGE_BYTES, Channel, ChannelError

KEY = b"k" * 32


def both(key: bytes = KEY, other: bytes = KEY) -> tuple[Channel, Channel]:
    opens, accepts = Channel(key, b"o" * 32, opened=True), Channel(other, b"a" * 32, opened=False)
    assert opens.receive(accepts.hello) == []
    assert accepts.receive(opens.hello) == []
    assert opens.is_ready
    assert accepts.is_ready
    return opens, accepts


def test_messages_pass_both_ways_however_they_are_cut() -> None:
    opens, accepts = both()
    sent = [bytes([n]) * n * 1000 for n in range(5)]
    wire = b"".join(map(opens.seal, sent))
    assert sent[2] not in wire
    heard = [message for at in range(0, len(wire), 777) for message in accepts.receive(wire[at : at + 777])]
    assert heard == sent
    assert opens.receive(accepts.seal(b"ready")) == [b"ready"]


def test_an_end_with_another_key_is_known_by_its_first_message() -> None:
    opens, accepts = both(other=b"x" * 32)
    with pytest.raises(ChannelError, match="another key"):
        accepts.receive(opens.seal(b"hello"))


@pytest.mark.parametrize("change", ["flip", "repeat", "swap", "drop", "reflect"])
def test_what_was_tampered_with_is_refused(change: str) -> None:
    opens, accepts = both()
    first, second = opens.seal(b"first"), opens.seal(b"second")
    wires = {
        "flip": first[:-1] + bytes([first[-1] ^ 1]),
        "repeat": first + first,
        "swap": second + first,
        "drop": second,
        "reflect": accepts.seal(b"mine"),
    }
    with pytest.raises(ChannelError):
        accepts.receive(wires[change])


def test_an_earlier_connection_is_worth_nothing() -> None:
    opens, _ = both()
    recorded = opens.seal(b"first")
    later = Channel(KEY, b"b" * 32, opened=False)
    later.receive(opens.hello)
    with pytest.raises(ChannelError):
        later.receive(recorded)


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n", bytes(HELLO_BYTES), b"PCML\x02\0\0\0" + bytes(32)])
def test_others_are_refused_at_once(octets: bytes) -> None:
    with pytest.raises(ChannelError, match="does not speak"):
        Channel(KEY, b"a" * 32, opened=False).receive(octets)


def test_no_length_makes_it_keep_more_than_a_message() -> None:
    _, accepts = both()
    with pytest.raises(ChannelError):
        accepts.receive((MESSAGE_BYTES + 1).to_bytes(4, "big"))
    reflected = Channel(KEY, b"o" * 32, opened=True)
    with pytest.raises(ChannelError, match="come back"):
        reflected.receive(reflected.hello)
