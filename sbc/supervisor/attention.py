"""How long others have been silent, by a watcher that may itself have been kept from looking. Pure: ``now`` in."""

from __future__ import annotations


class Attention:
    """Counts only time in which the watcher was where it wanted to be.

    A machine that was paused, or has no processor for us, has none for those whom we watch. So what the watcher comes
    too late by is taken off everybody's silence: whoever does not beat after that has had his time. Where there is a
    processor for us but none for one of the others, :meth:`saw` takes off what that one has waited.
    """

    __slots__ = ("_beats", "_due_s", "_lost_before_s", "_lost_s", "_seen")

    def __init__(self, now: float) -> None:
        self._due_s = now
        self._lost_s = 0.0  # by which we came too late, of all looks
        self._lost_before_s = 0.0  # the same until the look before this one
        self._beats: dict[int, tuple[float, float]] = {}  # by key: the last beat, and what was lost before it
        # by key: the beat that it had, when it was looked at, what it had run
        self._seen: dict[int, tuple[float, float, float]] = {}

    def sleep(self, until_s: float) -> None:
        """The watcher means to look again then, or earlier."""
        self._due_s = until_s

    def look(self, now: float) -> None:
        """The watcher looks."""
        self._lost_before_s = self._lost_s
        self._lost_s += max(0.0, now - self._due_s)
        self._due_s = max(self._due_s, now)

    def heard_s(self, key: int, beat_s: float) -> float:
        """When the last beat was, moved by what was lost since; to be asked at each look. It is nobody's fault when the
        beat came before a pause and the look after it: so all that was lost since the look before counts."""
        beat, lost_s = self._beats.get(key, (-1.0, 0.0))
        if beat != beat_s:
            lost_s = self._lost_before_s
            self._beats[key] = (beat_s, lost_s)
        return beat_s + self._lost_s - lost_s

    def saw(self, key: int, now: float, is_runnable: bool, ran_s: float) -> float:
        """One that is silent, with the seconds for which it has run in its life, after ``heard_s``; the last beat anew.

        Whoever wants a processor and has not got one is not taken for hung; whoever has one and does not beat, or wants
        none, is."""
        beat_s, lost_s = self._beats[key]
        attended_s = now - self._lost_s
        before = self._seen.get(key, (-1.0, 0.0, 0.0))
        self._seen[key] = (beat_s, attended_s, ran_s)
        if is_runnable and before[0] == beat_s:
            lost_s -= max(0.0, attended_s - before[1] - (ran_s - before[2]))
            self._beats[key] = (beat_s, lost_s)
        return beat_s + self._lost_s - lost_s
