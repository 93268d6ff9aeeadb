"""The call detail record: its fields are a promise to billing, so they are only ever added to, never changed.

Version 1, JSON values:

``v``            1
``id``           the call's key: unique, the same in the journal and as media session
``node``         the node that ended the call
``start``        wall-clock seconds (float) of A's INVITE
``answer``       of our 200 to A; null: never answered
``end``          of the BYE, CANCEL or final answer
``duration_s``   from answer to end by the monotonic clock, 0 without answer
``setup_s``      from INVITE to answer, or to the end without one
``from`` ``to`` ``ruri``   URIs as A sent them
``a_peer`` ``b_peer``      configured peers, '' for none
``a_realm`` ``b_realm``    realms, b '' when nothing was dialled
``direction``    of A's peer
``a_call_id`` ``b_call_id``  the two legs' Call-IDs
``status``       the final status that A got
``answered``     whether that was a 2xx
``hangup``       who ended it: a, b or sbc
``cause``        Q.850 cause
``note``         a sentence where we ended it ourselves
``attempts``     list of {gateway, uri, leg, status, pdd_ms}, in order; pdd_ms -1: no reply above 100
``media``        by leg (a, b): {packets, packets_out, lost, jitter_ms, mos}, of what that leg sent to us;
                 mos of its worst stream, 0 without packets; absent without media of ours
                 ``received`` (what that leg sent, as we got it) and ``reported`` (what we sent, as it says by RTCP; its
                 losses are those of the whole way), where known, of its worst stream: {mos, mos_min, worst_s, low_s,
                 lost, loss (a share of 1), jitter_ms, seconds}: MOS on average and in the worst second, that second
                 after the first packet, seconds below 3.6, the greatest jitter, seconds in all; ``rtt_ms``, where RTCP
                 tells it, between us and that leg: {min, avg, max}
``one_way``      sides that sent nothing for a time while the other one did: '', a, b or ab
``media_node``   the media worker, '' without
``resumed``      the call was taken up from the journal at least once
``transferred_from``  the ``id`` of the call that a party came from, '' where none did (RFC 3515, RFC 3891)
``transferred_to``    the ``id`` of the call that a party went on in
``recording``    the file that the call was recorded to, below the recordings of its media worker, '' for none; of a
                 worker that took over from another one, ``-2`` and so on beside it
``variables``    what routes stored in ``call.variables``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from media.protocol import Judged, StreamStats

if TYPE_CHECKING:
    from sbc.b2bua.call import Call

VERSION: Final = 1
NORMAL_CLEARING: Final = 16

# Q.850 cause of a SIP status: RFC 3398 §8.2.6.1, and 31 (normal, unspecified) or 127 (interworking) otherwise.
CAUSES: dict[int, int] = {
    400: 41,
    401: 21,
    402: 21,
    403: 21,
    404: 1,
    405: 63,
    406: 79,
    407: 21,
    408: 102,
    410: 22,
    413: 127,
    414: 127,
    415: 79,
    416: 127,
    420: 127,
    480: 18,
    481: 41,
    482: 25,
    483: 25,
    484: 28,
    485: 1,
    486: 17,
    487: 16,
    488: 65,
    500: 41,
    501: 79,
    502: 38,
    503: 41,
    504: 102,
    505: 127,
    513: 127,
    600: 17,
    603: 21,
    604: 1,
    606: 65,
}


def cause_of(status: int) -> int:
    """The Q.850 cause that stands for a SIP status."""
    if status < 300:
        return NORMAL_CLEARING
    return CAUSES.get(status, 127 if status >= 500 else 31)


def printable(text: str) -> str:
    """Text that JSON and a database can hold: octets that are no UTF-8 become U+FFFD."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def record(
    node: str, call: Call, stats: Mapping[str, Sequence[StreamStats]], end_wall: float
) -> dict[str, Any]:  # Any: JSON values, see above
    """The CDR of a call that has ended."""
    a, b = call.a, call.b
    answered = call.answered_at != 0.0
    duration = call.ended_at - call.answered_at if answered else 0.0
    fields: dict[str, Any] = {  # Any: JSON values
        "v": VERSION,
        "id": call.key,
        "node": node,
        "start": _in_thousandths(call.start_wall),
        "answer": _in_thousandths(call.answer_wall) if answered else None,
        "end": _in_thousandths(end_wall),
        "duration_s": _in_thousandths(duration),
        "setup_s": _in_thousandths((call.answered_at if answered else call.ended_at) - call.started_at),
        "from": call.from_uri,
        "to": call.to_uri,
        "ruri": call.ruri,
        "a_peer": a.peer,
        "b_peer": b.peer if b is not None else "",
        "a_realm": a.realm,
        "b_realm": b.realm if b is not None else "",
        "direction": call.direction,
        "a_call_id": printable(a.dialog.call_id),
        "b_call_id": b.dialog.call_id if b is not None else "",
        "status": call.status,
        "answered": answered,
        "hangup": call.hung_up_by,
        "cause": call.cause,
        "note": call.status_text,
        "attempts": [
            {
                "gateway": attempt.gateway,
                "uri": attempt.uri,
                "leg": attempt.leg,
                "status": attempt.status,
                "pdd_ms": attempt.pdd_ms,
            }
            for attempt in call.attempts
        ],
        "one_way": call.one_way,
        "media_node": call.media_node,
        "resumed": call.resumed,
        "variables": call.variables,
        "transferred_from": call.transferred_from,
        "transferred_to": call.transferred_to,
        "recording": call.recording,
    }
    if stats:
        fields["media"] = {
            side: quality(stats[leg.name])
            for side, leg in (("a", a), ("b", b))
            if leg is not None and leg.name in stats
        }
    return fields


