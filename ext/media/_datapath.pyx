# cython: language_level=3
"""The compiled relay loop over the rules of an arena; see ext/c/batch.h and ext/c/forward.h."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "rule.h":
    cdef struct address:
        pass
    cdef struct rule:
        uint8_t flags

cdef extern from "forward.h":
    cdef struct verdict:
        uint32_t target
        uint8_t rtcp, from_rtp_port, latched
    int rule_inspect(rule *rules, uint32_t index, int on_rtcp_port, const uint8_t *data, uint32_t length,
                     const address *source, uint64_t now_ns, verdict *v) nogil
    void rule_sent(rule *target, int rtcp, uint32_t length) nogil

cdef extern from "batch.h":
    cdef struct relay:
        uint32_t events
        uint32_t *ring
    int relay_init(relay *r, rule *rules, uint64_t *page, uint64_t collect_ns)
    void relay_close(relay *r)
    int relay_watch(relay *r, int fd, int woken)
    int relay_open(relay *r, const address *local, int dscp)
    int relay_shut(relay *r, int pair)
    int relay_attach(relay *r, int pair, uint32_t index)
    int relay_detach(relay *r, uint32_t index)
    int relay_run(relay *r, int timeout_ms) nogil

RULE_BYTES = sizeof(rule)
TICK = 1
CONTROL = 2
SIGNAL = 4
EVENTS = 8


cdef class Datapath:
    cdef relay relay
    cdef Py_buffer rules_view
    cdef Py_buffer page_view
    cdef rule *rules
    cdef uint32_t count
    cdef uint64_t own_page[512]
    cdef bint alive, has_page

    def __cinit__(self, rules, page=None, int collect_us=0):
        cdef uint64_t *words = self.own_page
        cdef int error
        memset(self.own_page, 0, sizeof(self.own_page))
        PyObject_GetBuffer(rules, &self.rules_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.rules = <rule *>self.rules_view.buf
        self.count = <uint32_t>(self.rules_view.len // <Py_ssize_t>sizeof(rule))
        if page is not None:
            PyObject_GetBuffer(page, &self.page_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.has_page = True
            if self.page_view.len < <Py_ssize_t>sizeof(self.own_page):
                raise ValueError("the counters page is too small")
            words = <uint64_t *>self.page_view.buf
        error = relay_init(&self.relay, self.rules, words, <uint64_t>collect_us * 1000)
        if error:
            raise OSError(-error, "epoll")
        self.alive = True

    def __dealloc__(self):
        self.close()
        if self.has_page:
            PyBuffer_Release(&self.page_view)
        if self.rules != NULL:
            PyBuffer_Release(&self.rules_view)

    cpdef close(self):
        if self.alive:
            self.alive = False
            relay_close(&self.relay)

    cdef int check(self, uint32_t index) except -1:
        if index >= self.count:
            raise IndexError("no such rule")
        return 0

    def watch(self, int fd, int woken):
        cdef int error = relay_watch(&self.relay, fd, woken)
        if error:
            raise OSError(-error, "epoll")

    def open(self, bytes local, int dscp=0):
        if len(local) != sizeof(address):
            raise ValueError("not a packed address")
        return relay_open(&self.relay, <const address *><const char *>local, dscp)

    def shut(self, int pair):
        cdef int port = relay_shut(&self.relay, pair)
        if port < 0:
            raise ValueError("no such pair")
        return port

    def attach(self, int pair, uint32_t index):
        self.check(index)
        return -relay_attach(&self.relay, pair, index)

    def detach(self, uint32_t index):
        self.check(index)
        return relay_detach(&self.relay, index)

    def run(self, int timeout_ms):
        cdef int woken
        with nogil:
            woken = relay_run(&self.relay, timeout_ms)
        return woken

    def events(self):
        cdef uint32_t i
        found = [self.relay.ring[i] for i in range(self.relay.events)]
        self.relay.events = 0
        return found


def inspect(rules, uint32_t index, bint on_rtcp_port, bytes data, bytes source, uint64_t now_ns):
    cdef Py_buffer view
    cdef verdict v
    cdef address where
    cdef int reason
    cdef const uint8_t *octets = data
    cdef uint32_t length = <uint32_t>len(data)
    memset(&v, 0, sizeof(v))
    if len(source) != sizeof(address):
        raise ValueError("not a packed address")
    memcpy(&where, <const char *>source, sizeof(address))
    PyObject_GetBuffer(rules, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if index >= <uint64_t>view.len // sizeof(rule):
            raise IndexError("no such rule")
        reason = rule_inspect(<rule *>view.buf, index, on_rtcp_port, octets, length, &where, now_ns, &v)
        if reason == 0:
            rule_sent(<rule *>view.buf + v.target, v.rtcp, length)
    finally:
        PyBuffer_Release(&view)
    return reason, v.target, bool(v.rtcp), bool(v.from_rtp_port), v.latched
