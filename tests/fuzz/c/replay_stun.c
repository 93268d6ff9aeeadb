/* Feeds files and seeded mutations of them to the STUN of ICE lite: the parser gets exactly sized heap copies, so that
   ASan sees any overread, then the whole responder one with the room for its answer. Every other mutation gets a sound
   length, MESSAGE-INTEGRITY and FINGERPRINT again, so that what is behind these checks is reached.
   Usage: replay_stun MUTATIONS FILE... ; prints how many messages were inspected, and how many were answered. */
#include <stdio.h>
#include <stdlib.h>

#include "stun.c"

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) { /* xorshift: the same on every machine */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static void set_up(struct rule *r, struct webrtc_leg *leg) {
    memset(r, 0, sizeof *r);
    memset(leg, 0, sizeof *leg);
    struct ice_credentials *c = draw(8) ? &leg->present : &leg->former;
    c->valid = 1;
    c->theirs_known = (uint8_t)draw(2);
    c->theirs_bytes = 4;
    memcpy(c->ufrag, "ourufrag", 8);
    memcpy(c->theirs, "abcd", 4);
    memset(c->password, 'p', sizeof c->password);
    leg->fresh = (uint8_t)draw(2);
}

int main(int count, char **names) {
    static uint8_t seed[65536];
    struct srtp_engine *engine = srtp_engine_new();
    struct rule rule;
    struct webrtc_leg leg;
    struct message parsed;
    unsigned long inspected = 0, answered = 0, mutations = count > 1 ? strtoul(names[1], NULL, 10) : 0;
    uint64_t now_ns = 1;
    if (getenv("FUZZ_SEED")) state += strtoull(getenv("FUZZ_SEED"), NULL, 10); /* others than CI has */
    if (!engine) return 1;
    for (int i = 2; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (!file) return 1;
        size_t size = fread(seed, 1, sizeof seed, file);
        fclose(file);
        for (unsigned long turn = 0; turn <= mutations; turn++) {
            uint32_t length = turn && draw(3) == 0 ? draw((uint32_t)size + 1) : (uint32_t)size;
            uint8_t *data = malloc(length + 2 * STUN_ROOM), *exact;
            struct address source = {draw(8) ? 2 : 10, (uint16_t)draw(65536), {192, 0, 2, (uint8_t)draw(3)}};
            int moved = 0;
            memcpy(data, seed, length);
            for (uint32_t change = turn ? draw(6) : 0; change && length; change--)
                data[draw(length)] = (uint8_t)draw(256);
            if (!(turn & 15)) set_up(&rule, &leg);
            if (turn & 1 && length >= HEADER + 32 && !(length & 3))
                length = finish(engine, leg.present.valid ? &leg.present : &leg.former, data, length - 32);
            exact = malloc(length ? length : 1);
            memcpy(exact, data, length);
            parse(exact, length, &parsed);
            free(exact);
            now_ns += (uint64_t)draw(40000000) * (draw(50) ? 1 : 1000);
            exact = malloc(length > STUN_ROOM ? length : STUN_ROOM);
            memcpy(exact, data, length);
            free(data);
            enum reason reason = stun_receive(engine, &rule, &leg, exact, &length, &source, now_ns, &moved);
            if (reason == ANSWERED) {
                if (length > STUN_ROOM || !parse(exact, length, &parsed)) return 1;
                answered++;
            }
            inspected++;
            free(exact);
        }
    }
    srtp_engine_free(engine);
    printf("%lu %lu\n", inspected, answered);
    return 0;
}
