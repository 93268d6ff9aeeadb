"""How one stream of one leg went, from what the datapath noted beside its rule (media.samples)."""

from __future__ import annotations

from media import protocol
from media.quality import MOS_STEPS
from media.samples import Judged, Quality, recent


def summary(quality: Quality, lost: int, now_ns: int, samples: int = 0) -> protocol.Quality | None:
    """``lost`` packets were lost on the way to us; with the last so many ``samples``. None before the first sample."""
    if not quality.began:
        return None
    told = protocol.Quality(
        received=_judged(quality.received, lost),
        reported=_judged(quality.reported, quality.far_lost_before + quality.far_lost),
        one_way_s=quality.one_way_s,
    )
    if quality.round_trips:
        told.rtt_ms = quality.round_trip_us / 1000
        told.rtt_min_ms, told.rtt_max_ms = quality.round_trip_least_us / 1000, quality.round_trip_most_us / 1000
        told.rtt_avg_ms = round(quality.round_trip_sum_us / quality.round_trips / 1000, 3)
    if samples:
        second = now_ns // 1_000_000_000
        told.samples = [
            [
                second - one.second,
                *(one.packets_in, one.lost_in, one.jitter_in / 10, one.mos_in / MOS_STEPS),
                *(one.packets_out, one.lost_out, one.jitter_out / 10, one.mos_out / MOS_STEPS),
                one.round_trip / 10,
            ]
            for one in recent(quality, second, samples)
        ]
    return told


def _judged(judged: Judged, lost: int) -> protocol.Judged | None:
    if not judged.seconds:
        return None
    return protocol.Judged(
        seconds=judged.seconds,
        mos=round(judged.mos_sum / judged.seconds / MOS_STEPS, 2),
        mos_min=judged.mos_least / MOS_STEPS,
        worst_s=judged.worst_second,
        low_s=judged.low_seconds,
        lost=lost,
        jitter_ms=judged.jitter_most / 10,
    )
