/* Feeds files and seeded mutations of them to rule_inspect, on exactly sized heap copies so that ASan sees any overread:
   as they are, and between two legs with SRTP also protected first, so that what is behind the tag check is reached.
   What legs send is recorded as well, to nowhere, through a ring that is sometimes full.
   Usage: replay_datapath MUTATIONS FILE... ; prints how many packets were inspected, and how many were forwarded. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forward.h"
#include "record.h"

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) { /* xorshift: the same on every machine */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static void key_up(const struct plane *plane, struct srtp_leg *sender, uint32_t index) {
    static const uint8_t master[SRTP_MASTER] = {1, 2, 3}, mki[SRTP_MKI] = {4, 5};
    struct srtp_leg *leg = &plane->keys[index];
    int suite = 1 + (int)draw(SRTP_SUITES - 1);
    if (draw(16) == 0) return; /* no key */
    memset(leg, 0, sizeof *leg);
    if (srtp_install(plane->engine, &leg->in, suite, master, srtp_master_bytes(suite), mki, draw(4) ? 0 : draw(17)) ||
        srtp_install(plane->engine, &leg->out, suite, master, srtp_master_bytes(suite), mki, 0) ||
        srtp_install(plane->engine, &sender->out, suite, master, srtp_master_bytes(suite), mki, 0))
        abort();
    if (draw(4)) return;
    leg->former = leg->in;
    leg->grace = (uint8_t)(1 + draw(SRTP_GRACE));
}

/* Payload types that are mapped, transcoded and kept back, and digits that are being sent. */
static void process(const struct plane *plane, uint32_t index) {
    static const uint8_t numbers[] = {0, 8, 96, 101, 13};
    struct process *p = &plane->processes[index];
    memset(p, 0, sizeof *p);
    plane->rules[index].features |= FEATURE_PROCESSED;
    for (; p->count < draw(6) + 1 && p->count < sizeof numbers; p->count++) {
        int codec = (int)draw(4) ? p->count % 4 == 3 ? CODEC_EVENT : (int)draw(3) : CODEC_OTHER;
        int to_codec = codec == CODEC_PCMU || codec == CODEC_PCMA ? 1 + (int)draw(2) : codec;
        p->formats[p->count] = (struct format){numbers[p->count], draw(5) ? (uint8_t)draw(128) : NOWHERE, (uint8_t)codec,
                                               (uint8_t)to_codec, 8000, draw(2) ? 8000 : 48000};
    }
    p->event_number = 101;
    p->event_clock_hz = 8000;
    p->packet_ms = (uint8_t)(10 * draw(5));
    p->tell = 1;
    p->generation = 1 + draw(1000000);
    p->duration_ms = 100;
    p->pause_ms = 60;
    p->digit_count = draw(3) ? 0 : 2;
}

static void set_up(const struct plane *plane, struct srtp_leg *senders) {
    struct rule *rules = plane->rules;
    memset(rules, 0, 2 * sizeof *rules);
    memset(plane->keys, 0, 2 * sizeof *plane->keys);
    for (uint32_t i = 0; i < 2; i++) {
        struct address here = {2, (uint16_t)draw(65536), {192, 0, 2, (uint8_t)draw(3)}};
        rules[i].flags = (uint8_t)(FLAG_IN_USE | draw(16) | (draw(2) ? FLAG_SRTP : 0));
        rules[i].features = (uint8_t)((draw(4) ? FEATURE_TAPPED : 0) | (draw(4) ? 0 : FEATURE_PLAYING));
        plane->players[i].state = (uint8_t)draw(4);
        rules[i].peer = draw(4) ? 1 - i : NO_RULE;
        rules[i].bad_sequence = NO_SEQUENCE;
        rules[i].clock_rate_hz = draw(2) ? 8000 : 1000000;
        rules[i].rtp_remote = rules[i].rtp_signalled = rules[i].rtcp_remote = rules[i].rtcp_signalled = here;
        if (rules[i].flags & FLAG_SRTP) key_up(plane, &senders[i], i);
        process_forget(plane, i);
        if (!draw(6)) process(plane, i);
    }
}

/* What a peer with the key would send; packets that are no RTP or RTCP stay as they are. */
static uint32_t protect(const struct plane *plane, struct srtp_leg *sender, uint8_t *data, uint32_t length) {
    struct rule plain[2];
    struct srtp_leg keys[2];
    struct plane one = {.rules = plain, .keys = keys, .webrtc = plane->webrtc, .engine = plane->engine};
    struct address here = {2, 1, {192, 0, 2, 1}};
    struct verdict verdict;
    memset(plain, 0, sizeof plain);
    memcpy(&keys[1], sender, sizeof *sender);
    plain[0].flags = FLAG_IN_USE;
    plain[1].flags = FLAG_IN_USE | FLAG_SRTP;
    plain[0].peer = 1;
    plain[0].rtp_remote = plain[0].rtcp_remote = plain[1].rtp_remote = plain[1].rtcp_remote = here;
    plain[0].rtp_signalled = here;
    if (rule_inspect(&one, 0, 0, data, length, &here, 1, &verdict) != FORWARD) return length;
    memcpy(sender, &keys[1], sizeof *sender);
    return verdict.length;
}

