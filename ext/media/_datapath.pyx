# cython: language_level=3
"""The compiled relay loop over the rules of an arena; see ext/c/batch.h, forward.h and quality.h."""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "rule.h":
    cdef struct address:
        pass
    cdef struct rule:
        uint8_t flags

cdef extern from "srtp.h":
    enum: SRTP_ROOM
    cdef struct srtp_engine:
        pass
    cdef struct srtp_stream:
        pass
    cdef struct srtp_leg:
        pass
    srtp_engine *srtp_engine_new()
    int srtp_install(srtp_engine *engine, srtp_stream *s, int suite, const uint8_t *master, uint32_t master_bytes,
                     const uint8_t *mki, uint32_t mki_bytes)
    int srtp_unprotect(srtp_engine *engine, srtp_leg *leg, int rtcp, uint8_t *data, uint32_t *length)
    int srtp_protect(srtp_engine *engine, srtp_leg *leg, int rtcp, uint8_t *data, uint32_t *length)

cdef extern from "stun.h":
    enum: STUN_ROOM
    cdef struct webrtc_leg:
        pass
cdef extern from "quality.h":
    cdef struct _quality "quality":
        pass
    uint32_t quality_sample(_quality *q, const rule *rules, uint32_t first, uint32_t end, uint32_t second,
                            uint64_t now_ns, uint32_t patience_s, uint32_t *found, uint32_t room)
cdef extern from "process.h":
    enum: NOT_CARRIED
    cdef struct process:
        uint8_t active
    cdef struct heard_event "heard":
        uint32_t source, event, duration_ms
    cdef struct processing:
        heard_event *ring
        uint32_t heard, lost, active_count
    processing *processing_new()
    void processing_free(processing *own)
    int process_watch(const plane *p, uint32_t target)
    void process_forget(const plane *p, uint32_t target)

cdef extern from "transcode.h":
    cdef struct codec_functions:
        pass
    cdef struct resampler:
        pass
    uint8_t *alaw_of_ulaw
    uint8_t *ulaw_of_alaw
    void law_init()
    int16_t law_value(int codec, uint8_t octet)
    uint8_t law_octet(int codec, int16_t sample)
    void codec_register(int codec, const codec_functions *functions)
    int codec_known(int codec)
    int resample_up(resampler *r, const int16_t *samples, int count, int16_t *out)
    int resample_down(resampler *r, const int16_t *samples, int count, int16_t *out)

cdef extern from "play.h":
    enum: PLAY_PACKET_BYTES
    cdef struct player:
        uint64_t tick
    uint32_t play_packet(player *p, const uint8_t *clip, uint32_t samples, uint8_t *packet)
    void play_skip(player *p, uint32_t samples, uint64_t ticks)

cdef extern from "tap.h":
    cdef struct tap:
        uint32_t *points
        uint32_t rules
    enum: MAX_RECORDINGS, NOT_TAPPED
    tap *tap_new(uint32_t rules, uint32_t size)
    void tap_free(tap *t)
    uint64_t tap_head(tap *t)

cdef extern from "forward.h":
    enum: PACKET_BYTES
    cdef struct plane:
        rule *rules
        srtp_leg *keys
        webrtc_leg *webrtc
        _quality *quality
        srtp_engine *engine
        player *players
        tap *tap
        process *processes
        processing *processing
    cdef struct verdict:
        uint32_t target, length
        uint8_t rtcp, from_rtp_port, latched, more
    int rule_inspect(const plane *p, uint32_t index, int on_rtcp_port, uint8_t *data, uint32_t length,
                     const address *source, uint64_t now_ns, verdict *v) nogil
    int rule_next(const plane *p, uint32_t target, uint8_t *data, uint32_t *length)
    int rule_due(const plane *p, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length)
    void rule_sent(rule *target, int rtcp, uint32_t length) nogil

