#include "forward.h"

#include <arpa/inet.h>
#include <string.h>

#include "octets.h"

#define MAX_DROPOUT 3000 /* RFC 3550 A.1 */
#define MAX_MISORDER 100
#define TRANSIT_BREAK_S 5 /* a larger step is a new time base, not jitter */
#define UNPROVEN_WAIT_NS 200000000u /* the time that a leg behind NAT has to send before a stranger may be taken for it */

/* A rebinding of NAT in a call: how long the former port must have been silent and the new one gone on with the stream,
   how far its time may be off, and how long it is the last one. */
#define FOLLOW_AFTER_MS 250
#define FOLLOW_OFF_PER_S 10 /* the tenth part of a second */
#define FOLLOW_PAUSE_MS 5000

/* RFC 3550 §5.1: fixed header, CSRC list and header extension must fit. */
static enum reason check_rtp(const uint8_t *data, uint32_t length) {
    if (length < 12) return SHORT;
    if (data[0] >> 6 != 2) return BAD_VERSION;
    uint32_t header = 12 + 4 * (uint32_t)(data[0] & 15);
    if (data[0] & 16) {
        if (length < header + 4) return SHORT;
        header += 4 + 4 * (uint32_t)read16(data + header + 2);
    }
    return length < header ? SHORT : FORWARD;
}

/* RFC 3550 A.2, without asking for SR or RR first (RFC 5506). SRTCP is opaque beyond its first 8 octets. */
static enum reason check_rtcp(const uint8_t *data, uint32_t length, int secure) {
    uint32_t at = 0;
    if (length < 8) return SHORT;
    if (data[0] >> 6 != 2) return BAD_VERSION;
    if (data[1] < 192 || data[1] > 223) return BAD_RTCP;
    if (secure) return FORWARD;
    while (at < length) {
        if (length - at < 4 || data[at] >> 6 != 2) return BAD_RTCP;
        uint32_t part = 4 + 4 * (uint32_t)read16(data + at + 2);
        if (part > length - at) return BAD_RTCP;
        at += part;
    }
    return FORWARD;
}

static uint64_t run_lost(const struct rule *r) {
    uint64_t expected = r->max_sequence - r->base_sequence + 1;
    return expected > r->received ? expected - r->received : 0;
}

static void start_run(struct rule *r, uint32_t ssrc, uint16_t sequence, uint32_t timestamp, uint32_t transit) {
    if (r->has_ssrc) r->lost_before += run_lost(r);
    r->has_ssrc = 1;
    r->ssrc = ssrc;
    r->base_sequence = r->max_sequence = 0x10000u + sequence; /* room for one that was sent earlier */
    r->received = 1;
    r->seen = 1;
    r->bad_sequence = NO_SEQUENCE;
    r->transit = transit;
    r->last_timestamp = timestamp;
}

/* RFC 3550 A.1 (sequence) and A.8 (jitter). */
static void track(struct rule *r, const uint8_t *data, uint64_t now_ns) {
    uint16_t sequence = read16(data + 2);
    uint32_t timestamp = read32(data + 4), ssrc = read32(data + 8);
    uint32_t transit = (uint32_t)(now_ns / 1000 * r->clock_rate_hz / 1000000) - timestamp;
    r->payload_type = data[1] & 127;
    if (!r->has_ssrc || r->ssrc != ssrc) {
        start_run(r, ssrc, sequence, timestamp, transit);
        return;
    }
    uint16_t ahead = (uint16_t)(sequence - (uint16_t)r->max_sequence);
    if (ahead == 0) {
        r->duplicates++;
    } else if (ahead < MAX_DROPOUT) {
        r->max_sequence += ahead;
        r->seen = ahead < 64 ? r->seen << ahead | 1 : 1;
        r->received++;
        r->bad_sequence = NO_SEQUENCE;
        if (timestamp != r->last_timestamp) { /* parts of one frame or one RFC 4733 event say nothing of jitter */
            int64_t step = (int32_t)(transit - r->transit);
            if (step < 0) step = -step;
            if (step < (int64_t)TRANSIT_BREAK_S * r->clock_rate_hz)
                r->jitter_q4 += (uint32_t)step - ((r->jitter_q4 + 8) >> 4);
            r->transit = transit;
            r->last_timestamp = timestamp;
        }
    } else if (ahead <= 0x10000 - MAX_MISORDER) { /* a jump: believed when the next one follows it */
        if (r->bad_sequence == sequence)
            start_run(r, ssrc, sequence, timestamp, transit);
        else
            r->bad_sequence = (uint16_t)(sequence + 1);
    } else {
        uint32_t behind = 0x10000u - ahead;
        if (behind < 64 && r->seen >> behind & 1) {
            r->duplicates++;
            return;
        }
        if (behind < 64) r->seen |= (uint64_t)1 << behind;
        r->received++;
        r->reordered++;
        if (r->max_sequence - behind < r->base_sequence) r->base_sequence = r->max_sequence - behind;
    }
}

