"""Finished calls whose CDRs the store has and the database, for all we know, has not yet.

A store without a disk forgets its stream when it dies. Until the writer has taken an entry out of the stream, which it
does after the commit, the worker keeps the CDR and can put it there again; the table drops what comes twice.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

StreamId = tuple[int, int]
Item = TypeVar("Item")


def stream_id(reply: Any) -> StreamId | None:  # Any: a reply of the store
    """The id of a stream entry, which orders entries; None where the reply is none."""
    if not isinstance(reply, bytes):
        return None
    milliseconds, dash, serial = reply.partition(b"-")
    return (int(milliseconds), int(serial)) if dash and milliseconds.isdigit() and serial.isdigit() else None


class Outbox(Generic[Item]):
    """What one worker put on the stream, oldest first; beyond ``capacity`` the oldest is trusted to the store."""

    def __init__(self, capacity: int) -> None:
        self._kept: deque[tuple[StreamId, int, Item]] = deque(maxlen=capacity)
        self._capacity = capacity
        self._trusted: list[int] = []  # their numbers, until something newer is in the database

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, identity: StreamId, sequence: int, item: Item) -> None:
        """The store has it."""
        if len(self._kept) >= self._capacity:
            self._trusted.append(self._kept[0][1])
        self._kept.append((identity, sequence, item))

    @property
    def newest(self) -> StreamId | None:
        """To be noted when the store is asked what is left of the stream."""
        return self._kept[-1][0] if self._kept else None

    def written(self, asked_at: StreamId, oldest_left: StreamId | None) -> list[int]:
        """The answer: everything before the oldest entry left, of what was there when asked, is in the database.
        Returns the sequence numbers."""
        kept = self._kept
        numbers: list[int] = []
        while kept and kept[0][0] <= asked_at and (oldest_left is None or kept[0][0] < oldest_left):
            numbers.append(kept.popleft()[1])
        if numbers and self._trusted:
            numbers += self._trusted
            self._trusted = []
        return numbers

    def take(self) -> list[tuple[int, Item]]:
        """All of it with the sequence numbers, to be put there again: the store has lost it, or may have."""
        taken = [(sequence, item) for _, sequence, item in self._kept]
        self._kept.clear()
        self._trusted = []
        return taken
