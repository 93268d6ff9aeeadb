/* RTP for many calls through a relay: paced, counted, timed, checked.
 *
 *   rtp_load CALLER_IP CALLEE_IP PORT PPS WARM_S STEADY_S < calls
 *
 * Each line of standard input is one call: the relay's address and port that face the caller, then those that face the
 * callee, and then, when built with -DSRTP, two SRTP master keys in hexadecimal: the one that the callee sends with and
 * the one that the relay sends to the callee with (the caller's side stays plain RTP). Either side sends PPS packets of 172 octets (G.711, 20 ms) a second for each call. Sides share SOCKETS sockets,
 * PORT and the ones after it, call i using i / BLOCK % SOCKETS: the relay's port tells the calls apart.
 * Packets are spread evenly over time and sent in slots of SLOT_NS. What is lost is counted for packets sent in the
 * steady part only, by numbers in the payload, after a last wait for stragglers.
 *
 * Output: a JSON object a line, {"at": ..., "sent": ..., "received": ...} at the start and at the end of the steady part
 * and the totals last. Exit status 2: wrong arguments; 1: the system refused something.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef SRTP
#include "srtp.h"
#else
enum { SRTP_TAG_BYTES = 10 };
#endif

enum {
    SOCKETS = 1,       /* for each side */
    BLOCK = 32,        /* consecutive calls that share a socket, and so a sendmmsg */
    BATCH = 64,
    RTP_BYTES = 172,
    BUFFER_BYTES = 32 * 1024 * 1024,
    SLOT_NS = 200000,
    BEHIND_MAX_NS = 50000000, /* further behind than this, packets are skipped and counted instead */
    STRAGGLERS_NS = 300000000,
    DELAY_STEP_US = 10,
    DELAY_STEPS = 10000,
};

struct proof {         /* the first octets of the payload */
    uint32_t stream;   /* call * 2 + side of the sender */
    uint32_t number;
    int64_t sent_ns;
};

struct stream {
    struct sockaddr_in relay;
    uint32_t next;       /* number of the next packet */
    uint32_t steady;     /* the first number of the steady part */
    uint32_t heard;      /* the greatest number received from this stream + 1 */
    uint32_t whole;      /* how many of the steady part were received */
    struct srtp *keys;   /* of the callee's leg: to protect what the callee sends, to read what the caller sent */
};

struct totals {
    uint64_t sent, received, skipped, steady_sent, steady_received, misrouted, reordered, refused;
};

static struct stream *streams;
static uint32_t stream_count;
static int sockets[2][SOCKETS];
static struct totals totals;
static uint64_t delays[DELAY_STEPS + 1];
static int steady;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int open_socket(const char *ip, int port) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), size = BUFFER_BYTES;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0 || inet_pton(AF_INET, ip, &address.sin_addr) != 1) die(ip);
    /* beyond rmem_max where we may: the generator must not be the one that loses */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
    return fd;
}

static void read_calls(void) {
    char facing[2][64];
    int port[2];
    uint32_t room = 0;
    while (scanf("%63s %d %63s %d", facing[0], &port[0], facing[1], &port[1]) == 4) {
        if (stream_count + 2 > room) {
            room = room ? room * 2 : 1024;
            streams = realloc(streams, room * sizeof *streams);
            if (!streams) die("realloc");
        }
        for (int side = 0; side < 2; side++) {
            struct stream *s = &streams[stream_count++];
            memset(s, 0, sizeof *s);
            s->relay.sin_family = AF_INET;
            s->relay.sin_port = htons(port[side]);
            if (inet_pton(AF_INET, facing[side], &s->relay.sin_addr) != 1) die(facing[side]);
        }
#ifdef SRTP
        char master[2][2 * SRTP_MASTER_BYTES + 1];
        if (scanf("%60s %60s", master[1], master[0]) != 2) die("no keys");
        for (int side = 0; side < 2; side++)
            if (!(streams[stream_count - 2 + side].keys = srtp_new(master[side]))) die("srtp");
#endif
    }
}

/* The stream that is due as number `turn` of a round: blocks of one side's calls, so that neighbours share a socket. */
static uint32_t stream_of(uint32_t turn) {
    uint32_t calls = stream_count / 2, pair = turn / (2 * BLOCK), rest = turn % (2 * BLOCK);
    uint32_t width = calls - pair * BLOCK < BLOCK ? calls - pair * BLOCK : BLOCK;
    uint32_t side = rest >= width;
    return (pair * BLOCK + rest - side * width) * 2 + side;
}

static int socket_of(uint32_t stream) {
    return sockets[stream & 1][stream / 2 / BLOCK % SOCKETS];
}

