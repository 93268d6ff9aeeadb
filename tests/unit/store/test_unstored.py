"""Records that the store did not take in time outlive their worker, and no longer than they are needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sbc.b2bua.effects import FinishCall, SaveCall
from sbc.store.journal import Journal
from sbc.store.keys import Keys
from sbc.store.unstored import HEADER, Left, Unstored
from sbc.store.url import StoreAddress
from tests.support.fake_store import FakeStore
from tests.support.virtual_loop import run_virtually

SHARDS = range(0, 8)
ONE = Left(3, 0, 2, b'{"key": "one"}')


def told(_level: str, event: str, fields: dict[str, Any]) -> None:  # Any: log fields
    raise AssertionError(f"{event}: {fields}")


def opened(path: Path, **options: Any) -> Unstored:  # Any: keyword arguments of Unstored
    unstored = Unstored(path, options.pop("note", told), **options)
    unstored.recover()
    return unstored


def killed(unstored: Unstored) -> None:
    """As by kill -9: the file stays as it is, its lock goes."""
    members, unstored.members = unstored.members, {"somebody"}
    unstored.close()
    unstored.members = members


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sip-0.unstored"


def test_a_successor_finds_the_latest_of_what_was_never_confirmed(path: Path) -> None:
    first = opened(path)
    assert not path.exists(), "a store that takes everything costs nothing"
    first.keep("one", 3, 0, 1, b"{}")
    first.keep("two", 4, 0, 1, b"{}")
    first.keep("one", *ONE)
    first.stored("two")
    killed(first)
    second = opened(path)
    assert second.left == {"one": ONE}
    assert "one" in second.members
    second.stored("one")
    assert path.read_bytes() == HEADER
    second.close()
    assert not path.exists()


def test_a_torn_line_is_left_out_and_what_comes_next_can_be_read(path: Path) -> None:
    first = opened(path)
    first.keep("one", *ONE)
    first.keep("two", 4, 0, 1, b"{}")
    killed(first)
    path.write_bytes(path.read_bytes()[:-4])
    second = opened(path)
    assert second.left.keys() == {"one"}
    second.keep("three", 5, 0, 1, b"{}")
    killed(second)
    assert opened(path).left.keys() == {"one", "three"}


def test_what_a_worker_left_that_there_is_no_more_is_taken_over(path: Path) -> None:
    former = opened(path)
    former.keep("one", *ONE)
    other = path.with_name("sip-1.unstored")
    living = opened(other, note=lambda *_: None, others=[path])
    assert not living.left, "its owner is alive"
    killed(former)
    living = opened(other, others=[path])
    assert living.left == {"one": ONE}
    assert not path.exists()
    killed(living)
    assert opened(other).left == {"one": ONE}


def test_beyond_its_limit_and_where_it_cannot_write_nothing_is_kept_and_nothing_raises(tmp_path: Path) -> None:
    small = opened(tmp_path / "small", limit_bytes=len(HEADER) + 40)
    small.keep("one", *ONE)
    small.keep("two", *ONE)
    assert "one" in small.members
    assert "two" not in small.members
    notes: list[str] = []
    nowhere = opened(tmp_path / "nowhere" / "file", note=lambda _level, event, _fields: notes.append(event))
    for member in ("one", "two"):
        nowhere.keep(member, *ONE)
    assert not nowhere.members
    assert len(notes) == 1


def left_at(path: Path) -> dict[str, Left]:
    """What a successor would find if the worker died now."""
    copy = path.with_name("copy")
    if path.exists():
        copy.write_bytes(path.read_bytes())
    found = opened(copy)
    left = dict(found.left)
    killed(found)
    copy.unlink(missing_ok=True)
    return left


def journal_of(store: FakeStore, path: Path, **options: Any) -> Journal:  # Any: keyword arguments of Journal
    loop = asyncio.get_running_loop()
    return Journal(StoreAddress(path=store.path), "n", loop, unstored=opened(path), **options)


def save(key: str, version: int = 1, *, wait: bool = True) -> SaveCall:
    return SaveCall(key, 3, version, b'{"key": "%b", "ver": %d}' % (key.encode(), version), wait)


def test_a_call_that_was_answered_without_its_record_is_there_for_a_successor(path: Path) -> None:
    """And not when the store has got it meanwhile, or the CDR."""

    async def main() -> None:
        store = FakeStore(path.parent)
        await store.start()
        journal = journal_of(store, path)
        journal.start()
        assert await journal.ready(1)
        journal.save(save("before"), lambda stored: None)
        await asyncio.sleep(0.02)
        assert not left_at(path)
        store.mute = True
        answers: list[bool] = []
        for key in ("up", "ended", "asked"):
            journal.save(save(key), answers.append)
        journal.save(save("unasked", wait=False))
        await asyncio.sleep(1)
        assert answers == [False] * 3
        journal.save(save("up", 2, wait=False))
        journal.finish(FinishCall("ended", 3, {"id": "ended"}, True))
        await asyncio.sleep(0.1)
        found = left_at(path)
        assert found.keys() == {"up", "ended", "asked"}, "a CDR that is nowhere yet does not make up for the record"
        assert found["up"] == Left(3, 0, 2, save("up", 2).record)
        store.mute = False
        await asyncio.sleep(5)
        assert journal.waiting == 0
        assert not left_at(path)
        await journal.close()
        store.stop()

    run_virtually(main)


def test_what_was_left_is_loaded_where_the_store_has_less(path: Path) -> None:
    async def main() -> None:
        store = FakeStore(path.parent)
        await store.start()
        left = opened(path)
        left.keep("known", 3, 0, 2, b"{later}")
        left.keep("newer", 3, 0, 2, b"{earlier}")
        left.keep("lost", 4, 0, 1, b"{}")
        left.keep("other", 9, 0, 1, b"{of another worker by now}")
        left.keep("former", 4, 7, 1, b"{somebody else has served since}")
        killed(left)
        members = b"*2\r\n$5\r\nknown\r\n$5\r\nnewer\r\n"
        store.replies[b"SMEMBERS"] = b"*0\r\n"
        values = [b"1 0 1\n{setup}", b"1 0 3\n{answered}"]
        store.replies[b"EVAL"] = b"*2\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(value), value) for value in values)
        answer = store._answer

        def by_shard(command: list[bytes]) -> bytes:
            is_theirs = command[0] == b"SMEMBERS" and command[1].decode() == Keys("n").shard(3)
            return members if is_theirs else answer(command)

        store._answer = by_shard  # type: ignore[method-assign]
        journal = journal_of(store, path)
        journal.start()
        assert await journal.ready(1)
        found = [stored async for stored in journal.load(SHARDS)]
        journal.quarantine("lost", 4)
        killed(journal._unstored)  # type: ignore[arg-type]
        assert opened(path).left.keys() == {"known", "newer"}
        await journal.close()
        store.stop()
        records = [(stored.key, stored.record) for stored in found]
        assert records == [("known", b"{later}"), ("newer", b"{answered}"), ("lost", b"{}")]

    run_virtually(main)
