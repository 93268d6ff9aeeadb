/* Who hears a clip, and the packets of it that are due: one for each of them every PLAY_TICK_NS. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "batch.h"
#include "sockets.h"

int relay_play(struct relay *relay, uint32_t rule, const uint8_t *clip, uint32_t samples) {
    struct player *player = &relay->plane.players[rule];
    uint64_t next = monotonic_ns() / PLAY_TICK_NS + 1;
    for (uint32_t i = 0; i < relay->voice_count; i++)
        if (relay->voices[i].rule == rule) return -EBUSY;
    if (relay->voice_count == relay->voice_room) {
        uint32_t room = relay->voice_room ? 2 * relay->voice_room : 64;
        struct voice *voices = realloc(relay->voices, room * sizeof *voices);
        if (!voices) return -ENOMEM;
        relay->voices = voices;
        uint32_t *ended = realloc(relay->ended, room * sizeof *ended);
        if (!ended) return -ENOMEM;
        relay->ended = ended;
        relay->voice_room = room;
    }
    if (player->state == PLAYER_PLAYING) { /* by a predecessor: what it would have played meanwhile is left out */
        if (next > player->tick) play_skip(player, samples, next - player->tick);
    } else {
        player->timestamp += (uint32_t)(next - player->tick) * PLAY_SAMPLES;
        player->tick = next;
        player->marker = 1;
        player->state = PLAYER_PLAYING;
    }
    relay->voices[relay->voice_count++] = (struct voice){rule, samples, clip};
    relay->tick_due_ns = next * PLAY_TICK_NS;
    return 0;
}

void relay_hush(struct relay *relay, uint32_t rule) {
    for (uint32_t i = 0; i < relay->voice_count; i++)
        if (relay->voices[i].rule == rule) relay->voices[i--] = relay->voices[--relay->voice_count];
    for (uint32_t i = 0; i < relay->ended_count; i++)
        if (relay->ended[i] == rule) relay->ended[i--] = relay->ended[--relay->ended_count];
    relay->plane.players[rule].state = PLAYER_IDLE;
}

/* The packet of this tick to one leg; 0: its clip is over. */
static int speak(struct relay *relay, const struct voice *voice, uint64_t now_ns) {
    struct rule *r = &relay->plane.rules[voice->rule];
    uint8_t packet[PLAY_PACKET_BYTES + SRTP_ROOM];
    union socket_address to;
    uint32_t length = play_packet(&relay->plane.players[voice->rule], voice->clip, voice->samples, packet);
    if (!length) return 0;
    if (!(r->flags & FLAG_IN_USE) || !r->rtp_remote.family) return 1; /* nobody there yet: time goes by all the same */
    enum reason reason = rule_secure(&relay->plane, voice->rule, now_ns, packet, &length);
    if (reason != FORWARD) { /* a leg that is gone for the moment refuses nothing */
        if (reason != NO_CONSENT) relay->page[PAGE_DROP_BASE + reason]++;
        return 1;
    }
    socklen_t size = write_address(&r->rtp_remote, &to);
    if (sendto(r->rtp_fd, packet, length, MSG_DONTWAIT, &to.any, size) < 0) {
        relay->page[PAGE_DROP_BASE + SEND_FAILED]++;
    } else {
        rule_sent(r, 0, length);
        relay->page[PAGE_PACKETS_PLAYED]++;
    }
    return 1;
}

int relay_speak(struct relay *relay, uint64_t now_ns) {
    uint64_t present = now_ns / PLAY_TICK_NS;
    int woken = 0;
    for (uint32_t i = 0; i < relay->voice_count; i++) {
        struct voice *voice = &relay->voices[i];
        struct player *player = &relay->plane.players[voice->rule];
        if (player->tick + PLAY_CATCH_UP <= present) play_skip(player, voice->samples, present - player->tick);
        while (player->tick <= present) {
            if (speak(relay, voice, now_ns)) continue;
            player->state = PLAYER_ENDED;
            relay->ended[relay->ended_count++] = voice->rule;
            relay->voices[i--] = relay->voices[--relay->voice_count];
            woken = WOKEN_EVENTS;
            break;
        }
    }
    relay->tick_due_ns = (present + 1) * PLAY_TICK_NS;
    return woken;
}
