"""What a leg hears of a clip in plain Python, over the same memory as ``ext/c/play.c``, which is tested against it."""

from __future__ import annotations

import struct

from media.player import FOREVER, TICK_SAMPLES, Law, Player

SILENCE = {Law.U: b"\xff", Law.A: b"\xd5"}
_HEAD = struct.Struct("!BBHII")


def _turn(player: Player, samples: int) -> None:
    """At the end of a clip the next round begins, if there is one."""
    if player.position >= samples and player.rounds:
        if player.rounds != FOREVER:
            player.rounds -= 1
        player.position = 0


def packet(player: Player, clip: bytes) -> bytes:
    """The packet of the next tick, and on to the one after it; empty, with nothing changed: the clip is over."""
    if not clip or not player.rounds:
        return b""
    payload = b""
    while len(payload) < TICK_SAMPLES and player.rounds:
        some = clip[player.position : player.position + TICK_SAMPLES - len(payload)]
        payload += some
        player.position += len(some)
        _turn(player, len(clip))
    payload = payload.ljust(TICK_SAMPLES, SILENCE[Law(player.law)])
    kind = (0x80 if player.marker else 0) | player.payload_type
    head = _HEAD.pack(0x80, kind, player.sequence, player.timestamp, player.ssrc)
    player.marker = 0
    player.sequence += 1  # the fields wrap by themselves
    player.timestamp += TICK_SAMPLES
    player.tick += 1
    return head + payload


def skip(player: Player, clip: bytes, ticks: int) -> None:
    """Leave out so many ticks: what they would have brought is never heard."""
    left = ticks * TICK_SAMPLES
    player.tick += ticks
    player.timestamp = (player.timestamp + left) & 0xFFFFFFFF
    player.marker = 1
    if clip and player.rounds == FOREVER:
        left %= len(clip)
    while clip and left and player.rounds:
        some = min(left, max(0, len(clip) - player.position))
        player.position += some
        left -= some
        _turn(player, len(clip))
