"""The connection between two nodes of a pair over real sockets: all is told, again after a break, to nobody else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest

from media.replication.channel import HELLO_BYTES
from media.replication.link import Link
from media.state import Arena, state_size
from tests.support.loopback import CALLEE, CALLER, STRANGER
from tests.support.replicas import Churn, State, state_of
from tests.support.sbc import free_port

CAPACITY = 16
KEY = b"k" * 32


class Nodes:
    """Two nodes with two media workers each."""

    def __init__(self, key: bytes = KEY, workers: int = 2) -> None:
        self.said: list[tuple[str, str]] = []
        self.fds = [os.memfd_create(f"state-{n}") for n in range(4)]
        for fd in self.fds:
            os.ftruncate(fd, state_size(CAPACITY))
        self.arenas = [Arena(fd, CAPACITY) for fd in self.fds]
        self.churns = [Churn(arena, Random(n)) for n, arena in enumerate(self.arenas[:2])]
        near, far = (CALLER, free_port(CALLER)), (CALLEE, free_port(CALLEE))
        # the first path leads nowhere
        nowhere = (CALLER, free_port(CALLER)), (CALLEE, free_port(CALLEE))
        self.active = Link(KEY, [nowhere, (near, far)], self.fds[:2], CAPACITY, self.say)
        self.standby = Link(key, [(far, near)], self.fds[2 : 2 + workers], CAPACITY, self.say)
        self.far = far

    def say(self, level: str, text: str) -> None:
        self.said.append((level, text))

    async def begin(self) -> None:
        await self.standby.start()
        self.standby.follow()
        self.active.lead()

    def sessions(self) -> int:
        found = self.standby.describe()["sessions"]
        assert isinstance(found, int)
        return found

    async def know(self, count: int) -> None:
        await until(lambda: self.sessions() == count, f"the standby knows of {count} sessions")

    def states(self, nodes: slice) -> list[State]:
        """Without times: both have the same clock, but not to the nanosecond."""
        return [state_of(arena) for arena in self.arenas[nodes]]

    async def close(self) -> None:
        await self.active.close()
        await self.standby.close()
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    made = Nodes()
    await made.begin()
    yield made
    await made.close()


async def until(check: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not check():  # what is looked at has no event
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


def made(nodes: Nodes) -> int:
    for churn in nodes.churns:
        for _ in range(5):
            churn.new(time.monotonic_ns())
    return sum(len(churn.sessions) for churn in nodes.churns)


async def test_all_is_told_and_again_after_each_break(nodes: Nodes) -> None:
    count = made(nodes)
    await until(lambda: nodes.sessions() == count and nodes.active.is_synced, "all sessions at the standby")
    assert nodes.standby.describe()["synced"]
    for _ in range(3):
        writer = nodes.standby._writer
        assert writer is not None
        writer.transport.abort()
        nodes.churns[0].drop(next(iter(nodes.churns[0].sessions)))
        count -= 1
        await nodes.know(count)
    assert [set(state) for state in nodes.states(slice(2, 4))] == [set(state) for state in nodes.states(slice(0, 2))]


async def test_roles_change(nodes: Nodes) -> None:
    """The standby takes over and leads; the other one follows, with what it had forgotten."""
    count = made(nodes)
    await until(lambda: nodes.sessions() == count and nodes.active.is_synced, "all sessions at the standby")
    await asyncio.sleep(0.3)
    assert sum(one.sessions for one in nodes.standby.take_over(4)) == count
    nodes.active.follow()
    await nodes.active.start()
    nodes.standby.lead()
    await until(lambda: nodes.active.describe()["sessions"] == count, "all sessions at the former active node")
    assert nodes.standby.describe()["role"] == "leads"


async def test_another_key_is_told_nothing() -> None:
    nodes = Nodes(key=b"x" * 32)
    await nodes.begin()
    made(nodes)
    await until(lambda: any("ha.key_file" in text for _, text in nodes.said), "a line that says why")
    assert nodes.sessions() == 0
    await nodes.close()


async def test_another_number_of_workers_is_refused_in_plain_words() -> None:
    nodes = Nodes(workers=1)
    await nodes.begin()
    await until(lambda: sum("workers.media is the same on both" in text for _, text in nodes.said) == 2, "both say why")
    await nodes.close()


async def test_strangers_cost_nothing(nodes: Nodes) -> None:
    """Connections that say nothing, or anything, change nothing and do not end the one that there is."""
    count = made(nodes)
    await until(lambda: nodes.sessions() == count, "all sessions at the standby")
    kept = nodes.standby._writer
    random = Random(1)
    ends = [await asyncio.open_connection(*nodes.far, local_addr=(CALLER, 0)) for _ in range(20)]
    ends += [await asyncio.open_connection(*nodes.far, local_addr=(STRANGER, 0)) for _ in range(5)]
    for _, writer in ends[:12]:
        writer.write(random.randbytes(random.randrange(1, 5000)))
    said = await asyncio.gather(*map(until_closed, [*ends[:12], *ends[20:]]))
    assert max(map(len, said)) <= HELLO_BYTES
    assert not any(said[12:])
    assert nodes.standby._writer is kept
    for churn in nodes.churns:
        churn.drop(next(iter(churn.sessions)))
    await until(lambda: nodes.sessions() == count - 2, "the standby is told what changes")
    for _, writer in ends:
        writer.close()


async def until_closed(end: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    """All that came before the other side closed the connection."""
    try:
        return await asyncio.wait_for(end[0].read(), 5)
    except ConnectionError:
        return b""
