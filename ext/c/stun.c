#include "stun.h"

#include <openssl/crypto.h>
#include <sys/socket.h>

#include "octets.h"

#define HEADER 20
#define COOKIE 0x2112a442u
#define FINGERPRINT_XOR 0x5354554eu
#define SECOND_NS 1000000000u
#define UNKNOWN_TOLD 8

enum { BINDING_REQUEST = 0x0001, BINDING_INDICATION = 0x0011, BINDING_SUCCESS = 0x0101, BINDING_ERROR = 0x0111 };

enum {
    USERNAME = 0x0006,
    MESSAGE_INTEGRITY = 0x0008,
    ERROR_CODE = 0x0009,
    UNKNOWN_ATTRIBUTES = 0x000a,
    MESSAGE_INTEGRITY_SHA256 = 0x001c,
    XOR_MAPPED_ADDRESS = 0x0020,
    PRIORITY = 0x0024,
    USE_CANDIDATE = 0x0025,
    FINGERPRINT = 0x8028,
    ICE_CONTROLLED = 0x8029,
};

struct message {
    uint16_t type;
    uint16_t username_at, username_bytes; /* at 0: there is none */
    uint16_t integrity_at;                /* of the attribute; 0: none */
    uint16_t unknown[UNKNOWN_TOLD];
    uint8_t unknown_count, use_candidate, controlled;
};

static inline void write16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void write32(uint8_t *p, uint32_t value) {
    write16(p, value >> 16);
    write16(p + 2, value);
}

