/* One packet against one rule, in place: no system call, no allocation. media/reference_datapath.py is the same in
   Python. */
#ifndef PORTCULLIS_FORWARD_H
#define PORTCULLIS_FORWARD_H

#include "play.h"
#include "quality.h"
#include "rule.h"
#include "process.h"
#include "srtp.h"
#include "stun.h"
#include "tap.h"

enum { LATCHED_AS_SIGNALLED = 1, LATCHED_ELSEWHERE = 2, LATCHED_RTCP = 3 };

#define PACKET_BYTES 2048 /* a longer datagram is no RTP that we would want to fragment */

/* What packets are judged by: the rules, and beside each the keys of its leg, what ICE and DTLS take, how its calls go
   (NULL: not minded), what it is played, and what is done with payloads for it. */
struct plane {
    struct rule *rules;
    struct srtp_leg *keys;
    struct webrtc_leg *webrtc;
    struct quality *quality;
    struct srtp_engine *engine;
    struct player *players;
    struct tap *tap; /* NULL until something is recorded */
    struct process *processes;
    struct processing *processing;
};

struct verdict {
    uint32_t target;       /* rule whose leg gets the packet */
    uint8_t rtcp;          /* it is RTCP */
    uint8_t from_rtp_port; /* leave through the RTP socket of the target, to its RTP address */
    uint8_t latched;       /* this packet latched LATCHED_... */
    uint8_t more;          /* rule_next has another packet for the same leg */
    uint32_t length;       /* octets to send: SRTP makes a packet longer and shorter */
};

/* FORWARD with *verdict filled and the packet as it is to be sent, or why not; ANSWERED with the answer in place of the
   packet and its length in *verdict; TO_PYTHON and ABSORBED. Counts into the rule (not into the target: see rule_sent).
   SRTP_ROOM octets behind the packet are ours, and STUN_ROOM octets from its beginning; PACKET_BYTES + SRTP_ROOM in all where payloads are
   changed. NOT_CARRIED: it does not leave, by intention. */
enum reason rule_inspect(const struct plane *plane, uint32_t index, int on_rtcp_port, uint8_t *data, uint32_t length,
                         const struct address *source, uint64_t now_ns, struct verdict *verdict);

/* Another packet for the leg of `target`, of what came before or because it is time (rule_due), as it is to be sent:
   FORWARD, NOT_CARRIED for none, or why it cannot leave. PACKET_BYTES + SRTP_ROOM octets are at data. */
enum reason rule_next(const struct plane *plane, uint32_t target, uint8_t *data, uint32_t *length);
enum reason rule_due(const struct plane *plane, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length);

/* Make a packet of ours ready for the leg of `target`: FORWARD, or why it cannot leave. At now_ns 0 consent counts as
   given. SRTP_ROOM octets behind the packet are ours. */
enum reason rule_secure(const struct plane *plane, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length);

/* The packet of this verdict left towards the leg of its target. */
void rule_sent(struct rule *target, int rtcp, uint32_t length);

/* A packet that never reached rule_inspect, or that the kernel would not send, is counted too. */
void rule_refused(struct rule *rule);

#endif
