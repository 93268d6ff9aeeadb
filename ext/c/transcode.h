/* From one codec to another by way of samples. State lives in the heap of the process: a successor begins anew, which
   is heard as one lost packet. Codecs other than G.711 are functions that modules of their own bring. */
#ifndef PORTCULLIS_TRANSCODE_H
#define PORTCULLIS_TRANSCODE_H

#include "process.h"

/* What a module with a codec brings. Samples are 16 bits, mono. */
struct codec_functions {
    uint32_t rate_hz; /* of its samples; 0: 8000 or 16000, as is wished */
    void *(*open)(uint32_t rate_hz); /* for one direction of one stream; NULL: no memory */
    void (*close)(void *state);
    int (*decode)(void *state, const uint8_t *octets, int length, int16_t *samples, int room); /* how many; < 0: not of this codec */
    int (*encode)(void *state, const int16_t *samples, int count, uint8_t *octets, int room);  /* octets; < 0: cannot */
};

extern uint8_t alaw_of_ulaw[256], ulaw_of_alaw[256]; /* by way of their values */
void law_init(void);
int16_t law_value(int codec, uint8_t octet);
uint8_t law_octet(int codec, int16_t sample);

void codec_register(int codec, const struct codec_functions *functions);
int codec_known(int codec);

struct transcoders *transcoders_new(void);
void transcoders_free(struct transcoders *all);
void transcoder_drop(struct transcoders *all, uint32_t target);

/* Does the transcoder of a rule hold samples that have not left? */
int transcoder_holds(const struct transcoders *all, uint32_t target);

/* Take one packet's payload, which begins at timestamp p->ts_out as it leaves; `lost` ones before it are missing.
   How many packets are ready, or -1: it cannot be decoded. */
int transcoder_take(struct transcoders *all, uint32_t target, struct process *p, const struct format *f,
                    const uint8_t *payload, uint32_t length, int marker, uint32_t lost);

/* The next packet that is ready: written from its header on; 0 when there is none. */
int transcoder_give(struct transcoders *all, uint32_t target, struct process *p, uint8_t *data, uint32_t *length,
                    uint32_t room);
int transcoder_ready(const struct transcoders *all, uint32_t target);

/* From 8000 to 16000 samples a second and back, by a half-band filter; state is the last samples. */
#define RESAMPLE_TAPS 48
struct resampler {
    int16_t past[2 * RESAMPLE_TAPS];
};
int resample_up(struct resampler *r, const int16_t *in, int count, int16_t *out);   /* 2 * count */
int resample_down(struct resampler *r, const int16_t *in, int count, int16_t *out); /* count / 2; count even */

#endif