cdef extern from "batch.h":
    enum: SLOW_RING
    cdef struct slow:
        uint32_t rule, length
        address source
        uint8_t *octets
    cdef struct relay:
        plane plane
        uint32_t events
        uint32_t *ring
        slow *slow
        uint32_t slow_first, slow_count
        uint32_t ended_count
        uint32_t *ended
        int binds_freely
    int relay_init(relay *r, const plane *p, uint64_t *page, uint64_t collect_ns)
    void relay_close(relay *r)
    int relay_watch(relay *r, int fd, int woken)
    int relay_open(relay *r, const address *local, int dscp)
    int relay_adopt(relay *r, int rtp_fd, int rtcp_fd, uint16_t port)
    int relay_rtcp(relay *r, int pair)
    int relay_mark(relay *r, int pair, int dscp)
    int relay_shut(relay *r, int pair)
    int relay_attach(relay *r, int pair, uint32_t index)
    int relay_resume(relay *r, int pair, uint32_t index)
    int relay_detach(relay *r, uint32_t index)
    int relay_send(relay *r, uint32_t index, const address *to, const uint8_t *data, uint32_t length)
    int relay_play(relay *r, uint32_t index, const uint8_t *clip, uint32_t samples)
    void relay_hush(relay *r, uint32_t index)
    int relay_run(relay *r, int timeout_ms) nogil
    uint32_t relay_sample(relay *r, uint64_t now_ns, uint32_t patience_s, uint32_t *found, uint32_t room)

RULE_BYTES = sizeof(rule)
KEYS_BYTES = sizeof(srtp_leg)
WEBRTC_BYTES = sizeof(webrtc_leg)
PLAYER_BYTES = sizeof(player)
QUALITY_BYTES = sizeof(_quality)
PROCESS_BYTES = sizeof(process)
TICK = 1
CONTROL = 2
SIGNAL = 4
EVENTS = 8

cdef enum: FOUND = 256  # rules told of at a time

# One for the process: a media worker has one thread.
cdef srtp_engine *ENGINE = srtp_engine_new()
if ENGINE == NULL:
    raise ImportError("libcrypto lacks AES in counter and Galois/counter mode, or HMAC with SHA-1")

include "recording.pxi"


