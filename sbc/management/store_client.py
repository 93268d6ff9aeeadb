"""The store for a thread that may block: a client of redis-py, to whichever server is the master."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sbc.store.finding import locate
from sbc.store.url import StoreAddress

LOOK_S = 1.0  # how often those who know the master are asked


class StoreClient:
    """``key`` is one of those that will be asked for. ``doubts`` is what those say who watch the store."""

    def __init__(self, address: StoreAddress, key: str) -> None:
        self.doubts: tuple[str, ...] = ()
        self._address = address
        self._key = key
        self._master: StoreAddress | None = None
        self._client: redis.Redis | None = None
        self._looked_s = 0.0

    def client(self) -> redis.Redis:
        """Connected to the master when it is first used. Raises StoreError where nobody knows the master."""
        if self._client is None or (self._address.via is not None and time.monotonic() - self._looked_s > LOOK_S):
            master = self._address
            if master.via is not None:
                master, self.doubts = asyncio.run(locate(master, self._key))
            self._looked_s = time.monotonic()
            if self._client is None or master != self._master:
                self.disconnect()
                self._client, self._master = _connect(master), master
        return self._client

    def disconnect(self) -> None:
        """After an error: what comes next begins anew."""
        client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect()
            client.close()

    close = disconnect


def _connect(address: StoreAddress) -> redis.Redis:
    """A client that never repeats a command by itself: a repeated XREADGROUP would leave the first reply unread."""
    common: dict[str, Any] = {  # Any: keyword arguments of several types
        "db": address.database,
        "username": address.username or None,
        "password": address.password or None,
        "socket_timeout": 5.0,
        "socket_connect_timeout": 2.0,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if address.path:
        return redis.Redis(unix_socket_path=address.path, **common)
    return redis.Redis(host=address.host, port=address.port, ssl=address.tls is not None, **common)
