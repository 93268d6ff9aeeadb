#define _GNU_SOURCE
#include "batch.h"

#include <errno.h>
#include <netinet/ip.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sockets.h"

#define DEPTH 16            /* packets taken from one socket before the next has its turn */
#define READY 512
#define DRAINED 256         /* packets dropped before a pair that a stranger floods is left alone */
#define WATCHED ((uint64_t)1 << 63)

/* A bound port pair, known by its RTP descriptor. Without a rule what arrives is dropped. */
struct pair {
    int rtcp_fd; /* -1: no such pair */
    uint32_t rule;
    uint32_t round[2]; /* when the RTP and the RTCP port were last read */
    uint16_t port;
};

struct batch {
    struct epoll_event ready[READY];
    struct mmsghdr in[DEPTH], out[DEPTH];
    struct iovec in_parts[DEPTH], out_parts[DEPTH];
    union socket_address from[DEPTH], to[DEPTH];
    uint32_t source[DEPTH]; /* rule that out[i] came in by */
    uint32_t target[DEPTH];
    uint8_t rtcp[DEPTH];
    uint8_t packets[DEPTH][PACKET_BYTES + SRTP_ROOM];
};

int relay_init(struct relay *relay, const struct plane *plane, uint64_t *page, uint64_t collect_ns) {
    memset(relay, 0, sizeof *relay);
    relay->epoll_fd = -1;
    relay->plane = *plane;
    relay->page = page;
    relay->collect_ns = collect_ns;
    relay->batch = calloc(1, sizeof *relay->batch);
    relay->slow = calloc(SLOW_RING, sizeof *relay->slow);
    if (!relay->batch || !relay->slow) {
        free(relay->batch);
        free(relay->slow);
        return -ENOMEM;
    }
    for (int i = 0; i < DEPTH; i++) {
        struct batch *b = relay->batch;
        b->in_parts[i].iov_base = b->packets[i];
        b->in_parts[i].iov_len = PACKET_BYTES;
        b->in[i].msg_hdr.msg_iov = &b->in_parts[i];
        b->in[i].msg_hdr.msg_iovlen = 1;
        b->in[i].msg_hdr.msg_name = &b->from[i];
        b->out[i].msg_hdr.msg_iov = &b->out_parts[i];
        b->out[i].msg_hdr.msg_iovlen = 1;
        b->out[i].msg_hdr.msg_name = &b->to[i];
    }
    relay->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return relay->epoll_fd < 0 ? -errno : 0;
}

void relay_close(struct relay *relay) {
    for (uint32_t i = 0; i < relay->pair_count; i++)
        if (relay->pairs[i].rtcp_fd >= 0) relay_shut(relay, (int)i);
    free(relay->pairs);
    relay->pairs = NULL;
    relay->pair_count = 0;
    if (relay->epoll_fd >= 0) close(relay->epoll_fd);
    relay->epoll_fd = -1;
    free(relay->batch);
    free(relay->slow);
    relay->batch = NULL;
    relay->slow = NULL;
    free(relay->voices);
    free(relay->ended);
    relay->voices = NULL;
    relay->ended = NULL;
    relay->voice_count = relay->voice_room = relay->ended_count = 0;
}

static int add_to_epoll(struct relay *relay, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = key};
    return epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int relay_watch(struct relay *relay, int fd, int woken) { return add_to_epoll(relay, fd, WATCHED | (uint64_t)woken); }

