"""The compiled player and its Python reference give the same packets and leave the same memory behind."""

from __future__ import annotations

import ctypes
import random
import struct

import pytest

from media import _datapath, reference_play
from media.counters import Reason
from media.player import FOREVER, PLAYER_BYTES, TICK_SAMPLES, Law, Player, PlayerState
from media.rules import Feature, RuleFlag
from tests.parity.test_datapath import SOURCES, Twin, rtp
from tests.support.waves import from_alaw, from_ulaw, level, tone


def test_the_layouts_agree() -> None:
    assert _datapath.PLAYER_BYTES == PLAYER_BYTES


def _pair(**fields: int) -> tuple[Player, Player]:
    pair = Player(), Player()
    for player in pair:
        for name, value in fields.items():
            setattr(player, name, value)
    return pair


@pytest.mark.parametrize("law", list(Law))
def test_random_clips(law: Law) -> None:
    draw = random.Random(f"play-{law}")
    ended = 0
    for _ in range(300):
        clip = draw.randbytes(draw.choice((0, 1, 7, 159, 160, 161, 320, 1000, 8000)))
        compiled, reference = _pair(
            law=law,
            rounds=draw.choice((1, 1, 2, 3, 500, FOREVER)),
            position=draw.choice((0, 0, 80, 5000, 2**32 - 1)),
            sequence=draw.choice((5, 65_535)),
            timestamp=draw.choice((7, 2**32 - 100)),
            ssrc=draw.getrandbits(32),
            payload_type=draw.choice((0, 8, 96, 127)),
            marker=draw.randrange(2),
            tick=draw.getrandbits(40),
        )
        for _ in range(40):
            if draw.random() < 0.2:
                ticks = draw.choice((1, 5, 50, 10_000))
                _datapath.play(compiled, clip, ticks)
                reference_play.skip(reference, clip, ticks)
            else:
                expected = reference_play.packet(reference, clip)
                assert _datapath.play(compiled, clip) == expected
                ended += not expected
            assert bytes(compiled) == bytes(reference)
    assert ended > 100


def test_what_is_heard_of_a_clip() -> None:
    """One SSRC, sequence numbers and timestamps that go on, the marker at the start and after what was left out."""
    clip = bytes(range(200)) + bytes(120)
    player, _ = _pair(rounds=2, sequence=65_534, timestamp=1000, ssrc=77, payload_type=8, marker=1, law=Law.A, tick=50)
    packets = []
    while packet := _datapath.play(player, clip):
        packets.append(packet)
    heads = [struct.unpack("!BBHII", packet[:12]) for packet in packets]
    assert heads == [
        (0x80, 0x88, 65_534, 1000, 77),
        (0x80, 8, 65_535, 1160, 77),
        (0x80, 8, 0, 1320, 77),
        (0x80, 8, 1, 1480, 77),
    ]
    assert b"".join(packet[12:] for packet in packets) == clip * 2
    assert player.tick == 54
    player.rounds, player.position = 1, 0
    _datapath.play(player, clip, 1)
    last = _datapath.play(player, clip[:300])
    assert struct.unpack("!BBHII", last[:12]) == (0x80, 0x88, 2, 1800, 77)
    assert last[12:] == clip[160:300] + b"\xd5" * 20  # silence to the end of the packet
    assert len(last[12:]) == TICK_SAMPLES


def test_the_peer_is_not_heard_meanwhile() -> None:
    """Neither its RTP nor its RTCP; what it sends is still counted, and may still latch."""
    twin = Twin(RuleFlag.RTCP_MUX)
    players = (Player * 2)()
    for rules in (twin.compiled, twin.reference):
        rules[1].features = Feature.PLAYING
    report = struct.pack("!BBHII", 0x80, 201, 2, 1, 2)
    for state, expected in (
        (PlayerState.WAITING, Reason.FORWARD),
        (PlayerState.PLAYING, Reason.MUTED),
        (PlayerState.ENDED, Reason.FORWARD),
    ):
        players[1].state = state
        assert twin.feed(rtp(1 + state, 160), SOURCES[0], 10**9, players=players) is expected
        assert twin.feed(report, SOURCES[0], 10**9, players=players) is expected
        assert twin.feed(rtp(1, 160), SOURCES[0], 10**9, index=1, players=players) is Reason.FORWARD
    assert (twin.reference[0].packets_in, twin.reference[1].packets_out) == (3, 2)
    assert ctypes.sizeof(players) == 2 * PLAYER_BYTES


@pytest.mark.parametrize(("coding", "read"), [(6, from_alaw), (7, from_ulaw)])
def test_g711_against_its_tables(coding: int, read: object) -> None:
    """Every octet means what the tables of ITU-T G.711 say, and comes back as itself."""
    octets = bytes(range(256))
    ulaw, alaw = _datapath.convert(octets, coding, 1, 8000)
    again = alaw if coding == 6 else ulaw
    assert [(a, b) for a, b in zip(octets, again, strict=True) if a != b] in ([], [(0x7F, 0xFF)])  # two zeros of u-law
    assert callable(read)
    samples = read(octets)
    linear = struct.pack("<256h", *samples)
    assert _datapath.convert(linear, 1, 1, 8000)[0 if coding == 7 else 1] == again


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_rates_and_channels(rate_hz: int, channels: int) -> None:
    samples = [one + two for one, two in zip(tone(440, 0.5, rate_hz), tone(3000, 0.5, rate_hz), strict=True)]
    data = b"".join(struct.pack("<h", one) * channels for one in samples)
    ulaw, alaw = _datapath.convert(data, 1, channels, rate_hz)
    for heard in (from_ulaw(ulaw), from_alaw(alaw)):
        assert len(heard) == len(data) // (2 * channels) * 8000 // rate_hz
        inner = heard[400:3600]
        assert level(inner, 440) == pytest.approx(10_000, rel=0.02)
        assert level(inner, 3000) == pytest.approx(10_000, rel=0.05)


def test_what_8000_hz_cannot_carry_is_gone() -> None:
    """5000 Hz would come back as 3000."""
    data = struct.pack("<24000h", *tone(5000, 0.5, 48_000))
    heard = from_alaw(_datapath.convert(data, 1, 1, 48_000)[1])
    assert max(map(abs, heard[400:3600])) < 100
