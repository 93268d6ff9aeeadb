"""The quality fields of a CDR: what they hold, by leg, and that a call without them has none."""

from __future__ import annotations

from media.protocol import Judged, Quality, Reply, StreamStats
from sbc.b2bua import cdr, one_way
from sbc.b2bua.effects import MediaCommand
from tests.support.ladder import Ladder, sdp

A = StreamStats(
    packets_in=990,
    packets_out=1000,
    lost=10,
    jitter_ms=2.0,
    mos=4.2,
    quality=Quality(
        received=Judged(seconds=20, mos=4.21, mos_min=2.98, worst_s=7, low_s=2, lost=10, jitter_ms=14.5),
        reported=Judged(seconds=18, mos=4.4, mos_min=4.38, worst_s=1, lost=0, jitter_ms=1.25),
        rtt_ms=40.0,
        rtt_min_ms=30.0,
        rtt_avg_ms=41.26,
        rtt_max_ms=90.0,
    ),
)


class Measured(Ladder):
    """A media plane that has measured leg A, and carried nothing of leg B."""

    def answer_media(self, command: MediaCommand) -> Reply:
        reply = super().answer_media(command)
        if reply.stats:
            reply.stats = {"a": [A], "b1": [StreamStats()]}
        return reply


def test_the_fields_of_a_leg_that_was_measured_and_of_one_that_was_not() -> None:
    f = Measured()
    f.set_up(offer=sdp("192.0.2.10"), rings=False)
    one_way.note(f.core, f.call, "b1")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.expect("BYE")
    f.b.reply(200)
    assert f.cdr["one_way"] == "b"
    assert f.cdr["media"] == {
        "a": {
            "packets": 990,
            "packets_out": 1000,
            "lost": 10,
            "jitter_ms": 2.0,
            "mos": 4.2,
            "received": {
                "mos": 4.21,
                "mos_min": 2.98,
                "worst_s": 7,
                "low_s": 2,
                "lost": 10,
                "loss": 0.01,
                "jitter_ms": 14.5,
                "seconds": 20,
            },
            "reported": {
                "mos": 4.4,
                "mos_min": 4.38,
                "worst_s": 1,
                "low_s": 0,
                "lost": 0,
                "loss": 0.0,
                "jitter_ms": 1.2,
                "seconds": 18,
            },
            "rtt_ms": {"min": 30.0, "avg": 41.3, "max": 90.0},
        },
        "b": {"packets": 0, "packets_out": 0, "lost": 0, "jitter_ms": 0.0, "mos": 0.0},
    }


def test_of_several_streams_the_worst_that_was_heard_speaks_for_the_leg() -> None:
    better = StreamStats(packets_in=10, mos=4.4, quality=Quality(received=Judged(seconds=1, mos=4.4)))
    unheard = StreamStats(packets_out=10, quality=Quality(reported=Judged(seconds=1, mos=1.0)))
    found = cdr.quality([better, unheard, A, StreamStats()])
    assert found["received"]["mos"] == 4.21
    assert found["packets"] == 1000
    assert "rtt_ms" not in cdr.quality([better])
