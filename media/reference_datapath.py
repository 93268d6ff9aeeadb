"""The packet logic of the datapath in plain Python, over the same rule memory as ``ext/c/forward.c``.

It is the specification that the compiled datapath is tested against: the same packets give the same verdicts, counters
and latches, octet by octet. It is not used to relay.
"""

from __future__ import annotations

import ctypes
import socket
from typing import NamedTuple

from media import reference_processing, reference_quality, reference_srtp, reference_stun
from media.counters import Handled, Reason
from media.player import Player, PlayerState
from media.processing import Process
from media.reference_processing import Heard
from media.rules import (
    BY_PROOF,
    FOLLOWED,
    NO_RULE,
    NO_SEQUENCE,
    ON_TRUST,
    UNLATCHED_PACKETS,
    Address,
    Feature,
    Rule,
    RuleFlag,
    lost_packets,
)
from media.samples import Quality
from media.srtp import LegKeys
from media.webrtc import WebrtcLeg, has_consent

MAX_DROPOUT = 3000  # RFC 3550 A.1
MAX_MISORDER = 100
TRANSIT_BREAK_S = 5  # a larger step is a new time base, not jitter
UNPROVEN_WAIT_NS = 200_000_000  # the time that a leg behind NAT has to send before a stranger may be taken for it
# A rebinding of NAT in a call: how long the former port must have been silent and the new one gone on with the stream,
# how far its time may be off, and how long it is the last one.
FOLLOW_AFTER_MS = 250
FOLLOW_OFF_PER_S = 10  # the tenth part of a second
FOLLOW_PAUSE_MS = 5000
U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF
LATCHED_AS_SIGNALLED, LATCHED_ELSEWHERE, LATCHED_RTCP = 1, 2, 3


class Verdict(NamedTuple):
    """FORWARD to the leg of rule ``target``, or the reason why not; ``latched`` is one of LATCHED_..., or 0; ``data``
    is what is to be sent, to the source of the packet where it is ANSWERED."""

    reason: Reason | Handled
    target: int = 0
    rtcp: bool = False
    from_rtp_port: bool = False
    latched: int = 0
    data: bytes = b""


def check_rtp(data: bytes) -> Reason:
    """RFC 3550 §5.1: fixed header, CSRC list and header extension must fit."""
    if len(data) < 12:
        return Reason.SHORT
    if data[0] >> 6 != 2:
        return Reason.BAD_VERSION
    header = 12 + 4 * (data[0] & 15)
    if data[0] & 16:
        if len(data) < header + 4:
            return Reason.SHORT
        header += 4 + 4 * int.from_bytes(data[header + 2 : header + 4], "big")
    return Reason.SHORT if len(data) < header else Reason.FORWARD


def check_rtcp(data: bytes, secure: bool) -> Reason:
    """RFC 3550 A.2 without asking for SR or RR first (RFC 5506); SRTCP is opaque beyond its first 8 octets."""
    if len(data) < 8:
        return Reason.SHORT
    if data[0] >> 6 != 2:
        return Reason.BAD_VERSION
    if not 192 <= data[1] <= 223:
        return Reason.BAD_RTCP
    at = 0
    while not secure and at < len(data):
        if len(data) - at < 4 or data[at] >> 6 != 2:
            return Reason.BAD_RTCP
        at += 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        if at > len(data):
            return Reason.BAD_RTCP
    return Reason.FORWARD


def _start_run(rule: Rule, ssrc: int, sequence: int, timestamp: int, transit: int) -> None:
    rule.lost_before = lost_packets(rule)
    rule.has_ssrc = 1
    rule.ssrc = ssrc
    rule.base_sequence = rule.max_sequence = 0x10000 + sequence  # room for one that was sent earlier
    rule.received = rule.seen = 1
    rule.bad_sequence = NO_SEQUENCE
    rule.transit = transit
    rule.last_timestamp = timestamp


