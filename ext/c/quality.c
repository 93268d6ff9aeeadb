#include "quality.h"

#include "octets.h"

#define SENDER_REPORT 200
#define RECEIVER_REPORT 201
#define BLOCK_BYTES 24
#define ROUND_TRIP_MOST_NS 10000000000u /* more is a clock that jumped, or a report that was kept back */
#define EARLY_NS 10000000u              /* an answer may seem to come so much before its question: clocks drift */
#define JITTER_MOST_S 5
#define SENDING_NS 5000000000u          /* a leg that was heard so lately sends; pauses of silence suppression */
#define COMFORT_TIMES 2                 /* a leg that has said that it is silent is given so many times the patience */

/* media.quality.Codec */
enum codec { UNKNOWN = 0, G711, G722, OPUS, G729, G723, GSM, G728, AMR, AMR_WB, CODECS, EVENT = 14, COMFORT = 15 };

/* media.quality.CODECS: where the figures come from is said there. */
static const struct {
    uint8_t wide;
    double impairment, robustness, delay_ms;
} CODEC[CODECS] = {
    [UNKNOWN] = {0, 0.0, 25.1, 0.0}, [G711] = {0, 0.0, 25.1, 0.0},  [G722] = {1, 13.0, 20.0, 1.5},
    [OPUS] = {1, 8.0, 25.0, 6.5},    [G729] = {0, 11.0, 19.0, 5.0}, [G723] = {0, 15.0, 16.1, 7.5},
    [GSM] = {0, 20.0, 10.0, 0.0},    [G728] = {0, 7.0, 17.0, 0.0},  [AMR] = {0, 5.0, 10.0, 5.0},
    [AMR_WB] = {1, 13.0, 10.0, 5.0},
};

static uint16_t narrow(uint64_t value) { return value > 0xffff ? 0xffff : (uint16_t)value; }

static uint64_t lost_packets(const struct rule *r) {
    uint64_t expected = r->max_sequence - r->base_sequence + 1;
    return r->lost_before + (r->has_ssrc && expected > r->received ? expected - r->received : 0);
}

static double jitter_of(const struct rule *r) {
    return r->jitter_q4 / 16 * 1000.0 / (r->clock_rate_hz ? r->clock_rate_hz : 8000); /* ms */
}

static void note_round_trip(struct quality *q, uint32_t us) {
    q->round_trip_us = us;
    q->round_trip_sum_us += us;
    if (!q->round_trips || us < q->round_trip_least_us) q->round_trip_least_us = us;
    if (us > q->round_trip_most_us) q->round_trip_most_us = us;
    q->round_trips++;
}

/* RFC 3550 §6.4.1: now - DLSR - when what LSR names was sent. */
static void answer_to_report(struct quality *q, uint32_t ssrc, uint32_t lsr, uint32_t dlsr, uint64_t now_ns) {
    if (!lsr) return;
    for (int i = 0; i < SENT_REPORTS; i++) {
        const struct sent_report *sent = &q->sent[i];
        if (!sent->sent_ns || sent->ntp != lsr || sent->ssrc != ssrc) continue;
        uint64_t held_ns = (uint64_t)dlsr * 1000000000u >> 16, since_ns = now_ns - sent->sent_ns;
        if (held_ns > since_ns + EARLY_NS) return;
        uint64_t trip_ns = held_ns > since_ns ? 0 : since_ns - held_ns;
        if (trip_ns <= ROUND_TRIP_MOST_NS) note_round_trip(q, (uint32_t)(trip_ns / 1000));
        return;
    }
}

/* How the leg of `index` receives what its peer sent. */
static void report_block(struct quality *q, const struct rule *rules, uint32_t index, const uint8_t *block,
                         uint64_t now_ns) {
    const struct rule *r = &rules[index], *source = &rules[r->peer];
    uint32_t ssrc = read32(block), clock_hz = r->clock_rate_hz ? r->clock_rate_hz : 8000;
    if (!source->has_ssrc || source->ssrc != ssrc) return; /* of nothing that we send to it */
    uint32_t lost = read32(block + 4) & 0xffffff, jitter = read32(block + 12);
    uint64_t most = source->packets_in + lost_packets(source);
    if (lost & 0x800000) lost = 0; /* more duplicates than losses */
    if (lost > most) lost = most > 0x7fffff ? 0x7fffff : (uint32_t)most;
    if (q->far_ssrc != ssrc) {
        q->far_lost_before += q->far_lost;
        q->far_ssrc = ssrc;
    }
    q->reports++;
    q->report_ns = now_ns;
    q->far_lost = lost;
    q->far_fraction = block[4];
    if (jitter <= (uint64_t)JITTER_MOST_S * clock_hz) q->far_jitter = (uint32_t)((uint64_t)jitter * 10000 / clock_hz);
    answer_to_report(q, ssrc, read32(block + 16), read32(block + 20), now_ns);
}

