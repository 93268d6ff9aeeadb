"""Voice quality from what a relay can see: the E-model (ITU-T G.107, for wideband codecs G.107.1) with random loss.

A rating is made of the codec, the loss, and an estimate of the delay: half of the round trip that RTCP tells (20 ms
where it tells none), 20 ms of packets, a jitter buffer of twice the measured jitter, and the look-ahead of the codec.
All other parameters are at their defaults. ``ext/c/quality.c`` has the same in C.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

# G.107 (2015) §7: all parameters at their defaults give R0 - Is = 93.2; G.107.1 §7: 129
BASE_R, WIDE_BASE_R = 93.2, 129.0
WIDE_SCALE = 1.29  # G.107.1 Annex A: a rating of that scale gives the MOS of one so many times smaller
PACKET_MS, NETWORK_MS = 20.0, 20.0
MOS_STEPS = 50  # a sample keeps MOS in fiftieths


class Codec(IntEnum):
    """``enum codec``: what a sample is rated as. UNKNOWN is rated as G711."""

    UNKNOWN = 0
    G711 = 1
    G722 = 2
    OPUS = 3
    G729 = 4
    G723 = 5
    GSM = 6
    G728 = 7
    AMR = 8
    AMR_WB = 9
    EVENT = 14  # RFC 4733: no audio
    COMFORT = 15  # RFC 3389: comfort noise


class Impairment(NamedTuple):
    """Equipment impairment Ie, robustness against loss Bpl (G.107 §7.2) and look-ahead of a codec."""

    ie: float
    bpl: float
    delay_ms: float = 0.0
    wide: bool = False  # ie is of the wideband scale


# G.113 Appendix I: G.711 with packet loss concealment, G.729A, G.723.1 at 6.3 kbit/s, GSM-EFR (which is AMR at 12.2);
# Ie of GSM full rate and G.728 is from there too, their Bpl is estimated. G.113 Appendix IV has Ie of G.722 at 64
# kbit/s and of AMR-WB at 12.65; their Bpl, and everything of Opus, for which nothing is published, is our estimate.
CODECS: dict[Codec, Impairment] = {
    Codec.UNKNOWN: Impairment(0.0, 25.1),
    Codec.G711: Impairment(0.0, 25.1),
    Codec.G722: Impairment(13.0, 20.0, 1.5, True),
    Codec.OPUS: Impairment(8.0, 25.0, 6.5, True),
    Codec.G729: Impairment(11.0, 19.0, 5.0),
    Codec.G723: Impairment(15.0, 16.1, 7.5),
    Codec.GSM: Impairment(20.0, 10.0),
    Codec.G728: Impairment(7.0, 17.0),
    Codec.AMR: Impairment(5.0, 10.0, 5.0),
    Codec.AMR_WB: Impairment(13.0, 10.0, 5.0, True),
}

# RFC 3551 §6
STATIC = {
    0: Codec.G711,
    3: Codec.GSM,
    4: Codec.G723,
    8: Codec.G711,
    9: Codec.G722,
    13: Codec.COMFORT,
    15: Codec.G728,
    18: Codec.G729,
    19: Codec.COMFORT,
}
_NAMED = {
    **{"pcmu": Codec.G711, "pcma": Codec.G711, "g722": Codec.G722, "opus": Codec.OPUS, "g729": Codec.G729},
    **{"g723": Codec.G723, "gsm": Codec.GSM, "g728": Codec.G728, "amr": Codec.AMR, "amr-wb": Codec.AMR_WB},
    **{"telephone-event": Codec.EVENT, "cn": Codec.COMFORT},
}


def named(formats: Iterable[str]) -> dict[int, Codec]:
    """Codecs by dynamic payload type, of those in ``formats`` (see ``media.protocol.Stream``) that are known here."""
    found: dict[int, Codec] = {}
    for text in formats:
        number, _, encoding = text.partition(" ")
        codec = _NAMED.get(encoding.partition("/")[0].partition(" ")[0].lower())
        if codec is not None and number.isascii() and number.isdigit() and 95 < int(number) < 128:
            found[int(number)] = codec
    return found


def rating(loss_percent: float, delay_ms: float, codec: Codec = Codec.G711) -> float:
    """Transmission rating, 0 to 100, at this loss (percent) and one-way delay (ms)."""
    loss, delay = min(max(loss_percent, 0.0), 100.0), max(delay_ms, 0.0)
    ie, bpl, _, wide = CODECS[codec]
    # G.107 §7.4 in the well-known linear form (Cole and Rosenbluth, 2001)
    late = 0.024 * delay + (0.11 * (delay - 177.3) if delay > 177.3 else 0.0)
    effective = ie + (95.0 - ie) * loss / (loss + bpl)
    value = (WIDE_BASE_R - late - effective) / WIDE_SCALE if wide else BASE_R - late - effective
    return min(max(value, 0.0), 100.0)


def mos(value: float) -> float:
    """Mean opinion score 1.0 to 4.5 of a rating (G.107 Annex B)."""
    if value <= 0:
        return 1.0
    if value >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * value + value * (value - 60) * (100 - value) * 7e-6)


def delay(jitter_ms: float, round_trip_ms: float | None = None, codec: Codec = Codec.G711) -> float:
    """The one-way delay (ms) that is assumed; ``round_trip_ms`` None: not known."""
    network = NETWORK_MS if round_trip_ms is None else round_trip_ms / 2
    return PACKET_MS + network + 2 * jitter_ms + CODECS[codec].delay_ms


def estimate(
    received: int,
    lost: int,
    jitter_ms: float,
    codec: Codec = Codec.G711,
    round_trip_ms: float | None = None,
) -> float:
    """MOS of a stream with ``received`` packets, ``lost`` ones and this jitter; 0.0 when nothing was received."""
    if received <= 0:
        return 0.0
    loss_percent = 100.0 * lost / (received + lost)
    return round(mos(rating(loss_percent, delay(jitter_ms, round_trip_ms, codec), codec)), 2)