static int proven(const struct rule *r, const struct address *source, const struct address *signalled) {
    return same_ip(source, signalled) || same_ip(source, &r->signalling);
}

/* The address is complete before the flag says so. */
static int latch_rtp(struct rule *r, const struct address *source) {
    int moved = !same_address(&r->rtp_remote, source);
    if (moved) {
        /* where NAT has moved RTP, it will have moved RTCP as well */
        int rebound = r->rtp_latched && r->flags & FLAG_BEHIND_NAT;
        r->rtp_remote = *source;
        if (rebound || !r->rtcp_latched || !same_ip(&r->rtcp_remote, source)) {
            r->rtcp_latched = 0;
            r->rtcp_remote = *source;
            r->rtcp_remote.port = htons((uint16_t)(ntohs(source->port) + 1));
        }
    }
    __asm__ volatile("" ::: "memory");
    r->rtp_latched = proven(r, source, &r->rtp_signalled) ? BY_PROOF : ON_TRUST;
    return moved ? LATCHED_ELSEWHERE : LATCHED_AS_SIGNALLED;
}

/* Does this source go on with the stream of a leg that is latched, as the leg itself does when its NAT has given it
   another port? It must be of the same host and know the SSRC, the next sequence numbers and the time of the stream, at
   its pace, while the port in use says nothing: who reads along behind the same NAT could do so, others could only guess.
   So the port that was left for another gets the leg back as soon as it speaks. */
static int follows(struct rule *r, const uint8_t *data, const struct address *source, uint64_t now_ns) {
    static const struct address none;
    uint16_t sequence = read16(data + 2), ahead = (uint16_t)(sequence - (uint16_t)r->max_sequence);
    uint32_t now_ms = (uint32_t)(now_ns / 1000000), last_ms = (uint32_t)(r->last_arrival_ns / 1000000);
    uint32_t transit = (uint32_t)(now_ns / 1000 * r->clock_rate_hz / 1000000) - read32(data + 4);
    int64_t off = (int32_t)(transit - r->transit);
    if (!r->has_ssrc || read32(data + 8) != r->ssrc) return 0;
    if (r->rtp_latched == FOLLOWED && same_address(source, &r->former)) {
        r->former = none;
        r->follows_ms = now_ms + FOLLOW_PAUSE_MS;
        return 1;
    }
    if (r->rtp_latched == FOLLOWED && !r->probation && (int32_t)(now_ms - r->follows_ms) < 0) return 0;
    if (off < 0) off = -off;
    if (!same_ip(source, &r->rtp_remote) || !ahead || ahead >= MAX_DROPOUT || off * FOLLOW_OFF_PER_S > r->clock_rate_hz)
        return 0;
    ahead = (uint16_t)(sequence - r->candidate_sequence);
    if (!r->probation || !same_address(source, &r->candidate) || !ahead || ahead >= MAX_MISORDER ||
        (int32_t)(last_ms - r->follows_ms) > 0) {
        r->candidate = *source;
        r->follows_ms = now_ms;
        r->probation = 1;
    }
    r->candidate_sequence = sequence;
    if (now_ms - r->follows_ms < FOLLOW_AFTER_MS) return 0;
    r->former = r->rtp_remote;
    r->follows_ms = now_ms + FOLLOW_PAUSE_MS;
    r->probation = 0;
    return 1;
}

