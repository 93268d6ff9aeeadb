/* Announcements and music: a leg hears a clip instead of its peer. One packet of 20 ms at each tick of the monotonic
   clock, the same ticks for everybody. media/reference_play.py is the same in Python. */
#ifndef PORTCULLIS_PLAY_H
#define PORTCULLIS_PLAY_H

#include "rule.h"

#define PLAY_TICK_NS 20000000u
#define PLAY_SAMPLES 160     /* of one tick, at 8000 Hz */
#define PLAY_CATCH_UP 5      /* ticks that are made up for; when more are missed, they are left out */
#define PLAY_FOREVER 0xffffffffu
#define PLAY_PACKET_BYTES (12 + PLAY_SAMPLES)
#define PLAYER_FILE_BYTES 200

enum { PLAYER_IDLE = 0, PLAYER_WAITING, PLAYER_PLAYING, PLAYER_ENDED };

/* Beside the rule of a leg that has FEATURE_PLAYING; one source (SSRC) for all that it is ever played. */
struct player {
    uint64_t tick;      /* the tick of the next packet */
    uint32_t position;  /* of it in the clip, in samples */
    uint32_t rounds;    /* how often the clip is still to be heard, this time included */
    uint32_t ssrc, timestamp;
    uint16_t sequence;
    uint8_t payload_type, law, marker, state;
    uint16_t stream;                  /* from here on Python only: index of the m= line */
    uint32_t number;                  /* what the client calls it */
    char file[PLAYER_FILE_BYTES + 4]; /* its name among the prompts, padded with zeros */
};

_Static_assert(sizeof(struct player) == 240, "media.playing.Player");

/* The packet of the next tick, and on to the one after it. Its length; 0, with nothing changed: the clip is over. */
uint32_t play_packet(struct player *player, const uint8_t *clip, uint32_t samples, uint8_t *packet);

/* Leave out so many ticks: what they would have brought is never heard. */
void play_skip(struct player *player, uint32_t samples, uint64_t ticks);

#endif
