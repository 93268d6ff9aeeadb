/* Audio of a WAV file as clips of G.711 at 8000 Hz. */
#ifndef PORTCULLIS_WAVE_H
#define PORTCULLIS_WAVE_H

#include <stdint.h>

/* media.clips.Coding: format tags of WAVE files */
enum { WAVE_PCM = 1, WAVE_ALAW = 6, WAVE_ULAW = 7 };

/* How many samples at 8000 Hz `frames` at `rate_hz` come to. */
uint32_t wave_samples(uint32_t frames, uint32_t rate_hz);

/* Fill both laws with wave_samples() octets each; channels are averaged. 0, or an errno: EINVAL for a coding, rate (8000
   to 48000) or number of channels (1 or 2) that there is not, ENOMEM. */
int wave_convert(const uint8_t *data, uint32_t frames, int coding, int channels, uint32_t rate_hz, uint8_t *ulaw,
                 uint8_t *alaw);

#endif
