"""Who of several sentinels is believed, against sentinels that the test plays."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from sbc.store.finding import Finder, locate
from sbc.store.url import Sentinels, StoreAddress, parse_store_url
from sbc.store.wire import StoreAway, pack, told

LIMIT_S = 0.4


class FakeSentinel:
    """Says that the master is at a port of 10.0.0.1, by its decision number ``epoch``; ``mute``: nothing."""

    def __init__(self, port: int, epoch: int, *, mute: bool = False) -> None:
        self.port = port
        self.epoch = epoch
        self.mute = mute
        self.connections = 0
        self.end = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.end = ("127.0.0.1", self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await reader.read(1 << 16):
            if not self.mute:
                master = ("flags", "master", "config-epoch", self.epoch, "num-other-sentinels", 2)
                replica = ("flags", "slave", "master-link-status", "ok", "slave-priority", 100)
                writer.write(pack("10.0.0.1", self.port) + pack(*master) + b"*1\r\n" + pack(*replica))
        writer.close()


def with_sentinels(
    sentinels: list[FakeSentinel], body: Callable[[StoreAddress], Awaitable[None]], *, dead: int = 0
) -> None:
    async def main() -> None:
        for sentinel in sentinels:
            await sentinel.start()
        ends = [sentinel.end for sentinel in sentinels]
        gone = FakeSentinel(0, 0)
        await gone.start()
        gone.stop()
        ends += [(f"127.0.0.{2 + n}", gone.end[1]) for n in range(dead)]
        try:
            await body(StoreAddress(password="p", database=3, via=Sentinels(tuple(ends), "s")))
        finally:
            for sentinel in sentinels:
                sentinel.stop()

    asyncio.run(main())


def test_the_latest_decision_counts_whoever_knows_it() -> None:
    async def body(address: StoreAddress) -> None:
        found, doubts = await locate(address, "")
        assert found == StoreAddress(host="10.0.0.1", port=2, password="p", database=3)
        assert doubts == ()

    with_sentinels([FakeSentinel(1, 7), FakeSentinel(2, 8), FakeSentinel(1, 7)], body)


def test_dead_and_hung_sentinels_are_told_and_cost_little() -> None:
    async def body(address: StoreAddress) -> None:
        loop = asyncio.get_running_loop()
        finder = Finder(address, loop, "", limit_s=5.0)
        began_s = loop.time()
        assert (await finder.find()).port == 1
        assert loop.time() - began_s < 4.0, "most have answered: the hung one is not waited for"
        assert sum("does not say who is the store's master" in doubt for doubt in finder.doubts) == 2
        finder.close()

    sentinels = [FakeSentinel(1, 7), FakeSentinel(1, 7), FakeSentinel(1, 7), FakeSentinel(9, 9, mute=True)]
    with_sentinels(sentinels, body, dead=1)


def test_a_few_are_enough_to_go_on_and_not_enough_for_a_lease() -> None:
    async def body(address: StoreAddress) -> None:
        loop = asyncio.get_running_loop()
        assert (await Finder(address, loop, "", limit_s=LIMIT_S).find()).port == 1
        with pytest.raises(StoreAway, match="most of those who know the master do not answer"):
            await Finder(address, loop, "", limit_s=LIMIT_S, strict=True).find()

    with_sentinels([FakeSentinel(1, 7)], body, dead=2)


def test_nobody_knows() -> None:
    async def body(address: StoreAddress) -> None:
        with pytest.raises(StoreAway, match=r"127\.0\.0\.2:\d+: .*; 127\.0\.0\.3"):
            await locate(address, "")

    with_sentinels([], body, dead=2)


def test_connections_are_kept_between_two_looks() -> None:
    sentinel = FakeSentinel(1, 7)

    async def body(address: StoreAddress) -> None:
        finder = Finder(address, asyncio.get_running_loop(), "")
        for port in (1, 2, 3):
            sentinel.port = port
            assert (await finder.find()).port == port
        assert sentinel.connections == 1
        finder.close()

    with_sentinels([sentinel], body)


def test_a_server_of_its_own_is_itself() -> None:
    address = parse_store_url("redis://h", "")
    assert asyncio.run(locate(address, "")) == (address, ())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 6379)"), "connection refused"),
        (TimeoutError(errno.ETIMEDOUT, "Connect call failed"), "connection timed out"),
        (StoreAway("nobody knows it"), "nobody knows it"),
        (OSError("Multiple exceptions: one, another"), "Multiple exceptions: one, another"),
    ],
)
def test_why_a_server_is_not_reached_is_said_in_words(error: Exception, said: str) -> None:
    assert told(error) == said
