"""Servers that failed a moment ago, to be tried last (RFC 3263 §4.3). Sans-IO: ``now`` is monotonic seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sbc.policy.server_location import Server

COOL_OFF_S: Final = 30.0
COOL_OFF_MAX_S: Final = 3600.0  # a Retry-After longer than this is not believed


class CoolOff:
    """Failed servers and the time until which each is avoided; at most ``capacity`` of them."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self._until: dict[Server, float] = {}
        self._capacity = capacity

    def failed(self, server: Server, now: float, for_s: float = COOL_OFF_S) -> None:
        """Avoid this server for a while; an earlier failure never shortens that."""
        until = max(self._until.pop(server, now), now + min(for_s, COOL_OFF_MAX_S))
        self._until[server] = until
        if len(self._until) > self._capacity:
            del self._until[next(iter(self._until))]

    def ordered(self, servers: Sequence[Server], now: float) -> list[Server]:
        """The same servers, those to be avoided at the end: whoever has no other tries them all the same."""
        if not self._until:
            return list(servers)
        good, bad = [], []
        for server in servers:
            until = self._until.get(server)
            if until is None:
                good.append(server)
            elif until <= now:
                del self._until[server]
                good.append(server)
            else:
                bad.append(server)
        return good + bad
