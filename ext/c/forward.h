/* One packet against one rule, in place: no system call, no allocation. media/reference_datapath.py is the same in
   Python. */
#ifndef PORTCULLIS_FORWARD_H
#define PORTCULLIS_FORWARD_H

#include "play.h"
#include "quality.h"
#include "rule.h"
#include "srtp.h"
#include "stun.h"
#include "tap.h"

enum { LATCHED_AS_SIGNALLED = 1, LATCHED_ELSEWHERE = 2, LATCHED_RTCP = 3 };

/* What packets are judged by: the rules, and beside each the keys of its leg, what ICE and DTLS take, how its calls go
   (NULL: not minded), and what it is played. */
struct plane {
    struct rule *rules;
    struct srtp_leg *keys;
    struct webrtc_leg *webrtc;
    struct quality *quality;
    struct srtp_engine *engine;
    struct player *players;
    struct tap *tap; /* NULL until something is recorded */
};

struct verdict {
    uint32_t target;       /* rule whose leg gets the packet */
    uint8_t rtcp;          /* it is RTCP */
    uint8_t from_rtp_port; /* leave through the RTP socket of the target, to its RTP address */
    uint8_t latched;       /* this packet latched LATCHED_... */
    uint32_t length;       /* octets to send: SRTP makes a packet longer and shorter */
};

/* FORWARD with *verdict filled and the packet as it is to be sent, or why not; ANSWERED with the answer in place of the
   packet and its length in *verdict; TO_PYTHON and ABSORBED. Counts into the rule (not into the target: see rule_sent).
   SRTP_ROOM octets behind the packet are ours, and STUN_ROOM octets from its beginning. */
enum reason rule_inspect(const struct plane *plane, uint32_t index, int on_rtcp_port, uint8_t *data, uint32_t length,
                         const struct address *source, uint64_t now_ns, struct verdict *verdict);

/* The packet of this verdict left towards the leg of its target. */
void rule_sent(struct rule *target, int rtcp, uint32_t length);

/* A packet that never reached rule_inspect, or that the kernel would not send, is counted too. */
void rule_refused(struct rule *rule);

#endif
