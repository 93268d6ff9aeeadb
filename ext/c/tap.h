/* Copies of packets for a recorder: a bounded ring that the relay fills and one other thread empties. A full ring costs
   the recording packets, and calls nothing. */
#ifndef PORTCULLIS_TAP_H
#define PORTCULLIS_TAP_H

#include <stdatomic.h>

#include "rule.h"

#define MAX_RECORDINGS 4096
#define NOT_TAPPED 0xffffffffu

/* What lies before each packet in the ring. */
struct tapped {
    uint32_t length; /* of the packet behind it; all ones: go on at the start of the ring */
    uint32_t point;  /* recording << 1 | side */
    uint64_t now_ns;
    struct address source;
    uint32_t rtcp;
};

struct tap {
    uint8_t *octets;
    uint32_t size; /* a power of two */
    _Atomic uint64_t head, tail; /* octets ever written and read */
    uint32_t rules;
    uint32_t *points; /* by rule: recording << 1 | side, or NOT_TAPPED; of the relay alone */
    _Atomic uint32_t lost[MAX_RECORDINGS];
};

struct tap *tap_new(uint32_t rules, uint32_t size); /* NULL without memory */
void tap_free(struct tap *tap);

/* Of the relay: a copy of a packet that came by this rule. */
void tap_put(struct tap *tap, uint32_t rule, int rtcp, const uint8_t *data, uint32_t length,
             const struct address *source, uint64_t now_ns);

/* Octets ever written. */
uint64_t tap_head(struct tap *tap);

/* Of the other thread: the next packet before `end` (a value of head), which stays until tap_next; NULL: none. */
const struct tapped *tap_first(struct tap *tap, uint64_t end);
void tap_next(struct tap *tap, const struct tapped *first);

#endif
