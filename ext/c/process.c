#include "process.h"

#include <stdlib.h>
#include <string.h>

#include "forward.h"
#include "transcode.h"

#define RTP_HEADER 12
#define MAX_LATE 100 /* RFC 3550 A.1: what is further behind begins anew */

static inline uint16_t read16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t read32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void write16(uint8_t *p, uint16_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void write32(uint8_t *p, uint32_t value) {
    write16(p, (uint16_t)(value >> 16));
    write16(p + 2, (uint16_t)value);
}

struct processing *processing_new(void) {
    struct processing *processing = calloc(1, sizeof *processing);
    if (!processing) return NULL;
    law_init();
    processing->transcoders = transcoders_new();
    if (!processing->transcoders) {
        free(processing);
        return NULL;
    }
    return processing;
}

void processing_free(struct processing *processing) {
    if (!processing) return;
    transcoders_free(processing->transcoders);
    free(processing);
}

int process_watch(const struct plane *plane, uint32_t target) {
    struct processing *own = plane->processing;
    struct process *p = &plane->processes[target];
    own->due_ns = 0;
    if (p->active) return 0;
    if (own->active_count == ACTIVE_RULES) return -1;
    own->active[own->active_count++] = target;
    p->active = 1;
    return 0;
}

void process_forget(const struct plane *plane, uint32_t target) {
    struct processing *own = plane->processing;
    for (uint32_t i = 0; i < own->active_count; i++)
        if (own->active[i] == target) own->active[i] = own->active[--own->active_count];
    transcoder_drop(own->transcoders, target);
}

static const struct format *format_of(const struct process *p, uint8_t number) {
    for (int i = 0; i < p->count; i++)
        if (p->formats[i].number == number) return &p->formats[i];
    return NULL;
}

/* A distance between two timestamps, on the clock of the other side. */
static uint32_t scaled(const struct process *p, uint32_t later, uint32_t earlier) {
    int64_t step = (int32_t)(later - earlier);
    if (p->clock_in == p->clock_out || !p->clock_in) return (uint32_t)step;
    return (uint32_t)(step * p->clock_out / p->clock_in);
}

/* What time it is in the stream as it leaves. */
static uint32_t present(const struct process *p, uint32_t clock_hz, uint64_t now_ns) {
    uint64_t passed = now_ns > p->out_ns ? now_ns - p->out_ns : 0;
    return p->ts_out + (uint32_t)(passed / 1000 * clock_hz / 1000000);
}

/* -- digits that are heard */

static void tell(const struct plane *plane, struct process *p, uint32_t source) {
    struct processing *own = plane->processing;
    uint64_t ticks = (uint64_t)p->heard_before + p->heard_duration;
    p->heard = HEARD_TOLD;
    if (!p->tell || p->heard_event > EVENT_FLASH) return;
    if (own->heard == HEARD_RING) {
        own->lost++;
        return;
    }
    own->ring[own->heard++] = (struct heard){source, p->heard_event, (uint32_t)(ticks * 1000 / p->heard_clock_hz)};
}

/* One packet of RFC 4733 §2.3. A digit is told once, when it is over; later packets of it say nothing new. */
static void hear(const struct plane *plane, uint32_t source, uint32_t target, const struct format *f,
                 const uint8_t *payload, uint32_t timestamp, int marker, uint64_t now_ns) {
    struct process *p = &plane->processes[target];
    uint16_t duration = read16(payload + 2);
    if (p->heard != HEARD_NOTHING) {
        int32_t step = (int32_t)(timestamp - p->heard_at);
        if (step < 0) return; /* of an earlier digit */
        if (step == 0) {
            if (p->heard == HEARD_TOLD) return;
            if (duration > p->heard_duration) p->heard_duration = duration;
        } else if (p->heard == HEARD_OPEN && !marker && step == p->heard_duration && payload[0] == p->heard_event) {
            p->heard_before += p->heard_duration; /* RFC 4733 §2.5.1.3: longer than the field holds */
            p->heard_out += (uint32_t)((uint64_t)p->heard_duration * f->to_clock_hz / f->clock_hz);
            p->heard_at = timestamp;
            p->heard_duration = duration;
        } else {
            if (p->heard == HEARD_OPEN) tell(plane, p, source);
            p->heard = HEARD_NOTHING;
        }
    }
    if (p->heard == HEARD_NOTHING) {
        p->heard = HEARD_OPEN;
        p->heard_event = payload[0];
        p->heard_at = timestamp;
        p->heard_before = 0;
        p->heard_duration = duration;
        p->heard_clock_hz = f->clock_hz;
        p->heard_out = f->clock_hz == p->clock_in || !p->clock_in ? p->ts_out + scaled(p, timestamp, p->ts_in)
                                                  : present(p, f->to_clock_hz, now_ns);
        process_watch(plane, target);
    }
    p->heard_ns = now_ns;
    if (payload[1] & 0x80) tell(plane, p, source);
}

/* -- packets that come */

/* Another source, or the same one anew: nothing that it counts has to do with what was before. */
static void begin(const struct plane *plane, uint32_t source, struct process *p, uint32_t ssrc, uint16_t sequence,
                  uint32_t timestamp) {
    if (p->heard == HEARD_OPEN) tell(plane, p, source);
    p->heard = HEARD_NOTHING;
    p->begun = 1;
    p->joining = 0;
    p->ssrc = ssrc;
    p->last_in = p->last_out = (uint16_t)(sequence - 1);
    p->valid_from = sequence;
    p->ts_in = p->ts_out = timestamp;
    p->clock_in = p->clock_out = 0;
}

static void keep_time(struct process *p, const struct format *f, uint32_t timestamp, uint64_t now_ns) {
    if (!p->clock_in || (f->clock_hz == p->clock_in && f->to_clock_hz == p->clock_out))
        p->ts_out += scaled(p, timestamp, p->ts_in);
    else
        p->ts_out = present(p, f->to_clock_hz, now_ns);
    p->clock_in = f->clock_hz;
    p->clock_out = f->to_clock_hz;
    p->ts_in = timestamp;
    p->out_ns = now_ns;
}

static int by_samples(const struct plane *plane, uint32_t target, const struct process *p, const struct format *f,
                      uint32_t payload) {
    if (f->codec == f->to_codec || f->to == NOWHERE || f->codec == CODEC_EVENT) return 0;
    if (f->codec > CODEC_PCMA || f->to_codec > CODEC_PCMA) return 1;
    return (p->packet_ms && payload != p->packet_ms * 8u) || transcoder_holds(plane->processing->transcoders, target);
}

static void change_law(const struct format *f, uint8_t *payload, uint32_t length) {
    const uint8_t *table = f->codec == CODEC_PCMU ? alaw_of_ulaw : ulaw_of_alaw;
    for (uint32_t i = 0; i < length; i++) payload[i] = table[payload[i]];
}

/* The payload as it leaves; its length does not change. */
static void change_payload(const struct format *f, uint8_t *payload, uint32_t length) {
    if (f->codec == CODEC_EVENT) {
        if (f->clock_hz != f->to_clock_hz && length >= 4) {
            uint64_t ticks = (uint64_t)read16(payload + 2) * f->to_clock_hz / f->clock_hz;
            write16(payload + 2, ticks > 0xffff ? 0xffff : (uint16_t)ticks);
        }
    } else if (f->codec != f->to_codec) {
        change_law(f, payload, length);
    }
}

enum reason process_rtp(const struct plane *plane, uint32_t source, uint32_t target, uint8_t *data, uint32_t *length,
                        uint32_t room, uint64_t now_ns, uint8_t *more) {
    struct process *p = &plane->processes[target];
    const struct format *f = format_of(p, data[1] & 127);
    struct format as_it_is = {data[1] & 127, data[1] & 127, CODEC_OTHER, CODEC_OTHER, 8000, 8000};
    uint32_t header = RTP_HEADER + 4 * (uint32_t)(data[0] & 15), payload;
    uint16_t sequence = read16(data + 2);
    uint32_t timestamp = read32(data + 4), ssrc = read32(data + 8), when;
    int marker = data[1] >> 7, ahead, event;
    if (data[0] & 16) header += 4 + 4 * (uint32_t)read16(data + header + 2);
    payload = *length - header;
    if (data[0] & 32) { /* RFC 3550 §5.1: padding tells its own length, in its last octet */
        uint32_t padding = data[*length - 1];
        if (!payload || !padding || padding > payload) return SHORT;
        payload -= padding;
    }
    if (!p->count) { /* nothing is changed any more but the numbers that were */
        if (p->clock_in) as_it_is.clock_hz = as_it_is.to_clock_hz = p->clock_in;
        f = &as_it_is;
    }
    event = f && f->codec == CODEC_EVENT && payload >= 4;
    if (!p->begun || p->ssrc != ssrc) begin(plane, source, p, ssrc, sequence, timestamp);
    ahead = (int16_t)(sequence - p->last_in);
    if (ahead < -MAX_LATE) { /* it counts anew */
        p->last_in = (uint16_t)(sequence - 1);
        p->valid_from = sequence;
        ahead = 1;
    }
    if (event) hear(plane, source, target, f, data + header, timestamp, marker, now_ns);
    if (ahead <= 0) { /* late */
        if (!f || f->to == NOWHERE || p->digit_count || p->joining ||
            (uint16_t)(p->last_in - sequence) > (uint16_t)(p->last_in - p->valid_from) ||
            by_samples(plane, target, p, f, payload))
            return NOT_CARRIED;
        sequence = (uint16_t)(sequence + p->last_out - p->last_in);
    } else {
        int replaced = p->digit_count != 0, joined = p->joining || replaced;
        uint16_t left = (uint16_t)(p->last_out + (joined ? 1 : ahead));
        p->last_in = sequence;
        if ((uint16_t)(sequence - p->valid_from) > 2 * MAX_LATE) p->valid_from = (uint16_t)(sequence - MAX_LATE);
        if (f && f->codec != CODEC_EVENT) keep_time(p, f, timestamp, now_ns);
        if (replaced) { /* our digits instead */
            if (!p->joining) p->joining = 1;
            return NOT_CARRIED;
        }
        if (joined) {
            p->joining = 0;
            p->valid_from = sequence;
        }
        if (!f || f->to == NOWHERE) {
            p->last_out = (uint16_t)(left - 1);
            p->valid_from = (uint16_t)(sequence + 1);
            return NOT_CARRIED;
        }
        if (by_samples(plane, target, p, f, payload)) { /* packets are numbered as they leave */
            struct transcoders *all = plane->processing->transcoders;
            int ready;
            p->valid_from = (uint16_t)(sequence + 1);
            ready = transcoder_take(all, target, p, f, data + header, payload, marker,
                                    joined ? 0 : (uint32_t)(ahead - 1));
            if (ready < 0) return BAD_PAYLOAD;
            if (!ready || !transcoder_give(all, target, p, data, length, room)) return NOT_CARRIED;
            *more = (uint8_t)transcoder_ready(all, target);
            return FORWARD;
        }
        p->last_out = left;
        sequence = left;
    }
    if (f->codec == CODEC_EVENT && p->heard != HEARD_NOTHING && timestamp == p->heard_at)
        when = p->heard_out;
    else
        when = p->ts_out + scaled(p, timestamp, p->ts_in);
    change_payload(f, data + header, payload);
    data[1] = (uint8_t)(marker << 7 | f->to);
    write16(data + 2, sequence);
    write32(data + 4, when);
    return FORWARD;
}

int process_next(const struct plane *plane, uint32_t target, uint8_t *data, uint32_t *length, uint32_t room) {
    return transcoder_give(plane->processing->transcoders, target, &plane->processes[target], data, length, room);
}

/* -- RTCP */

static void change_blocks(const struct process *q, uint8_t *block, const uint8_t *end, int count) {
    for (; count > 0 && end - block >= 24; count--, block += 24) {
        if (!q->begun || read32(block) != q->ssrc) continue;
        write32(block + 8, read32(block + 8) - (uint32_t)(int16_t)(q->last_out - q->last_in));
        if (q->clock_out && q->clock_in != q->clock_out)
            write32(block + 12, (uint32_t)((uint64_t)read32(block + 12) * q->clock_in / q->clock_out));
    }
}

void process_rtcp(const struct plane *plane, uint32_t source, uint32_t target, uint8_t *data, uint32_t length) {
    const struct process *p = &plane->processes[target], *q = &plane->processes[source];
    int theirs = plane->rules[target].features & FEATURE_PROCESSED, ours = plane->rules[source].features & FEATURE_PROCESSED;
    uint32_t at = 0;
    while (at + 8 <= length) {
        uint8_t *part = data + at;
        uint32_t size = 4 + 4 * (uint32_t)read16(part + 2);
        if (size > length - at) return;
        if (part[1] == 200 && size >= 28) {
            if (theirs && p->begun && read32(part + 4) == p->ssrc)
                write32(part + 16, p->ts_out + scaled(p, read32(part + 16), p->ts_in));
            if (ours) change_blocks(q, part + 28, part + size, part[0] & 31);
        } else if (part[1] == 201 && ours) {
            change_blocks(q, part + 8, part + size, part[0] & 31);
        }
        at += size;
    }
}

/* -- digits that we put in */

/* The next packet of the digit that is being sent (RFC 4733 §2.5.1). */
static void write_event(struct process *p, uint8_t *data, uint32_t *length, uint64_t now_ns) {
    int first = !p->elapsed_ms, last;
    uint32_t ticks;
    if (first) {
        uint32_t when = present(p, p->event_clock_hz, now_ns);
        uint32_t least = p->sending_at + (p->duration_ms + EVENT_STEP_MS) * p->event_clock_hz / 1000;
        p->sending_at = p->joining == 2 && (int32_t)(when - least) < 0 ? least : when;
    }
    if (!p->ends) p->elapsed_ms = (uint16_t)(p->elapsed_ms + EVENT_STEP_MS);
    if (p->elapsed_ms >= p->duration_ms) p->elapsed_ms = p->duration_ms;
    last = p->elapsed_ms == p->duration_ms;
    ticks = (uint32_t)((uint64_t)p->elapsed_ms * p->event_clock_hz / 1000);
    p->last_out++;
    data[0] = 0x80;
    data[1] = (uint8_t)((first ? 0x80 : 0) | p->event_number);
    write16(data + 2, p->last_out);
    write32(data + 4, p->sending_at);
    write32(data + 8, p->ssrc);
    data[12] = p->digits[0];
    data[13] = (uint8_t)((last ? 0x80 : 0) | EVENT_VOLUME);
    write16(data + 14, ticks > 0xffff ? 0xffff : (uint16_t)ticks);
    *length = 16;
    p->next_ns += EVENT_STEP_MS * 1000000ull;
    p->joining = 2; /* a digit was sent: the next one, or audio, follows it */
    if (!last || ++p->ends < EVENT_ENDS) return;
    p->ends = 0;
    p->elapsed_ms = 0;
    memmove(p->digits, p->digits + 1, PROCESS_DIGITS - 1);
    p->digit_count--;
    p->next_ns += (uint64_t)p->pause_ms * 1000000u;
}

uint64_t process_deadline(const struct process *p) {
    uint64_t lost = p->heard == HEARD_OPEN ? p->heard_ns + EVENT_LOST_NS : 0;
    if (!p->digit_count) return lost;
    return lost && lost < p->next_ns ? lost : p->next_ns ? p->next_ns : 1;
}

int process_due(const struct plane *plane, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length) {
    struct process *p = &plane->processes[target];
    uint32_t source = plane->rules[target].peer;
    if (p->heard == HEARD_OPEN && now_ns >= p->heard_ns + EVENT_LOST_NS && source != NO_RULE) tell(plane, p, source);
    if (!p->digit_count || now_ns < p->next_ns) return 0;
    if (now_ns > p->next_ns + 1000000000u) p->next_ns = now_ns; /* nobody was there to send */
    if (!p->out_ns) p->out_ns = now_ns;
    write_event(p, data, length, now_ns);
    return 1;
}
