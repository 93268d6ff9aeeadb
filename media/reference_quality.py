"""Quality of running calls in plain Python, over the memory of ``ext/c/quality.c``: what that is tested against."""

from __future__ import annotations

import ctypes

from media.quality import MOS_STEPS, STATIC, Codec, delay, mos, rating
from media.rules import NO_RULE, Rule, RuleFlag, lost_packets
from media.samples import (
    COMFORT_TIMES,
    FORMATS,
    MOS_LOW,
    PATIENCE_NEVER,
    REPORT_HOLDS_S,
    SAMPLES,
    SENT_REPORTS,
    STOPPED_TIMES,
    Direction,
    Judged,
    Quality,
    Sample,
)

SENDER_REPORT, RECEIVER_REPORT = 200, 201
BLOCK_BYTES = 24
ROUND_TRIP_MOST_NS = 10 * 10**9  # more is a clock that jumped, or a report that was kept back
EARLY_NS = 10_000_000  # an answer may seem to come so much before its question: clocks drift
JITTER_MOST_S = 5
SENDING_NS = 5 * 10**9  # a leg that was heard so lately sends; pauses of silence suppression


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _answer_to_report(quality: Quality, ssrc: int, lsr: int, dlsr: int, now_ns: int) -> None:
    """RFC 3550 §6.4.1: now - DLSR - when what LSR names was sent."""
    sent = next((s for s in quality.sent if s.sent_ns and s.ntp == lsr and s.ssrc == ssrc), None)
    if not lsr or sent is None:
        return
    trip_ns = now_ns - sent.sent_ns - (dlsr * 10**9 >> 16)
    if not -EARLY_NS <= trip_ns <= ROUND_TRIP_MOST_NS:
        return
    us = max(trip_ns, 0) // 1000
    quality.round_trip_us = us
    quality.round_trip_sum_us += us
    quality.round_trip_least_us = min(us, quality.round_trip_least_us) if quality.round_trips else us
    quality.round_trip_most_us = max(us, quality.round_trip_most_us)
    quality.round_trips += 1


def _report_block(quality: Quality, rule: Rule, source: Rule, block: bytes, now_ns: int) -> None:
    """How the leg of ``rule`` receives what ``source`` sent."""
    ssrc, clock_hz = _u32(block, 0), rule.clock_rate_hz or 8000
    if not source.has_ssrc or source.ssrc != ssrc:  # of nothing that we send to it
        return
    lost, jitter = _u32(block, 4) & 0xFFFFFF, _u32(block, 12)
    if lost & 0x800000:  # more duplicates than losses
        lost = 0
    if quality.far_ssrc != ssrc:
        quality.far_lost_before += quality.far_lost
        quality.far_ssrc = ssrc
    quality.reports += 1
    quality.report_ns = now_ns
    quality.far_lost = min(lost, source.packets_in + lost_packets(source))
    quality.far_fraction = block[4]
    if jitter <= JITTER_MOST_S * clock_hz:
        quality.far_jitter = jitter * 10000 // clock_hz
    _answer_to_report(quality, ssrc, _u32(block, 16), _u32(block, 20), now_ns)


def _remember(quality: Quality, ssrc: int, ntp: int, now_ns: int) -> None:
    if not ntp:  # an LSR of zero means: none
        return
    for sent in quality.sent:
        if sent.sent_ns and sent.ntp == ntp and sent.ssrc == ssrc:
            sent.sent_ns = now_ns  # the same again: answered is the last one
            return
    free = quality.sent[quality.next_sent]
    free.sent_ns, free.ntp, free.ssrc = now_ns, ntp, ssrc
    quality.next_sent = (quality.next_sent + 1) % SENT_REPORTS