/* Both recordings anew: the legs of one are heard, those of the other kept as packets. */
static void record(struct recorder *recorder, struct tap *tap, uint64_t now_ns) {
    struct record_totals totals;
    struct address here = {2, 1, {192, 0, 2, 1}};
    for (uint32_t i = 0; i < 2; i++) {
        recorder_close(recorder, i, &totals);
        if (recorder_open(recorder, i, open("/dev/null", O_WRONLY), i ? RECORD_PCAP : RECORD_WAV, now_ns, now_ns)) abort();
        recorder_face(recorder, i, 0, &here);
        tap->points[i] = draw(2) << 1 | draw(2);
    }
}

int main(int count, char **names) {
    static uint8_t seed[65536];
    struct srtp_leg senders[2];
    struct plane plane = {.rules = malloc(2 * sizeof(struct rule)),
                          .keys = malloc(2 * sizeof(struct srtp_leg)),
                          .webrtc = calloc(2, sizeof(struct webrtc_leg)),
                          .quality = calloc(2, sizeof(struct quality)),
                          .engine = srtp_engine_new(),
                          .players = calloc(2, sizeof(struct player)),
                          .tap = tap_new(2, 16384),
                          .processes = calloc(2, sizeof(struct process)),
                          .processing = processing_new()};
    struct recorder *recorder = recorder_new(plane.tap);
    unsigned long inspected = 0, forwarded = 0, mutations = count > 1 ? strtoul(names[1], NULL, 10) : 0;
    uint64_t now_ns = 1;
    if (getenv("FUZZ_SEED")) state += strtoull(getenv("FUZZ_SEED"), NULL, 10); /* others than CI has */
    if (!plane.engine) return 1;
    for (int i = 2; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (!file) return 1;
        size_t size = fread(seed, 1, sizeof seed, file);
        fclose(file);
        for (unsigned long turn = 0; turn <= mutations; turn++) {
            uint32_t length = turn ? draw((uint32_t)size + 1) : (uint32_t)size, index = draw(2);
            uint8_t *whole = malloc(length + 2 * SRTP_ROOM), *data;
            struct address source = {draw(8) ? 2 : 10, (uint16_t)draw(65536), {192, 0, 2, (uint8_t)draw(3)}};
            struct verdict verdict;
            memcpy(whole, seed, length);
            for (uint32_t change = turn ? draw(6) : 0; change && length; change--)
                whole[draw(length)] = (uint8_t)draw(256);
            if (!(turn & 15)) set_up(&plane, senders);
            if (plane.rules[index].flags & FLAG_SRTP && plane.keys[index].in.suite && draw(4))
                length = protect(&plane, &senders[index], whole, length);
            if (draw(2)) source = plane.rules[index].rtp_remote;
            if (length && draw(20) == 0) whole[length - 1 - draw(length < 30 ? length : 30)] ^= (uint8_t)(1 + draw(255));
            int processed = (plane.rules[0].features | plane.rules[1].features) & FEATURE_PROCESSED;
            /* no octet more than the datapath may touch */
            uint32_t room = processed ? PACKET_BYTES : length;
            if (length > room) length = room;
            data = malloc(room + SRTP_ROOM);
            memcpy(data, whole, length);
            free(whole);
            uint32_t leap = draw(50) ? 1 : 100000;
            now_ns += (uint64_t)draw(40000000) * leap;
            if (leap > 1 || !inspected) record(recorder, plane.tap, now_ns);
            if (!draw(30) && recorder_drain(recorder, tap_head(plane.tap), now_ns)) return 1;
            if (rule_inspect(&plane, index, (int)draw(2), data, length, &source, now_ns, &verdict) == FORWARD) {
                if (verdict.length > room + SRTP_ROOM) return 1;
                rule_sent(&plane.rules[verdict.target], verdict.rtcp, verdict.length);
                forwarded++;
                while (verdict.more && rule_next(&plane, verdict.target, data, &length) == FORWARD) continue;
            }
            if (processed) {
                rule_due(&plane, index, now_ns, data, &length);
                plane.processing->heard = 0;
            }
            if (!draw(10)) { /* what reports claimed, and what came, summed up in a second of any payload type */
                uint32_t found[1];
                plane.quality[draw(2)].direction = (uint8_t)draw(256);
                quality_sample(plane.quality, plane.rules, 0, 2, (uint32_t)(now_ns / 1000000000u), now_ns, draw(20), found, 1);
            }
            inspected++;
            free(data);
        }
    }
    recorder_free(recorder);
    tap_free(plane.tap);
    free(plane.players);
    srtp_engine_free(plane.engine);
    free(plane.rules);
    free(plane.keys);
    free(plane.webrtc);
    free(plane.quality);
    free(plane.processes);
    processing_free(plane.processing);
    printf("%lu %lu\n", inspected, forwarded);
    return 0;
}
