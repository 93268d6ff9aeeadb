/* The relay loop: epoll over all bound port pairs, recvmmsg, rule_inspect, sendmmsg. Runs without the GIL. */
#ifndef PORTCULLIS_BATCH_H
#define PORTCULLIS_BATCH_H

#include <stdint.h>
#include <sys/socket.h>

#include "forward.h"

#define RING 4096
#define SLOW_RING 64
#define PACKET_BYTES 2048 /* a longer datagram is no RTP that we would want to fragment */

/* Why relay_run came back; bits. */
enum { WOKEN_TICK = 1, WOKEN_CONTROL = 2, WOKEN_SIGNAL = 4, WOKEN_EVENTS = 8 };

/* A packet that Python must see. */
struct slow {
    uint32_t rule, length;
    struct address source;
    uint8_t octets[PACKET_BYTES];
};

/* Who hears a clip: an octet for each sample of it. */
struct voice {
    uint32_t rule, samples;
    const uint8_t *clip;
};

struct relay {
    int epoll_fd;
    struct plane plane;
    uint64_t *page; /* media.counters */
    uint64_t collect_ns;
    uint64_t last_wake_ns;
    uint32_t round; /* of epoll */
    uint32_t events;
    uint32_t ring[RING]; /* rules that latched elsewhere than signalled; full: further ones are counted as lost */
    struct slow *slow;   /* a ring of SLOW_RING; full: further ones are dropped and counted */
    uint32_t slow_first, slow_count;
    struct pair *pairs; /* by RTP descriptor */
    uint32_t pair_count;
    struct batch *batch;
    struct voice *voices;
    uint32_t voice_count, voice_room;
    uint32_t *ended; /* rules whose clip is over, until somebody takes them */
    uint32_t ended_count;
    uint64_t tick_due_ns; /* while there are voices */
    uint32_t rule_end;      /* rules from here on have never been used */
    uint32_t sampled;       /* rules below were sampled in this second */
    uint64_t sample_second; /* 0: none yet */
    int binds_freely;       /* addresses that this machine does not have (yet), too */
};

int relay_init(struct relay *relay, const struct plane *plane, uint64_t *page, uint64_t collect_ns); /* 0 or -errno */
void relay_close(struct relay *relay);

/* Watch a descriptor that ends relay_run with ``woken``. 0 or -errno. */
int relay_watch(struct relay *relay, int fd, int woken);

/* Bind the ports local and local + 1. The pair's number, or -errno (nothing is left open). */
int relay_open(struct relay *relay, const struct address *local, int dscp);
/* The same for two descriptors that are bound already, and are the pair's from now on, whatever comes of it. */
int relay_adopt(struct relay *relay, int rtp_fd, int rtcp_fd, uint16_t port);
int relay_rtcp(struct relay *relay, int pair); /* the descriptor of its RTCP port, or -EBADF */
int relay_mark(struct relay *relay, int pair, int dscp); /* what it sends from now on. 0 or -errno */
int relay_shut(struct relay *relay, int pair); /* the port that it had, or -EBADF */

/* Relay what arrives at a pair by a rule; what was there before is dropped. 0, or -EBUSY: too much arrives there. */
int relay_attach(struct relay *relay, int pair, uint32_t rule);
/* The same, and what was there before is relayed: it came while the rule had no process. 0 or -EBADF. */
int relay_resume(struct relay *relay, int pair, uint32_t rule);
/* From now on what arrives at the rule's pair is dropped. The pair's number, or -EBADF for a rule that has none. */
int relay_detach(struct relay *relay, uint32_t rule);

/* A datagram from the RTP port of a rule. 0 or -errno. */
int relay_send(struct relay *relay, uint32_t rule, const struct address *to, const uint8_t *data, uint32_t length);
/* The samples that are due: each rule has its moment in every second, so that many rules hold up no packet.
   As quality_sample; called at least ten times a second. */
uint32_t relay_sample(struct relay *relay, uint64_t now_ns, uint32_t patience_s, uint32_t *found, uint32_t room);

/* Play a clip, which must stay where it is, to the leg of a rule as its player says, from the next tick on. 0, -EBUSY
   for a rule that hears one already, or -ENOMEM. */
int relay_play(struct relay *relay, uint32_t rule, const uint8_t *clip, uint32_t samples);
void relay_hush(struct relay *relay, uint32_t rule); /* the leg hears its peer again, and the clip may go */
int relay_speak(struct relay *relay, uint64_t now_ns); /* everybody's packets that are due; bits for relay_run */

/* Relay for up to timeout_ms; the bits say why it ended. */
int relay_run(struct relay *relay, int timeout_ms);

#endif
