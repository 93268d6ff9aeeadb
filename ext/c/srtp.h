/* SRTP and SRTCP (RFC 3711, 6188, 7714) over libcrypto. All state of a stream is flat, so that it can lie in memory that
   a successor process goes on with; media/srtp.py mirrors it field by field. No allocation per packet: the contexts of
   libcrypto belong to the engine and get the session key of the stream with each packet, which costs 0.2 us and saves
   some 3 kB for every call. media/reference_srtp.py is the same in Python. */
#ifndef PORTCULLIS_SRTP_H
#define PORTCULLIS_SRTP_H

#include "rule.h"

#define SRTP_WINDOW 128   /* packets behind the latest that are told from replays; RFC 3711 §3.3.2 asks for 64 */
#define SRTP_SOURCES 16   /* SSRCs of one key */
#define SRTP_MASTER 46    /* the longest master key and salt */
#define SRTP_MKI 16       /* the longest MKI that we skip */
#define SRTP_ROOM 20      /* octets that protecting adds at most: a tag of 16 and the SRTCP index */
#define SRTP_GRACE 64     /* packets under a new key until the former one is forgotten */

/* media.srtp.Suite */
enum srtp_suite {
    SRTP_NO_SUITE = 0,
    AES_CM_128_HMAC_SHA1_80,
    AES_CM_128_HMAC_SHA1_32,
    AES_256_CM_HMAC_SHA1_80,
    AES_256_CM_HMAC_SHA1_32,
    AEAD_AES_128_GCM,
    AEAD_AES_256_GCM,
    NULL_HMAC_SHA1_80, /* for published vectors; signalling knows no name for it */
    SRTP_SUITES,
};

/* One SSRC under one key, of the receiving or of the sending side. */
struct srtp_source {
    uint32_t ssrc;
    uint32_t rtcp_latest; /* highest SRTCP index that was accepted; 0: none */
    uint64_t latest;      /* highest packet index that was accepted or sent: rollover counter << 16 | sequence number */
    uint64_t window[2];   /* bit n: index latest - n is used; all zero: no RTP yet */
    uint64_t rtcp_window[2];
};

struct srtp_keys {
    uint8_t cipher[32], auth[20], salt[14];
};

/* One direction of one leg under one master key. */
struct srtp_stream {
    uint8_t suite;
    uint8_t mki_bytes;
    uint8_t sources;   /* how many are known */
    uint8_t next;      /* which of the receiving side makes room when all are */
    uint32_t rtcp_index; /* the last SRTCP index that was sent, over all SSRCs */
    uint8_t master[SRTP_MASTER];
    uint8_t mki[SRTP_MKI];
    struct srtp_keys rtp, rtcp;
    /* Of the sending side, after a take-over by another node (media/replication/takeover.py): */
    uint16_t unsure;    /* so many indices may a source have used that is not known here; 0: all are known */
    uint16_t doubtful;  /* bit n: source n came since then, and may have rolled over before */
    uint8_t renumbered; /* by us: a later number of the peer's need not be a later index */
    uint8_t reserved;
    struct srtp_source source[SRTP_SOURCES];
};

/* What a leg with FLAG_SRTP has beside its rule. */
struct srtp_leg {
    struct srtp_stream in, former, out; /* former: what `in` was before the last re-keying */
    uint8_t grace;                      /* packets until `former` is forgotten */
    /* Python only: how the leg is keyed (media/keying.py), and what it has offered but nobody has answered yet */
    uint8_t mode, offered_mode, offered_suite, offered_mki_bytes, reserved;
    uint8_t offered_master[SRTP_MASTER], offered_mki[SRTP_MKI];
    uint32_t offered_tag;
    uint8_t secret[32]; /* our keys towards this leg follow from it */
};

_Static_assert(sizeof(struct srtp_source) == 48, "media.srtp.Source");
_Static_assert(sizeof(struct srtp_stream) == 976, "media.srtp.Stream");
_Static_assert(sizeof(struct srtp_leg) == 3032, "media.srtp.Leg");

struct srtp_engine;

struct srtp_engine *srtp_engine_new(void); /* NULL when libcrypto has not what it takes */
void srtp_engine_free(struct srtp_engine *engine);

/* HMAC-SHA1 of `size` octets under any key. 0 when libcrypto fails. */
int srtp_hmac_sha1(struct srtp_engine *engine, const uint8_t *key, uint32_t key_bytes, const uint8_t *data, uint32_t size,
                   uint8_t tag[20]);

/* Octets of master key and salt that a suite takes; 0 for no suite. */
uint32_t srtp_master_bytes(int suite);

/* Start a stream under a master key and salt. 0, or -1 for a suite or sizes that do not exist. */
int srtp_install(struct srtp_engine *engine, struct srtp_stream *s, int suite, const uint8_t *master,
                 uint32_t master_bytes, const uint8_t *mki, uint32_t mki_bytes);

/* In place; *length changes. `data` has a header that was found sound; SRTP_ROOM octets are free behind it to protect.
   FORWARD, or NO_KEY, AUTH_FAILED, REPLAYED, SHORT (unprotect); NO_KEY, INDEX_USED, SOURCES_FULL, KEY_SPENT (protect).
   What was not FORWARD has changed nothing but, when it was to be protected, perhaps the payload. */
enum reason srtp_unprotect(struct srtp_engine *engine, struct srtp_leg *leg, int rtcp, uint8_t *data, uint32_t *length);
enum reason srtp_protect(struct srtp_engine *engine, struct srtp_leg *leg, int rtcp, uint8_t *data, uint32_t *length);

#endif
