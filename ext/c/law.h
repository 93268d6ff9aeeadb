/* G.711 (ITU-T 1988): one sample of 16 bits, linear, against one octet of A-law or u-law. */
#ifndef PORTCULLIS_LAW_H
#define PORTCULLIS_LAW_H

#include <stdint.h>

enum law { LAW_U = 0, LAW_A = 1, LAWS = 2 };

#define SILENCE_U 0xff
#define SILENCE_A 0xd5

static inline int16_t ulaw_decode(uint8_t octet) {
    uint8_t code = (uint8_t)~octet;
    int value = (((code & 15) << 3) + 0x84) << (code >> 4 & 7);
    return (int16_t)(code & 0x80 ? 0x84 - value : value - 0x84);
}

static inline uint8_t ulaw_encode(int16_t sample) {
    int sign = sample < 0 ? 0x80 : 0, value = sample < 0 ? -(int)sample : sample, segment = 7;
    if (value > 32635) value = 32635;
    value += 0x84;
    while (segment > 0 && !(value & 0x80 << segment)) segment--;
    return (uint8_t)~(sign | segment << 4 | (value >> (segment + 3) & 15));
}

static inline int16_t alaw_decode(uint8_t octet) {
    uint8_t code = octet ^ 0x55;
    int segment = code >> 4 & 7, value = ((code & 15) << 4) + 8;
    if (segment) value = (value + 0x100) << (segment - 1);
    return (int16_t)(code & 0x80 ? value : -value);
}

static inline uint8_t alaw_encode(int16_t sample) {
    int positive = sample >= 0, value = positive ? sample : -(int)sample - 1, segment = 7;
    if (value > 32767) value = 32767;
    while (segment > 0 && !(value & 0x80 << segment)) segment--;
    value = segment ? segment << 4 | (value >> (segment + 3) & 15) : value >> 4;
    return (uint8_t)((value | (positive ? 0x80 : 0)) ^ 0x55);
}

static inline int16_t law_decode(enum law law, uint8_t octet) {
    return law == LAW_A ? alaw_decode(octet) : ulaw_decode(octet);
}

#endif
