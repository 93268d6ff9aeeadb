"""What is done with payloads on their way to a leg, as flat memory: the ctypes mirror of ``ext/c/process.h``.

It lies beside the rule of the leg that it is for (``media.state``) and is looked at only where that has
``Feature.PROCESSED``. A successor of the worker goes on with the numbers and timestamps in it.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

FORMATS = 16
DIGITS = 32  # that wait to be sent
NOWHERE = 255  # a payload type that does not go on
EVENTS = "0123456789*#ABCD"  # RFC 4733 §3.2, by number
FLASH = 16


class Codec(IntEnum):
    """``enum codec``: what more can be done with than to pass it on."""

    OTHER = 0
    PCMU = 1
    PCMA = 2
    G722 = 3
    OPUS = 4
    EVENT = 5


CODECS = {"pcmu": Codec.PCMU, "pcma": Codec.PCMA, "g722": Codec.G722, "opus": Codec.OPUS}


class Format(ctypes.Structure):
    """One payload type as the other side sends it, and what becomes of it; the same codec passes."""

    number: int
    to: int
    codec: int
    to_codec: int
    clock_hz: int
    to_clock_hz: int
    _fields_ = [
        *((name, ctypes.c_uint8) for name in ("number", "to", "codec", "to_codec")),
        *((name, ctypes.c_uint32) for name in ("clock_hz", "to_clock_hz")),
    ]


_U64 = ("out_ns", "heard_ns", "next_ns")
_U32 = (
    *("generation", "event_clock_hz", "ssrc", "ts_in", "ts_out", "clock_in", "clock_out"),
    *("heard_at", "heard_out", "heard_before", "heard_clock_hz", "sending_at"),
)
_U16 = ("last_in", "last_out", "valid_from", "heard_duration", "duration_ms", "pause_ms", "elapsed_ms")
_U8 = (
    *("count", "event_number", "packet_ms", "tell", "begun", "joining", "heard", "heard_event"),
    *("digit_count", "ends", "active", "reserved"),
)


class Process(ctypes.Structure):
    """``struct process``."""

    out_ns: int
    heard_ns: int
    next_ns: int
    formats: ctypes.Array[Format]
    generation: int
    event_clock_hz: int
    ssrc: int
    ts_in: int
    ts_out: int
    clock_in: int
    clock_out: int
    heard_at: int
    heard_out: int
    heard_before: int
    heard_clock_hz: int
    sending_at: int
    last_in: int
    last_out: int
    valid_from: int
    heard_duration: int
    duration_ms: int
    pause_ms: int
    elapsed_ms: int
    count: int
    event_number: int
    packet_ms: int
    tell: int
    begun: int
    joining: int
    heard: int
    heard_event: int
    digit_count: int
    ends: int
    active: int
    reserved: int
    digits: ctypes.Array[ctypes.c_ubyte]
    _fields_ = [
        *((name, ctypes.c_uint64) for name in _U64),
        ("formats", Format * FORMATS),
        *((name, ctypes.c_uint32) for name in _U32),
        *((name, ctypes.c_uint16) for name in _U16),
        *((name, ctypes.c_uint8) for name in _U8),
        ("digits", ctypes.c_uint8 * DIGITS),
    ]


PROCESS_BYTES = ctypes.sizeof(Process)
