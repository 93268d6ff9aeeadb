#include "transcode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BY_RULE 1024          /* places of the table, by rule number */
#define MAX_SAMPLES 1920      /* of one packet: 120 ms at 16 kHz */
#define MAX_HELD 2880         /* with what waits for the rest of a packet */
#define RTP_HEADER 12
#define USUAL_MS 20
#define MOST_LOST 100         /* packets that a gap is told with; a longer one is a new beginning */

uint8_t alaw_of_ulaw[256], ulaw_of_alaw[256];
static int16_t values[CODECS][256]; /* of G.711 octets */
static uint8_t alaw_of[65536], ulaw_of[65536];
static int16_t half_band[RESAMPLE_TAPS]; /* Q14; the odd samples between two that are known */
static const struct codec_functions *known[CODECS];

/* -- G.711 */

static int16_t ulaw_value(uint8_t octet) {
    int magnitude = (int)(((octet & 15u) ^ 15u) << 3) + 132;
    magnitude = (magnitude << ((octet >> 4 & 7) ^ 7)) - 132;
    return (int16_t)(octet & 128 ? magnitude : -magnitude);
}

static int16_t alaw_value(uint8_t octet) {
    int segment = (octet ^ 0x55) >> 4 & 7, magnitude = (((octet ^ 0x55) & 15) << 4) + 8;
    if (segment) magnitude = (magnitude + 256) << (segment - 1);
    return (int16_t)(octet & 128 ? magnitude : -magnitude);
}

static uint8_t ulaw_octet(int sample) {
    int sign = sample < 0 ? 0 : 128, magnitude = (sample < 0 ? -sample : sample) + 132, segment = 7;
    if (magnitude > 32767) magnitude = 32767;
    while (segment && !(magnitude >> (segment + 7))) segment--;
    return (uint8_t)(sign | ((~(segment << 4 | (magnitude >> (segment + 3) & 15))) & 127));
}

static uint8_t alaw_octet(int sample) {
    int sign = sample < 0 ? 0 : 128, magnitude = sample < 0 ? -sample : sample, segment = 7;
    if (magnitude > 32767) magnitude = 32767;
    while (segment && !(magnitude >> (segment + 7))) segment--;
    return (uint8_t)((sign | segment << 4 | (magnitude >> (segment ? segment + 3 : 4) & 15)) ^ 0x55);
}

/* The taps between two samples of a half-band low pass: a sinc in a Kaiser window, beta 8. */
static double bessel(double x) {
    double sum = 1, term = 1;
    for (int k = 1; k < 40; k++) {
        term *= x / 2 / k;
        sum += term * term;
    }
    return sum;
}

static void make_half_band(void) {
    double taps[RESAMPLE_TAPS], sum = 0;
    for (int i = 0; i < RESAMPLE_TAPS; i++) {
        double at = i - (RESAMPLE_TAPS - 1) / 2.0, part = at / (RESAMPLE_TAPS / 2.0);
        taps[i] = sin(M_PI * at) / (M_PI * at) * bessel(8 * sqrt(1 - part * part)) / bessel(8);
        sum += taps[i];
    }
    for (int i = 0; i < RESAMPLE_TAPS; i++) half_band[i] = (int16_t)lrint(taps[i] / sum * 16384);
}

void law_init(void) {
    if (alaw_of_ulaw[0]) return;
    for (int i = 0; i < 65536; i++) {
        alaw_of[i] = alaw_octet((int16_t)i);
        ulaw_of[i] = ulaw_octet((int16_t)i);
    }
    for (int i = 0; i < 256; i++) {
        values[CODEC_PCMU][i] = ulaw_value((uint8_t)i);
        values[CODEC_PCMA][i] = alaw_value((uint8_t)i);
        alaw_of_ulaw[i] = alaw_octet(ulaw_value((uint8_t)i));
        ulaw_of_alaw[i] = ulaw_octet(alaw_value((uint8_t)i));
    }
    make_half_band();
}

int16_t law_value(int codec, uint8_t octet) { return values[codec][octet]; }

uint8_t law_octet(int codec, int16_t sample) {
    return (codec == CODEC_PCMA ? alaw_of : ulaw_of)[(uint16_t)sample];
}

/* -- other codecs, and other rates */

void codec_register(int codec, const struct codec_functions *functions) { known[codec] = functions; }

int codec_known(int codec) { return codec == CODEC_PCMU || codec == CODEC_PCMA || (codec < CODECS && known[codec]); }

static int16_t clipped(int32_t sample) {
    return (int16_t)(sample > 32767 ? 32767 : sample < -32768 ? -32768 : sample);
}