def track(rule: Rule, data: bytes, now_ns: int) -> None:
    """RFC 3550 A.1 (sequence numbers) and A.8 (jitter)."""
    sequence = int.from_bytes(data[2:4], "big")
    timestamp, ssrc = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    transit = ((now_ns // 1000 * rule.clock_rate_hz & U64) // 1_000_000 - timestamp) & U32
    rule.payload_type = data[1] & 127
    if not rule.has_ssrc or rule.ssrc != ssrc:
        _start_run(rule, ssrc, sequence, timestamp, transit)
        return
    ahead = (sequence - rule.max_sequence) & 0xFFFF
    if ahead == 0:
        rule.duplicates += 1
    elif ahead < MAX_DROPOUT:
        rule.max_sequence += ahead
        rule.seen = (rule.seen << ahead | 1) & U64 if ahead < 64 else 1
        rule.received += 1
        rule.bad_sequence = NO_SEQUENCE
        if timestamp != rule.last_timestamp:  # parts of one frame or one RFC 4733 event say nothing of jitter
            step = (transit - rule.transit) & U32
            step = min(step, 2**32 - step)
            if step < TRANSIT_BREAK_S * rule.clock_rate_hz:
                rule.jitter_q4 += step - ((rule.jitter_q4 + 8) >> 4)
            rule.transit = transit
            rule.last_timestamp = timestamp
    elif ahead <= 0x10000 - MAX_MISORDER:  # a jump: believed when the next one follows it
        if rule.bad_sequence == sequence:
            _start_run(rule, ssrc, sequence, timestamp, transit)
        else:
            rule.bad_sequence = (sequence + 1) & 0xFFFF
    else:
        behind = 0x10000 - ahead
        if behind < 64:
            if rule.seen >> behind & 1:
                rule.duplicates += 1
                return
            rule.seen |= 1 << behind
        rule.received += 1
        rule.reordered += 1
        rule.base_sequence = min(rule.base_sequence, rule.max_sequence - behind)


def _same_ip(one: Address, other: Address) -> bool:
    return one.family == other.family and bytes(one.ip) == bytes(other.ip)


def _copy(to: Address, source: Address) -> None:
    ctypes.pointer(to)[0] = source


def _proven(rule: Rule, source: Address, signalled: Address) -> bool:
    return _same_ip(source, signalled) or _same_ip(source, rule.signalling)


def _latch_rtp(rule: Rule, source: Address) -> int:
    moved = rule.rtp_remote != source
    if moved:
        # where NAT has moved RTP, it will have moved RTCP as well
        rebound = rule.rtp_latched and rule.flags & RuleFlag.BEHIND_NAT
        _copy(rule.rtp_remote, source)
        if rebound or not rule.rtcp_latched or not _same_ip(rule.rtcp_remote, source):
            rule.rtcp_latched = 0
            _copy(rule.rtcp_remote, source)
            rule.rtcp_remote.port = socket.htons((socket.ntohs(source.port) + 1) & 0xFFFF)
    rule.rtp_latched = BY_PROOF if _proven(rule, source, rule.rtp_signalled) else ON_TRUST
    return LATCHED_ELSEWHERE if moved else LATCHED_AS_SIGNALLED


def _signed32(value: int) -> int:
    return (value + 2**31 & U32) - 2**31


def _follows(rule: Rule, data: bytes, source: Address, now_ns: int) -> bool:
    """Does this source go on with the stream of a leg that is latched, as the leg itself does when its NAT has given it
    another port? It must be of the same host and know the SSRC, the next sequence numbers and the time of the stream,
    at its pace, while the port in use says nothing: who reads along behind the same NAT could do so, others could only
    guess. So the port that was left for another gets the leg back as soon as it speaks."""
    sequence, ssrc = int.from_bytes(data[2:4], "big"), int.from_bytes(data[8:12], "big")
    if not rule.has_ssrc or ssrc != rule.ssrc:
        return False
    now_ms, last_ms = now_ns // 1_000_000 & U32, rule.last_arrival_ns // 1_000_000 & U32
    if rule.rtp_latched == FOLLOWED and source == rule.former:
        _copy(rule.former, Address())
        rule.follows_ms = now_ms + FOLLOW_PAUSE_MS & U32
        return True
    if rule.rtp_latched == FOLLOWED and not rule.probation and _signed32(now_ms - rule.follows_ms) < 0:
        return False
    ahead = (sequence - rule.max_sequence) & 0xFFFF
    transit = ((now_ns // 1000 * rule.clock_rate_hz & U64) // 1_000_000 - int.from_bytes(data[4:8], "big")) & U32
    off = abs(_signed32(transit - rule.transit))
    known = _same_ip(source, rule.rtp_remote) and 0 < ahead < MAX_DROPOUT
    if not known or off * FOLLOW_OFF_PER_S > rule.clock_rate_hz:
        return False
    ahead = (sequence - rule.candidate_sequence) & 0xFFFF
    goes_on = rule.probation and source == rule.candidate and 0 < ahead < MAX_MISORDER
    if not goes_on or _signed32(last_ms - rule.follows_ms) > 0:
        _copy(rule.candidate, source)
        rule.follows_ms = now_ms
        rule.probation = 1
    rule.candidate_sequence = sequence
    if (now_ms - rule.follows_ms) & U32 < FOLLOW_AFTER_MS:
        return False
    _copy(rule.former, rule.rtp_remote)
    rule.follows_ms = now_ms + FOLLOW_PAUSE_MS & U32
    rule.probation = 0
    return True


def _rtp_source(rule: Rule, data: bytes, source: Address, now_ns: int) -> tuple[Reason, int, bool]:
    """May this source speak for the leg? (reason, latched, tentative: it may for now, but was not learned)."""
    if rule.rtp_latched:
        if source == rule.rtp_remote:
            return Reason.FORWARD, 0, False
        if rule.rtp_latched == ON_TRUST:
            moves = _proven(rule, source, rule.rtp_signalled)
        elif rule.flags & RuleFlag.BEHIND_NAT:
            if _follows(rule, data, source, now_ns):
                latched = _latch_rtp(rule, source)
                rule.rtp_latched = FOLLOWED
                return Reason.FORWARD, latched, False
            moves = False
        else:
            moves = source == rule.rtp_signalled
        if not moves:
            return Reason.WRONG_SOURCE, 0, False
    elif source != rule.rtp_remote and not _proven(rule, source, rule.rtp_signalled):
        if not rule.flags & RuleFlag.BEHIND_NAT:
            return Reason.WRONG_SOURCE, 0, False
        if rule.peer == NO_RULE:
            return Reason.NO_PEER, 0, False
        sequence, ssrc = int.from_bytes(data[2:4], "big"), int.from_bytes(data[8:12], "big")
        follows = rule.candidate_ssrc == ssrc and (rule.candidate_sequence + 1) & 0xFFFF == sequence
        if source == rule.candidate and follows:
            rule.probation = min(rule.probation + 1, UNLATCHED_PACKETS + 1)
        else:
            _copy(rule.candidate, source)
            rule.candidate_ssrc = ssrc
            rule.probation = 1
        rule.candidate_sequence = sequence
        if rule.probation <= UNLATCHED_PACKETS or (now_ns - rule.last_arrival_ns) & U64 < UNPROVEN_WAIT_NS:
            if rule.relayed_unlatched >= UNLATCHED_PACKETS:
                return Reason.UNLATCHED_LIMIT, 0, False
            rule.relayed_unlatched += 1
            return Reason.FORWARD, 0, True
    return Reason.FORWARD, _latch_rtp(rule, source), False


def _rtcp_source(rule: Rule, on_rtcp_port: bool, source: Address) -> Reason:
    if not on_rtcp_port:  # RFC 5761: lives with RTP
        known = source == rule.rtp_remote if rule.rtp_latched else _proven(rule, source, rule.rtp_signalled)
    elif rule.rtcp_latched:
        known = source == rule.rtcp_remote
    else:
        known = _same_ip(source, rule.rtp_remote) if rule.rtp_latched else _proven(rule, source, rule.rtcp_signalled)
    return Reason.FORWARD if known else Reason.WRONG_SOURCE


def _latch_rtcp(rule: Rule, on_rtcp_port: bool, source: Address) -> int:
    """The latch of RTCP, which never latches for RTP."""
    if not on_rtcp_port or rule.rtcp_latched:
        return 0
    _copy(rule.rtcp_remote, source)
    rule.rtcp_latched = 1
    return LATCHED_RTCP


def _srtp_source(rule: Rule, source: Address) -> Reason:
    """Whoever has the key proves it with the packet, so a leg behind NAT may move."""
    if rule.flags & RuleFlag.BEHIND_NAT or source == rule.rtp_remote:
        return Reason.FORWARD
    known = source == rule.rtp_signalled or (not rule.rtp_latched and _proven(rule, source, rule.rtp_signalled))
    return Reason.FORWARD if known else Reason.WRONG_SOURCE


def _ice_source(rule: Rule, leg: WebrtcLeg, on_rtcp_port: bool, source: Address) -> Reason:
    """A leg with ICE speaks from where it has proved to be, and has no RTCP port of its own."""
    return Reason.FORWARD if not on_rtcp_port and source in (rule.rtp_remote, leg.heard) else Reason.WRONG_SOURCE


def _attend(
    rule: Rule, leg: WebrtcLeg, on_rtcp_port: bool, data: bytes, source: Address, now_ns: int
) -> tuple[Reason | Handled, bytes, int]:
    """STUN and DTLS beside RTP on one port (RFC 7983); FORWARD for everything else."""
    if on_rtcp_port or not data or data[0] > 63:
        return Reason.FORWARD, data, 0
    if data[0] < 4 and rule.features & Feature.ICE:
        outcome, answer, moved = reference_stun.receive(rule, leg, data, source, now_ns)
        reason = Handled(outcome) if outcome >= Handled.ANSWERED else Reason(outcome)
        return reason, answer, LATCHED_ELSEWHERE if moved else 0
    if data[0] < 20 or not rule.features & Feature.DTLS:
        return Reason.FORWARD, data, 0
    if rule.features & Feature.ICE:
        known = _ice_source(rule, leg, False, source) is Reason.FORWARD
    else:
        known = source == rule.rtp_remote or _proven(rule, source, rule.rtp_signalled)
    return Handled.TO_PYTHON if known else Reason.WRONG_SOURCE, data, 0


def _accept_srtp(
    rule: Rule, keys: LegKeys, leg: WebrtcLeg, rtcp: bool, on_rtcp_port: bool, data: bytes, source: Address, now_ns: int
) -> tuple[Reason, int, bytes]:
    """A packet of a leg with SRTP: nothing is learned from it before it is known to be authentic."""
    if rule.features & Feature.ICE:
        reason = _ice_source(rule, leg, on_rtcp_port, source)
    else:
        reason = _rtcp_source(rule, on_rtcp_port, source) if rtcp else _srtp_source(rule, source)
    if reason is Reason.FORWARD:
        reason, data = reference_srtp.unprotect(keys, rtcp, data)
    if reason is Reason.FORWARD and rtcp:
        reason = check_rtcp(data, secure=False)
    if reason is not Reason.FORWARD:
        return reason, 0, data
    if rtcp:
        return reason, _latch_rtcp(rule, on_rtcp_port, source), data
    known = rule.rtp_latched and source == rule.rtp_remote
    latched = 0 if known else _latch_rtp(rule, source)
    if latched == LATCHED_ELSEWHERE and rule.features & Feature.ICE:
        leg.checked_ns = now_ns  # it came from where the last check did: the leg has moved behind its NAT
    return reason, latched, data


def inspect(
    rules: ctypes.Array[Rule],
    keys: ctypes.Array[LegKeys],
    webrtc: ctypes.Array[WebrtcLeg],
    index: int,
    on_rtcp_port: bool,
    data: bytes,
    source: bytes,
    now_ns: int,
    players: ctypes.Array[Player] | None = None,
    quality: ctypes.Array[Quality] | None = None,
    processes: ctypes.Array[Process] | None = None,
    heard: list[Heard] | None = None,
) -> Verdict:
    """One packet against one rule; a forwarded one is counted as sent. ``source`` is a packed Address; digits that were
    pressed are added to ``heard``."""
    rule = rules[index]
    where = Address.from_buffer_copy(source)
    latched, tentative = 0, False
    arrived = len(data)
    rtcp = on_rtcp_port or (len(data) >= 2 and 192 <= data[1] <= 223)
    reason: Reason | Handled = Reason.FORWARD
    if rule.features & (Feature.ICE | Feature.DTLS):
        reason, data, latched = _attend(rule, webrtc[index], on_rtcp_port, data, where, now_ns)
    if reason is Reason.FORWARD:
        reason = check_rtcp(data, bool(rule.flags & (RuleFlag.SECURE | RuleFlag.SRTP))) if rtcp else check_rtp(data)
    if reason is Reason.FORWARD:
        if rule.flags & RuleFlag.SRTP:
            reason, latched, data = _accept_srtp(
                rule, keys[index], webrtc[index], rtcp, on_rtcp_port, data, where, now_ns
            )
        elif rule.features & Feature.ICE:
            reason = _ice_source(rule, webrtc[index], on_rtcp_port, where)
        elif rtcp:
            reason = _rtcp_source(rule, on_rtcp_port, where)
            if reason is Reason.FORWARD:
                latched = _latch_rtcp(rule, on_rtcp_port, where)
        else:
            reason, latched, tentative = _rtp_source(rule, data, where, now_ns)
    if reason is not Reason.FORWARD:
        if reason < Handled.ANSWERED:
            rule.refused += 1
        return Verdict(reason, latched=latched, data=data)
    rule.last_arrival_ns = now_ns
    if rtcp:
        rule.rtcp_in += 1
        if quality is not None and not rule.flags & RuleFlag.SECURE:
            reference_quality.note_rtcp(quality, rules, index, data, now_ns)
    else:
        rule.packets_in += 1
        rule.bytes_in += arrived
        if not tentative:
            track(rule, data, now_ns)
    if rule.peer == NO_RULE:
        rule.refused += 1
        return Verdict(Reason.NO_PEER, latched=latched)
    target = rules[rule.peer]
    if players is not None and target.features & Feature.PLAYING and players[rule.peer].state == PlayerState.PLAYING:
        if processes is not None and target.features & Feature.PROCESSED and not rtcp:  # its digits are heard
            noted = [] if heard is None else heard
            reference_processing.process_rtp(processes[rule.peer], index, data, now_ns, noted)
        return Verdict(Reason.MUTED, latched=latched)
    from_rtp_port = not rtcp or bool(target.flags & RuleFlag.RTCP_MUX)
    if not (target.rtp_remote if from_rtp_port else target.rtcp_remote).family:
        rule.refused += 1
        return Verdict(Reason.NO_REMOTE, latched=latched)
    if target.features & Feature.ICE and not has_consent(webrtc[rule.peer], now_ns):
        rule.refused += 1
        return Verdict(Reason.NO_CONSENT, latched=latched)
    if (rule.features | target.features) & Feature.PROCESSED and processes is not None:
        if rtcp:
            data = reference_processing.process_rtcp(rules, processes, index, rule.peer, data)
        elif target.features & Feature.PROCESSED:
            noted = [] if heard is None else heard
            reason, data = reference_processing.process_rtp(processes[rule.peer], index, data, now_ns, noted)
        if reason is not Reason.FORWARD:
            rule.refused += reason is not Handled.NOT_CARRIED
            return Verdict(reason, latched=latched)
    if target.flags & RuleFlag.SRTP:
        reason, data = reference_srtp.protect(keys[rule.peer], rtcp, data)
        if reason is not Reason.FORWARD:
            rule.refused += 1
            return Verdict(reason, latched=latched)
    if rtcp:
        target.rtcp_out += 1
    else:
        target.packets_out += 1
        target.bytes_out += len(data)
    return Verdict(Reason.FORWARD, rule.peer, rtcp, from_rtp_port, latched, data)
