/* The forward rule: flat memory shared by C, Python (media/rules.py mirrors it field by field) and a successor process. */
#ifndef PORTCULLIS_RULE_H
#define PORTCULLIS_RULE_H

#include <stdint.h>
#include <string.h>

#define NO_RULE 0xffffffffu
#define NO_SEQUENCE 0x10000u
#define UNLATCHED_PACKETS 3
#define FLAG_IN_USE 1
#define FLAG_BEHIND_NAT 2
#define FLAG_RTCP_MUX 4
#define FLAG_SECURE 8
#define FLAG_SRTP 32

/* rtp_latched: whom the address in use was learned from */
#define BY_PROOF 1 /* a host that the leg described or that its signalling came from */
#define ON_TRUST 2 /* the first that came */
#define FOLLOWED 3 /* another port of the same host that went on with the stream; `former` is the one before */

/* What is done beyond passing packets on, each with memory of its own beside the rule: media.rules.Feature */
#define FEATURE_ICE 1
#define FEATURE_DTLS 2
#define FEATURE_PROCESSED 4
#define FEATURE_TAPPED 8
#define FEATURE_PLAYING 16

/* media.counters.Reason */
enum reason {
    FORWARD = 0,
    SHORT,
    BAD_VERSION,
    BAD_RTCP,
    WRONG_SOURCE,
    UNLATCHED_LIMIT,
    NO_PEER,
    NO_REMOTE,
    TOO_LONG,
    SEND_FAILED,
    UNUSED_PORT,
    NO_KEY,
    AUTH_FAILED,
    REPLAYED,
    INDEX_USED,
    SOURCES_FULL,
    KEY_SPENT,
    BAD_STUN,
    STUN_UNPROVEN,
    STUN_LIMIT,
    NO_CONSENT,
    SLOW_PATH_FULL,
    MUTED,
    BAD_PAYLOAD,
    /* what is neither passed on nor dropped */
    ANSWERED = 64, /* the answer is where the packet was, for its source */
    TO_PYTHON,     /* a DTLS record for the ring */
    ABSORBED,      /* it asks for nothing */
    NOT_CARRIED,   /* of a payload type that does not go on, or a digit or a larger packet leaves in its place */
};

/* Words of the counters page that C adds to: media.counters.MediaCounter */
enum {
    PAGE_PACKETS_RELAYED = 16,
    PAGE_BYTES_RELAYED = 17,
    PAGE_RTCP_RELAYED = 18,
    PAGE_WAKEUPS = 19,
    PAGE_LATCHES = 20,
    PAGE_EVENTS_LOST = 21,
    PAGE_STUN_ANSWERED = 22,
    PAGE_DTLS_RECEIVED = 23,
    PAGE_PACKETS_PLAYED = 24,
    PAGE_DROP_BASE = 32,
};

struct address {
    uint16_t family; /* 0: none */
    uint16_t port;   /* network order */
    uint8_t ip[16];  /* IPv4: the first four */
};

struct rule {
    uint64_t packets_in, bytes_in, packets_out, bytes_out, rtcp_in;
    uint64_t rtcp_out, refused, last_arrival_ns, duplicates, reordered;
    uint64_t seen, lost_before, received, base_sequence, max_sequence;
    uint32_t ssrc, transit, last_timestamp, jitter_q4, clock_rate_hz;
    uint32_t bad_sequence, peer;
    int32_t rtp_fd, rtcp_fd;
    uint32_t candidate_ssrc;
    uint16_t candidate_sequence, local_port;
    uint8_t probation, relayed_unlatched, rtp_latched, rtcp_latched;
    uint8_t has_ssrc, flags, features, payload_type;
    struct address rtp_remote, rtcp_remote, rtp_signalled, rtcp_signalled, signalling, candidate;
    uint32_t slot; /* Python only: the session that owns this rule */
    uint8_t avpf;  /* Python only */
    uint8_t reserved[3];
    uint32_t follows_ms; /* since when `candidate` goes on with the stream of a leg that is latched */
    struct address former;
};

static inline int same_address(const struct address *a, const struct address *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static inline int same_ip(const struct address *a, const struct address *b) {
    return a->family == b->family && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

_Static_assert(sizeof(struct address) == 20, "media.rules.Address");
_Static_assert(sizeof(struct rule) == 328, "media.rules.Rule");

#endif