/* Between two samples lies the sum over those around; the known ones are delayed to fit. */
int resample_up(struct resampler *r, const int16_t *in, int count, int16_t *out) {
    int16_t line[RESAMPLE_TAPS + MAX_SAMPLES];
    if (count > MAX_SAMPLES) count = MAX_SAMPLES;
    memcpy(line, r->past, RESAMPLE_TAPS * sizeof *line);
    memcpy(line + RESAMPLE_TAPS, in, (size_t)count * sizeof *in);
    for (int i = 0; i < count; i++) {
        const int16_t *at = line + i + 1;
        int32_t sum = 1 << 13;
        for (int k = 0; k < RESAMPLE_TAPS; k++) sum += at[k] * half_band[k];
        out[2 * i] = at[RESAMPLE_TAPS / 2 - 1];
        out[2 * i + 1] = clipped(sum >> 14);
    }
    memcpy(r->past, line + count, RESAMPLE_TAPS * sizeof *line);
    return 2 * count;
}

/* The same filter, every other sample of it: half is the sample itself, half the sum over those beside it. */
int resample_down(struct resampler *r, const int16_t *in, int count, int16_t *out) {
    int16_t line[2 * RESAMPLE_TAPS + MAX_SAMPLES], beside[RESAMPLE_TAPS + MAX_SAMPLES / 2];
    int half = (count > MAX_SAMPLES ? MAX_SAMPLES : count) / 2;
    memcpy(line, r->past, sizeof r->past);
    memcpy(line + 2 * RESAMPLE_TAPS, in, 2 * (size_t)half * sizeof *in);
    for (int i = 0; i < RESAMPLE_TAPS + half; i++) beside[i] = line[2 * i + 1];
    for (int i = 0; i < half; i++) {
        const int16_t *at = beside + i + 1;
        int32_t sum = 1 << 13;
        for (int k = 0; k < RESAMPLE_TAPS; k++) sum += at[k] * half_band[k];
        out[i] = clipped(((sum >> 14) + line[2 * i + RESAMPLE_TAPS + 2]) >> 1);
    }
    memcpy(r->past, line + 2 * half, sizeof r->past);
    return half;
}

/* -- transcoders, by the rule that they are for */

struct transcoder {
    struct transcoder *next;
    uint32_t target, generation;
    uint8_t codec, to_codec, to, marker;
    uint32_t rate_in, rate_out, to_clock_hz;
    void *decoder, *encoder;
    struct resampler resampler;
    uint32_t held_at; /* timestamp of the first sample that is held, as it leaves */
    int held, packet; /* samples */
    int16_t samples[MAX_HELD];
};

struct transcoders {
    struct transcoder *by_rule[BY_RULE];
};

struct transcoders *transcoders_new(void) { return calloc(1, sizeof(struct transcoders)); }

static struct transcoder *find(const struct transcoders *all, uint32_t target) {
    struct transcoder *t = all->by_rule[target % BY_RULE];
    while (t && t->target != target) t = t->next;
    return t;
}

static void shut(struct transcoder *t) {
    if (t->decoder) known[t->codec]->close(t->decoder);
    if (t->encoder) known[t->to_codec]->close(t->encoder);
    t->decoder = t->encoder = NULL;
    t->codec = t->to_codec = CODEC_OTHER;
}

void transcoder_drop(struct transcoders *all, uint32_t target) {
    for (struct transcoder **at = &all->by_rule[target % BY_RULE]; *at; at = &(*at)->next) {
        struct transcoder *t = *at;
        if (t->target != target) continue;
        *at = t->next;
        shut(t);
        free(t);
        return;
    }
}

void transcoders_free(struct transcoders *all) {
    for (int i = 0; all && i < BY_RULE; i++)
        while (all->by_rule[i]) transcoder_drop(all, all->by_rule[i]->target);
    free(all);
}

static uint32_t rate_of(int codec, uint32_t other) {
    if (codec == CODEC_PCMU || codec == CODEC_PCMA) return 8000;
    return known[codec]->rate_hz ? known[codec]->rate_hz : other;
}

/* Ready for what comes in this format. */
static struct transcoder *prepare(struct transcoders *all, uint32_t target, const struct process *p,
                                  const struct format *f) {
    struct transcoder *t = find(all, target);
    if (!codec_known(f->codec) || !codec_known(f->to_codec)) return NULL;
    if (!t) {
        t = calloc(1, sizeof *t);
        if (!t) return NULL;
        t->target = target;
        t->next = all->by_rule[target % BY_RULE];
        all->by_rule[target % BY_RULE] = t;
    }
    if (t->codec == f->codec && t->to_codec == f->to_codec && t->generation == p->generation) return t;
    shut(t);
    t->generation = p->generation;
    t->rate_in = rate_of(f->codec, rate_of(f->to_codec, 16000));
    t->rate_out = rate_of(f->to_codec, t->rate_in);
    t->to = f->to;
    t->to_clock_hz = f->to_clock_hz;
    t->held = 0;
    memset(&t->resampler, 0, sizeof t->resampler);
    t->codec = f->codec;
    t->to_codec = f->to_codec;
    if (known[f->codec] && !(t->decoder = known[f->codec]->open(t->rate_in))) return shut(t), NULL;
    if (known[f->to_codec] && !(t->encoder = known[f->to_codec]->open(t->rate_out))) return shut(t), NULL;
    return t;
}

