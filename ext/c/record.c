#include "record.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "law.h"

#define RATE_HZ 8000
#define WINDOW 16384      /* frames that are not in the file yet: 2 s */
#define LAG 4000          /* frames that wait for packets that were overtaken */
#define DRIFT 4000        /* frames by which timestamps and arrivals may differ before timestamps count anew */
#define LEAP 16000        /* back by more than that is another time base, by less a packet that was overtaken */
#define HEADER_EVERY RATE_HZ
#define WAV_HEADER 44
#define WAV_FRAMES_MAX ((uint64_t)(0xffffffffu - 36) / 4) /* RIFF counts octets in 32 bits: 37 hours */
#define IP4_HEADER 20
#define IP6_HEADER 40
#define UDP_HEADER 8
#define PCAP_SNAPLEN 65535
#define LINKTYPE_RAW 101 /* an IP header comes first */

/* One channel: where the timestamps of its present source lie in the file. */
struct channel {
    uint8_t known;
    uint32_t ssrc, timestamp;
    int64_t frame; /* of `timestamp` */
    struct address local;
};

struct recording {
    int fd, format, error;
    uint64_t start_ns, wall_ns;
    uint64_t frames, headed; /* in the file; those that its header tells */
    struct record_totals totals;
    struct channel channels[2];
    uint32_t filled; /* octets of `pcap` */
    union {
        int16_t wav[WINDOW][2]; /* frame n at n % WINDOW */
        uint8_t pcap[WINDOW * 4];
    } buffer;
};

struct recorder {
    struct tap *tap;
    int failed;
    struct recording *recordings[MAX_RECORDINGS];
};

struct recorder *recorder_new(struct tap *tap) {
    struct recorder *recorder = calloc(1, sizeof *recorder);
    if (recorder) recorder->tap = tap;
    return recorder;
}

static void fail(struct recorder *recorder, struct recording *r, int error) {
    if (!r->error) recorder->failed++;
    r->error = error ? error : EIO;
}

static int write_all(int fd, const void *data, size_t size, off_t at) {
    const uint8_t *octets = data;
    while (size) {
        ssize_t done = at < 0 ? write(fd, octets, size) : pwrite(fd, octets, size, at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return done < 0 ? errno : ENOSPC;
        octets += done;
        size -= (size_t)done;
        if (at >= 0) at += done;
    }
    return 0;
}

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *p, uint32_t value) {
    put16(p, value);
    put16(p + 2, value >> 16);
}

