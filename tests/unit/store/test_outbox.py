"""What a worker keeps of CDRs that the store has confirmed, and until when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sbc.b2bua.effects import FinishCall
from sbc.store.journal import Journal
from sbc.store.outbox import Outbox, stream_id
from sbc.store.url import StoreAddress
from tests.support.fake_store import FakeStore
from tests.support.virtual_loop import run_virtually


def outbox_of(*identities: int) -> Outbox[str]:
    outbox: Outbox[str] = Outbox(10)
    for number, identity in enumerate(identities):
        outbox.put((identity, 0), number, f"cdr{number}")
    return outbox


def test_an_entry_is_let_go_once_the_stream_has_passed_it() -> None:
    outbox = outbox_of(10, 20, 30)
    outbox.written((30, 0), (20, 0))  # 20 is the oldest that is left
    assert outbox.take() == [(1, "cdr1"), (2, "cdr2")]
    assert not outbox


def test_an_empty_stream_says_nothing_about_what_came_after_the_question() -> None:
    outbox = outbox_of(10, 20)
    asked_at = outbox.newest
    assert asked_at == (20, 0)
    outbox.put((30, 0), 2, "cdr2")
    outbox.written(asked_at, None)
    assert outbox.take() == [(2, "cdr2")]


def test_beyond_the_capacity_the_oldest_is_trusted_to_the_store() -> None:
    outbox: Outbox[int] = Outbox(2)
    for number in range(4):
        outbox.put((number, 0), number, number)
    assert outbox.take() == [(2, 2), (3, 3)]
    assert outbox.newest is None


@pytest.mark.parametrize(
    ("reply", "expected"), [(b"1700000000000-3", (1_700_000_000_000, 3)), (1, None), (b"OK", None), (b"-1", None)]
)
def test_only_an_id_of_the_stream_is_taken_for_one(reply: object, expected: object) -> None:
    assert stream_id(reply) == expected


@pytest.mark.parametrize("written", [False, True])
def test_another_store_is_given_every_cdr_that_is_not_in_the_database(tmp_path: Path, written: bool) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        identity = b"$3\r\n5-0\r\n"
        store.replies[b"SET"] = b"$1\r\nm\r\n"  # the marker, unchanged
        store.replies[b"EVALSHA"] = identity
        store.replies[b"XRANGE"] = b"*0\r\n" if written else b"*1\r\n*2\r\n" + identity + b"*0\r\n"
        journal = Journal(StoreAddress(path=store.path), "n", asyncio.get_running_loop())
        journal.start()
        await asyncio.sleep(0.5)
        journal.finish(FinishCall("call1", 1, {"id": "1"}, True))
        await asyncio.sleep(2.5)
        assert store.names().count("EVALSHA") == 1
        store.replies[b"INFO"] = b"$10\r\nrun_id:new\r\n"
        store.hang_up()
        await asyncio.sleep(2)
        assert store.names().count("EVALSHA") == (1 if written else 2)
        assert journal.waiting == 0
        await journal.close()
        store.stop()

    run_virtually(main)
