"""What a leg is played, as flat memory: the ctypes mirror of ``struct player`` in ``ext/c/play.h``."""

from __future__ import annotations

import ctypes
from enum import IntEnum

TICK_NS = 20_000_000
TICK_SAMPLES = 160  # at 8000 Hz
FOREVER = 0xFFFFFFFF
FILE_BYTES = 200  # of the name of a prompt


class PlayerState(IntEnum):
    """``Player.state``; only while it is PLAYING is the peer not heard."""

    IDLE = 0
    WAITING = 1  # for the file to be read
    PLAYING = 2
    ENDED = 3  # the owner has not been told yet


class Law(IntEnum):
    """``enum law`` of ``ext/c/law.h``."""

    U = 0
    A = 1


class Player(ctypes.Structure):
    """Beside the rule of a leg that is played something, or was; positions in samples at 8000 Hz."""

    tick: int  # number of the 20 ms of the monotonic clock that the next packet is for
    position: int  # of the next packet in the clip
    rounds: int  # how often the clip is still to be heard, this time included; FOREVER
    ssrc: int
    timestamp: int
    sequence: int
    payload_type: int
    law: int
    marker: int  # the next packet has it
    state: int
    stream: int
    number: int  # what the client calls it
    file: bytes
    _fields_ = [
        ("tick", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("position", "rounds", "ssrc", "timestamp")),
        ("sequence", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in ("payload_type", "law", "marker", "state")),
        ("stream", ctypes.c_uint16),
        ("number", ctypes.c_uint32),
        ("file", ctypes.c_char * (FILE_BYTES + 4)),
    ]


PLAYER_BYTES = ctypes.sizeof(Player)