/* May this source speak for the leg? *tentative: it may for now, but it was not learned.
   A leg behind NAT may send from a host that signalling knows nothing of, and so may a stranger who was faster. So a
   host that signalling vouches for is believed at once, and before any other one, even when that was learned already;
   one that nobody vouches for gets three packets through, and is learned when the leg has been silent since. */
static enum reason check_rtp_source(struct rule *r, const uint8_t *data, const struct address *source, uint64_t now_ns,
                                    int *latched, int *tentative) {
    if (r->rtp_latched) {
        if (same_address(source, &r->rtp_remote)) return FORWARD;
        if (r->rtp_latched == ON_TRUST) {
            if (!proven(r, source, &r->rtp_signalled)) return WRONG_SOURCE;
        } else if (r->flags & FLAG_BEHIND_NAT) {
            if (!follows(r, data, source, now_ns)) return WRONG_SOURCE;
            *latched = latch_rtp(r, source);
            r->rtp_latched = FOLLOWED;
            return FORWARD;
        } else if (!same_address(source, &r->rtp_signalled)) {
            return WRONG_SOURCE;
        } /* else the last packets of the former port of the same host came first: what is signalled wins, for good */
    } else if (!same_address(source, &r->rtp_remote) && !proven(r, source, &r->rtp_signalled)) {
        uint16_t sequence = read16(data + 2);
        uint32_t ssrc = read32(data + 8);
        if (!(r->flags & FLAG_BEHIND_NAT)) return WRONG_SOURCE;
        if (r->peer == NO_RULE) return NO_PEER; /* nothing is learned from strangers before there is an answer */
        if (same_address(source, &r->candidate) && r->candidate_ssrc == ssrc &&
            (uint16_t)(r->candidate_sequence + 1) == sequence) {
            if (r->probation <= UNLATCHED_PACKETS) r->probation++;
        } else {
            r->candidate = *source;
            r->candidate_ssrc = ssrc;
            r->probation = 1;
        }
        r->candidate_sequence = sequence;
        if (r->probation <= UNLATCHED_PACKETS || now_ns - r->last_arrival_ns < UNPROVEN_WAIT_NS) {
            if (r->relayed_unlatched >= UNLATCHED_PACKETS) return UNLATCHED_LIMIT;
            r->relayed_unlatched++;
            *tentative = 1;
            return FORWARD;
        }
    }
    *latched = latch_rtp(r, source);
    return FORWARD;
}

/* RFC 5761: on the RTP port it lives with RTP. */
static enum reason check_rtcp_source(const struct rule *r, int on_rtcp_port, const struct address *source) {
    if (!on_rtcp_port) {
        if (r->rtp_latched) return same_address(source, &r->rtp_remote) ? FORWARD : WRONG_SOURCE;
        return proven(r, source, &r->rtp_signalled) ? FORWARD : WRONG_SOURCE;
    }
    if (r->rtcp_latched) return same_address(source, &r->rtcp_remote) ? FORWARD : WRONG_SOURCE;
    if (r->rtp_latched ? !same_ip(source, &r->rtp_remote) : !proven(r, source, &r->rtcp_signalled)) return WRONG_SOURCE;
    return FORWARD;
}

/* The latch of RTCP, which never latches for RTP. */
static int latch_rtcp(struct rule *r, int on_rtcp_port, const struct address *source) {
    if (!on_rtcp_port || r->rtcp_latched) return 0;
    r->rtcp_remote = *source;
    __asm__ volatile("" ::: "memory");
    r->rtcp_latched = 1;
    return LATCHED_RTCP;
}

/* May SRTP come from there at all? Whoever has the key proves it with the packet, so a leg behind NAT may move. */
static enum reason check_srtp_source(const struct rule *r, const struct address *source) {
    if (r->flags & FLAG_BEHIND_NAT || same_address(source, &r->rtp_remote)) return FORWARD;
    if (same_address(source, &r->rtp_signalled)) return FORWARD;
    return !r->rtp_latched && proven(r, source, &r->rtp_signalled) ? FORWARD : WRONG_SOURCE;
}

