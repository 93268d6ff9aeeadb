"""Heartbeats: what is believed, and what is not."""

from __future__ import annotations

from dataclasses import replace

from sbc.ha.beat import Speaker, key_of
from sbc.ha.election import Beat, State

KEY = key_of(b"k" * 32, "heartbeat")
BEAT = Beat("a", State.ACTIVE, 7, True, False, 8)


def acquainted() -> tuple[Speaker, Speaker]:
    a, b = Speaker(KEY, 1), Speaker(KEY, 2)
    assert b.read(a.write(BEAT), 0) is None  # it does not know b's life yet
    assert a.read(b.write(BEAT), 0) == BEAT
    assert b.read(a.write(BEAT), 0) == BEAT
    return a, b


def test_all_that_is_said_arrives() -> None:
    a, b = acquainted()
    said = Beat("node-b.example", State.STANDBY, 2**40, False, True)
    assert a.read(b.write(said), 0) == said
    flags = replace(said, witness=False), replace(said, prefers=True), replace(said, wants=True)
    for other in (*flags, replace(said, unsure=True)):
        assert a.read(b.write(other), 0) == other
    assert a.read(b.write(replace(said, records=7)), 0) == replace(said, records=7)
    longest = replace(said, name="n" * 62, records=7)
    assert a.read(b.write(longest), 0) == replace(longest, records=1)  # there is no room for it
    assert a.refused == b.refused == 0


def test_a_former_release_says_nothing_of_its_records() -> None:
    a, b = acquainted()
    octets = b.write(replace(BEAT, records=0))
    assert a.read(octets, 0) == replace(BEAT, records=1)


def test_each_path_believes_it_once() -> None:
    a, b = acquainted()
    octets = a.write(BEAT)
    assert [b.read(octets, path) for path in (0, 1, 0, 1)] == [BEAT, BEAT, None, None]


def test_nothing_is_believed_twice_or_late() -> None:
    a, b = acquainted()
    first, second = a.write(BEAT), a.write(BEAT)
    assert b.read(second, 0) == BEAT
    assert b.read(first, 0) is None
    assert b.read(second, 0) is None
    assert b.refused == 2


def test_what_was_recorded_does_not_make_a_dead_peer_live() -> None:
    """Neither in a later life of the receiver nor from an earlier life of the sender."""
    a, b = acquainted()
    recorded = [a.write(BEAT) for _ in range(5)]
    reborn = Speaker(KEY, 3)
    assert [reborn.read(octets, 0) for octets in recorded] == [None] * 5
    later = Speaker(KEY, 4)  # the sender's next life
    b.read(later.write(BEAT), 0)
    later.read(b.write(BEAT), 0)
    assert b.read(later.write(BEAT), 0) == BEAT
    assert b.read(recorded[0], 0) is not None  # it was never heard: still of a life that b knew, and says nothing new
    assert b.read(recorded[0], 0) is None


def test_strangers_are_not_believed() -> None:
    _, b = acquainted()
    stranger = Speaker(key_of(b"x" * 32, "heartbeat"), 1)
    octets = stranger.write(BEAT)
    assert b.read(octets, 0) is None
    assert b.read(octets[:-1], 0) is None
    assert b.read(b"", 0) is None
    own = b.write(BEAT)
    assert b.read(own, 0) is None  # reflected
    assert b.refused == 4


def test_every_octet_counts() -> None:
    a, b = acquainted()
    octets = a.write(BEAT)
    for at in range(len(octets)):
        assert b.read(octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :], 0) is None
    assert b.read(octets, 0) == BEAT


def test_purposes_have_keys_of_their_own() -> None:
    assert key_of(b"k" * 32, "heartbeat") != key_of(b"k" * 32, "shard") != key_of(b"j" * 32, "shard")
