"""The path by which a message came, or by which it is to leave."""

from __future__ import annotations

from typing import NamedTuple


class Flow(NamedTuple):
    """One path to a remote socket.

    ``listener`` indexes the node's listeners in configuration order; ``host`` is a canonical IP literal without
    brackets, ``port`` its port. ``connection`` names a stream connection (0 for datagrams).
    """

    listener: int
    transport: str
    host: str
    port: int
    connection: int = 0