/* A leg with ICE speaks from where it has proved to be, and has no RTCP port of its own. */
static enum reason check_ice_source(const struct plane *plane, uint32_t index, int on_rtcp_port,
                                    const struct address *source) {
    if (on_rtcp_port) return WRONG_SOURCE;
    if (same_address(source, &plane->rules[index].rtp_remote)) return FORWARD;
    return same_address(source, &plane->webrtc[index].heard) ? FORWARD : WRONG_SOURCE;
}

/* STUN and DTLS beside RTP on one port (RFC 7983); FORWARD for everything else. */
static enum reason attend(const struct plane *plane, uint32_t index, int on_rtcp_port, uint8_t *data, uint32_t *length,
                          const struct address *source, uint64_t now_ns, int *latched) {
    struct rule *r = &plane->rules[index];
    int moved = 0;
    if (on_rtcp_port || !*length || data[0] > 63) return FORWARD;
    if (data[0] < 4 && r->features & FEATURE_ICE) {
        enum reason reason =
            stun_receive(plane->engine, r, &plane->webrtc[index], data, length, source, now_ns, &moved);
        if (moved) *latched = LATCHED_ELSEWHERE;
        return reason;
    }
    if (data[0] < 20 || !(r->features & FEATURE_DTLS)) return FORWARD;
    if (r->features & FEATURE_ICE) {
        enum reason reason = check_ice_source(plane, index, 0, source);
        return reason == FORWARD ? TO_PYTHON : reason;
    }
    return same_address(source, &r->rtp_remote) || proven(r, source, &r->rtp_signalled) ? TO_PYTHON : WRONG_SOURCE;
}

/* A packet of a leg with SRTP: nothing is learned from it before it is known to be authentic. */
static enum reason accept_srtp(const struct plane *plane, uint32_t index, int rtcp, int on_rtcp_port, uint8_t *data,
                               uint32_t *length, const struct address *source, uint64_t now_ns, int *latched) {
    struct rule *r = &plane->rules[index];
    enum reason reason = r->features & FEATURE_ICE ? check_ice_source(plane, index, on_rtcp_port, source)
                         : rtcp                    ? check_rtcp_source(r, on_rtcp_port, source)
                                                   : check_srtp_source(r, source);
    if (reason == FORWARD) reason = srtp_unprotect(plane->engine, &plane->keys[index], rtcp, data, length);
    if (reason == FORWARD && rtcp) reason = check_rtcp(data, *length, 0);
    if (reason != FORWARD) return reason;
    if (rtcp)
        *latched = latch_rtcp(r, on_rtcp_port, source);
    else if (!r->rtp_latched || !same_address(source, &r->rtp_remote))
        *latched = latch_rtp(r, source);
    /* with ICE it came from where the last check did: it has moved behind its NAT */
    if (*latched == LATCHED_ELSEWHERE && r->features & FEATURE_ICE) plane->webrtc[index].checked_ns = now_ns;
    return FORWARD;
}

