"""Voice quality from what a relay can see: the E-model (ITU-T G.107) with G.711 and random loss."""

from __future__ import annotations

# G.107 (2015) §7: all parameters at their defaults give R0 - Is = 93.2
BASE_R = 93.2
# G.113 Appendix I, G.711 with packet loss concealment (Appendix I of G.711): Ie 0, Bpl 25.1
EQUIPMENT_IMPAIRMENT = 0.0
LOSS_ROBUSTNESS = 25.1
# A jitter buffer of twice the measured jitter, beside 20 ms of packetisation and 20 ms of network
BASE_DELAY_MS = 40.0


def r_factor(loss_percent: float, delay_ms: float) -> float:
    """Transmission rating 0 to 100 of G.711 at this loss (percent) and one-way delay (ms)."""
    loss = min(max(loss_percent, 0.0), 100.0)
    delay = max(delay_ms, 0.0)
    # G.107 §7.4 in the well-known linear form (Cole and Rosenbluth, 2001)
    delay_impairment = 0.024 * delay + (0.11 * (delay - 177.3) if delay > 177.3 else 0.0)
    effective = EQUIPMENT_IMPAIRMENT + (95.0 - EQUIPMENT_IMPAIRMENT) * loss / (loss + LOSS_ROBUSTNESS)
    return min(max(BASE_R - delay_impairment - effective, 0.0), 100.0)


def mos(rating: float) -> float:
    """Mean opinion score 1.0 to 4.5 of a rating (G.107 Annex B)."""
    if rating <= 0:
        return 1.0
    if rating >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6)


def estimate(received: int, lost: int, jitter_ms: float) -> float:
    """MOS of a stream with ``received`` packets, ``lost`` ones and this jitter; 0.0 when nothing was received."""
    if received <= 0:
        return 0.0
    loss_percent = 100.0 * lost / (received + lost)
    return round(mos(r_factor(loss_percent, BASE_DELAY_MS + 2 * jitter_ms)), 2)
