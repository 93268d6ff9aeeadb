"""What is done with payloads, in plain Python over the same memory as ``ext/c/process.c``, which it is the
specification of: see ``media.reference_datapath``. Codecs that go by way of samples are not in it, but for G.711.
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from media.counters import Handled, Reason
from media.processing import FLASH, NOWHERE, Codec, Format, Process
from media.rules import NO_RULE, Feature, Rule

MAX_LATE = 100  # RFC 3550 A.1: what is further behind begins anew
STEP_MS = 20  # between two packets of a digit that we put in
ENDS = 3  # RFC 4733 §2.5.1.4: the last packet is sent three times
VOLUME = 10  # -10 dBm0
LOST_NS = 300_000_000  # without a packet of a digit: it is over, its end was lost
NOTHING, OPEN, TOLD = 0, 1, 2
U16, U32 = 0xFFFF, 0xFFFFFFFF


class Heard(NamedTuple):
    """A digit that was pressed, on the leg of rule ``source``."""

    source: int
    event: int
    duration_ms: int


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


# -- G.711 (ITU-T G.711 tables 1 and 2), samples of 16 bits


def alaw_value(octet: int) -> int:
    """The sample of an octet of A-law."""
    octet ^= 0x55
    segment, step = octet >> 4 & 7, octet & 15
    magnitude = (2 * step + 33 << segment - 1 if segment else 2 * step + 1) * 8
    return magnitude if octet & 128 else -magnitude


def ulaw_value(octet: int) -> int:
    """The sample of an octet of µ-law."""
    octet ^= 255
    magnitude = ((2 * (octet & 15) + 33 << (octet >> 4 & 7)) - 33) * 4
    return -magnitude if octet & 128 else magnitude


def alaw_octet(sample: int) -> int:
    """The octet whose decision values the sample lies between; one on a decision value belongs to the larger."""
    lower = {code: (2 * (code & 15) + 32 << (code >> 4) - 1 if code >> 4 else 2 * code) * 8 for code in range(128)}
    return (max(code for code in lower if lower[code] <= abs(sample)) | (128 if sample >= 0 else 0)) ^ 0x55


def ulaw_octet(sample: int) -> int:
    """The octet whose decision values the sample lies between; one on a decision value belongs to the larger."""
    lower = {code: ((2 * (code & 15) + 32 << (code >> 4)) - 33) * 4 for code in range(128)}
    return (max(code for code in lower if lower[code] <= abs(sample)) | (0 if sample >= 0 else 128)) ^ 255


ALAW_OF_ULAW = bytes(alaw_octet(ulaw_value(octet)) for octet in range(256))
ULAW_OF_ALAW = bytes(ulaw_octet(alaw_value(octet)) for octet in range(256))


# -- parts


def _format_of(p: Process, number: int) -> Format | None:
    return next((f for f in p.formats[: p.count] if f.number == number), None)


def _scaled(p: Process, later: int, earlier: int) -> int:
    step = _signed(later - earlier, 32)
    if p.clock_in in (p.clock_out, 0):
        return step
    return int(abs(step) * p.clock_out // p.clock_in) * (1 if step >= 0 else -1)


def _present(p: Process, clock_hz: int, now_ns: int) -> int:
    return (p.ts_out + max(0, now_ns - p.out_ns) // 1000 * clock_hz // 1_000_000) & U32


def _tell(p: Process, source: int, heard: list[Heard]) -> None:
    p.heard = TOLD
    if p.tell and p.heard_event <= FLASH:
        ticks = p.heard_before + p.heard_duration
        heard.append(Heard(source, p.heard_event, ticks * 1000 // p.heard_clock_hz))


def _hear(
    p: Process, source: int, f: Format, payload: bytes, timestamp: int, marker: int, now_ns: int, heard: list[Heard]
) -> None:
    """One packet of RFC 4733 §2.3. A digit is told once, when it is over; later packets of it say nothing new."""
    event, flags, duration = struct.unpack_from("!BBH", payload)
    if p.heard != NOTHING:
        step = _signed(timestamp - p.heard_at, 32)
        if step < 0:  # of an earlier digit
            return
        if step == 0:
            if p.heard == TOLD:
                return
            p.heard_duration = max(p.heard_duration, duration)
        elif p.heard == OPEN and not marker and step == p.heard_duration and event == p.heard_event:
            p.heard_before += p.heard_duration  # RFC 4733 §2.5.1.3: longer than the field holds
            p.heard_out += p.heard_duration * f.to_clock_hz // f.clock_hz
            p.heard_at, p.heard_duration = timestamp, duration
        else:
            if p.heard == OPEN:
                _tell(p, source, heard)
            p.heard = NOTHING
    if p.heard == NOTHING:
        p.heard, p.heard_event, p.heard_at = OPEN, event, timestamp
        p.heard_before, p.heard_duration, p.heard_clock_hz = 0, duration, f.clock_hz
        if p.clock_in in (f.clock_hz, 0):
            p.heard_out = p.ts_out + _scaled(p, timestamp, p.ts_in)
        else:
            p.heard_out = _present(p, f.to_clock_hz, now_ns)
        p.active = 1
    p.heard_ns = now_ns
    if flags & 0x80:
        _tell(p, source, heard)


def _begin(p: Process, source: int, ssrc: int, sequence: int, timestamp: int, heard: list[Heard]) -> None:
    if p.heard == OPEN:
        _tell(p, source, heard)
    p.heard, p.begun, p.joining, p.ssrc = NOTHING, 1, 0, ssrc
    p.last_in = p.last_out = sequence - 1
    p.valid_from = sequence
    p.ts_in = p.ts_out = timestamp
    p.clock_in = p.clock_out = 0


def _keep_time(p: Process, f: Format, timestamp: int, now_ns: int) -> None:
    if p.clock_in == 0 or (f.clock_hz, f.to_clock_hz) == (p.clock_in, p.clock_out):
        p.ts_out += _scaled(p, timestamp, p.ts_in)
    else:
        p.ts_out = _present(p, f.to_clock_hz, now_ns)
    p.clock_in, p.clock_out, p.ts_in, p.out_ns = f.clock_hz, f.to_clock_hz, timestamp, now_ns


def _changed(f: Format, payload: bytes) -> bytes:
    if f.codec == Codec.EVENT:
        if f.clock_hz == f.to_clock_hz or len(payload) < 4:
            return payload
        ticks = int.from_bytes(payload[2:4], "big") * f.to_clock_hz // f.clock_hz
        return payload[:2] + min(ticks, U16).to_bytes(2, "big") + payload[4:]
    if f.codec == f.to_codec:
        return payload
    if not {f.codec, f.to_codec} <= {Codec.PCMU, Codec.PCMA}:
        raise NotImplementedError("codecs that go by way of samples")
    return payload.translate(ALAW_OF_ULAW if f.codec == Codec.PCMU else ULAW_OF_ALAW)


def process_rtp(
    p: Process, source: int, data: bytes, now_ns: int, heard: list[Heard]
) -> tuple[Reason | Handled, bytes]:
    """A sound RTP packet of rule ``source`` on its way to the leg that ``p`` is beside."""
    f = _format_of(p, data[1] & 127)
    if not p.count:  # nothing is changed any more but the numbers that were
        clock_hz = p.clock_in or 8000
        f = Format(data[1] & 127, data[1] & 127, Codec.OTHER, Codec.OTHER, clock_hz, clock_hz)
    sequence, timestamp, ssrc = struct.unpack_from("!HII", data, 2)
    marker = data[1] >> 7
    header = 12 + 4 * (data[0] & 15)
    if data[0] & 16:
        header += 4 + 4 * int.from_bytes(data[header + 2 : header + 4], "big")
    end = len(data)
    if data[0] & 32:  # RFC 3550 §5.1: padding tells its own length, in its last octet
        if end == header or not 0 < data[-1] <= end - header:
            return Reason.SHORT, data
        end -= data[-1]
    payload = data[header:end]
    event = f is not None and f.codec == Codec.EVENT and len(payload) >= 4
    if not p.begun or p.ssrc != ssrc:
        _begin(p, source, ssrc, sequence, timestamp, heard)
    ahead = _signed(sequence - p.last_in, 16)
    if ahead < -MAX_LATE:  # it counts anew
        p.last_in, p.valid_from, ahead = sequence - 1, sequence, 1
    if event and f is not None:
        _hear(p, source, f, payload, timestamp, marker, now_ns, heard)
    if ahead <= 0:  # late
        behind, kept = (p.last_in - sequence) & U16, (p.last_in - p.valid_from) & U16
        if f is None or f.to == NOWHERE or p.digit_count or p.joining or behind > kept:
            return Handled.NOT_CARRIED, data
        left = sequence + p.last_out - p.last_in
    else:
        replaced = p.digit_count != 0
        joined = p.joining or replaced
        left = p.last_out + (1 if joined else ahead)
        p.last_in = sequence
        if (sequence - p.valid_from) & U16 > 2 * MAX_LATE:
            p.valid_from = sequence - MAX_LATE
        if f is not None and f.codec != Codec.EVENT:
            _keep_time(p, f, timestamp, now_ns)
        if replaced:  # our digits instead
            p.joining = p.joining or 1
            return Handled.NOT_CARRIED, data
        if joined:
            p.joining, p.valid_from = 0, sequence
        if f is None or f.to == NOWHERE:
            p.last_out, p.valid_from = left - 1, sequence + 1
            return Handled.NOT_CARRIED, data
        p.last_out = left
    if f.codec == Codec.EVENT and p.heard != NOTHING and timestamp == p.heard_at:
        when = p.heard_out
    else:
        when = p.ts_out + _scaled(p, timestamp, p.ts_in)
    head = struct.pack("!BBHI", data[0], marker << 7 | f.to, left & U16, when & U32)
    return Reason.FORWARD, head + data[8:header] + _changed(f, payload) + data[end:]


def _blocks(q: Process, part: bytearray, at: int) -> None:
    for start in range(at, min(len(part), at + 24 * (part[0] & 31)) - 23, 24):
        ssrc, highest, jitter = struct.unpack_from("!I4xII", part, start)
        if not q.begun or ssrc != q.ssrc:
            continue
        highest = (highest - _signed(q.last_out - q.last_in, 16)) & U32
        if q.clock_out and q.clock_in != q.clock_out:
            jitter = jitter * q.clock_in // q.clock_out & U32
        struct.pack_into("!II", part, start + 8, highest, jitter)


def process_rtcp(
    rules: ctypes.Array[Rule], processes: ctypes.Array[Process], source: int, target: int, data: bytes
) -> bytes:
    """A sound RTCP packet, in clear: timestamps and sequence numbers as its receiver knows them."""
    p, q = processes[target], processes[source]
    theirs = rules[target].features & Feature.PROCESSED
    ours = rules[source].features & Feature.PROCESSED
    out, at = bytearray(), 0
    while at + 8 <= len(data):
        size = 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        part = bytearray(data[at : at + size])
        if part[1] == 200 and size >= 28:
            ssrc, timestamp = struct.unpack_from("!I8xI", part, 4)
            if theirs and p.begun and ssrc == p.ssrc:
                struct.pack_into("!I", part, 16, (p.ts_out + _scaled(p, timestamp, p.ts_in)) & U32)
            if ours:
                _blocks(q, part, 28)
        elif part[1] == 201 and ours:
            _blocks(q, part, 8)
        out += part
        at += size
    return bytes(out) + data[at:]


def process_due(p: Process, rule: Rule, now_ns: int, heard: list[Heard]) -> bytes:
    """What time asks for on the way to the leg of ``rule``: a packet, or none."""
    if p.heard == OPEN and now_ns >= p.heard_ns + LOST_NS and rule.peer != NO_RULE:
        _tell(p, rule.peer, heard)
    if not p.digit_count or now_ns < p.next_ns:
        return b""
    if now_ns > p.next_ns + 1_000_000_000:  # nobody was there to send
        p.next_ns = now_ns
    p.out_ns = p.out_ns or now_ns
    return _write_event(p, now_ns)


def _write_event(p: Process, now_ns: int) -> bytes:
    """The next packet of the digit that is being sent (RFC 4733 §2.5.1)."""
    first = not p.elapsed_ms
    if first:
        when = _present(p, p.event_clock_hz, now_ns)
        least = (p.sending_at + (p.duration_ms + STEP_MS) * p.event_clock_hz // 1000) & U32
        p.sending_at = least if p.joining == 2 and _signed(when - least, 32) < 0 else when
    if not p.ends:
        p.elapsed_ms += STEP_MS
    p.elapsed_ms = min(p.elapsed_ms, p.duration_ms)
    last = p.elapsed_ms == p.duration_ms
    ticks = min(U16, p.elapsed_ms * p.event_clock_hz // 1000)
    p.last_out += 1
    kind = (0x80 if first else 0) | p.event_number
    head = struct.pack("!BBHII", 0x80, kind, p.last_out, p.sending_at, p.ssrc)
    data = head + struct.pack("!BBH", p.digits[0], (0x80 if last else 0) | VOLUME, ticks)
    p.next_ns += STEP_MS * 1_000_000
    p.joining = 2  # a digit was sent: the next one, or audio, follows it
    if not last:
        return data
    p.ends += 1
    if p.ends == ENDS:
        p.ends = p.elapsed_ms = 0
        ctypes.memmove(p.digits, bytes(p.digits)[1:], len(p.digits) - 1)
        p.digit_count -= 1
        p.next_ns += p.pause_ms * 1_000_000
    return data
