/* Feeds files and seeded mutations of them to rule_inspect, on exactly sized heap copies so that ASan sees any overread.
   Usage: replay_datapath MUTATIONS FILE... ; prints how many packets were inspected. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forward.h"

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) { /* xorshift: the same on every machine */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static void set_up(struct rule *rules) {
    memset(rules, 0, 2 * sizeof *rules);
    for (uint32_t i = 0; i < 2; i++) {
        struct address here = {2, (uint16_t)draw(65536), {192, 0, 2, (uint8_t)draw(3)}};
        rules[i].flags = (uint8_t)(FLAG_IN_USE | draw(16));
        rules[i].peer = draw(4) ? 1 - i : NO_RULE;
        rules[i].bad_sequence = NO_SEQUENCE;
        rules[i].clock_rate_hz = draw(2) ? 8000 : 1000000;
        rules[i].rtp_remote = rules[i].rtp_signalled = rules[i].rtcp_remote = rules[i].rtcp_signalled = here;
    }
}

int main(int count, char **names) {
    static uint8_t seed[65536];
    struct rule *rules = malloc(2 * sizeof *rules);
    unsigned long inspected = 0, mutations = count > 1 ? strtoul(names[1], NULL, 10) : 0;
    uint64_t now_ns = 1;
    for (int i = 2; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (!file) return 1;
        size_t size = fread(seed, 1, sizeof seed, file);
        fclose(file);
        for (unsigned long turn = 0; turn <= mutations; turn++) {
            size_t length = turn ? draw((uint32_t)size + 1) : size;
            uint8_t *data = malloc(length ? length : 1);
            struct address source = {draw(8) ? 2 : 10, (uint16_t)draw(65536), {192, 0, 2, (uint8_t)draw(3)}};
            struct verdict verdict;
            memcpy(data, seed, length);
            for (uint32_t change = turn ? draw(6) : 0; change && length; change--)
                data[draw((uint32_t)length)] = (uint8_t)draw(256);
            if (!(turn & 63)) set_up(rules);
            now_ns += (uint64_t)draw(40000000) * (draw(50) ? 1 : 100000);
            if (rule_inspect(rules, draw(2), (int)draw(2), data, (uint32_t)length, &source, now_ns, &verdict) == FORWARD)
                rule_sent(&rules[verdict.target], verdict.rtcp, (uint32_t)length);
            inspected++;
            free(data);
        }
    }
    free(rules);
    printf("%lu\n", inspected);
    return 0;
}
