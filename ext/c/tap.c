#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define TAP_WRAP 0xffffffffu

static uint32_t whole(uint32_t length) { return (uint32_t)sizeof(struct tapped) + ((length + 7) & ~7u); }

struct tap *tap_new(uint32_t rules, uint32_t size) {
    struct tap *tap = calloc(1, sizeof *tap);
    if (!tap) return NULL;
    tap->octets = malloc(size);
    tap->points = malloc(rules * sizeof *tap->points);
    if (!tap->octets || !tap->points) {
        tap_free(tap);
        return NULL;
    }
    memset(tap->points, 0xff, rules * sizeof *tap->points);
    tap->size = size;
    tap->rules = rules;
    return tap;
}

void tap_free(struct tap *tap) {
    if (!tap) return;
    free(tap->octets);
    free(tap->points);
    free(tap);
}

void tap_put(struct tap *tap, uint32_t rule, int rtcp, const uint8_t *data, uint32_t length,
             const struct address *source, uint64_t now_ns) {
    uint32_t point = tap->points[rule], need = whole(length);
    if (point == NOT_TAPPED) return;
    uint64_t head = atomic_load_explicit(&tap->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&tap->tail, memory_order_acquire);
    uint32_t at = (uint32_t)(head & (tap->size - 1)), rest = tap->size - at;
    uint32_t skipped = rest < need ? rest : 0;
    if (tap->size - (head - tail) < (uint64_t)need + skipped) {
        atomic_fetch_add_explicit(&tap->lost[point >> 1], 1, memory_order_relaxed);
        return;
    }
    if (skipped) { /* every entry begins at a multiple of 8, so a length always fits */
        memcpy(tap->octets + at, &(uint32_t){TAP_WRAP}, sizeof(uint32_t));
        at = 0;
    }
    struct tapped *entry = (struct tapped *)(tap->octets + at);
    entry->length = length;
    entry->point = point;
    entry->now_ns = now_ns;
    entry->source = *source;
    entry->rtcp = (uint32_t)rtcp;
    memcpy(entry + 1, data, length);
    atomic_store_explicit(&tap->head, head + skipped + need, memory_order_release);
}

uint64_t tap_head(struct tap *tap) { return atomic_load_explicit(&tap->head, memory_order_acquire); }

const struct tapped *tap_first(struct tap *tap, uint64_t end) {
    uint64_t tail = atomic_load_explicit(&tap->tail, memory_order_relaxed);
    uint32_t at, length;
    if (tail >= end) return NULL;
    at = (uint32_t)(tail & (tap->size - 1));
    memcpy(&length, tap->octets + at, sizeof length);
    if (length == TAP_WRAP) {
        tail += tap->size - at;
        atomic_store_explicit(&tap->tail, tail, memory_order_release);
        if (tail >= end) return NULL;
        at = 0;
    }
    return (const struct tapped *)(tap->octets + at);
}

void tap_next(struct tap *tap, const struct tapped *first) {
    uint64_t tail = atomic_load_explicit(&tap->tail, memory_order_relaxed);
    atomic_store_explicit(&tap->tail, tail + whole(first->length), memory_order_release);
}
