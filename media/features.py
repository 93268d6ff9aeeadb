"""What a worker does with streams beyond passing packets on, in one place for the relay: announcements, recordings."""

from __future__ import annotations

from collections.abc import Iterable

from media.playing import Playing
from media.recording import Recordings
from media.rules import AT_FEATURES, RULE_BYTES, Feature
from media.session import Session
from media.state import Arena

_PLAYING, _TAPPED = int(Feature.PLAYING), int(Feature.TAPPED)


class Features:
    """``playing`` and ``recordings`` of one worker."""

    def __init__(self, arena: Arena, playing: Playing, recordings: Recordings) -> None:
        self._arena = arena
        self.playing = playing
        self.recordings = recordings

    def freed(self, index: int) -> None:
        """A rule with features is about to be freed."""
        features = self._arena.octets[index * RULE_BYTES + AT_FEATURES]
        if features & _PLAYING:
            self.playing.forget(index)
        if features & _TAPPED:
            self.recordings.freed(index)

    def resume(self, sessions: Iterable[Session]) -> None:
        """Go on with what a predecessor did for these."""
        players: dict[int, Session] = {}
        for session in sessions:
            for index in session.all_rules():
                features = self._arena.octets[index * RULE_BYTES + AT_FEATURES]
                if features & _PLAYING:
                    players[index] = session
                if features & _TAPPED:
                    self.recordings.freed(index)
            self.recordings.resume(session)
        self.playing.resume(players)
