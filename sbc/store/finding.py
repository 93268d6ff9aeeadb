"""Finds the master, again and again: a few who know are asked at once, and the latest decision counts."""

from __future__ import annotations

import asyncio

from sbc.store.topology import View, cluster_view, sentinel_view, slot_of
from sbc.store.url import Cluster, End, Sentinels, StoreAddress, text_of
from sbc.store.wire import Argument, Connection, Reply, StoreAway, told

GRACE_S = 0.02  # for the answers that come just behind those of most
FIND_S = 0.5


class Finder:
    """``key`` tells the slot where the store is a cluster. Each of those asked is given ``limit_s``.

    ``strict``  only what most of those that the URL names answer counts: who is cut off with a few of them, and with a
                master that the others have replaced, is to know that it knows nothing
    """

    def __init__(
        self,
        address: StoreAddress,
        loop: asyncio.AbstractEventLoop,
        key: str,
        *,
        limit_s: float = FIND_S,
        strict: bool = False,
    ) -> None:
        assert address.via is not None
        self.doubts: tuple[str, ...] = ()  # what would keep the store from outliving its master; as of the last look
        self.strict = strict
        self._address = address
        self._via = address.via
        self._loop = loop
        self._slot = slot_of(key)
        self._limit_s = limit_s
        self._others: tuple[End, ...] = ()  # of a cluster: the nodes that may become our master
        self._open: dict[End, Connection] = {}

    async def find(self) -> StoreAddress:
        """The master as most of those who answer know it. Raises StoreAway where none knows one."""
        named = self._via.ends
        ends = list(dict.fromkeys((*named, *self._others)))
        asking = {self._loop.create_task(self._ask(end)): end for end in ends}
        pending, grace_s = set(asking), None
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if sum(task.done() and not _failure(task) for task in asking) > len(ends) // 2:
                    grace_s = GRACE_S
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        views = {end: task.result() for task, end in asking.items() if not _failure(task)}
        failures = {end: _failure(task) for task, end in asking.items() if end not in views}
        silent = tuple(
            f"{text_of([end])} does not say who is the store's master: {why}"
            for end, why in failures.items()
            if end in named
        )
        if not views:
            raise StoreAway("; ".join(f"{text_of([end])}: {why}" for end, why in failures.items()))
        if self.strict and sum(end in views for end in named) <= len(named) // 2:
            raise StoreAway(f"most of those who know the master do not answer: {'; '.join(silent)}")
        latest = max(views.values(), key=lambda view: (view.epoch, view.master))
        self.doubts = latest.doubts + silent
        self._others = latest.others
        return self._address.at(*latest.master)

    def close(self) -> None:
        """End all connections."""
        for connection in self._open.values():
            connection.abort()
        self._open.clear()

    async def _ask(self, end: End) -> View:
        match self._via:
            case Sentinels(service=service):
                asked = [("SENTINEL", what, service) for what in ("GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS")]
                return sentinel_view(service, await self._replies(end, *asked))
            case Cluster():
                (nodes,) = await self._replies(end, ("CLUSTER", "NODES"))
                return cluster_view(self._slot, end, self._address.tls is not None, nodes)

    async def _replies(self, end: End, *commands: tuple[Argument, ...]) -> list[Reply]:
        """Over the connection that there is, or a new one; one that failed is not kept."""
        connection = self._open.pop(end, None)
        try:
            async with asyncio.timeout(self._limit_s):
                if connection is None or not connection.is_alive:
                    connection = await self._connected(end)
                replies = await connection.ask(*commands)
        except BaseException:
            if connection is not None:
                connection.abort()
            raise
        self._open[end] = connection
        return replies

    async def _connected(self, end: End) -> Connection:
        speaker = self._via if isinstance(self._via, Sentinels) else self._address
        connection = Connection(self, self._loop)
        await self._loop.create_connection(lambda: connection, *end, ssl=speaker.tls)
        if speaker.password:
            try:
                (reply,) = await connection.ask(("AUTH", *filter(None, [speaker.username]), speaker.password))
            except BaseException:
                connection.abort()
                raise
            if isinstance(reply, Exception):
                connection.abort()
                raise StoreAway(str(reply))
        return connection

    def received(self, connection: Connection, replies: list[Reply]) -> None:
        """Nobody asked for it: what follows could not be told from an answer."""
        connection.abort()

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection that is not in use has ended; the next question makes another one."""


def _failure(task: asyncio.Task[View]) -> str:
    """Why there is no view; empty where there is one."""
    if task.cancelled():
        return "no answer in time"
    error = task.exception()
    return "" if error is None else told(error)


async def locate(address: StoreAddress, key: str) -> tuple[StoreAddress, tuple[str, ...]]:
    """Once, and what is in doubt; an address of a server is itself. Raises StoreAway."""
    if address.via is None:
        return address, ()
    finder = Finder(address, asyncio.get_running_loop(), key)
    try:
        return await finder.find(), finder.doubts
    finally:
        finder.close()
