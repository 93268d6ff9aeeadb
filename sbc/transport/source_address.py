"""From which address of this machine a host is reached: the kernel's routes, asked without sending anything."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

KEPT_S: Final = 5.0  # a route that changes is noticed so soon
HOSTS_MAX: Final = 4096
_DISCARD: Final = 9  # any port: connecting a datagram socket sends nothing


class SourceAddresses:
    """Answers by host, kept for a moment. ``now`` is monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[str, tuple[str, float]] = {}

    def __call__(self, host: str) -> str:
        """The address from which datagrams to this IP literal would leave; '' where there is no route."""
        now = self._now()
        known = self._known.get(host)
        if known is not None and now < known[1]:
            return known[0]
        if len(self._known) >= HOSTS_MAX:
            self._known.clear()
        found = _look_up(host)
        self._known[host] = (found, now + KEPT_S)
        return found


def _look_up(host: str) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, _DISCARD))
        except OSError:
            return ""
        return str(sock.getsockname()[0])
