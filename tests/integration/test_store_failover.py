"""Stores that outlive their master, with real sentinels and a real cluster: who uses the store goes to the new one."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from sbc.b2bua.effects import FinishCall, SaveCall
from sbc.config.lookups import RedisLookups
from sbc.errors import StoreError
from sbc.ha.election import Ask, Lease
from sbc.ha.lease import LeaseStore
from sbc.lookups.asking import Key, RedisCommand
from sbc.lookups.errors import LookupFailed
from sbc.lookups.redis import RedisStore
from sbc.management.store_client import StoreClient
from sbc.selftest.measure import NotTried
from sbc.selftest.replicated import Clustered, Replicated, Sentinelled, asked, free_ports
from sbc.selftest.store import PREFIX
from sbc.store.journal import Journal
from sbc.store.keys import Keys
from sbc.store.topology import slot_of
from sbc.store.url import parse_store_url
from tests.support.certificates import Authority

NODE = "selftest"
LIMIT_S = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def started(kind: type[Replicated], folder: Path) -> Iterator[Replicated]:
    store = kind(folder)
    try:
        store.start()
        yield store
    except NotTried as error:
        if os.environ.get("SBC_REQUIRE_PEERS") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    finally:
        store.kill()


@pytest.fixture
def sentinelled(folder: Path) -> Iterator[Replicated]:
    yield from started(Sentinelled, folder)


@pytest.fixture
def clustered(folder: Path) -> Iterator[Replicated]:
    yield from started(Clustered, folder)


async def until(check: Callable[[], bool], what: str) -> None:
    """The check may block: it runs in a thread."""
    loop = asyncio.get_running_loop()
    limit_s = loop.time() + LIMIT_S
    while not await asyncio.to_thread(check):
        assert loop.time() < limit_s, what
        await asyncio.sleep(0.02)


async def until_it(works: Callable[[], Awaitable[bool]], what: str) -> None:
    loop = asyncio.get_running_loop()
    limit_s = loop.time() + LIMIT_S
    while not await works():
        assert loop.time() < limit_s, what
        await asyncio.sleep(0.05)


def record(number: int, version: int = 1) -> SaveCall:
    return SaveCall(f"call{number}", number % 4, version, b"[%d]" % number)


class Users:
    """All kinds of users of one store: a worker's journal, a lease, what routes look up, the thread that reads CDRs."""

    def __init__(self, store: Replicated) -> None:
        loop = asyncio.get_running_loop()
        self.store = store
        self.address = parse_store_url(store.url, "/")
        self.live: dict[str, SaveCall] = {}
        self.waits: list[float] = []
        self.journal = Journal(self.address, NODE, loop, epoch=None, on_restored=self.restored)
        self.lease = LeaseStore(self.address, NODE, "left", 1.0, loop)
        config = RedisLookups.model_validate({"url": "store", "prefix": "{routes}:", "timeout_ms": 200})
        self.lookups = RedisStore("rates", config, self.address, loop, lambda _server, _away: None)
        self.client = StoreClient(self.address, Keys(NODE).marker)

    def restored(self) -> None:
        self.journal.republish(list(self.live.values()))

    async def start(self) -> None:
        self.journal.start()
        self.lease.start()
        assert await self.journal.ready(LIMIT_S)

    async def save(self, effect: SaveCall) -> bool:
        loop = asyncio.get_running_loop()
        self.live[effect.key] = effect
        done: asyncio.Future[bool] = loop.create_future()
        began_s = loop.time()
        self.journal.save(effect, done.set_result)
        saved = await done
        self.waits.append(loop.time() - began_s)
        return saved

    async def claimed(self, what: Ask = Ask.KEEP) -> Lease | None:
        answer: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        self.lease.ask(what, 5, answer.set_result)
        return await answer

    async def everybody_is_there(self) -> None:
        """Each kind of user has found the master."""

        async def leased() -> bool:
            lease = await self.claimed()
            return lease is not None and lease.mine

        async def looked_up() -> bool:
            with suppress(LookupFailed):
                return bool(await self.lookups.ask(RedisCommand("rates", ("SET", Key("x"), "1"))) == "OK")
            return False

        async def read() -> bool:
            try:
                return bool(await asyncio.to_thread(lambda: self.client.client().set(Keys(NODE).bad("x"), "1")))
            except (redis.RedisError, StoreError, OSError):
                self.client.disconnect()
                return False

        for works in (leased, looked_up, read):
            await until_it(works, works.__name__)

    async def close(self) -> None:
        assert await self.journal.close(5.0) == 0
        self.lease.close()
        self.lookups.close()
        self.client.close()


