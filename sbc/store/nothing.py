"""``store: none``: no journal and no outbox. Calls do not survive their worker, and CDRs go to the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from sbc.b2bua.effects import DropRecord, FinishCall, SaveCall
from sbc.store.journal import Done
from sbc.store.loading import StoredCall
from sbc.store.pruning import Known


class NoJournal:
    """A journal that keeps nothing and answers at once."""

    is_full = False
    is_unprotected = False

    def __init__(self, on_cdr: Callable[[dict[str, Any]], None]) -> None:  # Any: JSON values
        self._on_cdr = on_cdr

    def start(self) -> None:
        """Nothing to connect to."""

    async def ready(self, timeout_s: float) -> bool:
        """Always: there is nothing to wait for."""
        return True

    async def close(self, timeout_s: float = 1.0) -> int:
        """Nothing is left behind."""
        return 0

    def gather(self, on: bool) -> None:
        """Nothing is to be written."""

    def poll(self) -> None:
        """Nothing is answered."""

    def flush(self) -> bool:
        """Nothing waits."""
        return False

    async def prune(self, shards: Iterable[int], known: Known) -> int:
        """Nothing is there."""
        return 0

    def given(self, key: str) -> None:
        """Nothing is kept of it."""

    def has_unsaved(self, key: str) -> bool:
        """Never."""
        return False

    def save(self, effect: SaveCall, done: Done | None = None) -> None:
        """Not stored, and nobody waits for it."""
        if done is not None:
            done(True)

    def finish(self, effect: FinishCall) -> None:
        """The CDR goes to the log."""
        self._on_cdr(effect.cdr)

    def drop(self, effect: DropRecord) -> None:
        """There is none."""

    def republish(self, records: Iterable[SaveCall]) -> None:
        """Nowhere to."""

    async def load(self, shards: Iterable[int], *, patient: bool = False) -> AsyncIterator[StoredCall]:
        """No calls."""
        nothing: tuple[StoredCall, ...] = ()
        for call in nothing:
            yield call

    def troubles(self) -> dict[str, str]:
        """None."""
        return {}

    def quarantine(self, key: str, shard: int) -> None:
        """Nothing was loaded."""
