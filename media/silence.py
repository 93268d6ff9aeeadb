"""Which sessions nobody is heard in: told to their owners, or ended where they are nobody's. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable

from media import ice
from media.playing import hears
from media.session import Session, converses, is_armed
from media.state import Arena
from media.webrtc import has_consent

ABANDONED_NS = 43_200 * 10**9  # a session as silent as the longest dialog is nobody's


class Silence:
    """A sweep over ``sessions``, a few at a time; ``close(session, now_ns)`` ends one."""

    def __init__(self, arena: Arena, sessions: dict[str, Session], close: Callable[[Session, int], None]) -> None:
        self._arena = arena
        self._sessions = sessions
        self._close = close
        self._sweep: list[str] = []
        self._next_sweep_ns = 0

    def found(self, now_ns: int, timeout_ns: int, limit: int, hold_ns: int = 0) -> list[tuple[Session, float]]:
        """Of the next ``limit`` sessions in turn: answered ones that got no packet, RTCP included, on any leg for that
        long, or for ``hold_ns`` (0: for ever) where every stream is held.

        Each is named, with its silence in seconds, once per that time, or what its offer said instead; not while a leg
        hears music or an announcement. Sessions that nobody has used for a dialog's longest life end.
        """
        if not self._sweep and now_ns >= self._next_sweep_ns:
            self._sweep = list(self._sessions)
            self._next_sweep_ns = now_ns + min(timeout_ns // 8, 5 * 10**9)
        found = []
        rules = self._arena.rules
        for name in self._sweep[-limit:]:
            session = self._sessions.get(name)
            if session is None:
                continue
            own = session.all_rules()
            last = max((rules[index].last_arrival_ns for index in own), default=0)
            last = max(self._heard(own, last, now_ns), session.touched_ns)
            if now_ns - last >= ABANDONED_NS:
                self._close(session, now_ns)
                continue
            patience_ns = int(session.silence_s * 1e9) or timeout_ns
            since_ns = now_ns - max(last, session.notified_ns, session.resumed_ns)
            if since_ns >= patience_ns and any(is_armed(rules[i]) for i in own):
                if any(hears(self._arena, index) for index in own):
                    continue
                if not any(converses(self._arena, index) for index in own):
                    patience_ns = int(session.hold_silence_s * 1e9) or hold_ns
                    if not patience_ns or since_ns < patience_ns:
                        continue
                session.notified_ns = now_ns
                found.append((session, (now_ns - last) / 1e9))
        del self._sweep[-limit:]
        return found

    def _heard(self, own: list[int], last_ns: int, now_ns: int) -> int:
        """When a session was last heard of: one of whose legs is no more where it was (its consent is over) is silent
        from then on, whatever the other one sends."""
        for index in own:
            if ice.is_on(self._arena, index) and is_armed(self._arena.rules[index]):
                leg = self._arena.webrtc[index]
                if not has_consent(leg, now_ns):
                    last_ns = min(last_ns, leg.checked_ns)
        return last_ns