def with_users(store: Replicated, body: Callable[[Users], Awaitable[None]]) -> None:
    async def main() -> None:
        users = Users(store)
        await users.start()
        await body(users)
        await users.close()

    asyncio.run(main())


def held(store: Replicated) -> dict[str, bytes]:
    """The records in the store, by call."""
    client: Any = store.client()  # Any: redis-py types replies as unions
    keys = list(client.scan_iter(f"{PREFIX}call:*"))
    return {key.decode().rpartition(":")[2]: client.get(key) for key in keys}


async def a_master_dies(users: Users) -> None:
    """What only it had is written again, and what came meanwhile; nobody waited longer than the deadline."""
    store = users.store
    for number in range(20):
        assert await users.save(record(number))
    await users.everybody_is_there()
    assert users.lease.doubts == ()
    await asyncio.to_thread(store.stop_replicas, True)
    for number in range(15, 30):  # ten new ones, and five that go on
        assert await users.save(record(number, 2))
    users.journal.finish(FinishCall("call0", 0, {"id": "call0"}, True))
    del users.live["call0"]
    await until(lambda: users.journal.waiting == 0, "all is stored")
    former = await asyncio.to_thread(store.kill_master)
    await asyncio.to_thread(store.stop_replicas, False)
    users.waits.clear()
    for number in range(30, 40):
        await users.save(record(number))
    assert max(users.waits) < 1.0, "0.05 s is the deadline; the machine may be busy"
    await until(lambda: store.master() not in (0, former), "another master")
    await until(lambda: users.journal.waiting == 0 and not users.journal.is_away, "all is stored again")
    await until(lambda: held(store).keys() == users.live.keys(), "each live call has its record, and none that ended")
    found = await asyncio.to_thread(held, store)
    assert all(found[one.key].endswith(b" %d\n%b" % (one.version, one.record)) for one in users.live.values())
    entries: Any = await asyncio.to_thread(lambda: store.client().xrange(Keys(NODE).cdr_stream))  # Any: replies
    assert {fields[b"cdr"] for _, fields in entries} == {b'{"id":"call0"}'}, "the record of the call that ended"
    await users.everybody_is_there()


def test_sentinels_promote_a_replica(sentinelled: Replicated) -> None:
    async def body(users: Users) -> None:
        await a_master_dies(users)
        await a_planned_switch(users)
        await most_sentinels_die(users)

    with_users(sentinelled, body)


async def a_planned_switch(users: Users) -> None:
    """The former master lives on as a replica: it is left, though it accepts connections."""
    store = users.store
    former = await asyncio.to_thread(store.master)
    await until(lambda: bool(store.replicas()) and asked(store.replicas()[0], "PING") == "PONG", "a replica")

    def switched() -> bool:
        with suppress(redis.ResponseError):  # one is under way, or no replica is good yet
            store.order_switch()
        return store.master() not in (0, former)

    await until(switched, "another master by order")
    numbers = count(100)

    async def is_there() -> bool:
        number = next(numbers)
        return await users.save(record(number)) and f"call{number}" in await asyncio.to_thread(held, store)

    await until_it(is_there, "a record at the new master")
    await until(lambda: users.journal.waiting == 0, "all is stored")
    await until(lambda: held(store).keys() == users.live.keys(), "all records are at the new master")
    await users.everybody_is_there()


async def most_sentinels_die(users: Users) -> None:
    """Then nobody could tell whether the master is one still: that is no lease, while calls are stored on."""
    store = users.store
    for port in store.watchers[:2]:
        store.servers[port].kill()
        store.servers[port].wait()

    async def no_lease() -> bool:
        return await users.claimed() is None

    await until_it(no_lease, "no lease")
    assert "most of those who know the master do not answer" in users.lease.reason
    assert await users.save(record(1, 9))


