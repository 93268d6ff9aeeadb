"""Which refusal of a call is told as which, and which lets another target be tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sbc.config.header_rules import status_range
from sbc.config.reply_codes import NEVER, ReplyCode

if TYPE_CHECKING:
    from sbc.config.models import Config


class Told(NamedTuple):
    """What is told instead; ``reason`` '' is the standard phrase, ``cause`` 0 the one that came."""

    status: int
    reason: str
    cause: int


class ReplyCodes:
    """One table. Of several rows for a status the narrowest counts."""

    __slots__ = ("_told",)

    def __init__(self, table: Mapping[str, ReplyCode]) -> None:
        self._told: dict[int, Told] = {}
        ranges = [(status_range(key), row) for key, row in table.items()]
        for (low, high), row in sorted(ranges, key=lambda one: one[0][0] - one[0][1]):
            for status in range(low, high + 1):
                if status not in NEVER:
                    self._told[status] = Told(row.status, row.reason, row.cause)

    def find(self, status: int) -> Told | None:
        """What is told instead of ``status``; None: itself."""
        return self._told.get(status)


class ReplyPolicies(NamedTuple):
    """By peer: what its refusals are told as, what it is told, and which of them let another target be tried."""

    inbound: Mapping[str, ReplyCodes]
    outbound: Mapping[str, ReplyCodes]
    failover: Mapping[str, frozenset[int]]


def policies(config: Config) -> ReplyPolicies | None:
    """None where nobody has any."""
    tables = {name: ReplyCodes(table) for name, table in config.reply_codes.items()}
    inbound, outbound, failover = {}, {}, {}
    for name, peer in config.peers.items():
        realm = config.realms[peer.realm].reply_codes
        if table := tables.get(peer.reply_codes.inbound or realm.inbound):
            inbound[name] = table
        if table := tables.get(peer.reply_codes.outbound or realm.outbound):
            outbound[name] = table
        if peer.failover_on:
            failover[name] = frozenset(status for low, high in peer.failover_on for status in range(low, high + 1))
    found = ReplyPolicies(inbound, outbound, failover)
    return found if any(found) else None