/* The CRC of ISO 3309, four bits at a time. */
static uint32_t crc32(const uint8_t *data, uint32_t size) {
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffffu;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

/* Comprehension-required ones that we know, wanted here or not (RFC 8489 §14). */
static int is_known(uint16_t type) {
    switch (type) {
    case 0x0001: /* MAPPED-ADDRESS */
    case USERNAME:
    case MESSAGE_INTEGRITY:
    case ERROR_CODE:
    case UNKNOWN_ATTRIBUTES:
    case 0x0014: /* REALM */
    case 0x0015: /* NONCE */
    case MESSAGE_INTEGRITY_SHA256:
    case XOR_MAPPED_ADDRESS:
    case PRIORITY:
    case USE_CANDIDATE:
        return 1;
    default:
        return 0;
    }
}

/* RFC 8489 §5 and §14: the datagram is one whole message, every attribute lies within it, of several of a type the
   first counts, and behind MESSAGE-INTEGRITY only FINGERPRINT does. 0 for anything else. */
static int parse(const uint8_t *data, uint32_t length, struct message *m) {
    uint32_t at = HEADER;
    memset(m, 0, sizeof *m);
    if (length < HEADER || length > STUN_BYTES || data[0] & 0xc0 || read32(data + 4) != COOKIE) return 0;
    if ((uint32_t)read16(data + 2) + HEADER != length || length & 3) return 0;
    m->type = read16(data);
    while (at < length) { /* 4 octets are there: what is left is a multiple of 4 */
        uint16_t type = read16(data + at);
        uint32_t size = read16(data + at + 2), next = at + 4 + ((size + 3) & ~3u);
        if (next > length) return 0;
        if (type == FINGERPRINT) {
            if (size != 4 || next != length) return 0;
            if (read32(data + at + 4) != (crc32(data, at) ^ FINGERPRINT_XOR)) return 0;
        } else if (m->integrity_at) { /* not covered by it */
        } else if (type == MESSAGE_INTEGRITY) {
            if (size != 20) return 0;
            m->integrity_at = (uint16_t)at;
        } else if (type == USERNAME) {
            if (!m->username_at) {
                m->username_at = (uint16_t)(at + 4);
                m->username_bytes = (uint16_t)size;
            }
        } else if (type == USE_CANDIDATE) {
            m->use_candidate = 1;
        } else if (type == ICE_CONTROLLED) {
            m->controlled = 1;
        } else if (type < 0x8000 && !is_known(type) && m->unknown_count < UNKNOWN_TOLD) {
            m->unknown[m->unknown_count++] = type;
        }
        at = next;
    }
    return 1;
}

/* Is the user name "ours:theirs" of these? (RFC 8445 §7.2.2) */
static int is_for(const struct ice_credentials *c, const uint8_t *name, uint32_t size) {
    uint32_t own = sizeof c->ufrag;
    if (!c->valid || size <= own || name[own] != ':' || memcmp(name, c->ufrag, own) != 0) return 0;
    if (!c->theirs_known) return 1;
    return size - own - 1 == c->theirs_bytes && memcmp(name + own + 1, c->theirs, c->theirs_bytes) == 0;
}

/* The tag over everything before the attribute at `at`, as if the message ended with it (RFC 8489 §14.5). */
static int integrity(struct srtp_engine *engine, const struct ice_credentials *c, uint8_t *data, uint32_t at,
                     uint8_t tag[20]) {
    uint8_t before[2] = {data[2], data[3]};
    write16(data + 2, at + 24 - HEADER);
    int done = srtp_hmac_sha1(engine, c->password, sizeof c->password, data, at, tag);
    data[2] = before[0];
    data[3] = before[1];
    return done;
}

static const struct ice_credentials *prove(struct srtp_engine *engine, const struct webrtc_leg *leg,
                                           const struct message *m, uint8_t *data) {
    uint8_t tag[20];
    const uint8_t *name = data + m->username_at;
    const struct ice_credentials *c = is_for(&leg->present, name, m->username_bytes)  ? &leg->present
                                      : is_for(&leg->former, name, m->username_bytes) ? &leg->former
                                                                                      : NULL;
    if (!c || !integrity(engine, c, data, m->integrity_at, tag)) return NULL;
    return CRYPTO_memcmp(tag, data + m->integrity_at + 4, sizeof tag) == 0 ? c : NULL;
}

/* -- answers: written over the request, of which only the transaction id stays */

static uint32_t begin(uint8_t *data, uint16_t type) {
    write16(data, type);
    return HEADER;
}

static uint8_t *attribute(uint8_t *data, uint32_t *at, uint16_t type, uint32_t size) {
    uint8_t *value = data + *at + 4;
    write16(data + *at, type);
    write16(data + *at + 2, size);
    memset(value, 0, (size + 3) & ~3u);
    *at += 4 + ((size + 3) & ~3u);
    return value;
}

/* With MESSAGE-INTEGRITY where there are credentials to make it with; the length of the whole. */
static uint32_t finish(struct srtp_engine *engine, const struct ice_credentials *c, uint8_t *data, uint32_t at) {
    if (c) {
        uint8_t tag[20] = {0};
        integrity(engine, c, data, at, tag);
        memcpy(attribute(data, &at, MESSAGE_INTEGRITY, 20), tag, 20);
    }
    write16(data + 2, at + 8 - HEADER);
    uint32_t crc = crc32(data, at) ^ FINGERPRINT_XOR;
    write32(attribute(data, &at, FINGERPRINT, 4), crc);
    return at;
}

static uint32_t error(uint8_t *data, uint32_t code, const char *phrase) {
    uint32_t at = begin(data, BINDING_ERROR);
    uint8_t *value = attribute(data, &at, ERROR_CODE, 4 + (uint32_t)strlen(phrase));
    value[2] = (uint8_t)(code / 100);
    value[3] = (uint8_t)(code % 100);
    memcpy(value + 4, phrase, strlen(phrase));
    return at;
}

static uint32_t success(uint8_t *data, const struct address *source) {
    uint32_t size = source->family == AF_INET ? 4 : 16, at = begin(data, BINDING_SUCCESS);
    uint8_t *value = attribute(data, &at, XOR_MAPPED_ADDRESS, 4 + size);
    const uint8_t *port = (const uint8_t *)&source->port; /* in network order, as the mask in the header is */
    value[1] = source->family == AF_INET ? 1 : 2;
    value[2] = port[0] ^ data[4];
    value[3] = port[1] ^ data[5];
    for (uint32_t i = 0; i < size; i++) value[4 + i] = source->ip[i] ^ data[4 + i];
    return at;
}

/* An authentic check from there: where the leg is, and for how long it may be sent anything. */
static void learn(struct rule *r, struct webrtc_leg *leg, const struct message *m, int is_present,
                  const struct address *source, uint64_t now_ns, int *moved) {
    int here = leg->checked_ns && same_address(source, &r->rtp_remote);
    if (is_present) {
        if (leg->former.valid) OPENSSL_cleanse(&leg->former, sizeof leg->former);
        if (!here && (m->use_candidate || leg->fresh)) {
            r->rtp_remote = r->rtcp_remote = *source;
            __asm__ volatile("" ::: "memory"); /* the address is complete before anything says so */
            r->rtp_latched = r->rtcp_latched = 1;
            *moved = here = 1;
        }
        leg->fresh = 0;
    }
    leg->heard = *source;
    if (here) leg->checked_ns = now_ns;
}

enum reason stun_receive(struct srtp_engine *engine, struct rule *r, struct webrtc_leg *leg, uint8_t *data,
                         uint32_t *length, const struct address *source, uint64_t now_ns, int *moved) {
    struct message m;
    if (!parse(data, *length, &m)) return BAD_STUN;
    if (m.type == BINDING_INDICATION) return ABSORBED; /* a keep-alive (RFC 8445 §11) */
    if (m.type != BINDING_REQUEST) return BAD_STUN;    /* we asked nothing, so there is nothing to be answered */
    if (now_ns - leg->window_ns >= SECOND_NS) {
        leg->window_ns = now_ns;
        leg->answered = leg->refused = 0;
    }
    /* RFC 8489 §9.1.3 has 400 for this, but it would be longer than the request */
    if (!m.username_at || !m.integrity_at) return STUN_UNPROVEN;
    const struct ice_credentials *c = prove(engine, leg, &m, data);
    if (!c) {
        if (leg->refused >= STUN_REFUSALS) return STUN_UNPROVEN;
        leg->refused++;
        r->refused++;
        *length = finish(engine, NULL, data, error(data, 401, "Unauthorized")); /* 48 octets; the request has as many */
        return ANSWERED;
    }
    if (leg->answered >= STUN_CHECKS) return STUN_LIMIT;
    leg->answered++;
    uint32_t at;
    if (m.unknown_count) {
        at = error(data, 420, "Unknown Attribute");
        uint8_t *value = attribute(data, &at, UNKNOWN_ATTRIBUTES, 2u * m.unknown_count);
        for (uint32_t i = 0; i < m.unknown_count; i++) write16(value + 2 * i, m.unknown[i]);
    } else if (m.controlled) { /* and so are we, always (RFC 8445 §7.3.1.1) */
        at = error(data, 487, "Role Conflict");
    } else {
        at = success(data, source);
    }
    *length = finish(engine, c, data, at);
    if (!m.unknown_count && !m.controlled) learn(r, leg, &m, c == &leg->present, source, now_ns, moved);
    return ANSWERED;
}