static void flush(int fd, struct mmsghdr *batch, int count) {
    int done = 0;
    while (done < count) {
        int n = sendmmsg(fd, batch + done, count - done, 0);
        if (n > 0) {
            done += n;
        } else if (errno == EAGAIN || errno == ENOBUFS || errno == ECONNREFUSED) {
            totals.refused++; /* a pending ICMP error is reported once; then the same packet is tried again */
            if (errno != ECONNREFUSED) done++;
        } else {
            die("sendmmsg");
        }
    }
}

/* Send the packets numbered [from, to) of the whole run. */
static void send_due(uint64_t from, uint64_t to) {
    static uint8_t packets[BATCH][RTP_BYTES + SRTP_TAG_BYTES];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    int count = 0, fd = -1;
    int64_t now = now_ns(); /* a piece goes out at once: one reading serves all of it */
    for (uint64_t n = from; n < to; n++) {
        uint32_t index = stream_of(n % stream_count);
        struct stream *s = &streams[index];
        int next_fd = socket_of(index);
        if (count == BATCH || (count && next_fd != fd)) {
            flush(fd, batch, count);
            count = 0;
        }
        fd = next_fd;
        uint8_t *p = packets[count];
        struct proof proof = {index, s->next, now};
        uint32_t timestamp = htonl(s->next * 160), ssrc = htonl(0x10000000u + index);
        uint16_t sequence = htons((uint16_t)s->next);
        memset(p + 12, 0xd5, RTP_BYTES - 12);
        p[0] = 0x80;
        p[1] = 8;
        memcpy(p + 2, &sequence, 2);
        memcpy(p + 4, &timestamp, 4);
        memcpy(p + 8, &ssrc, 4);
        memcpy(p + 12, &proof, sizeof proof);
        size_t size = RTP_BYTES;
#ifdef SRTP
        if (index & 1) {
            srtp_protect(s->keys, p, size, s->next);
            size += SRTP_TAG_BYTES;
        }
#endif
        parts[count] = (struct iovec){p, size};
        batch[count].msg_hdr = (struct msghdr){
            .msg_name = &s->relay, .msg_namelen = sizeof s->relay, .msg_iov = &parts[count], .msg_iovlen = 1};
        count++;
        s->next++;
        totals.sent++;
        totals.steady_sent += steady;
    }
    if (count) flush(fd, batch, count);
}

static void take(uint8_t *p, unsigned size, const struct sockaddr_in *from, int64_t now) {
    struct proof proof;
#ifdef SRTP
    /* the SSRC tells the stream: a relay leaves it as it is; only what the caller sent comes encrypted */
    uint32_t ssrc, index;
    memcpy(&ssrc, p + 8, 4);
    index = ntohl(ssrc) - 0x10000000u;
    if (index < stream_count && !(index & 1)) {
        uint32_t heard = streams[index].heard, guess = (heard & ~0xffffu) | (p[2] << 8 | p[3]);
        if (guess + 0x8000 < heard) guess += 0x10000;
        size = (unsigned)srtp_unprotect(streams[index].keys, p, size, guess);
    }
#endif
    if (size != RTP_BYTES) {
        totals.misrouted++;
        return;
    }
    memcpy(&proof, p + 12, sizeof proof);
    /* what one side sent must come to the other from the relay's port that faces it */
    if (proof.stream >= stream_count || p[RTP_BYTES - 1] != 0xd5
        || streams[proof.stream ^ 1].relay.sin_port != from->sin_port
        || streams[proof.stream ^ 1].relay.sin_addr.s_addr != from->sin_addr.s_addr) {
        totals.misrouted++;
        return;
    }
    struct stream *s = &streams[proof.stream];
    totals.received++;
    if (proof.number < s->heard) totals.reordered++;
    else s->heard = proof.number + 1;
    if (s->steady && proof.number >= s->steady - 1) {
        int64_t step = (now - proof.sent_ns) / 1000 / DELAY_STEP_US;
        totals.steady_received++;
        s->whole++;
        delays[step < 0 ? 0 : step > DELAY_STEPS ? DELAY_STEPS : step]++;
    }
}

static void receive_all(void) {
    static uint8_t packets[BATCH][RTP_BYTES + 64];
    static struct sockaddr_in from[BATCH];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    if (!batch[0].msg_hdr.msg_iov) /* IPv4 alone: what is filled in is as long each time */
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){packets[i], sizeof packets[i]};
            batch[i].msg_hdr = (struct msghdr){
                .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i], .msg_iovlen = 1};
        }
    for (int side = 0; side < 2; side++)
        for (int k = 0; k < SOCKETS; k++)
            for (;;) {
                int n = recvmmsg(sockets[side][k], batch, BATCH, 0, NULL);
                if (n <= 0) break;
                int64_t now = now_ns();
                for (int i = 0; i < n; i++) take(packets[i], batch[i].msg_len, &from[i], now);
                if (n < BATCH) break;
            }
}

