/* One packet against one rule: no system call, no allocation. media/reference_datapath.py is the same in Python. */
#ifndef PORTCULLIS_FORWARD_H
#define PORTCULLIS_FORWARD_H

#include "rule.h"

enum { LATCHED_AS_SIGNALLED = 1, LATCHED_ELSEWHERE = 2, LATCHED_RTCP = 3 };

struct verdict {
    uint32_t target;       /* rule whose leg gets the packet */
    uint8_t rtcp;          /* it is RTCP */
    uint8_t from_rtp_port; /* leave through the RTP socket of the target, to its RTP address */
    uint8_t latched;       /* this packet latched LATCHED_... */
};

/* FORWARD with *verdict filled, or why not. Counts into the rule (not into the target: see rule_sent). */
enum reason rule_inspect(struct rule *rules, uint32_t index, int on_rtcp_port, const uint8_t *data, uint32_t length,
                         const struct address *source, uint64_t now_ns, struct verdict *verdict);

/* The packet of this verdict left towards the leg of its target. */
void rule_sent(struct rule *target, int rtcp, uint32_t length);

/* A packet that never reached rule_inspect, or that the kernel would not send, is counted too. */
void rule_refused(struct rule *rule);

#endif