def note_rtcp(quality: ctypes.Array[Quality], rules: ctypes.Array[Rule], index: int, data: bytes, now_ns: int) -> None:
    """RTCP in the clear that came from the leg of ``index`` and was accepted."""
    rule = rules[index]
    at = 0
    while rule.peer != NO_RULE and len(data) - at >= 8:
        part = data[at : at + 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")]
        if len(part) != 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big"):
            return
        at += len(part)
        header = {SENDER_REPORT: 28, RECEIVER_REPORT: 8}.get(part[1], 0)
        if not header or len(part) < header:
            continue
        if part[1] == SENDER_REPORT:
            _remember(quality[rule.peer], _u32(part, 4), _u32(part, 10), now_ns)
        for block in range(min(part[0] & 31, (len(part) - header) // BLOCK_BYTES)):
            begin = header + BLOCK_BYTES * block
            _report_block(quality[index], rule, rules[rule.peer], part[begin : begin + BLOCK_BYTES], now_ns)


def _codec_of(rule: Rule, quality: Quality, peer: Quality | None) -> int:
    """RFC 3551 §6, or what either leg described."""
    kind = rule.payload_type & 127
    if kind in STATIC:
        return STATIC[kind]
    for known in (quality, peer):
        for place in range(FORMATS if known is not None else 0):
            if known is not None and known.format[place] == kind | 128 and known.format_codec[place]:
                return known.format_codec[place]
    return Codec.OPUS if rule.clock_rate_hz == 48000 else Codec.UNKNOWN


def _mos_of(number: int, loss_percent: float, jitter_ms: float, quality: Quality) -> int:
    """In fiftieths."""
    codec = Codec(number)
    trip = quality.round_trip_us / 1000.0 if quality.round_trips else None
    return int(mos(rating(loss_percent, delay(jitter_ms, trip, codec), codec)) * MOS_STEPS + 0.5)


def _judge(judged: Judged, value: int, jitter: int, second: int) -> None:
    if not judged.seconds or value < judged.mos_least:
        judged.mos_least = value
        judged.worst_second = second
    judged.seconds += 1
    judged.mos_sum += value
    judged.low_seconds += value < MOS_LOW
    judged.jitter_most = max(judged.jitter_most, min(jitter, 0xFFFF))


def _one_way(
    quality: Quality, peer: Quality | None, rule: Rule, heard: bool, expected: bool, now_ns: int, default_s: int
) -> bool:
    """Does the leg break off a conversation, and is it time to say so?"""
    if heard:
        quality.heard_ns = now_ns
    if heard or not expected or not quality.expected_ns:
        quality.expected_ns = (quality.expected_ns or now_ns) if expected else 0
        quality.told = 0
        quality.refused = rule.refused & 0xFFFFFFFF
        return False
    patience_s = quality.patience_s or default_s
    if peer is None or not peer.heard_ns or now_ns - peer.heard_ns > SENDING_NS:
        return False
    if patience_s in (0, PATIENCE_NEVER):
        return False
    if quality.heard_ns:
        patience_s *= STOPPED_TIMES
        if STATIC.get(rule.payload_type) is Codec.COMFORT:
            patience_s *= COMFORT_TIMES
    silent_ns = now_ns - max(quality.heard_ns, quality.expected_ns)
    if silent_ns < patience_s * 10**9:
        return False
    quality.one_way_s += 1 if quality.told else silent_ns // 10**9
    if silent_ns < (patience_s * 10**9) << quality.told:
        return False
    quality.told = min(quality.told + 1, 15)
    return True


def _sample_one(
    quality: ctypes.Array[Quality],
    rules: ctypes.Array[Rule],
    index: int,
    second: int,
    now_ns: int,
    patience_s: int,
) -> bool:
    rule, own = rules[index], quality[index]
    far = rules[rule.peer] if rule.peer != NO_RULE else None
    peer = quality[rule.peer] if rule.peer != NO_RULE else None
    came, left, lost = rule.packets_in - own.packets_in, rule.packets_out - own.packets_out, lost_packets(rule)
    newly_lost = max(0, lost - own.lost_in)
    far_lost = own.far_lost_before + own.far_lost
    sample = Sample(second, min(came, 0xFFFF), min(newly_lost, 0xFFFF), 0, min(left, 0xFFFF))
    codec = _codec_of(rule, own, peer)
    own.began = own.began or second
    if codec in range(1, Codec.EVENT) and came:  # an event or a pause changes no codec
        own.codec = codec
    voice = not own.direction & Direction.NO_VOICE
    jitter_ms = rule.jitter_q4 // 16 * 1000.0 / (rule.clock_rate_hz or 8000)
    if came:
        sample.jitter_in = min(int(jitter_ms * 10), 0xFFFF)
    if came and voice:
        sample.mos_in = _mos_of(own.codec, 100.0 * newly_lost / (came + newly_lost), jitter_ms, own)
        _judge(own.received, sample.mos_in, sample.jitter_in, second - own.began)
    if own.report_ns and now_ns - own.report_ns <= REPORT_HOLDS_S * 10**9:
        sample.jitter_out = min(own.far_jitter, 0xFFFF)
        sample.lost_out = min(max(0, far_lost - own.far_lost_sampled), 0xFFFF)
        sample.round_trip = min(own.round_trip_us // 100, 0xFFFF) if own.round_trips else 0
        if left and voice:
            sent = peer.codec if peer is not None else Codec.UNKNOWN
            sample.mos_out = _mos_of(sent, own.far_fraction * 100.0 / 256.0, own.far_jitter / 10.0, own)
            _judge(own.reported, sample.mos_out, own.far_jitter, second - own.began)
    own.packets_in, own.packets_out, own.lost_in = rule.packets_in, rule.packets_out, lost
    own.far_lost_sampled = far_lost
    own.samples[second % SAMPLES] = sample
    expected = (
        far is not None
        and peer is not None
        and voice
        and bool(far.rtp_remote.family and own.direction & Direction.SEND and peer.direction & Direction.RECEIVE)
    )
    return _one_way(own, peer, rule, bool(came), expected, now_ns, patience_s)


def sample(
    quality: ctypes.Array[Quality],
    rules: ctypes.Array[Rule],
    first: int,
    end: int,
    second: int,
    now_ns: int,
    patience_s: int,
) -> list[int]:
    """Sample the rules [first, end): those that should send but do not, while their peer does, each at its patience, at
    twice that, and so on."""
    return [
        index
        for index in range(first, end)
        if rules[index].flags & RuleFlag.IN_USE
        and (rules[index].packets_in or rules[index].packets_out)
        and _sample_one(quality, rules, index, second, now_ns, patience_s)
    ]