static void remember(struct quality *q, uint32_t ssrc, uint32_t ntp, uint64_t now_ns) {
    if (!ntp) return; /* an LSR of zero means: none */
    for (int i = 0; i < SENT_REPORTS; i++)
        if (q->sent[i].sent_ns && q->sent[i].ntp == ntp && q->sent[i].ssrc == ssrc) {
            q->sent[i].sent_ns = now_ns; /* the same again: answered is the last one */
            return;
        }
    q->sent[q->next_sent] = (struct sent_report){.sent_ns = now_ns, .ntp = ntp, .ssrc = ssrc};
    q->next_sent = (uint8_t)((q->next_sent + 1) % SENT_REPORTS);
}

void quality_rtcp(struct quality *quality, const struct rule *rules, uint32_t index, const uint8_t *data,
                  uint32_t length, uint64_t now_ns) {
    uint32_t peer = rules[index].peer;
    if (peer == NO_RULE) return;
    for (uint32_t at = 0, part; length - at >= 8; at += part) {
        uint8_t kind = data[at + 1], blocks = data[at] & 31;
        part = 4 + 4 * (uint32_t)read16(data + at + 2);
        if (part > length - at) return;
        uint32_t header = kind == SENDER_REPORT ? 28 : kind == RECEIVER_REPORT ? 8 : part + 1;
        if (part < header) continue;
        if (kind == SENDER_REPORT) remember(&quality[peer], read32(data + at + 4), read32(data + at + 10), now_ns);
        for (uint32_t i = 0; i < blocks && header + BLOCK_BYTES * (i + 1) <= part; i++)
            report_block(&quality[index], rules, index, data + at + header + BLOCK_BYTES * i, now_ns);
    }
}

static uint8_t known_format(const struct quality *q, uint8_t payload_type) {
    for (int i = 0; i < FORMATS; i++)
        if (q->format[i] == (payload_type | 128)) return q->format_codec[i];
    return UNKNOWN;
}

/* RFC 3551 §6, or what either leg described. */
static uint8_t codec_of(const struct rule *r, const struct quality *q, const struct quality *peer) {
    uint8_t type = r->payload_type & 127, found;
    switch (type) {
    case 0: case 8: return G711;
    case 3: return GSM;
    case 4: return G723;
    case 9: return G722;
    case 13: case 19: return COMFORT;
    case 15: return G728;
    case 18: return G729;
    default:
        found = known_format(q, type);
        if (!found && peer) found = known_format(peer, type);
        return found ? found : r->clock_rate_hz == 48000 ? OPUS : UNKNOWN;
    }
}

/* MOS in fiftieths: media.quality.rating and mos. */
static uint8_t mos_of(uint8_t codec, double loss_percent, double jitter_ms, const struct quality *q) {
    double network_ms = q->round_trips ? q->round_trip_us / 2000.0 : 20.0;
    double delay = 20.0 + network_ms + 2 * jitter_ms + CODEC[codec].delay_ms;
    double impairment = CODEC[codec].impairment;
    double late = 0.024 * delay + (delay > 177.3 ? 0.11 * (delay - 177.3) : 0.0);
    double effective = impairment + (95.0 - impairment) * loss_percent / (loss_percent + CODEC[codec].robustness);
    double rating = CODEC[codec].wide ? (129.0 - late - effective) / 1.29 : 93.2 - late - effective;
    if (rating <= 0) return 50;
    if (rating >= 100) return 225;
    double mos = 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6;
    return mos < 1 ? 50 : (uint8_t)(mos * 50 + 0.5);
}

static void judge(struct judged *j, uint8_t mos, uint32_t jitter, uint32_t second) {
    if (!j->seconds || mos < j->mos_least) {
        j->mos_least = mos;
        j->worst_second = second;
    }
    j->seconds++;
    j->mos_sum += mos;
    j->low_seconds += mos < MOS_LOW;
    if (jitter > j->jitter_most) j->jitter_most = narrow(jitter);
}

