"""Announcements and music: what Play and Stop do to the players beside the rules of legs. Sans-IO but for the file that
is read; the datapath sends the packets (``ext/c/voices.c``).

One SSRC for all that a leg is ever played, with sequence numbers that go on: SRTP keeps the state of few sources. The
timestamp goes on with time. A successor of the worker goes on at the place where the clip would be by now.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from media import protocol
from media.clips import Clip, Clips
from media.counters import MediaCounter
from media.endpoint import Unusable
from media.files import FileRefused
from media.payloads import first_of
from media.player import FILE_BYTES, FOREVER, Player, PlayerState
from media.rules import AT_FEATURES, RULE_BYTES, Feature
from media.session import NO_STREAM, Leg, Session
from media.state import Arena

SAMPLES_PER_MS = 8
_PLAYING = int(Feature.PLAYING)
Tell = Callable[[Session, dict[str, Any]], None]  # Any: JSON values


def hears(arena: Arena, index: int) -> bool:
    """Whether the leg of a rule is played something now."""
    features = arena.octets[index * RULE_BYTES + AT_FEATURES]
    return bool(features & _PLAYING) and arena.players[index].state == PlayerState.PLAYING


class Voices(Protocol):
    """Of the datapath."""

    def play(self, index: int, clip: bytes) -> None:
        """Begin to play what the player of a rule says."""

    def hush(self, index: int) -> None:
        """End it, if there is something."""


class Playing:
    """The players of one worker. ``tell`` takes notifications for the owner of a session."""

    def __init__(
        self,
        arena: Arena,
        voices: Voices,
        clips: Clips,
        random: Random,
        tell: Tell,
        count: Callable[[MediaCounter, int], None],
    ) -> None:
        self._arena = arena
        self._voices = voices
        self._clips = clips
        self._random = random
        self._tell = tell
        self._count = count
        self._waiting: dict[str, set[int]] = {}  # rules that wait for a file to be read

    def play(self, session: Session, leg: Leg, request: protocol.Play) -> None:
        """Begin, at once or when the file has been read. Raises Unusable."""
        index = leg.rules[request.stream] if request.stream < len(leg.rules) else NO_STREAM
        if index == NO_STREAM:
            raise Unusable("unknown_leg", f"leg {leg.name!r} has no stream {request.stream}")
        found = first_of(request.formats)
        if found is None:
            named = ", ".join(request.formats)
            raise Unusable("no_codec", f"announcements are encoded to PCMA or PCMU, this leg receives {named}")
        if len(request.file.encode()) > FILE_BYTES:
            raise Unusable("no_file", f"the name of a prompt has {FILE_BYTES} octets at most")
        try:
            self._clips.check(request.file)
        except FileRefused as refusal:
            raise Unusable(refusal.code, refusal.reason) from None
        self.end(session, leg, index, "replaced")
        player = self._take(index)
        player.payload_type, player.law = found
        player.position = request.at_ms * SAMPLES_PER_MS % 2**32
        player.rounds = min(request.repeat, FOREVER - 1) or FOREVER
        player.number, player.stream = request.number, request.stream
        player.file = request.file.encode()
        player.state = PlayerState.WAITING
        self._count(MediaCounter.ANNOUNCEMENTS, 1)
        self._begin(index, request.file)

    def stop(self, session: Session, leg: Leg) -> None:
        """The leg hears its peer again, if it did not."""
        for index in leg.rules:
            if index != NO_STREAM:
                self.end(session, leg, index, "stopped")

    def end(self, session: Session, leg: Leg, index: int, reason: str, text: str = "") -> None:
        """What this rule's leg is played is over; the owner is told."""
        if not self._arena.octets[index * RULE_BYTES + AT_FEATURES] & _PLAYING:
            return
        player = self._arena.players[index]
        if player.state == PlayerState.IDLE:
            return
        self._voices.hush(index)
        player.state = PlayerState.IDLE
        event: dict[str, Any] = {"event": "played", "session": session.id, "leg": leg.name, "number": player.number}
        event["reason"] = reason
        if text:
            event["text"] = text
        self._tell(session, event)

    def forget(self, index: int) -> None:
        """The rule is about to be freed."""
        self._voices.hush(index)
        ctypes.memset(ctypes.byref(self._arena.players[index]), 0, ctypes.sizeof(Player))

    def loaded(self, sessions: Callable[[int], Session | None]) -> None:
        """Files have been read: begin what waited for them. ``sessions`` finds the session of a rule."""
        for name, failure in self._clips.take_loaded():
            for index in self._waiting.pop(name, ()):
                player = self._arena.players[index]
                if player.state not in (PlayerState.WAITING, PlayerState.PLAYING) or player.file.decode() != name:
                    continue
                if failure:
                    self._finish(sessions(index), index, "failed", failure)
                else:
                    self._begin(index, name)

    def over(self, indices: list[int], sessions: Callable[[int], Session | None]) -> None:
        """The datapath has come to the end of these clips."""
        for index in indices:
            if self._arena.players[index].state == PlayerState.ENDED:
                self._finish(sessions(index), index, "end")

    def resume(self, sessions: dict[int, Session]) -> None:
        """Go on with what a predecessor played; ``sessions`` by the rules that play."""
        for index, session in sessions.items():
            state = self._arena.players[index].state
            if state == PlayerState.ENDED:
                self._finish(session, index, "end")
            elif state != PlayerState.IDLE:
                self._begin(index, self._arena.players[index].file.decode(errors="replace"))

    def _finish(self, session: Session | None, index: int, reason: str, text: str = "") -> None:
        for leg in session.legs.values() if session is not None else ():
            if session is not None and index in leg.rules:
                self.end(session, leg, index, reason, text)

    def _begin(self, index: int, name: str) -> None:
        clip: Clip | None = self._clips.get(name)
        if clip is not None:
            self._voices.play(index, clip.of_law(self._arena.players[index].law))
        else:
            self._waiting.setdefault(name, set()).add(index)
            self._clips.load(name)

    def _take(self, index: int) -> Player:
        """The player of a rule, begun when it is the first that the leg is played."""
        at = index * RULE_BYTES + AT_FEATURES
        player = self._arena.players[index]
        if not self._arena.octets[at] & _PLAYING:
            ctypes.memset(ctypes.byref(player), 0, ctypes.sizeof(Player))
            player.ssrc = self._random.getrandbits(32)
            player.timestamp = self._random.getrandbits(32)
            player.sequence = self._random.getrandbits(15)  # room before the first rollover (RFC 3711 §3.3.1)
            self._arena.octets[at] |= _PLAYING
        return player
