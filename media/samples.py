"""How each call goes, as flat memory: the ctypes mirror of ``ext/c/quality.h``, beside the rules of an arena.

Written by the datapath: from RTCP that passes through, and once a second from the counters of each rule that has
carried anything. A successor of the worker goes on with it.
"""

from __future__ import annotations

import ctypes
from enum import IntFlag

SAMPLES = 60  # seconds that are kept
SENT_REPORTS = 4
FORMATS = 4
REPORT_HOLDS_S = 10  # a report of the far end stands for so long
MOS_LOW = 180  # 3.6, in fiftieths
STOPPED_TIMES = 3  # silence after audio is allowed so many times the patience
COMFORT_TIMES = 2  # and so many times again where the leg has said that it is silent
PATIENCE_NEVER = 0xFFFF


class Direction(IntFlag):
    """``Quality.direction``: what the leg described that it does."""

    SEND = 1
    RECEIVE = 2
    NO_VOICE = 4  # a stream of something else: it has no MOS, and nobody misses it


DIRECTIONS = {
    "sendrecv": Direction.SEND | Direction.RECEIVE,
    "sendonly": Direction.SEND,
    "recvonly": Direction.RECEIVE,
    "inactive": Direction(0),
}


class Sample(ctypes.Structure):
    """One second of one leg; ``in`` is what the leg sent, ``out`` what we sent to it and how its far end received that.

    Jitter and round trip in tenths of a millisecond, MOS in fiftieths; 0: nothing known.
    """

    second: int
    packets_in: int
    lost_in: int
    jitter_in: int
    packets_out: int
    lost_out: int
    jitter_out: int
    round_trip: int
    mos_in: int
    mos_out: int
    _fields_ = [
        ("second", ctypes.c_uint32),
        *((name, ctypes.c_uint16) for name in ("packets_in", "lost_in", "jitter_in")),
        *((name, ctypes.c_uint16) for name in ("packets_out", "lost_out", "jitter_out", "round_trip")),
        ("mos_in", ctypes.c_uint8),
        ("mos_out", ctypes.c_uint8),
    ]


class Judged(ctypes.Structure):
    """One direction over all its seconds in which there was something to judge."""

    seconds: int
    low_seconds: int
    mos_sum: int
    worst_second: int  # since the first sample
    mos_least: int
    jitter_most: int
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("seconds", "low_seconds", "mos_sum", "worst_second")),
        ("mos_least", ctypes.c_uint16),
        ("jitter_most", ctypes.c_uint16),
    ]


class SentReport(ctypes.Structure):
    """A sender report that left towards the leg: the middle 32 bits of its NTP time, and when it left."""

    sent_ns: int
    ntp: int
    ssrc: int
    _fields_ = [("sent_ns", ctypes.c_uint64), ("ntp", ctypes.c_uint32), ("ssrc", ctypes.c_uint32)]


class Quality(ctypes.Structure):
    """``struct quality``: what is known of one rule beyond its counters."""

    report_ns: int
    round_trip_sum_us: int
    packets_in: int  # as of the last sample, like the next two
    packets_out: int
    lost_in: int
    heard_ns: int
    expected_ns: int
    sent: ctypes.Array[SentReport]
    began: int
    round_trip_us: int
    round_trip_least_us: int
    round_trip_most_us: int
    round_trips: int
    reports: int
    far_ssrc: int
    far_lost: int
    far_lost_before: int
    far_lost_sampled: int
    far_jitter: int
    refused: int
    one_way_s: int
    received: Judged  # ``in``
    reported: Judged  # ``out``
    patience_s: int
    far_fraction: int
    next_sent: int
    direction: int
    codec: int
    told: int
    format: ctypes.Array[ctypes.c_ubyte]
    format_codec: ctypes.Array[ctypes.c_ubyte]
    samples: ctypes.Array[Sample]
    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("report_ns", "round_trip_sum_us")),
        *((name, ctypes.c_uint64) for name in ("packets_in", "packets_out", "lost_in", "heard_ns", "expected_ns")),
        ("sent", SentReport * SENT_REPORTS),
        *((name, ctypes.c_uint32) for name in ("began", "round_trip_us", "round_trip_least_us")),
        *((name, ctypes.c_uint32) for name in ("round_trip_most_us", "round_trips", "reports", "far_ssrc")),
        *((name, ctypes.c_uint32) for name in ("far_lost", "far_lost_before", "far_lost_sampled", "far_jitter")),
        *((name, ctypes.c_uint32) for name in ("refused", "one_way_s")),
        ("received", Judged),
        ("reported", Judged),
        ("patience_s", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in ("far_fraction", "next_sent", "direction", "codec", "told", "reserved")),
        ("format", ctypes.c_uint8 * FORMATS),
        ("format_codec", ctypes.c_uint8 * FORMATS),
        ("samples", Sample * SAMPLES),
    ]


QUALITY_BYTES = ctypes.sizeof(Quality)


def _at(name: str) -> int:
    offset: int = getattr(Quality, name).offset
    return offset


HEAD_BYTES = _at("samples")  # samples need not be wiped: those of before ``began`` are nobody's
AT_DIRECTION, AT_PATIENCE, AT_FORMAT = map(_at, ("direction", "patience_s", "format"))


def _blank() -> bytes:
    quality = Quality()
    quality.direction = Direction.SEND | Direction.RECEIVE
    return bytes(quality)[:HEAD_BYTES]


BLANK = _blank()


def recent(quality: Quality, second: int, count: int) -> list[Sample]:
    """The samples of the last ``count`` seconds up to ``second``, oldest first; seconds without one are left out."""
    if not quality.began:
        return []
    first = max(second - min(count, SAMPLES) + 1, quality.began)
    found = (quality.samples[at % SAMPLES] for at in range(first, second + 1))
    return [sample for at, sample in zip(range(first, second + 1), found, strict=True) if sample.second == at]
