"""A store that has come back with old records keeps those of calls that live, and those of later owners."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sbc.store.journal import Journal
from sbc.store.keys import Keys
from sbc.store.url import StoreAddress
from tests.support.fake_store import FakeStore
from tests.support.virtual_loop import run_virtually

SHARDS = range(0, 64, 2)


def test_only_what_does_not_live_is_dropped_and_a_store_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        keys = Keys("n")
        there = {keys.shard(4): [b"lives", b"ended"], keys.shard(40): [b"over", b"not a member"], keys.shard(5): [b"x"]}
        answer = store._answer
        stumbles = 1

        def indexes(command: list[bytes]) -> bytes:
            nonlocal stumbles
            if command[0] != b"SMEMBERS":
                return answer(command)
            if command[1].decode() == keys.shard(40) and stumbles:
                stumbles -= 1
                store.hang_up()
            found = there.get(command[1].decode(), [])
            return b"*%d\r\n" % len(found) + b"".join(b"$%d\r\n%b\r\n" % (len(member), member) for member in found)

        store._answer = indexes  # type: ignore[method-assign]
        journal = Journal(StoreAddress(path=store.path), "n", asyncio.get_running_loop(), epoch=7)
        journal.start()
        assert await journal.ready(1)
        assert await journal.prune(SHARDS, lambda: ["lives"]) == 2
        await asyncio.sleep(0.1)
        dropped = [command for command in store.commands if command[0] == b"EVAL" and b"RENAME" in command[1]]
        assert [command[3].decode() for command in dropped] == [keys.call("ended"), keys.call("over")]
        assert [command[6:] for command in dropped] == [[b"ended", b"7", b"0"], [b"over", b"7", b"0"]]
        await journal.close()
        store.stop()

    run_virtually(main)