def test_a_cluster_moves_a_slot_and_promotes_replicas(clustered: Replicated) -> None:
    async def body(users: Users) -> None:
        await a_slot_is_moved(users)
        await a_planned_switch(users)
        await a_master_dies(users)

    with_users(clustered, body)


async def a_slot_is_moved(users: Users) -> None:
    """While its slot is on its way to another node, keys that are not there yet are refused, and written afterwards."""
    store = users.store
    assert await users.save(record(50))
    ours, slot = await asyncio.to_thread(store.master), slot_of(PREFIX)
    others = await asyncio.to_thread(lambda: [port for port in store.others() if port not in store.replicas()])
    await asyncio.to_thread(asked, ours, "CLUSTER", "SETSLOT", slot, "MIGRATING", asked(others[0], "CLUSTER", "MYID"))
    assert not await users.save(record(51))
    assert users.journal.is_unprotected
    await asyncio.to_thread(asked, ours, "CLUSTER", "SETSLOT", slot, "STABLE")
    await until(lambda: users.journal.waiting == 0, "what was refused is stored")
    assert await users.save(record(52))


def test_passwords_of_both_and_what_is_missing(folder: Path) -> None:
    store = Sentinelled(folder)
    port, watcher = free_ports(2)
    try:
        store._run(port, ["--requirepass", "s%ecret"])
        store._run(
            watcher,
            (),
            sentinel=f"port {watcher}\nbind 127.0.0.1\nrequirepass watch@\n"
            f"sentinel monitor selftest 127.0.0.1 {port} 1\nsentinel auth-pass selftest s%ecret\n",
        )
    except NotTried as error:
        pytest.skip(str(error))
    else:
        url = f"sentinel://:s%25ecret@127.0.0.1:{watcher}/selftest/3?sentinel_password=watch%40"

        async def main() -> None:
            journal = Journal(parse_store_url(url, "/"), NODE, asyncio.get_running_loop(), epoch=None)
            journal.start()
            assert await journal.ready(LIMIT_S)
            await journal.close()

        asyncio.run(main())
        client = StoreClient(parse_store_url(url, "/"), "x")
        assert client.client().dbsize() == 2, "database 3 has the marker and the count of workers"
        assert any("one sentinel watches" in doubt for doubt in client.doubts)
        assert any("no replica" in doubt for doubt in client.doubts)
        client.close()
    finally:
        store.kill()


def test_sentinels_and_master_over_tls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates are checked: those who know and the master are believed by what they prove."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")  # what is bundled is without TLS
    if program is None:
        pytest.skip("no Redis or Valkey server of the system is installed: apt-get install redis-server")
    authority = Authority(folder / "ca", "store-ca")
    pair = authority.sign("store", "IP:127.0.0.1")
    port, watcher = free_ports(2)
    common = (
        f"port 0\nbind 127.0.0.1\ntls-cert-file {pair.certificate}\ntls-key-file {pair.key}\n"
        f"tls-ca-cert-file {authority.certificate}\ntls-auth-clients no\ntls-replication yes\ndir {folder}\n"
    )
    (folder / "server.conf").write_text(f'{common}tls-port {port}\nsave ""\n')
    (folder / "sentinel.conf").write_text(f"{common}tls-port {watcher}\nsentinel monitor s 127.0.0.1 {port} 1\n")
    url = f"sentinel+tls://127.0.0.1:{watcher}/s"

    async def connected(limit_s: float) -> bool:
        journal = Journal(parse_store_url(url, "/"), NODE, asyncio.get_running_loop(), epoch=None)
        journal.start()
        try:
            return await journal.ready(limit_s)
        finally:
            await journal.close(0.1)

    with ExitStack() as stack:
        for words in (["server.conf"], ["sentinel.conf", "--sentinel"]):
            process = subprocess.Popen([program, *words], cwd=folder, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(0.2)
        if process.poll() is not None:
            pytest.skip(f"{program} was built without TLS")
        assert not asyncio.run(connected(0.5)), "nobody has signed it whom this machine knows"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        assert asyncio.run(connected(LIMIT_S))
        client = StoreClient(parse_store_url(url, "/"), "x")
        assert client.client().ping()
        client.close()
