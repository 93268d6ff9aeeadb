#include "play.h"

#include <string.h>

#include "law.h"

static void write16(uint8_t *p, uint16_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void write32(uint8_t *p, uint32_t value) {
    write16(p, (uint16_t)(value >> 16));
    write16(p + 2, (uint16_t)value);
}

/* At the end of a clip the next round begins, if there is one. */
static void turn(struct player *p, uint32_t samples) {
    if (p->position < samples || !p->rounds) return;
    if (p->rounds != PLAY_FOREVER) p->rounds--;
    p->position = 0;
}

uint32_t play_packet(struct player *p, const uint8_t *clip, uint32_t samples, uint8_t *packet) {
    uint8_t *payload = packet + 12;
    uint32_t filled = 0;
    if (!samples || !p->rounds) return 0;
    while (filled < PLAY_SAMPLES && p->rounds) {
        uint32_t some = samples > p->position ? samples - p->position : 0;
        if (some > PLAY_SAMPLES - filled) some = PLAY_SAMPLES - filled;
        memcpy(payload + filled, clip + p->position, some);
        filled += some;
        p->position += some;
        turn(p, samples);
    }
    memset(payload + filled, p->law == LAW_A ? SILENCE_A : SILENCE_U, PLAY_SAMPLES - filled);
    packet[0] = 0x80;
    packet[1] = (uint8_t)((p->marker ? 0x80 : 0) | p->payload_type);
    write16(packet + 2, p->sequence);
    write32(packet + 4, p->timestamp);
    write32(packet + 8, p->ssrc);
    p->marker = 0;
    p->sequence++;
    p->timestamp += PLAY_SAMPLES;
    p->tick++;
    return PLAY_PACKET_BYTES;
}

void play_skip(struct player *p, uint32_t samples, uint64_t ticks) {
    uint64_t left = ticks * PLAY_SAMPLES;
    p->tick += ticks;
    p->timestamp += (uint32_t)left;
    p->marker = 1;
    if (samples && p->rounds == PLAY_FOREVER) left %= samples;
    while (samples && left && p->rounds) {
        uint64_t some = samples > p->position ? samples - p->position : 0;
        if (some > left) some = left;
        p->position += (uint32_t)some;
        left -= some;
        turn(p, samples);
    }
}
