"""The path by which a message came, or by which it is to leave."""

from __future__ import annotations

from typing import Final, NamedTuple

# A connection's number: which certificate name the other side has proved (0: none), the slot of the worker that has it,
# and a serial number.
SERIAL_BITS: Final = 32
SLOT_BITS: Final = 8
IDENTITY_SHIFT: Final = SERIAL_BITS + SLOT_BITS


class Flow(NamedTuple):
    """One path to a remote socket.

    ``listener`` indexes the node's listeners in configuration order; ``host`` is a canonical IP literal without
    brackets, ``port`` its port. ``connection`` names a stream connection (0 for datagrams), and with it who is there.
    """

    listener: int
    transport: str
    host: str
    port: int
    connection: int = 0
