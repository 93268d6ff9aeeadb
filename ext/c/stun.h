/* Connectivity checks of ICE (RFC 8445, we are lite) and the consent that they give (RFC 7675). In place: no system
   call, no allocation. media/reference_stun.py is the same in Python. */
#ifndef PORTCULLIS_STUN_H
#define PORTCULLIS_STUN_H

#include "rule.h"
#include "srtp.h"

#define STUN_BYTES 2048      /* a longer message is none */
#define STUN_ROOM 128        /* octets that an answer takes at most; a packet has that much room, whatever its length */
#define STUN_CHECKS 100      /* authentic checks of a leg that are answered in a second */
#define STUN_REFUSALS 10     /* and those of strangers that are told so */
#define CONSENT_NS 30000000000u /* RFC 7675 §5.1 */

/* Ours and theirs (RFC 8445 §5.3). */
struct ice_credentials {
    uint8_t valid;
    uint8_t theirs_known;  /* before their answer nobody knows their part of the user name */
    uint16_t theirs_bytes;
    uint8_t ufrag[8], password[24];
    uint8_t theirs[256];
};

/* What a leg with FEATURE_ICE or FEATURE_DTLS has beside its rule: media/webrtc.py. */
struct webrtc_leg {
    struct ice_credentials present, former; /* former: until the first check under the present ones (RFC 8445 §9) */
    uint64_t checked_ns;                    /* the last authentic check from where the leg is; 0: none yet */
    uint64_t window_ns;                     /* when the second began that these count for */
    uint16_t answered, refused;
    uint8_t fresh; /* the first check under the present credentials is still to come */
    uint8_t reserved[3];
    struct address heard; /* where the last authentic check came from */
    /* Python only: DTLS-SRTP (media/keying.py) */
    uint8_t role, established, protocol, hash, prints, reserved2[7];
    uint64_t association;
    uint8_t secret[16]; /* by which their credentials of ICE are known again */
    uint8_t fingerprint[4][64];
};

_Static_assert(sizeof(struct ice_credentials) == 292, "media.webrtc.Credentials");
_Static_assert(sizeof(struct webrtc_leg) == 920, "media.webrtc.WebrtcLeg");

/* STUN that came from `source` for a leg with FEATURE_ICE. ANSWERED with the answer in place of it, ABSORBED, or why it
   is dropped. *moved: the leg is at another address from now on. STUN_ROOM octets from `data` on are ours. */
enum reason stun_receive(struct srtp_engine *engine, struct rule *r, struct webrtc_leg *leg, uint8_t *data,
                         uint32_t *length, const struct address *source, uint64_t now_ns, int *moved);

/* May a leg with FEATURE_ICE be sent anything? */
static inline int has_consent(const struct webrtc_leg *leg, uint64_t now_ns) {
    return leg->checked_ns && now_ns < leg->checked_ns + CONSENT_NS;
}

#endif