int transcoder_holds(const struct transcoders *all, uint32_t target) {
    const struct transcoder *t = find(all, target);
    return t && t->held;
}

int transcoder_ready(const struct transcoders *all, uint32_t target) {
    const struct transcoder *t = find(all, target);
    return t && t->packet && t->held >= t->packet;
}

static uint32_t ticks(const struct transcoder *t, int samples) {
    return (uint32_t)((uint64_t)samples * t->to_clock_hz / t->rate_out);
}

/* Samples at rate_out; < 0: not of this codec. */
static int decode(struct transcoder *t, const uint8_t *payload, uint32_t length, int16_t *out) {
    int16_t samples[MAX_SAMPLES];
    int count = (int)length;
    if (t->decoder) {
        count = known[t->codec]->decode(t->decoder, payload, (int)length, samples, MAX_SAMPLES);
        if (count < 0) return -1;
    } else {
        if (count > MAX_SAMPLES / 2) return -1;
        for (int i = 0; i < count; i++) samples[i] = values[t->codec][payload[i]];
    }
    if (t->rate_in < t->rate_out) return resample_up(&t->resampler, samples, count, out);
    if (t->rate_in > t->rate_out) return resample_down(&t->resampler, samples, count, out);
    memcpy(out, samples, (size_t)count * sizeof *out);
    return count;
}

int transcoder_take(struct transcoders *all, uint32_t target, struct process *p, const struct format *f,
                    const uint8_t *payload, uint32_t length, int marker, uint32_t lost) {
    struct transcoder *t = prepare(all, target, p, f);
    int16_t samples[MAX_SAMPLES];
    int count, ms;
    if (!t || !length || (count = decode(t, payload, length, samples)) < 0) return -1;
    ms = p->packet_ms ? p->packet_ms : (int)((uint32_t)count * 1000 / t->rate_out);
    if (t->to_codec == CODEC_OPUS ? ms != 10 && ms != 20 && ms != 40 && ms != 60 : ms < 10 || ms > 60 || ms % 10)
        ms = USUAL_MS; /* RFC 6716 §2.1.4: 30 ms are no frame of Opus */
    t->packet = (int)(t->rate_out / 1000) * ms;
    if (t->held && (lost || t->held_at + ticks(t, t->held) != p->ts_out)) t->held = 0; /* a gap, or silence */
    if (lost && count) {
        uint32_t gone = (lost * (uint32_t)count + (uint32_t)t->packet / 2) / (uint32_t)t->packet;
        p->last_out = (uint16_t)(p->last_out + (gone > MOST_LOST ? MOST_LOST : gone ? gone : 1));
    }
    if (!t->held) t->held_at = p->ts_out;
    if (t->held + count > MAX_HELD) t->held = 0; /* never: a packet leaves before */
    memcpy(t->samples + t->held, samples, (size_t)count * sizeof *samples);
    t->held += count;
    t->marker |= (uint8_t)marker;
    return t->held >= t->packet;
}

int transcoder_give(struct transcoders *all, uint32_t target, struct process *p, uint8_t *data, uint32_t *length,
                    uint32_t room) {
    struct transcoder *t = find(all, target);
    uint8_t *payload = data + RTP_HEADER;
    int octets = 0;
    if (!t || !t->packet || t->held < t->packet) return 0;
    if (t->encoder) {
        octets = known[t->to_codec]->encode(t->encoder, t->samples, t->packet, payload, (int)(room - RTP_HEADER));
    } else if ((uint32_t)t->packet + RTP_HEADER <= room) {
        for (octets = 0; octets < t->packet; octets++) payload[octets] = law_octet(t->to_codec, t->samples[octets]);
    }
    p->last_out++;
    data[0] = 0x80;
    data[1] = (uint8_t)(t->marker << 7 | t->to);
    data[2] = (uint8_t)(p->last_out >> 8);
    data[3] = (uint8_t)p->last_out;
    for (int i = 0; i < 4; i++) {
        data[4 + i] = (uint8_t)(t->held_at >> (24 - 8 * i));
        data[8 + i] = (uint8_t)(p->ssrc >> (24 - 8 * i));
    }
    t->marker = 0;
    t->held -= t->packet;
    t->held_at += ticks(t, t->packet);
    memmove(t->samples, t->samples + t->packet, (size_t)t->held * sizeof *t->samples);
    *length = RTP_HEADER + (uint32_t)(octets > 0 ? octets : 0);
    return octets > 0;
}
