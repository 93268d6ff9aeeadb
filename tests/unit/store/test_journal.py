"""What the journal keeps while the store is away, and in which order it writes it afterwards; virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbc.b2bua.effects import FinishCall, SaveCall
from sbc.store.journal import Journal
from sbc.store.keys import MARKER_TTL_S, Keys
from sbc.store.url import StoreAddress
from tests.support.fake_store import FakeStore
from tests.support.virtual_loop import run_virtually


def journal_of(store: FakeStore, **options: Any) -> Journal:  # Any: the journal's own keyword arguments
    return Journal(StoreAddress(path=store.path), "n", asyncio.get_running_loop(), **options)


def save(number: int, version: int = 1) -> SaveCall:
    return SaveCall(f"call{number}", number, version, b"r%d" % version)


def finish(number: int) -> FinishCall:
    return FinishCall(f"call{number}", number, {"id": str(number)}, True)


def test_only_the_latest_record_and_all_cdrs_wait_and_go_out_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        journal = journal_of(store)
        journal.start()
        await asyncio.sleep(0.5)
        assert journal.is_away
        answers: list[bool] = []
        for version in range(1, 6):
            journal.save(save(1, version), answers.append)
        journal.save(save(2), answers.append)
        assert answers == [False] * 6
        for number in (9, 8, 2):
            journal.finish(finish(number))
        assert journal.waiting == 4
        await store.start()
        await asyncio.sleep(3)
        assert journal.waiting == 0
        written = [command for command in store.commands if command[0] == b"EVALSHA"]
        assert [command[-2] for command in written[:3]] == [b'{"id":"9"}', b'{"id":"8"}', b'{"id":"2"}']
        assert [command[5] for command in written[3:]] == [b"1 0 5\nr5"]
        assert await journal.close() == 0
        store.stop()

    run_virtually(main)


def test_cdrs_beyond_the_capacity_are_told_of_never_dropped_in_silence(tmp_path: Path) -> None:
    async def main() -> None:
        counts: list[str] = []
        lost: list[Any] = []  # Any: log fields
        journal = journal_of(
            FakeStore(tmp_path),
            cdr_capacity=2,
            count=lambda name, _: counts.append(name),
            note=lambda _level, _event, fields: lost.append(fields.get("cdr")),
        )
        journal.start()
        await asyncio.sleep(0.5)
        for number in range(2):
            assert not journal.is_full
            journal.finish(finish(number))
        assert journal.is_full
        for number in range(2, 5):
            journal.finish(finish(number))
        assert counts.count("JOURNAL_DROPPED") == 1
        assert lost[-1] == {"id": "4"}
        await journal.close(0)

    run_virtually(main)


def test_a_refused_command_is_repeated_at_the_next_tick(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        journal = journal_of(store)
        journal.start()
        assert await journal.ready(1)
        store.replies[b"EVALSHA"] = b"-READONLY You can't write against a read only replica.\r\n"
        answers: list[bool] = []
        journal.save(save(1), answers.append)
        journal.finish(finish(2))
        await asyncio.sleep(0.02)
        assert answers == [False]
        assert not journal.is_away
        assert journal.waiting == 2
        del store.replies[b"EVALSHA"]
        await asyncio.sleep(1.1)
        assert journal.waiting == 0
        await journal.close()
        store.stop()

    run_virtually(main)


def test_with_a_commit_timeout_of_nothing_nobody_waits(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        journal = journal_of(store, commit_timeout_s=0)
        journal.start()
        assert await journal.ready(1)
        answers: list[bool] = []
        journal.save(save(1), answers.append)
        assert answers == [False]
        await asyncio.sleep(0.02)
        assert journal.waiting == 0
        assert len(answers) == 1
        await journal.close()
        store.stop()

    run_virtually(main)


def test_the_marker_lives_while_somebody_looks_at_it(tmp_path: Path) -> None:
    """It goes where the clock of the store is set ahead, as what else has a time to live may."""

    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        journal = journal_of(store)
        journal.start()
        assert await journal.ready(1)
        await asyncio.sleep(3.1)
        renewed = [command for command in store.commands if command[0] == b"EXPIRE"]
        assert len(renewed) >= 3
        assert renewed[-1][1:] == [Keys("n").marker.encode(), b"%d" % MARKER_TTL_S]
        await journal.close()
        store.stop()

    run_virtually(main)


def test_a_republish_is_drawn_a_window_at_a_time_and_begun_again_after_an_outage(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        drawn: list[int] = []
        asked: list[int] = []

        def records() -> Iterator[SaveCall]:
            for number in range(1000):
                drawn.append(number)
                yield save(number)

        def restored() -> None:
            asked.append(len(drawn))
            journal.republish(records())

        journal = journal_of(store, on_restored=restored)
        journal.start()
        assert await journal.ready(1)
        await asyncio.sleep(0.02)
        assert asked == [], "a first connection restores nothing"
        store.replies[b"SET"] = b"$3\r\nnew\r\n"  # another marker than before: the store was emptied
        store.replies[b"ECHO"] = store.replies[b"EVALSHA"] = b""  # nothing of the window is over
        await asyncio.sleep(1.01)
        assert asked == [0]
        assert len(drawn) == 128
        del store.replies[b"ECHO"], store.replies[b"EVALSHA"]
        await asyncio.sleep(2)
        assert len(asked) == 2, "the rest would have been lost"
        assert set(drawn) == set(range(1000))
        assert journal.waiting == 0
        await journal.close()
        store.stop()

    run_virtually(main)
