#include "wave.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "law.h"

#define RATE_HZ 8000
#define CUTOFF 0.92   /* of half of 8000 Hz: what is above would come back as something else */
#define LOBES 16      /* of the filter on each side, in samples at 8000 Hz */

uint32_t wave_samples(uint32_t frames, uint32_t rate_hz) { return (uint32_t)((uint64_t)frames * RATE_HZ / rate_hz); }

static float sample_of(const uint8_t *data, uint64_t at, int coding) {
    if (coding == WAVE_ALAW) return alaw_decode(data[at]);
    if (coding == WAVE_ULAW) return ulaw_decode(data[at]);
    return (int16_t)(data[2 * at] | data[2 * at + 1] << 8);
}

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static int16_t rounded(double value) {
    if (value > 32767) return 32767;
    if (value < -32768) return -32768;
    return (int16_t)lrint(value);
}

/* A low pass as a windowed sinc, for each position that an output sample can have between two input samples. */
static float *filter(uint32_t phases, uint32_t reach, double ratio) {
    uint32_t taps = 2 * reach + 1;
    float *weights = malloc((size_t)phases * taps * sizeof *weights);
    if (!weights) return NULL;
    for (uint32_t phase = 0; phase < phases; phase++) {
        float *row = weights + (size_t)phase * taps;
        double sum = 0;
        for (uint32_t i = 0; i < taps; i++) {
            double x = ((double)i - reach - (double)phase / phases) / ratio; /* in samples at 8000 Hz */
            double angle = M_PI * x * CUTOFF, window = 0.5 + 0.5 * cos(M_PI * x / (LOBES + 1));
            double value = (fabs(angle) < 1e-9 ? 1 : sin(angle) / angle) * (fabs(x) < LOBES + 1 ? window : 0);
            row[i] = (float)value;
            sum += value;
        }
        for (uint32_t i = 0; i < taps; i++) row[i] = (float)(row[i] / sum);
    }
    return weights;
}

int wave_convert(const uint8_t *data, uint32_t frames, int coding, int channels, uint32_t rate_hz, uint8_t *ulaw,
                 uint8_t *alaw) {
    uint32_t samples, phases, step, reach, taps;
    float *mono, *weights = NULL;
    if ((coding != WAVE_PCM && coding != WAVE_ALAW && coding != WAVE_ULAW) || channels < 1 || channels > 2 ||
        rate_hz < RATE_HZ || rate_hz > 48000)
        return EINVAL;
    mono = malloc(((size_t)frames + 1) * sizeof *mono);
    if (!mono) return ENOMEM;
    for (uint32_t i = 0; i < frames; i++)
        mono[i] = channels == 1 ? sample_of(data, i, coding)
                                : (sample_of(data, 2 * (uint64_t)i, coding) + sample_of(data, 2 * (uint64_t)i + 1, coding)) / 2;
    samples = wave_samples(frames, rate_hz);
    phases = RATE_HZ / common_divisor(rate_hz, RATE_HZ);
    step = rate_hz / common_divisor(rate_hz, RATE_HZ); /* of input samples, in parts of `phases` */
    reach = (uint32_t)((uint64_t)LOBES * rate_hz / RATE_HZ) + 1;
    taps = 2 * reach + 1;
    if (rate_hz != RATE_HZ) {
        weights = filter(phases, reach, (double)rate_hz / RATE_HZ);
        if (!weights) {
            free(mono);
            return ENOMEM;
        }
    }
    for (uint32_t n = 0; n < samples; n++) {
        int16_t value;
        if (weights) {
            uint64_t at = (uint64_t)n * step;
            const float *row = weights + (size_t)(at % phases) * taps;
            int64_t first = (int64_t)(at / phases) - reach;
            float sum = 0;
            for (uint32_t i = 0; i < taps; i++)
                if (first + i >= 0 && first + i < frames) sum += row[i] * mono[first + i];
            value = rounded(sum);
        } else {
            value = rounded(mono[n]);
        }
        ulaw[n] = ulaw_encode(value);
        alaw[n] = alaw_encode(value);
    }
    free(weights);
    free(mono);
    return 0;
}
