"""Two embedded stores, one of which follows the other."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sbc.demo.run import free_port
from sbc.errors import ConfigError, StoreError
from sbc.ha.replication import Replication
from sbc.store.pipe import Refusal
from sbc.store.url import StoreAddress
from sbc.supervisor.embedded_store import find_server

OURS, THEIRS = "127.0.0.41", "127.0.0.42"  # where the two are; they have one port


class Server:
    def __init__(self, folder: Path, host: str, port: int) -> None:
        folder.mkdir()
        self.path = str(folder / "s")
        try:
            program = find_server()
        except ConfigError as error:
            pytest.skip(str(error))
        words = ["--bind", host, "--port", str(port), "--unixsocket", self.path, "--save", "", "--dir", str(folder)]
        words += ["--requirepass", "secret", "--masterauth", "secret", "--repl-diskless-sync-delay", "0"]
        self.process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server, int]]:
    port = free_port(OURS)
    made = Server(tmp_path / "a", OURS, port), Server(tmp_path / "b", THEIRS, port)
    yield (*made, port)
    for server in made:
        server.stop()


def test_it_follows_is_promoted_and_follows_again(servers: tuple[Server, Server, int]) -> None:
    a_server, b_server, port = servers

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = (Replication(StoreAddress(path=s.path, password="secret"), port, loop) for s in (a_server, b_server))
        for one in (a, b):
            one.start()

        async def until_a_copy(one: Replication, hosts: list[str]) -> None:
            async with asyncio.timeout(20):
                while True:
                    await one.turn(active=False, hosts=hosts)
                    if not one.reason:
                        return
                    await asyncio.sleep(0.05)

        async def ask(one: Replication, *words: str) -> object:
            async with asyncio.timeout(20):
                while True:  # it may just be starting
                    with suppress(StoreError):
                        return await one._pipe.call(*words)
                    await asyncio.sleep(0.05)

        await ask(a, "SET", "call", "1")
        await b.turn(active=False, hosts=[])
        assert "no active node is heard" in b.reason
        await until_a_copy(b, ["127.0.0.99", OURS])  # the first path leads nowhere
        assert await ask(b, "GET", "call") == b"1"
        assert b.follows == OURS
        with pytest.raises(Refusal, match="READONLY"):
            await b._pipe.call("SET", "call", "2")
        await ask(a, "SET", "call", "3")
        await a.copied(2.0)
        await b.promote()
        assert await ask(b, "GET", "call") == b"3"
        await ask(b, "SET", "call", "4")
        await b.turn(active=True, hosts=[])
        await until_a_copy(a, [THEIRS])
        assert await ask(a, "GET", "call") == b"4"
        assert a.describe() == f"the store here follows {THEIRS}, and has all that is there"
        await a.turn(active=True, hosts=[])  # whatever it was told before: active is nobody's follower
        await ask(a, "SET", "call", "5")
        for one in (a, b):
            one.close()

    asyncio.run(scenario())