def quality(streams: Sequence[StreamStats]) -> dict[str, Any]:  # Any: JSON values
    """The streams of one leg in a line: counts add up, jitter is that of the worst, MOS that of the worst heard."""
    packets = packets_out = lost = 0
    jitter_ms = 0.0
    mos: float | None = None
    for stream in streams:
        packets += stream.packets_in
        packets_out += stream.packets_out
        lost += stream.lost
        jitter_ms = max(jitter_ms, stream.jitter_ms)
        if stream.packets_in:
            mos = stream.mos if mos is None else min(mos, stream.mos)
    fields: dict[str, Any] = {  # Any: JSON values
        "packets": packets,
        "packets_out": packets_out,
        "lost": lost,
        "jitter_ms": round(jitter_ms, 2) if jitter_ms else 0.0,
        "mos": round(mos, 2) if mos else 0.0,
    }
    judged = [stream for stream in streams if stream.quality is not None]
    if judged:
        worst = min(judged, key=_heard)
        told = worst.quality
        assert told is not None
        if told.received is not None:
            fields["received"] = _direction(told.received, worst.packets_in)
        if told.reported is not None:
            fields["reported"] = _direction(told.reported, worst.packets_out)
        if told.rtt_avg_ms >= 0:
            trips = {"min": told.rtt_min_ms, "avg": told.rtt_avg_ms, "max": told.rtt_max_ms}
            fields["rtt_ms"] = {name: round(value, 1) for name, value in trips.items()}
    return fields


def _in_thousandths(value: float) -> float:
    """A time to the millisecond. ``round`` goes by way of decimal text, which costs ten times as much."""
    return int(value * 1000 + 0.5) / 1000


def _heard(stream: StreamStats) -> float:
    """MOS of what came of a stream with quality; one of which nothing came says the least."""
    told = stream.quality
    return told.received.mos if told is not None and told.received is not None else 5.0


def _direction(judged: Judged, packets: int) -> dict[str, float]:
    expected = packets + judged.lost
    return {
        "mos": judged.mos,
        "mos_min": round(judged.mos_min, 2),
        "worst_s": judged.worst_s,
        "low_s": judged.low_s,
        "lost": judged.lost,
        "loss": round(judged.lost / expected, 4) if expected else 0.0,
        "jitter_ms": round(judged.jitter_ms, 1),
        "seconds": judged.seconds,
    }


def together(
    former: Mapping[str, list[StreamStats]], later: Mapping[str, list[StreamStats]]
) -> dict[str, list[StreamStats]]:
    """The streams of all media sessions that a call had, by leg."""
    return {name: [*former.get(name, ()), *later.get(name, ())] for name in (*former, *(later.keys() - former.keys()))}