static void put16_network(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* The header as the file is now, so that it is a WAV at any time. */
static int write_wav_header(struct recording *r) {
    uint8_t header[WAV_HEADER];
    uint32_t octets = (uint32_t)(r->frames * 4);
    memcpy(header, "RIFF....WAVEfmt ", 16);
    put32(header + 4, octets + WAV_HEADER - 8);
    put32(header + 16, 16);
    put16(header + 20, 1); /* PCM */
    put16(header + 22, 2);
    put32(header + 24, RATE_HZ);
    put32(header + 28, RATE_HZ * 4);
    put16(header + 32, 4);
    put16(header + 34, 16);
    memcpy(header + 36, "data", 4);
    put32(header + 40, octets);
    r->headed = r->frames;
    return write_all(r->fd, header, sizeof header, 0);
}

/* Frames before `end` are final. */
static void flush_wav(struct recorder *recorder, struct recording *r, uint64_t end) {
    if (r->error) return;
    if (end > WAV_FRAMES_MAX) {
        fail(recorder, r, EFBIG);
        return;
    }
    while (r->frames < end) {
        uint32_t at = (uint32_t)(r->frames % WINDOW), some = WINDOW - at;
        if (some > end - r->frames) some = (uint32_t)(end - r->frames);
        int error = write_all(r->fd, r->buffer.wav[at], some * 4, (off_t)(WAV_HEADER + r->frames * 4));
        if (error) {
            fail(recorder, r, error);
            return;
        }
        memset(r->buffer.wav[at], 0, some * 4);
        r->frames += some;
    }
    if (r->frames - r->headed >= HEADER_EVERY) {
        int error = write_wav_header(r);
        if (error) fail(recorder, r, error);
    }
}

static uint64_t frame_at(const struct recording *r, uint64_t now_ns) {
    return now_ns <= r->start_ns ? 0 : (now_ns - r->start_ns) / (1000000000u / RATE_HZ);
}

/* Time has come to `now_ns`: what is older than LAG is final. */
static void advance_wav(struct recorder *recorder, struct recording *r, uint64_t now_ns) {
    uint64_t now = frame_at(r, now_ns);
    if (now > LAG) flush_wav(recorder, r, now - LAG);
}

static void add_wav(struct recorder *recorder, struct recording *r, int side, const struct tapped *t,
                    const uint8_t *data) {
    struct channel *c = &r->channels[side];
    uint32_t header = 12 + 4 * (uint32_t)(data[0] & 15), length = t->length, timestamp, ssrc;
    uint8_t type = data[1] & 0x7f;
    if (data[0] & 16) header += 4 + 4 * (uint32_t)(data[header + 2] << 8 | data[header + 3]);
    if (data[0] & 32 && length > header && data[length - 1] <= length - header) length -= data[length - 1];
    if (header >= length) return;
    if (type != 0 && type != 8) {
        r->totals.unreadable++;
        return;
    }
    memcpy(&timestamp, data + 4, 4);
    memcpy(&ssrc, data + 8, 4);
    timestamp = ntohl(timestamp);
    int64_t arrived = (int64_t)frame_at(r, t->now_ns);
    advance_wav(recorder, r, t->now_ns);
    int32_t step = (int32_t)(timestamp - c->timestamp);
    int64_t frame = c->frame + step;
    int anew = !c->known || c->ssrc != ssrc || frame - arrived > DRIFT || (step > 0 && arrived - frame > DRIFT) ||
               step < -LEAP;
    if (anew) frame = arrived;
    if (anew || step > 0) { /* one that was overtaken is nothing to measure the next by */
        c->known = 1;
        c->ssrc = ssrc;
        c->timestamp = timestamp;
        c->frame = frame;
    }
    enum law law = type == 8 ? LAW_A : LAW_U;
    uint32_t samples = length - header, missed = 0;
    for (uint32_t i = 0; i < samples; i++, frame++) {
        if (frame < (int64_t)r->frames || frame >= (int64_t)r->frames + WINDOW)
            missed++;
        else
            r->buffer.wav[frame % WINDOW][side] = law_decode(law, data[header + i]);
    }
    if (missed == samples)
        r->totals.late++;
    else
        r->totals.packets++;
}

static void flush_pcap(struct recorder *recorder, struct recording *r) {
    if (!r->error && r->filled) {
        int error = write_all(r->fd, r->buffer.pcap, r->filled, -1);
        if (error) fail(recorder, r, error);
    }
    r->filled = 0;
}

static uint32_t sum_of(const uint8_t *data, uint32_t length, uint32_t sum) {
    for (uint32_t i = 0; i + 1 < length; i += 2) sum += (uint32_t)data[i] << 8 | data[i + 1];
    if (length & 1) sum += (uint32_t)data[length - 1] << 8;
    return sum;
}

static uint16_t checksum(uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* The IP and UDP headers that the packet had, more or less. Their length. */
static uint32_t put_headers(uint8_t *p, const struct address *from, const struct address *to, const uint8_t *data,
                            uint32_t length) {
    uint32_t udp = UDP_HEADER + length, ip = from->family == AF_INET6 ? IP6_HEADER : IP4_HEADER, sum;
    uint8_t *u = p + ip;
    memset(p, 0, ip + UDP_HEADER);
    memcpy(u, &from->port, 2);
    memcpy(u + 2, &to->port, 2);
    put16_network(u + 4, udp);
    if (ip == IP6_HEADER) {
        p[0] = 0x60;
        put16_network(p + 4, udp);
        p[6] = IPPROTO_UDP;
        p[7] = 64;
        memcpy(p + 8, from->ip, 16);
        memcpy(p + 24, to->ip, 16);
        sum = sum_of(p + 8, 32, IPPROTO_UDP + udp);
    } else {
        p[0] = 0x45;
        put16_network(p + 2, ip + udp);
        p[6] = 0x40; /* do not fragment */
        p[8] = 64;
        p[9] = IPPROTO_UDP;
        memcpy(p + 12, from->ip, 4);
        memcpy(p + 16, to->ip, 4);
        put16_network(p + 10, checksum(sum_of(p, ip, 0)));
        sum = sum_of(p + 12, 8, IPPROTO_UDP + udp);
    }
    sum = checksum(sum_of(data, length, sum_of(u, UDP_HEADER, sum)));
    put16_network(u + 6, sum ? sum : 0xffff);
    return ip + UDP_HEADER;
}

static void add_pcap(struct recorder *recorder, struct recording *r, int side, const struct tapped *t,
                     const uint8_t *data) {
    struct address to = r->channels[side].local;
    uint64_t at_us = (r->wall_ns + (t->now_ns - r->start_ns)) / 1000;
    if (r->filled + 16 + IP6_HEADER + UDP_HEADER + t->length > sizeof r->buffer.pcap) flush_pcap(recorder, r);
    uint8_t *p = r->buffer.pcap + r->filled;
    if (t->rtcp == 1) to.port = htons((uint16_t)(ntohs(to.port) + 1));
    uint32_t headers = put_headers(p + 16, &t->source, &to, data, t->length), length = headers + t->length;
    put32(p, (uint32_t)(at_us / 1000000));
    put32(p + 4, (uint32_t)(at_us % 1000000));
    put32(p + 8, length);
    put32(p + 12, length);
    memcpy(p + 16 + headers, data, t->length);
    r->filled += 16 + length;
    r->totals.packets++;
}

static int write_pcap_header(int fd) {
    uint8_t header[24] = {0};
    put32(header, 0xa1b2c3d4); /* times in microseconds */
    put16(header + 4, 2);
    put16(header + 6, 4);
    put32(header + 16, PCAP_SNAPLEN);
    put32(header + 20, LINKTYPE_RAW);
    return write_all(fd, header, sizeof header, -1);
}

int recorder_open(struct recorder *recorder, uint32_t number, int fd, int format, uint64_t start_ns, uint64_t wall_ns) {
    struct recording *r = number < MAX_RECORDINGS && !recorder->recordings[number] ? calloc(1, sizeof *r) : NULL;
    if (!r) {
        close(fd);
        return ENOMEM;
    }
    r->fd = fd;
    r->format = format;
    r->start_ns = start_ns;
    r->wall_ns = wall_ns;
    int error = format == RECORD_WAV ? write_wav_header(r) : write_pcap_header(fd);
    if (error) {
        close(fd);
        free(r);
        return error;
    }
    atomic_store(&recorder->tap->lost[number], 0);
    recorder->recordings[number] = r;
    return 0;
}

void recorder_face(struct recorder *recorder, uint32_t number, int side, const struct address *local) {
    struct recording *r = recorder->recordings[number];
    if (r) r->channels[side].local = *local;
}

int recorder_drain(struct recorder *recorder, uint64_t end, uint64_t now_ns) {
    const struct tapped *t;
    recorder->failed = 0;
    while ((t = tap_first(recorder->tap, end))) {
        struct recording *r = recorder->recordings[t->point >> 1];
        const uint8_t *data = (const uint8_t *)(t + 1);
        if (r && !r->error) {
            if (r->format == RECORD_PCAP)
                add_pcap(recorder, r, (int)(t->point & 1), t, data);
            else if (!t->rtcp)
                add_wav(recorder, r, (int)(t->point & 1), t, data);
        }
        tap_next(recorder->tap, t);
    }
    for (uint32_t i = 0; i < MAX_RECORDINGS; i++) {
        struct recording *r = recorder->recordings[i];
        if (!r || r->error) continue;
        if (r->format == RECORD_PCAP)
            flush_pcap(recorder, r);
        else
            advance_wav(recorder, r, now_ns);
    }
    return recorder->failed;
}

void recorder_totals(struct recorder *recorder, uint32_t number, struct record_totals *totals) {
    struct recording *r = recorder->recordings[number];
    memset(totals, 0, sizeof *totals);
    if (!r) return;
    *totals = r->totals;
    totals->frames = r->frames;
    totals->error = r->error;
    totals->lost = atomic_load(&recorder->tap->lost[number]);
}

/* The last frame that a packet has filled, and one more; without packets, what is in the file. */
static uint64_t end_of(const struct recording *r) {
    uint64_t end = r->frames;
    for (uint64_t frame = r->frames; frame < r->frames + WINDOW; frame++) {
        const int16_t *both = r->buffer.wav[frame % WINDOW];
        if (both[0] || both[1]) end = frame + 1;
    }
    return end;
}

void recorder_close(struct recorder *recorder, uint32_t number, struct record_totals *totals) {
    struct recording *r = recorder->recordings[number];
    if (r && r->format == RECORD_PCAP) {
        flush_pcap(recorder, r);
    } else if (r) {
        flush_wav(recorder, r, end_of(r));
        if (r->headed != r->frames) {
            int error = write_wav_header(r);
            if (error && !r->error) fail(recorder, r, error);
        }
    }
    recorder_totals(recorder, number, totals);
    if (!r) return;
    close(r->fd);
    free(r);
    recorder->recordings[number] = NULL;
}

void recorder_free(struct recorder *recorder) {
    struct record_totals totals;
    if (!recorder) return;
    for (uint32_t i = 0; i < MAX_RECORDINGS; i++)
        if (recorder->recordings[i]) recorder_close(recorder, i, &totals);
    free(recorder);
}
