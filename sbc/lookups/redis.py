"""Named Redis stores: each a pipe of its own (:mod:`sbc.store.pipe`) with its deadline and its circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sbc.config.lookups import RedisLookups
from sbc.lookups.asking import Key, RedisCommand
from sbc.lookups.errors import LookupFailed, LookupTimeout, ServerAway
from sbc.store.breaker import State
from sbc.store.pipe import Pipe, Refusal, StoreAway
from sbc.store.url import StoreAddress


class RedisStore:
    """One store, connected to from its making on. ``changed(server, is away)`` as for HTTP."""

    def __init__(
        self,
        name: str,
        config: RedisLookups,
        address: StoreAddress,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[str, bool], None],
    ) -> None:
        self._prefix = config.prefix
        self._timeout_s = config.timeout_ms / 1000
        self._server = f"redis {name} ({address})"
        self._changed = changed
        self._was_away = False
        self._pipe = Pipe(address, loop, key=config.prefix, deadline_s=self._timeout_s, on_change=self._noted)
        self._pipe.start()

    def _noted(self, state: State, reason: str) -> None:
        away = state in (State.OPEN, State.RETRYING)
        if state is not State.CONNECTING and away is not self._was_away:
            self._was_away = away
            self._changed(self._server, away)

    async def ask(self, asked: RedisCommand) -> Any:  # Any: None, int, str, or a list of them
        """The reply. Raises LookupFailed."""
        command = [self._prefix + part if isinstance(part, Key) else part for part in asked.command]
        try:
            reply = await self._pipe.call(*command)
        except StoreAway as error:
            if self._pipe.is_open:
                raise ServerAway(asked.name, f"{self._server} has not answered for some time") from error
            raise LookupTimeout(asked.name, f"no answer within {self._timeout_s:g} s ({error})") from error
        except Refusal as error:
            raise LookupFailed(asked.name, f"the server refused: {error}") from error
        return _plain(reply)

    def close(self) -> None:
        """End the connection; what waits fails."""
        self._pipe.on_change = None
        self._pipe.close()


def _plain(reply: Any) -> Any:  # Any: a RESP value, with octets as text
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "surrogateescape")
    if isinstance(reply, list):
        return [_plain(item) for item in reply]
    return reply