/* Does the leg break off a conversation, and is it time to say so? */
static int one_way(struct quality *q, const struct quality *peer, const struct rule *r, int heard, int expected,
                   uint64_t now_ns, uint32_t default_s) {
    if (heard) q->heard_ns = now_ns;
    if (heard || !expected || !q->expected_ns) {
        q->expected_ns = !expected ? 0 : q->expected_ns ? q->expected_ns : now_ns;
        q->told = 0;
        q->refused = (uint32_t)r->refused;
        return 0;
    }
    uint64_t patience_s = q->patience_s ? q->patience_s : default_s;
    if (!peer->heard_ns || now_ns - peer->heard_ns > SENDING_NS || !patience_s || patience_s == PATIENCE_NEVER)
        return 0;
    if (q->heard_ns) patience_s *= STOPPED_TIMES;
    if (q->heard_ns && (r->payload_type == 13 || r->payload_type == 19)) patience_s *= COMFORT_TIMES;
    uint64_t silent_ns = now_ns - (q->heard_ns > q->expected_ns ? q->heard_ns : q->expected_ns);
    if (silent_ns < patience_s * 1000000000u) return 0;
    q->one_way_s += q->told ? 1 : (uint32_t)(silent_ns / 1000000000u);
    if (silent_ns < (patience_s * 1000000000u) << q->told) return 0;
    if (q->told < 15) q->told++;
    return 1;
}

static int sample_one(struct quality *quality, const struct rule *rules, uint32_t index, uint32_t second,
                      uint64_t now_ns, uint32_t patience_s) {
    const struct rule *r = &rules[index], *far = r->peer == NO_RULE ? 0 : &rules[r->peer];
    struct quality *q = &quality[index];
    const struct quality *peer = far ? &quality[r->peer] : 0;
    uint64_t in = r->packets_in - q->packets_in, out = r->packets_out - q->packets_out, lost = lost_packets(r);
    uint64_t newly_lost = lost > q->lost_in ? lost - q->lost_in : 0;
    uint32_t far_lost = q->far_lost_before + q->far_lost;
    int told = q->report_ns && now_ns - q->report_ns <= REPORT_HOLDS_S * 1000000000ull;
    struct sample s = {.second = second, .packets_in = narrow(in), .lost_in = narrow(newly_lost),
                       .packets_out = narrow(out)};
    uint8_t codec = codec_of(r, q, peer);
    if (!q->began) q->began = second;
    if (codec && codec < CODECS && in) q->codec = codec; /* an event or a pause changes no codec */
    double jitter_ms = jitter_of(r);
    if (in) s.jitter_in = narrow((uint64_t)(jitter_ms * 10));
    if (in && !(q->direction & NO_VOICE)) {
        s.mos_in = mos_of(q->codec, 100.0 * (double)newly_lost / (double)(in + newly_lost), jitter_ms, q);
        judge(&q->in, s.mos_in, s.jitter_in, second - q->began);
    }
    if (told) {
        s.jitter_out = narrow(q->far_jitter);
        s.lost_out = narrow(far_lost > q->far_lost_sampled ? far_lost - q->far_lost_sampled : 0);
        s.round_trip = q->round_trips ? narrow(q->round_trip_us / 100) : 0;
        if (out && !(q->direction & NO_VOICE)) {
            uint8_t sent = peer ? peer->codec : UNKNOWN;
            s.mos_out = mos_of(sent, q->far_fraction * 100.0 / 256.0, q->far_jitter / 10.0, q);
            judge(&q->out, s.mos_out, q->far_jitter, second - q->began);
        }
    }
    q->packets_in = r->packets_in;
    q->packets_out = r->packets_out;
    q->lost_in = lost;
    q->far_lost_sampled = far_lost;
    q->samples[second % SAMPLES] = s;
    int expected = far && far->rtp_remote.family && (q->direction & (DIRECTION_SEND | NO_VOICE)) == DIRECTION_SEND &&
                   peer->direction & DIRECTION_RECEIVE;
    return one_way(q, peer, r, in != 0, expected, now_ns, patience_s);
}

uint32_t quality_sample(struct quality *quality, const struct rule *rules, uint32_t first, uint32_t end,
                        uint32_t second, uint64_t now_ns, uint32_t patience_s, uint32_t *found, uint32_t room) {
    uint32_t count = 0;
    for (uint32_t i = first; i < end; i++) {
        const struct rule *r = &rules[i];
        /* what has carried nothing yet is left alone, and its memory too */
        if (!(r->flags & FLAG_IN_USE) || !(r->packets_in | r->packets_out)) continue;
        if (sample_one(quality, rules, i, second, now_ns, patience_s) && count < room) found[count++] = i;
    }
    return count;
}
