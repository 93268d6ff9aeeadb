"""What the DNS has said, for as long as it may be believed. Sans-IO: ``now`` is monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sbc.policy.server_location import Answer, Question, Record


class State(Enum):
    """What the cache knows of a question."""

    FRESH = "fresh"  # the answer holds
    STALE = "stale"  # it held once: ask, and use it if nobody answers (RFC 8767)
    RESTING = "resting"  # nobody answered just now: do not ask yet; there may be a stale answer
    UNKNOWN = "unknown"


@dataclass(slots=True)
class _Entry:
    records: tuple[Record, ...]
    expires: float  # until then fresh
    dies: float  # until then usable when nobody answers
    rests: float = 0.0  # until then not to be asked again
    denied_since: float = -1.0  # the DNS denies what it once said


class NameCache:
    """Answers by question.

    A lifetime is held within ``ttl_min_s`` and ``ttl_max_s``, that of a denial (RFC 2308) within ``ttl_min_s`` and
    ``denial_max_s``. An answer is usable for ``stale_s`` after it has expired, while nobody gives a newer one. A
    question that nobody answered rests for ``rest_s``. A denial of what existed is not believed before it has held for
    ``flip_s``: till then the old records serve, since a broken zone is likelier than a carrier that is gone. At most
    ``capacity`` answers are kept; the one written longest ago goes first.
    """

    def __init__(
        self,
        *,
        ttl_min_s: float = 5.0,
        ttl_max_s: float = 3600.0,
        denial_max_s: float = 60.0,
        stale_s: float = 86_400.0,
        rest_s: float = 5.0,
        flip_s: float = 300.0,
        capacity: int = 4096,
    ) -> None:
        self._ttl_min_s = ttl_min_s
        self._ttl_max_s = ttl_max_s
        self._denial_max_s = denial_max_s
        self._stale_s = stale_s
        self._rest_s = rest_s
        self._flip_s = flip_s
        self._capacity: Final = capacity
        self._entries: dict[Question, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, question: Question, now: float) -> Answer:
        """The answer, if it holds; what most calls need."""
        entry = self._entries.get(question)
        return None if entry is None or now >= entry.expires else entry.records

    def look(self, question: Question, now: float) -> tuple[State, Answer]:
        """What is known: FRESH has an answer, UNKNOWN has none, STALE and RESTING have one or None."""
        entry = self._entries.get(question)
        if entry is None:
            return State.UNKNOWN, None
        if now < entry.expires:
            return State.FRESH, entry.records
        answer = entry.records if now < entry.dies else None
        if now < entry.rests:
            return State.RESTING, answer
        return (State.UNKNOWN if answer is None else State.STALE), answer

    def answered(self, question: Question, records: tuple[Record, ...], ttl_s: float, now: float) -> Answer:
        """Keep an answer; empty ``records`` are a denial. Returns what is to be used now."""
        entry = self._entries.pop(question, None)
        if not records:
            ttl_s = min(max(ttl_s, self._ttl_min_s), self._denial_max_s)
            if entry is not None and entry.records and now < entry.dies:
                if entry.denied_since < 0:
                    entry.denied_since = now
                if now - entry.denied_since < self._flip_s:
                    entry.expires = now + ttl_s
                    self._entries[question] = entry
                    return entry.records
        else:
            ttl_s = min(max(ttl_s, self._ttl_min_s), self._ttl_max_s)
        expires = now + ttl_s
        self._keep(question, _Entry(records, expires, expires + self._stale_s))
        return records

    def failed(self, question: Question, now: float) -> Answer:
        """Nobody answered. Returns the stale answer, or None."""
        entry = self._entries.pop(question, None)
        if entry is None:
            entry = _Entry((), now, now)
        entry.rests = now + self._rest_s
        self._keep(question, entry)
        return entry.records if now < entry.dies else None

    def _keep(self, question: Question, entry: _Entry) -> None:
        self._entries[question] = entry
        if len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]