enum reason rule_inspect(const struct plane *plane, uint32_t index, int on_rtcp_port, uint8_t *data, uint32_t length,
                         const struct address *source, uint64_t now_ns, struct verdict *verdict) {
    struct rule *r = &plane->rules[index], *target;
    int latched = 0, tentative = 0;
    int rtcp = on_rtcp_port || (length >= 2 && data[1] >= 192 && data[1] <= 223);
    uint32_t arrived = length;
    enum reason reason = FORWARD;
    if (r->features & (FEATURE_ICE | FEATURE_DTLS))
        reason = attend(plane, index, on_rtcp_port, data, &length, source, now_ns, &latched);
    if (reason == FORWARD)
        reason = rtcp ? check_rtcp(data, length, r->flags & (FLAG_SECURE | FLAG_SRTP)) : check_rtp(data, length);
    if (reason == FORWARD) {
        if (r->flags & FLAG_SRTP) {
            reason = accept_srtp(plane, index, rtcp, on_rtcp_port, data, &length, source, now_ns, &latched);
        } else if (r->features & FEATURE_ICE) {
            reason = check_ice_source(plane, index, on_rtcp_port, source);
        } else if (rtcp) {
            reason = check_rtcp_source(r, on_rtcp_port, source);
            if (reason == FORWARD) latched = latch_rtcp(r, on_rtcp_port, source);
        } else {
            reason = check_rtp_source(r, data, source, now_ns, &latched, &tentative);
        }
    }
    verdict->latched = (uint8_t)latched;
    verdict->length = length;
    verdict->more = 0;
    if (reason != FORWARD) {
        if (reason < ANSWERED) r->refused++;
        return reason;
    }
    r->last_arrival_ns = now_ns;
    if (rtcp) {
        r->rtcp_in++;
        if (plane->quality && !(r->flags & FLAG_SECURE))
            quality_rtcp(plane->quality, plane->rules, index, data, length, now_ns);
    } else {
        r->packets_in++;
        r->bytes_in += arrived;
        if (!tentative) track(r, data, now_ns);
    }
    if (r->peer == NO_RULE) {
        r->refused++;
        return NO_PEER;
    }
    target = &plane->rules[r->peer];
    verdict->target = r->peer;
    verdict->rtcp = (uint8_t)rtcp;
    if ((r->features | target->features) & (FEATURE_TAPPED | FEATURE_PLAYING)) {
        if (r->features & FEATURE_TAPPED && plane->tap)
            tap_put(plane->tap, index, rtcp ? 1 + !on_rtcp_port : 0, data, length, source, now_ns);
        if (target->features & FEATURE_PLAYING && plane->players[r->peer].state == PLAYER_PLAYING) {
            if (target->features & FEATURE_PROCESSED && !rtcp) /* its digits are heard all the same */
                process_rtp(plane, index, r->peer, data, &length, PACKET_BYTES, now_ns, &verdict->more);
            return MUTED;
        }
    }
    verdict->from_rtp_port = !rtcp || target->flags & FLAG_RTCP_MUX;
    if (!(verdict->from_rtp_port ? target->rtp_remote.family : target->rtcp_remote.family)) {
        r->refused++;
        return NO_REMOTE;
    }
    if (target->features & FEATURE_ICE && !has_consent(&plane->webrtc[r->peer], now_ns)) {
        r->refused++;
        return NO_CONSENT;
    }
    if ((r->features | target->features) & FEATURE_PROCESSED) {
        if (rtcp)
            process_rtcp(plane, index, r->peer, data, length);
        else if (target->features & FEATURE_PROCESSED)
            reason = process_rtp(plane, index, r->peer, data, &length, PACKET_BYTES, now_ns, &verdict->more);
        if (reason != FORWARD) {
            r->refused += reason < ANSWERED;
            return reason;
        }
    }
    if (target->flags & FLAG_SRTP) {
        reason = srtp_protect(plane->engine, &plane->keys[r->peer], rtcp, data, &length);
        if (reason != FORWARD) {
            r->refused++;
            return reason;
        }
    }
    verdict->length = length;
    return FORWARD;
}

enum reason rule_secure(const struct plane *plane, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length) {
    const struct rule *r = &plane->rules[target];
    if (r->features & FEATURE_ICE && now_ns && !has_consent(&plane->webrtc[target], now_ns)) return NO_CONSENT;
    if (!(r->flags & FLAG_SRTP)) return FORWARD;
    return srtp_protect(plane->engine, &plane->keys[target], 0, data, length);
}

enum reason rule_next(const struct plane *plane, uint32_t target, uint8_t *data, uint32_t *length) {
    if (!process_next(plane, target, data, length, PACKET_BYTES)) return NOT_CARRIED;
    return rule_secure(plane, target, 0, data, length); /* the packet before it was let through */
}

enum reason rule_due(const struct plane *plane, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length) {
    if (!process_due(plane, target, now_ns, data, length)) return NOT_CARRIED;
    return rule_secure(plane, target, now_ns, data, length);
}

void rule_sent(struct rule *target, int rtcp, uint32_t length) {
    if (rtcp) {
        target->rtcp_out++;
    } else {
        target->packets_out++;
        target->bytes_out += length;
    }
}

void rule_refused(struct rule *rule) { rule->refused++; }
