"""What a worker does with the records that it finds: taken up, set aside, or left for a later release."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sbc.store.loading import StoredCall
from sbc.worker.resume import Resumption
from tests.support.virtual_loop import run_virtually


class _Journal:
    """Three records at each look."""

    def __init__(self) -> None:
        self.set_aside: list[str] = []

    async def ready(self, _timeout_s: float) -> bool:
        return True

    async def load(self, _shards: range, *, patient: bool) -> AsyncIterator[StoredCall]:
        for key in ("mine", "rubbish", "later"):
            yield StoredCall(key, 0, key.encode())

    def quarantine(self, key: str, _shard: int) -> None:
        self.set_aside.append(key)


class _Log:
    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def error(self, event: str, **fields: object) -> None:
        self.said.append((event.partition(":")[0], fields.get("calls")))

    warning = error


def test_a_call_of_a_later_release_stays_in_the_store_and_is_told_of_once() -> None:
    async def scenario() -> None:
        journal, log, calls, asked = _Journal(), _Log(), dict[str, object](), list[bytes]()

        def resume(record: bytes) -> bool | None:
            asked.append(record)
            if record == b"mine":
                calls["mine"] = object()
            return {b"mine": True, b"rubbish": False, b"later": None}[record]

        resumption = Resumption(journal, range(1), calls, resume, lambda: None, log)  # type: ignore[arg-type]  # stand-ins
        assert await resumption.attempt(1)
        assert await resumption.attempt(1)
        assert resumption.left == {"later"}
        assert journal.set_aside == ["rubbish", "rubbish"]  # the stand-in forgets
        assert asked == [b"mine", b"rubbish", b"later", b"rubbish"]
        assert log.said == [
            ("calls resumed from the journal", 1),
            ("calls of a later release are left in the store", 1),
        ]

    run_virtually(scenario)
