"""Requests too long for a datagram go by TCP (RFC 3261 §18.1.1): fragments are lost where firewalls drop them.

The target's address and port stay the same. Where no TCP connection can be made, the request goes as a datagram after
all, as the RFC asks, and so do those that follow for a while: not every call is to pay for the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sbc.sip.flow import Flow

NO_TCP_S: Final = 300.0  # a target that took no connection is asked again after so long
NO_TCP_MAX: Final = 4096  # targets remembered
ACK_S: Final = 10.0  # a failure this long after an ACK went by TCP is of that ACK
NEVER_BYTES: Final = 1 << 30
_VIA = b"\r\nVia: "

Target = tuple[int, str, int]


class Wider(NamedTuple):
    """What a datagram listener has for long requests: the limit, the listener to take instead, and both Vias up to
    their branch."""

    limit_bytes: int
    listener: int
    via: bytes
    wider_via: bytes


class Oversize:
    """Chooses the transport by length. ``least_bytes`` is the lowest limit: nothing shorter need be looked at."""

    __slots__ = ("_acks", "_no_tcp", "_paths", "least_bytes")

    def __init__(self) -> None:
        self.least_bytes = NEVER_BYTES
        self._paths: Mapping[int, Wider] = {}
        self._no_tcp: dict[Target, float] = {}  # until when
        self._acks: dict[Target, float] = {}  # to whom an ACK went by TCP, until when its failure counts

    def reconfigure(self, paths: Mapping[int, Wider]) -> None:
        """From now on by these, by datagram listener."""
        self._paths = paths
        self.least_bytes = min((path.limit_bytes for path in paths.values()), default=NEVER_BYTES)

    def widened(self, flow: Flow, data: bytes, now: float, *, ack: bool = False) -> tuple[Flow, bytes] | None:
        """The path by TCP, and the request with the Via for it; None: as a datagram. ``ack``: no transaction will say
        how it went."""
        path = self._paths.get(flow.listener)
        if path is None or len(data) <= path.limit_bytes:
            return None
        target = (path.listener, flow.host, flow.port)
        until = self._no_tcp.get(target)
        if until is not None:
            if now < until:
                return None
            del self._no_tcp[target]
        at = data.find(_VIA) + len(_VIA)
        if not data.startswith(path.via, at):
            return None
        if ack:
            _remember(self._acks, target, now + ACK_S)
        wider = b"".join((data[:at], path.wider_via, data[at + len(path.via) :]))
        return Flow(path.listener, "tcp", flow.host, flow.port), wider

    def refused(self, flow: Flow, now: float) -> None:
        """A request found no connection along this TCP flow."""
        _remember(self._no_tcp, (flow.listener, flow.host, flow.port), now + NO_TCP_S)

    def lost(self, flow: Flow, now: float) -> None:
        """A TCP flow failed; it concerns us if an ACK has just gone by it."""
        if now < self._acks.pop((flow.listener, flow.host, flow.port), now):
            self.refused(flow, now)


def _remember(table: dict[Target, float], target: Target, until: float) -> None:
    table.pop(target, None)
    table[target] = until
    if len(table) > NO_TCP_MAX:
        del table[next(iter(table))]