static uint64_t own_drops(void) {
    uint64_t drops = 0;
    for (int side = 0; side < 2; side++)
        for (int k = 0; k < SOCKETS; k++) {
            uint32_t info[SK_MEMINFO_VARS] = {0};
            socklen_t size = sizeof info;
            if (!getsockopt(sockets[side][k], SOL_SOCKET, SO_MEMINFO, info, &size)) drops += info[SK_MEMINFO_DROPS];
        }
    return drops;
}

/* Streams of which a packet of the steady part is missing. */
static uint32_t lossy_streams(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < stream_count; i++) {
        const struct stream *s = &streams[i];
        count += s->whole < s->next - (s->steady - 1);
    }
    return count;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double delay_us(double share) {
    uint64_t all = 0, sum = 0;
    for (int i = 0; i <= DELAY_STEPS; i++) all += delays[i];
    for (int i = 0; i <= DELAY_STEPS; i++)
        if ((sum += delays[i]) >= share * all && all) return (i + 1) * DELAY_STEP_US;
    return 0;
}

static void report(const char *at) {
    printf("{\"at\": \"%s\", \"seconds\": %.6f, \"sent\": %llu, \"received\": %llu, \"cpu_s\": %.6f}\n", at,
           now_ns() / 1e9, (unsigned long long)totals.sent, (unsigned long long)totals.received, cpu_s());
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: %s CALLER_IP CALLEE_IP PORT PPS WARM_S STEADY_S < calls\n", argv[0]);
        return 2;
    }
    int port = atoi(argv[3]);
    double pps = atof(argv[4]), warm_s = atof(argv[5]), steady_s = atof(argv[6]);
    read_calls();
    if (!stream_count || pps <= 0 || steady_s <= 0) return 2;
    for (int side = 0; side < 2; side++)
        for (int k = 0; k < SOCKETS; k++) sockets[side][k] = open_socket(argv[1 + side], port + k);
    prctl(PR_SET_TIMERSLACK, 1UL);

    double per_ns = stream_count * pps / 1e9;
    int64_t start = now_ns(), slot = start;
    int64_t warm_end = start + (int64_t)(warm_s * 1e9), end = warm_end + (int64_t)(steady_s * 1e9);
    int64_t latest_ns = 0;
    uint64_t position = 0;
    for (int64_t now = start; now < end; now = now_ns()) {
        if (!steady && now >= warm_end) {
            steady = 1;
            /* + 1: zero stands for a steady part that has not begun */
            for (uint32_t i = 0; i < stream_count; i++) streams[i].steady = streams[i].next + 1;
            latest_ns = 0;
            totals.skipped = 0;
            report("begin");
        }
        uint64_t due = (uint64_t)((now - start) * per_ns);
        if (due > position) {
            int64_t behind = (int64_t)((due - position) / per_ns);
            if (behind > latest_ns) latest_ns = behind;
            if (behind > BEHIND_MAX_NS) {
                totals.skipped += due - position;
                position = due;
            }
            while (position < due) { /* in pieces, so that receiving does not wait for a long backlog */
                uint64_t piece = due - position > 4 * BATCH ? position + 4 * BATCH : due;
                send_due(position, piece);
                position = piece;
                receive_all();
            }
        }
        receive_all();
        slot += SLOT_NS;
        now = now_ns();
        if (slot <= now) {
            slot = now;
            continue;
        }
        struct timespec until = {slot / 1000000000LL, slot % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    report("end");
    for (int64_t stop = now_ns() + STRAGGLERS_NS; now_ns() < stop; usleep(1000)) receive_all();
    printf("{\"at\": \"totals\", \"steady_sent\": %llu, \"steady_received\": %llu, \"misrouted\": %llu, "
           "\"reordered\": %llu, \"skipped\": %llu, \"own_drops\": %llu, \"refused\": %llu, \"latest_us\": %lld, "
           "\"lossy_streams\": %u, \"delay_p50_us\": %.0f, \"delay_p99_us\": %.0f}\n",
           (unsigned long long)totals.steady_sent, (unsigned long long)totals.steady_received,
           (unsigned long long)totals.misrouted, (unsigned long long)totals.reordered,
           (unsigned long long)totals.skipped, (unsigned long long)own_drops(),
           (unsigned long long)totals.refused, (long long)latest_ns / 1000, lossy_streams(), delay_us(0.5), delay_us(0.99));
    return 0;
}
