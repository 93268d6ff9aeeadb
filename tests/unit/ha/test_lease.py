"""The lease against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbc.ha.election import Ask, Lease
from sbc.ha.lease import LeaseStore
from tests.support.store import StoreServer

LEASE_S = 0.3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    store = StoreServer(tmp_path)
    store.start()
    yield store
    store.kill()


class Asker:
    def __init__(self, server: StoreServer, name: str) -> None:
        self.store = LeaseStore(server.address, "pair", name, LEASE_S, asyncio.get_running_loop())
        self.store.start()

    async def __call__(self, what: Ask, token: int = 0, to: str = "") -> Lease | None:
        answer: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        self.store.ask(what, token, answer.set_result, to)
        return await answer


def test_one_owner_and_a_later_token_for_each_change(server: StoreServer) -> None:
    async def scenario() -> None:
        a, b = Asker(server, "a"), Asker(server, "b")
        assert await a(Ask.LOOK) == Lease(False, "", 0, 0)
        assert await a(Ask.CLAIM) == Lease(True, "a", 1, 0)
        assert await b(Ask.CLAIM, 1) == Lease(False, "a", 1, 1)
        assert await a(Ask.KEEP, 1) == Lease(True, "a", 1, 1)
        await asyncio.sleep(LEASE_S * 1.2)
        assert await b(Ask.LOOK) == Lease(False, "", 1, 1)
        assert await a(Ask.KEEP, 1) == Lease(True, "a", 1, 1), "expired, and nobody took it"
        await asyncio.sleep(LEASE_S * 1.2)
        assert await b(Ask.CLAIM) == Lease(True, "b", 2, 1)
        assert await a(Ask.KEEP, 1) == Lease(False, "b", 2, 1)
        await asyncio.sleep(LEASE_S * 1.2)
        assert await a(Ask.KEEP, 1) == Lease(False, "", 2, 1), "a later token existed"
        assert await a(Ask.FORCE, 7) == Lease(True, "a", 8, 1)
        assert await a(Ask.GIVE, 9, "b") == Lease(False, "b", 9, 1)
        assert await b(Ask.KEEP, 9) == Lease(True, "b", 9, 1)
        assert await b(Ask.LEAVE, 9) == Lease(False, "", 9, 1)
        assert await a(Ask.LOOK) == Lease(False, "", 9, 0), "who left is not there"

    asyncio.run(scenario())


def test_a_node_that_took_over_without_the_store_brings_its_token_back(server: StoreServer) -> None:
    async def scenario() -> None:
        a, b = Asker(server, "a"), Asker(server, "b")
        await a(Ask.CLAIM)
        assert await b(Ask.KEEP, 5) == Lease(True, "b", 5, 1)
        assert await a(Ask.KEEP, 1) == Lease(False, "b", 5, 1)

    asyncio.run(scenario())


def test_an_emptied_store_learns_the_token_from_its_owner(server: StoreServer) -> None:
    async def scenario() -> None:
        a, b = Asker(server, "a"), Asker(server, "b")
        await a(Ask.CLAIM, 40)
        await a.store._pipe.call("FLUSHALL")
        assert await a(Ask.KEEP, 41) == Lease(True, "a", 41, 0)
        assert await b(Ask.CLAIM, 3) == Lease(False, "a", 41, 1)

    asyncio.run(scenario())


def test_a_hung_dead_or_hostile_store_gives_no_answer_and_says_why(server: StoreServer) -> None:
    async def scenario() -> None:
        a = Asker(server, "a")
        await a(Ask.CLAIM)
        await a.store._pipe.call("SET", "sbc:{pair}:presence", "nonsense")
        assert await a(Ask.KEEP, 1) is None
        assert "WRONGTYPE" in a.store.reason
        await a.store._pipe.call("DEL", "sbc:{pair}:presence")
        server.pause()
        began = time.monotonic()
        assert await a(Ask.KEEP, 1) is None
        assert time.monotonic() - began < 1.0
        server.resume()
        server.kill()
        for _ in range(5):
            assert await a(Ask.KEEP, 1) is None
        assert a.store.reason
        server.start()
        for _ in range(100):
            if (answer := await a(Ask.KEEP, 1)) is not None:
                break
            await asyncio.sleep(0.05)
        assert answer == Lease(True, "a", 1, 0)
        assert a.store.reason == ""

    asyncio.run(scenario())