cdef class Plane:
    """Rules, and as much of everything beside them; holds their memory for as long as it lives."""

    cdef Py_buffer views[6]
    cdef int held
    cdef uint32_t count
    cdef plane parts

    def __cinit__(self, rules, keys, webrtc, processes=None, players=None, quality=None):
        cdef Py_ssize_t octets
        self.parts.rules = <rule *>self.hold(rules, &octets)
        self.count = <uint32_t>(octets // <Py_ssize_t>sizeof(rule))
        self.parts.keys = <srtp_leg *>self.beside(keys, sizeof(srtp_leg), "keys")
        self.parts.webrtc = <webrtc_leg *>self.beside(webrtc, sizeof(webrtc_leg), "browser legs")
        self.parts.processes = <process *>self.beside(processes, sizeof(process), "processes")
        self.parts.players = <player *>self.beside(players, sizeof(player), "players")
        self.parts.quality = <_quality *>self.beside(quality, sizeof(_quality), "quality")
        self.parts.engine = ENGINE

    cdef void *hold(self, given, Py_ssize_t *octets) except NULL:
        cdef Py_buffer *view = &self.views[self.held]
        PyObject_GetBuffer(given, view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held += 1
        octets[0] = view.len
        return view.buf

    cdef void *beside(self, given, size_t size, str what) except? NULL:
        cdef Py_ssize_t octets
        cdef void *memory
        if given is None:
            return NULL
        memory = self.hold(given, &octets)
        if octets != <Py_ssize_t>(self.count * size):
            raise ValueError(f"not as many {what} as rules")
        return memory

    cdef int check(self, uint32_t index) except -1:
        if index >= self.count:
            raise IndexError("no such rule")
        return 0

    def __dealloc__(self):
        for i in range(self.held):
            PyBuffer_Release(&self.views[i])


@cython.no_gc_clear  # what the relay points to must be there until it is closed
cdef class Datapath:
    cdef relay relay
    cdef Plane plane
    cdef processing *processing
    cdef Py_buffer page_view
    cdef uint64_t own_page[512]
    cdef bint alive, has_page
    cdef dict clips  # what C plays from, by rule
    cdef Tap tap

    def __cinit__(self, rules, keys, webrtc, page=None, int collect_us=0, players=None, quality=None,
                  processes=None):
        cdef uint64_t *words = self.own_page
        cdef int error
        memset(self.own_page, 0, sizeof(self.own_page))
        self.plane = Plane(rules, keys, webrtc, processes, players, quality)
        self.clips = {}
        if page is not None:
            PyObject_GetBuffer(page, &self.page_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.has_page = True
            if self.page_view.len < <Py_ssize_t>sizeof(self.own_page):
                raise ValueError("the counters page is too small")
            words = <uint64_t *>self.page_view.buf
        self.processing = processing_new()
        if self.processing == NULL:
            raise MemoryError
        self.plane.parts.processing = self.processing
        error = relay_init(&self.relay, &self.plane.parts, words, <uint64_t>collect_us * 1000)
        if error:
            raise OSError(-error, "epoll")
        self.alive = True

    def __dealloc__(self):
        self.close()
        processing_free(self.processing)
        if self.has_page:
            PyBuffer_Release(&self.page_view)

    cpdef close(self):
        if self.alive:
            self.alive = False
            relay_close(&self.relay)

    def watch(self, int fd, int woken):
        cdef int error = relay_watch(&self.relay, fd, woken)
        if error:
            raise OSError(-error, "epoll")

    def bind_freely(self):
        self.relay.binds_freely = 1

    def open(self, bytes local, int dscp=0):
        if len(local) != sizeof(address):
            raise ValueError("not a packed address")
        return relay_open(&self.relay, <const address *><const char *>local, dscp)

    def adopt(self, int rtp_fd, int rtcp_fd, uint16_t port):
        return relay_adopt(&self.relay, rtp_fd, rtcp_fd, port)

    def rtcp_of(self, int pair):
        cdef int fd = relay_rtcp(&self.relay, pair)
        if fd < 0:
            raise ValueError("no such pair")
        return fd

    def mark(self, int pair, int dscp):
        return -relay_mark(&self.relay, pair, dscp)

    def shut(self, int pair):
        cdef int port = relay_shut(&self.relay, pair)
        if port < 0:
            raise ValueError("no such pair")
        return port

    def attach(self, int pair, uint32_t index):
        self.plane.check(index)
        return -relay_attach(&self.relay, pair, index)

    def resume(self, int pair, uint32_t index):
        self.plane.check(index)
        return -relay_resume(&self.relay, pair, index)

    def detach(self, uint32_t index):
        self.plane.check(index)
        return relay_detach(&self.relay, index)

    def play(self, uint32_t index, bytes clip):
        cdef int error
        self.plane.check(index)
        if self.plane.parts.players == NULL:
            raise ValueError("a datapath without players")
        error = relay_play(&self.relay, index, clip, <uint32_t>len(clip))
        if error:
            raise OSError(-error, "play")
        self.clips[index] = clip

    def hush(self, uint32_t index):
        self.plane.check(index)
        if self.plane.parts.players != NULL:
            relay_hush(&self.relay, index)
            self.clips.pop(index, None)

    def ended(self):
        found = [self.relay.ended[i] for i in range(self.relay.ended_count)]
        self.relay.ended_count = 0
        for index in found:
            self.clips.pop(index, None)
        return found

    def tap_into(self, Tap tap):
        if tap.tap.rules < self.plane.count:
            raise ValueError("a tap of fewer rules")
        self.tap = tap
        self.relay.plane.tap = tap.tap

    def run(self, int timeout_ms):
        cdef int woken
        with nogil:
            woken = relay_run(&self.relay, timeout_ms)
        return woken

    def sample(self, uint64_t now_ns, uint32_t patience_s):
        cdef uint32_t found[FOUND]
        cdef uint32_t i
        return [found[i] for i in range(relay_sample(&self.relay, now_ns, patience_s, found, FOUND))]

    def events(self):
        cdef uint32_t i
        found = [self.relay.ring[i] for i in range(self.relay.events)]
        self.relay.events = 0
        return found

    def take(self, uint32_t limit):
        found = []
        cdef slow *s
        while self.relay.slow_count and len(found) < limit:
            s = &self.relay.slow[self.relay.slow_first]
            self.relay.slow_first = (self.relay.slow_first + 1) % SLOW_RING
            self.relay.slow_count -= 1
            found.append((s.rule, (<const char *>&s.source)[: sizeof(address)], (<const char *>s.octets)[: s.length]))
        return found

    def send(self, uint32_t index, bytes to, bytes data):
        self.plane.check(index)
        if len(to) != sizeof(address):
            raise ValueError("not a packed address")
        return -relay_send(&self.relay, index, <const address *><const char *>to, data, <uint32_t>len(data))
    def heard(self):
        return _heard(self.processing)

    def attend(self, uint32_t index):
        self.plane.check(index)
        return process_watch(&self.plane.parts, index) == 0

    def forget(self, uint32_t index):
        self.plane.check(index)
        process_forget(&self.plane.parts, index)


cdef _heard(processing *own):
    cdef uint32_t i
    found = [(own.ring[i].source, own.ring[i].event, own.ring[i].duration_ms) for i in range(own.heard)]
    own.heard = 0
    return found


def register(int codec, functions):
    codec_register(codec, <const codec_functions *>PyCapsule_GetPointer(functions, b"media.codec"))


def codec_built(int codec):
    return codec_known(codec) != 0


def g711_tables():
    law_init()
    return bytes(alaw_of_ulaw[:256]), bytes(ulaw_of_alaw[:256])


def g711_value(int codec, int octet):
    law_init()
    return law_value(codec, <uint8_t>octet)


def g711_octet(int codec, int sample):
    law_init()
    return law_octet(codec, <int16_t>sample)


cdef class Resampler:
    cdef resampler state

    def __cinit__(self):
        law_init()
        memset(&self.state, 0, sizeof(self.state))

    def up(self, bytes samples):
        cdef const char *given = samples
        out = bytearray(2 * len(samples))
        cdef char *made = out
        resample_up(&self.state, <const int16_t *>given, <int>(len(samples) // 2), <int16_t *>made)
        return bytes(out)

    def down(self, bytes samples):
        cdef const char *given = samples
        out = bytearray(len(samples) // 2)
        cdef char *made = out
        resample_down(&self.state, <const int16_t *>given, <int>(len(samples) // 2), <int16_t *>made)
        return bytes(out)


def install(stream, int suite, bytes master, bytes mki=b""):
    cdef Py_buffer view
    cdef int error
    PyObject_GetBuffer(stream, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if view.len != sizeof(srtp_stream):
            raise ValueError("not a stream")
        error = srtp_install(ENGINE, <srtp_stream *>view.buf, suite, master, <uint32_t>len(master), mki,
                             <uint32_t>len(mki))
    finally:
        PyBuffer_Release(&view)
    if error:
        raise ValueError("no such suite, or a master key or MKI that does not fit it")


def transform(leg, bint protect, bint rtcp, bytes data):
    cdef Py_buffer view
    cdef int reason
    cdef uint32_t length = <uint32_t>len(data)
    packet = bytearray(data)
    packet.extend(bytes(SRTP_ROOM))
    cdef uint8_t *octets = packet
    PyObject_GetBuffer(leg, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if view.len != sizeof(srtp_leg):
            raise ValueError("not the keys of a leg")
        if protect:
            reason = srtp_protect(ENGINE, <srtp_leg *>view.buf, rtcp, octets, &length)
        else:
            reason = srtp_unprotect(ENGINE, <srtp_leg *>view.buf, rtcp, octets, &length)
    finally:
        PyBuffer_Release(&view)
    return reason, bytes(packet[:length])


def sample(quality, rules, uint32_t first, uint32_t end, uint32_t second, uint64_t now_ns, uint32_t patience_s):
    cdef Py_buffer rules_view
    cdef Py_buffer quality_view
    cdef uint32_t found[FOUND]
    cdef uint32_t i, count
    PyObject_GetBuffer(rules, &rules_view, PyBUF_SIMPLE)
    PyObject_GetBuffer(quality, &quality_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if end > <uint64_t>rules_view.len // sizeof(rule) or end > <uint64_t>quality_view.len // sizeof(_quality):
            raise IndexError("no such rule")
        count = quality_sample(<_quality *>quality_view.buf, <rule *>rules_view.buf, first, end, second, now_ns,
                               patience_s, found, FOUND)
    finally:
        PyBuffer_Release(&quality_view)
        PyBuffer_Release(&rules_view)
    return [found[i] for i in range(count)]


# Of packets that are inspected one by one; a Datapath has its own.
cdef processing *PROCESSING = processing_new()
if PROCESSING == NULL:
    raise MemoryError


cdef Plane _whole(Plane plane, uint32_t index):
    plane.check(index)
    plane.parts.processing = PROCESSING
    return plane


def inspect(rules, keys, webrtc, uint32_t index, bint on_rtcp_port, bytes data, bytes source, uint64_t now_ns,
            players=None, Tap tap=None, quality=None, processes=None):
    cdef Plane whole = _whole(Plane(rules, keys, webrtc, processes, players, quality), index)
    cdef verdict v
    cdef address where
    cdef int reason
    cdef uint32_t length = <uint32_t>len(data)
    packet = bytearray(max(length + STUN_ROOM, PACKET_BYTES) + SRTP_ROOM)
    packet[:length] = data
    cdef uint8_t *octets = packet
    if tap is not None:
        whole.parts.tap = tap.tap
    memset(&v, 0, sizeof(v))
    if len(source) != sizeof(address):
        raise ValueError("not a packed address")
    memcpy(&where, <const char *>source, sizeof(address))
    reason = rule_inspect(&whole.parts, index, on_rtcp_port, octets, length, &where, now_ns, &v)
    PROCESSING.active_count = 0
    if reason == 0:
        rule_sent(whole.parts.rules + v.target, v.rtcp, v.length)
    return reason, v.target, bool(v.rtcp), bool(v.from_rtp_port), v.latched, bytes(packet[: v.length])


def play(beside, bytes clip, uint64_t ticks=0):
    cdef Py_buffer view
    cdef uint32_t length = 0
    cdef uint8_t packet[PLAY_PACKET_BYTES]
    PyObject_GetBuffer(beside, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if view.len != sizeof(player):
            raise ValueError("not a player")
        if ticks:
            play_skip(<player *>view.buf, <uint32_t>len(clip), ticks)
        else:
            length = play_packet(<player *>view.buf, clip, <uint32_t>len(clip), packet)
    finally:
        PyBuffer_Release(&view)
    return bytes(packet[:length])


def further(rules, keys, webrtc, uint32_t target, processes, now_ns=None):
    """Another packet for the leg of ``target``: of what came before, or one that time asks for at ``now_ns``."""
    cdef Plane whole = _whole(Plane(rules, keys, webrtc, processes), target)
    cdef int reason
    cdef uint32_t length = 0
    packet = bytearray(PACKET_BYTES + SRTP_ROOM)
    cdef uint8_t *octets = packet
    if now_ns is None:
        reason = rule_next(&whole.parts, target, octets, &length)
    else:
        reason = rule_due(&whole.parts, target, now_ns, octets, &length)
    if reason:
        return None
    rule_sent(whole.parts.rules + target, 0, length)
    return bytes(packet[:length])


def heard():
    """The digits that ``inspect`` and ``further`` have heard since: (rule, event, milliseconds)."""
    return _heard(PROCESSING)


def forget(uint32_t target):
    """What ``inspect`` keeps of a rule besides the memory that it is given."""
    cdef plane parts
    memset(&parts, 0, sizeof(parts))
    parts.processing = PROCESSING
    process_forget(&parts, target)
