"""The real servers of a configuration. Only what it names is imported, connected to and given threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sbc.config.lookups import Lookups as Config
from sbc.errors import ConfigError
from sbc.lookups.asking import HttpAnswer, HttpRequest, RedisCommand, Row, Statement
from sbc.lookups.errors import LookupFailed, ServerAway
from sbc.lookups.lookups import Lookups
from sbc.store.url import parse_store_url
from sbc.telemetry import log

if TYPE_CHECKING:
    from sbc.lookups.database import DatabaseClient
    from sbc.lookups.http import HttpClient
    from sbc.lookups.redis import RedisStore

_Answer = TypeVar("_Answer")


def open_lookups(
    config: Config,
    loop: asyncio.AbstractEventLoop,
    *,
    store_url: str,
    run_dir: str,
    count: Callable[[str], None] = lambda name: None,
) -> Lookups:
    """What ``config`` names, for the routes of one worker; nothing at all where it names nothing.

    ``store_url`` is what the URL ``store`` stands for. Raises ConfigError for what cannot be used.
    """
    if not config.are_configured:
        return Lookups()
    return Lookups(config, World(config, loop, store_url=store_url, run_dir=run_dir, count=count))


class World:
    """:class:`sbc.lookups.asking.Asker` with clients of its own for each server."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        *,
        store_url: str,
        run_dir: str,
        count: Callable[[str], None],
    ) -> None:
        self._count = count
        self._http: HttpClient | None = None
        self._redis: dict[str, RedisStore] = {}
        self._databases: dict[str, DatabaseClient] = {}
        try:
            self._open(config, loop, store_url, run_dir)
        except BaseException:
            self.close()
            raise

    def _open(self, config: Config, loop: asyncio.AbstractEventLoop, store_url: str, run_dir: str) -> None:
        if config.http is not None:
            from sbc.lookups.http import HttpClient

            try:
                self._http = HttpClient(config.http, loop, self._changed)
            except OSError as error:
                raise ConfigError([f"lookups.http.ca: cannot use {config.http.ca}: {error}"]) from error
        for name, store in config.redis.items():
            from sbc.lookups.redis import RedisStore

            url = store.url.get_secret_value()
            try:
                address = parse_store_url(store_url if url == "store" else url, run_dir)
            except ConfigError as error:
                raise ConfigError([f"lookups.redis.{name}: {error.faults[0].partition(': ')[2]}"]) from error
            self._redis[name] = RedisStore(name, store, address, loop, self._changed)
        for name, database in config.databases.items():
            from sbc.lookups.database import DatabaseClient

            self._databases[name] = DatabaseClient(name, database, loop, self._changed)

    async def http(self, request: HttpRequest) -> HttpAnswer:
        """As in Asker."""
        assert self._http is not None  # Lookups has looked
        return await self._counted(self._http.ask(request))

    async def redis(self, command: RedisCommand) -> Any:  # Any: as in Asker
        """As in Asker."""
        return await self._counted(self._redis[command.store].ask(command))

    async def database(self, statement: Statement) -> Sequence[Row] | int:
        """As in Asker."""
        return await self._counted(self._databases[statement.database].ask(statement))

    def close(self) -> None:
        """As in Asker."""
        for client in (self._http, *self._redis.values(), *self._databases.values()):
            if client is not None:
                client.close()

    async def _counted(self, answer: Awaitable[_Answer]) -> _Answer:
        self._count("LOOKUPS")
        try:
            return await answer
        except LookupFailed as error:
            self._count("LOOKUPS_REFUSED" if isinstance(error, ServerAway) else "LOOKUPS_FAILED")
            raise

    def _changed(self, server: str, away: bool) -> None:
        if away:
            log.get().error("look-ups fail at once: a server does not answer", server=server)
        else:
            log.get().info("look-ups are answered again", server=server)