static int bind_one(const struct address *local, uint16_t port, int dscp, int freely) {
    union socket_address to;
    struct address address = *local;
    int on = 1, tos = dscp << 2;
    int fd = socket(address.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    address.port = htons(port);
    if (freely) setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on); /* at this level for IPv6 too */
    if (address.family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        if (tos) setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
    } else if (tos) {
        setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos);
    }
    if (bind(fd, &to.any, write_address(&address, &to)) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int hold_pair(struct relay *relay, int rtp_fd, int rtcp_fd, uint16_t port) {
    if ((uint32_t)rtp_fd >= relay->pair_count) {
        uint32_t count = ((uint32_t)rtp_fd + 1024) & ~1023u;
        struct pair *pairs = realloc(relay->pairs, count * sizeof *pairs);
        if (!pairs) return -ENOMEM;
        for (uint32_t i = relay->pair_count; i < count; i++) pairs[i].rtcp_fd = -1;
        relay->pairs = pairs;
        relay->pair_count = count;
    }
    relay->pairs[rtp_fd] = (struct pair){.rtcp_fd = rtcp_fd, .rule = NO_RULE, .port = port};
    return 0;
}

int relay_open(struct relay *relay, const struct address *local, int dscp) {
    uint16_t port = ntohs(local->port);
    int rtcp_fd, rtp_fd = bind_one(local, port, dscp, relay->binds_freely);
    if (rtp_fd < 0) return rtp_fd;
    rtcp_fd = bind_one(local, (uint16_t)(port + 1), dscp, relay->binds_freely);
    if (rtcp_fd < 0) {
        close(rtp_fd);
        return rtcp_fd;
    }
    return relay_adopt(relay, rtp_fd, rtcp_fd, port);
}

int relay_adopt(struct relay *relay, int rtp_fd, int rtcp_fd, uint16_t port) {
    int error = hold_pair(relay, rtp_fd, rtcp_fd, port);
    if (!error) error = add_to_epoll(relay, rtp_fd, (uint64_t)rtp_fd << 1);
    if (!error) error = add_to_epoll(relay, rtcp_fd, (uint64_t)rtp_fd << 1 | 1);
    if (error) {
        if ((uint32_t)rtp_fd < relay->pair_count) relay->pairs[rtp_fd].rtcp_fd = -1;
        close(rtp_fd);
        close(rtcp_fd);
        return error;
    }
    return rtp_fd;
}

static struct pair *pair_of(struct relay *relay, int pair) {
    if (pair < 0 || (uint32_t)pair >= relay->pair_count || relay->pairs[pair].rtcp_fd < 0) return NULL;
    return &relay->pairs[pair];
}

int relay_rtcp(struct relay *relay, int pair) {
    const struct pair *p = pair_of(relay, pair);
    return p ? p->rtcp_fd : -EBADF;
}

int relay_mark(struct relay *relay, int pair, int dscp) {
    struct pair *p = pair_of(relay, pair);
    if (!p) return -EBADF;
    int tos = dscp << 2, family = 0, fds[2] = {pair, p->rtcp_fd};
    socklen_t size = sizeof family;
    if (getsockopt(pair, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0) return -errno;
    for (int i = 0; i < 2; i++) {
        int failed = family == AF_INET6 ? setsockopt(fds[i], IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos)
                                        : setsockopt(fds[i], IPPROTO_IP, IP_TOS, &tos, sizeof tos);
        if (failed) return -errno;
    }
    return 0;
}

int relay_shut(struct relay *relay, int pair) {
    struct pair *p = pair_of(relay, pair);
    if (!p) return -EBADF;
    if (p->rule != NO_RULE) relay_detach(relay, p->rule);
    /* It does not leave epoll by itself where somebody else holds a duplicate. */
    epoll_ctl(relay->epoll_fd, EPOLL_CTL_DEL, pair, NULL);
    epoll_ctl(relay->epoll_fd, EPOLL_CTL_DEL, p->rtcp_fd, NULL);
    close(pair);
    close(p->rtcp_fd);
    p->rtcp_fd = -1;
    return p->port;
}

/* Drop what waits at a socket; 0, or -EBUSY when it comes faster than it goes. */
static int drain(struct relay *relay, int fd) {
    char octet;
    for (int i = 0; i < DRAINED; i++) {
        if (recv(fd, &octet, sizeof octet, MSG_DONTWAIT | MSG_TRUNC) >= 0)
            relay->page[PAGE_DROP_BASE + UNUSED_PORT]++;
        else if (errno == EAGAIN)
            return 0;
    }
    return -EBUSY;
}

int relay_attach(struct relay *relay, int pair, uint32_t index) {
    struct pair *p = pair_of(relay, pair);
    int error;
    if (!p || p->rule != NO_RULE) return -EBADF;
    error = drain(relay, pair);
    if (!error) error = drain(relay, p->rtcp_fd);
    return error ? error : relay_resume(relay, pair, index);
}

int relay_resume(struct relay *relay, int pair, uint32_t index) {
    struct pair *p = pair_of(relay, pair);
    struct rule *r = &relay->plane.rules[index];
    if (!p || p->rule != NO_RULE) return -EBADF;
    p->rule = index;
    r->rtp_fd = pair;
    r->rtcp_fd = p->rtcp_fd;
    r->local_port = p->port;
    r->flags |= FLAG_IN_USE;
    if (index >= relay->rule_end) relay->rule_end = index + 1;
    return 0;
}

int relay_detach(struct relay *relay, uint32_t index) {
    struct rule *r = &relay->plane.rules[index];
    int pair = r->rtp_fd;
    struct pair *p = pair_of(relay, pair);
    if (!(r->flags & FLAG_IN_USE) || !p || p->rule != index) return -EBADF;
    p->rule = NO_RULE;
    r->rtp_fd = r->rtcp_fd = -1;
    r->flags &= (uint8_t)~FLAG_IN_USE;
    return pair;
}

static void count_relayed(struct relay *relay, int first, int end) {
    struct batch *b = relay->batch;
    for (int i = first; i < end; i++) {
        uint32_t length = (uint32_t)b->out_parts[i].iov_len;
        rule_sent(&relay->plane.rules[b->target[i]], b->rtcp[i], length);
        if (b->rtcp[i]) {
            relay->page[PAGE_RTCP_RELAYED]++;
        } else {
            relay->page[PAGE_PACKETS_RELAYED]++;
            relay->page[PAGE_BYTES_RELAYED] += length;
        }
    }
}

/* Everything in out[0..count) leaves by one socket. A packet that is refused does not hold up those behind it. */
static void send_all(struct relay *relay, int fd, int count) {
    struct batch *b = relay->batch;
    int at = 0;
    while (at < count) {
        int sent;
        if (count - at == 1) {
            struct msghdr *m = &b->out[at].msg_hdr;
            sent = sendto(fd, m->msg_iov->iov_base, m->msg_iov->iov_len, MSG_DONTWAIT, m->msg_name, m->msg_namelen) < 0
                       ? -1
                       : 1;
        } else {
            sent = sendmmsg(fd, b->out + at, (unsigned)(count - at), MSG_DONTWAIT);
        }
        if (sent > 0) {
            count_relayed(relay, at, at + sent);
            at += sent;
        } else if (errno != EINTR) {
            relay->page[PAGE_DROP_BASE + SEND_FAILED]++;
            rule_refused(&relay->plane.rules[b->source[at]]);
            at++;
        }
    }
}

static void note(struct relay *relay, uint32_t index) {
    if (relay->events == RING) {
        relay->page[PAGE_EVENTS_LOST]++;
        return;
    }
    relay->ring[relay->events++] = index;
}

static void keep(struct relay *relay, uint32_t index, const struct address *source, const uint8_t *data,
                 uint32_t length) {
    if (relay->slow_count == SLOW_RING) {
        relay->page[PAGE_DROP_BASE + SLOW_PATH_FULL]++;
        rule_refused(&relay->plane.rules[index]);
        return;
    }
    struct slow *s = &relay->slow[(relay->slow_first + relay->slow_count++) % SLOW_RING];
    s->rule = index;
    s->length = length;
    s->source = *source;
    memcpy(s->octets, data, length);
    relay->page[PAGE_DTLS_RECEIVED]++;
}

int relay_send(struct relay *relay, uint32_t index, const struct address *to, const uint8_t *data, uint32_t length) {
    const struct rule *r = &relay->plane.rules[index];
    union socket_address address;
    if (!(r->flags & FLAG_IN_USE) || !to->family) return -ENOTCONN;
    socklen_t size = write_address(to, &address);
    return sendto(r->rtp_fd, data, length, MSG_DONTWAIT, &address.any, size) < 0 ? -errno : 0;
}

/* What neither leaves for the other leg nor is dropped. */
static void handle(struct relay *relay, enum reason reason, uint32_t index, const struct address *source,
                   const uint8_t *data, uint32_t length) {
    if (reason == TO_PYTHON) {
        keep(relay, index, source, data, length);
    } else if (reason == ANSWERED) {
        relay->page[PAGE_STUN_ANSWERED]++;
        relay_send(relay, index, source, data, length);
    }
}

/* Read into in[]; how many datagrams that were. A port seldom holds two, and the call for one is much the cheaper one:
 * a port that is ready again in the very next round has more, and is read by the other. */
static int take(struct relay *relay, int fd, uint32_t *round) {
    struct batch *b = relay->batch;
    int again = *round + 1 == relay->round;
    *round = relay->round;
    if (again) {
        for (int i = 0; i < DEPTH; i++) b->in[i].msg_hdr.msg_namelen = sizeof b->from[i];
        return recvmmsg(fd, b->in, DEPTH, MSG_DONTWAIT, NULL);
    }
    socklen_t size = sizeof b->from[0];
    ssize_t length = recvfrom(fd, b->packets[0], PACKET_BYTES, MSG_DONTWAIT | MSG_TRUNC, &b->from[0].any, &size);
    if (length < 0) return -1;
    b->in[0].msg_hdr.msg_flags = length > PACKET_BYTES ? MSG_TRUNC : 0;
    b->in[0].msg_len = (unsigned)length;
    return 1;
}

/* One packet that is no answer to another leaves by the RTP socket of its rule; nothing else may be waiting in out[]. */
static void send_one(struct relay *relay, uint32_t source, uint32_t index, uint8_t *data, uint32_t length) {
    struct batch *b = relay->batch;
    const struct rule *target = &relay->plane.rules[index];
    if (!target->rtp_remote.family || !(target->flags & FLAG_IN_USE)) return;
    b->out_parts[0].iov_base = data;
    b->out_parts[0].iov_len = length;
    b->out[0].msg_hdr.msg_namelen = write_address(&target->rtp_remote, &b->to[0]);
    b->source[0] = source;
    b->target[0] = index;
    b->rtcp[0] = 0;
    send_all(relay, target->rtp_fd, 1);
}

static void send_more(struct relay *relay, uint32_t source, uint32_t target, uint8_t *data) {
    uint32_t length;
    while (rule_next(&relay->plane, target, data, &length) == FORWARD) send_one(relay, source, target, data, length);
}

/* What time asks for, by rule; notes when that will be again. */
static void serve_due(struct relay *relay, uint64_t now_ns) {
    struct processing *own = relay->plane.processing;
    uint8_t *data = relay->batch->packets[0];
    uint32_t length, i = 0;
    own->due_ns = UINT64_MAX;
    while (i < own->active_count) {
        uint32_t target = own->active[i];
        struct process *p = &relay->plane.processes[target];
        uint64_t deadline;
        if (rule_due(&relay->plane, target, now_ns, data, &length) == FORWARD)
            send_one(relay, target, target, data, length);
        deadline = process_deadline(p);
        if (!deadline) {
            p->active = 0;
            own->active[i] = own->active[--own->active_count];
            continue;
        }
        if (deadline < own->due_ns) own->due_ns = deadline;
        i++;
    }
}

/* Take what waits at one port of a pair and pass it on as its rule says; returns how many datagrams were taken. */
static int serve(struct relay *relay, int pair, int on_rtcp_port) {
    struct batch *b = relay->batch;
    struct pair *p = &relay->pairs[pair];
    uint32_t index = p->rule;
    struct rule *r = &relay->plane.rules[index];
    int out = 0, out_fd = -1, taken;
    uint64_t now_ns;

    taken = take(relay, on_rtcp_port ? p->rtcp_fd : pair, &p->round[on_rtcp_port]);
    if (taken <= 0) return 0;
    if (index == NO_RULE) {
        relay->page[PAGE_DROP_BASE + UNUSED_PORT] += (uint64_t)taken;
        return taken;
    }
    now_ns = monotonic_ns();
    for (int i = 0; i < taken; i++) {
        struct address source;
        struct verdict verdict;
        enum reason reason;
        read_address(&b->from[i], &source);
        if (b->in[i].msg_hdr.msg_flags & MSG_TRUNC) {
            relay->page[PAGE_DROP_BASE + TOO_LONG]++;
            rule_refused(r);
            continue;
        }
        reason = rule_inspect(&relay->plane, index, on_rtcp_port, b->packets[i], b->in[i].msg_len, &source, now_ns,
                              &verdict);
        if (verdict.latched) {
            relay->page[PAGE_LATCHES]++;
            if (verdict.latched == LATCHED_ELSEWHERE) note(relay, index); /* the usual case wakes nobody */
        }
        if (reason != FORWARD) {
            if (reason < ANSWERED)
                relay->page[PAGE_DROP_BASE + reason]++;
            else
                handle(relay, reason, index, &source, b->packets[i], verdict.length);
            continue;
        }
        const struct rule *target = &relay->plane.rules[verdict.target];
        int fd = verdict.from_rtp_port ? target->rtp_fd : target->rtcp_fd;
        if (out && fd != out_fd) {
            send_all(relay, out_fd, out);
            out = 0;
        }
        out_fd = fd;
        b->out_parts[out].iov_base = b->packets[i];
        b->out_parts[out].iov_len = verdict.length;
        b->out[out].msg_hdr.msg_namelen =
            write_address(verdict.from_rtp_port ? &target->rtp_remote : &target->rtcp_remote, &b->to[out]);
        b->source[out] = index;
        b->target[out] = verdict.target;
        b->rtcp[out++] = verdict.rtcp;
        if (verdict.more) {
            send_all(relay, out_fd, out);
            out = 0;
            send_more(relay, index, verdict.target, b->packets[i]);
        }
    }
    if (out) send_all(relay, out_fd, out);
    return taken;
}

uint32_t relay_sample(struct relay *relay, uint64_t now_ns, uint32_t patience_s, uint32_t *found, uint32_t room) {
    const struct plane *plane = &relay->plane;
    uint64_t second = now_ns / 1000000000u;
    uint32_t due = (uint32_t)((now_ns % 1000000000u) * relay->rule_end / 1000000000u), count = 0;
    if (!plane->quality) return 0;
    if (second != relay->sample_second) {
        if (relay->sample_second && relay->sampled < relay->rule_end) /* the rest of the second before */
            count = quality_sample(plane->quality, plane->rules, relay->sampled, relay->rule_end,
                                   (uint32_t)relay->sample_second, now_ns, patience_s, found, room);
        relay->sample_second = second;
        relay->sampled = 0;
    }
    if (due <= relay->sampled) return count;
    count += quality_sample(plane->quality, plane->rules, relay->sampled, due, (uint32_t)second, now_ns, patience_s,
                            found + count, room - count);
    relay->sampled = due;
    return count;
}

int relay_run(struct relay *relay, int timeout_ms) {
    uint64_t now = monotonic_ns(), end = now + (uint64_t)timeout_ms * 1000000u;
    struct processing *own = relay->plane.processing;
    int woken = 0;
    while (now < end && !woken) {
        struct epoll_event *ready = relay->batch->ready;
        uint64_t until = end;
        int full = 0, n;
        if (relay->voice_count) {
            if (now >= relay->tick_due_ns) woken = relay_speak(relay, now);
            if (relay->voice_count && relay->tick_due_ns < end) until = relay->tick_due_ns;
        }
        if (own->active_count) {
            if (now >= own->due_ns) serve_due(relay, now);
            if (own->due_ns < until) until = own->due_ns;
        }
        int idle = !woken && !relay->slow_count && until > now; /* slow_count: Python has not taken all */
        int wait_ms = idle ? (int)((until - now + 999999u) / 1000000u) : 0;
        n = epoll_wait(relay->epoll_fd, ready, READY, wait_ms);
        if (n < 0) return errno == EINTR ? WOKEN_SIGNAL : WOKEN_TICK;
        relay->page[PAGE_WAKEUPS]++;
        relay->round++;
        for (int i = 0; i < n; i++) {
            uint64_t key = ready[i].data.u64;
            if (key & WATCHED)
                woken |= (int)(key & 0xff);
            else
                full += serve(relay, (int)(key >> 1), (int)(key & 1)) == DEPTH;
        }
        now = monotonic_ns();
        if (relay->events || relay->slow_count || own->heard) woken |= WOKEN_EVENTS;
        /* Dense traffic: one packet per wake-up costs several times a packet in a batch, so let a batch gather; but not
         * when we are behind: the event table was full, or a port's batch. */
        if (!woken && n && n < READY && !full && relay->collect_ns && now - relay->last_wake_ns < 2 * relay->collect_ns) {
            struct timespec wait = {0, (long)relay->collect_ns};
            nanosleep(&wait, NULL);
            now = monotonic_ns();
        }
        relay->last_wake_ns = now;
    }
    return woken ? woken : WOKEN_TICK;
}
