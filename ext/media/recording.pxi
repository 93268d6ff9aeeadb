# Part of _datapath.pyx: what the recorder's thread calls, and clips. See ext/c/tap.h, ext/c/record.h and ext/c/wave.h.

cdef extern from "record.h":
    cdef struct record_totals:
        uint64_t packets, lost, late, unreadable, frames
        int error
    cdef struct recorder:
        pass
    recorder *recorder_new(tap *t)
    void recorder_free(recorder *r) nogil
    int recorder_open(recorder *r, uint32_t number, int fd, int format, uint64_t start_ns, uint64_t wall_ns) nogil
    void recorder_face(recorder *r, uint32_t number, int side, const address *local)
    int recorder_drain(recorder *r, uint64_t end, uint64_t now_ns) nogil
    void recorder_close(recorder *r, uint32_t number, record_totals *totals) nogil
    void recorder_totals(recorder *r, uint32_t number, record_totals *totals)

cdef extern from "wave.h":
    uint32_t wave_samples(uint32_t frames, uint32_t rate_hz)
    int wave_convert(const uint8_t *data, uint32_t frames, int coding, int channels, uint32_t rate_hz, uint8_t *ulaw,
                     uint8_t *alaw) nogil


cdef class Tap:
    cdef tap *tap
    cdef recorder *recorder

    def __cinit__(self, uint32_t rules, uint32_t size):
        if size < 4096 or size & (size - 1):
            raise ValueError("the size of a ring is a power of two")
        self.tap = tap_new(rules, size)
        if self.tap != NULL:
            self.recorder = recorder_new(self.tap)
        if self.recorder == NULL:
            raise MemoryError

    def __dealloc__(self):
        recorder_free(self.recorder)
        tap_free(self.tap)

    # of the relay's thread

    def point(self, uint32_t index, uint32_t number, uint32_t side):
        if index >= self.tap.rules or number >= MAX_RECORDINGS or side > 1:
            raise IndexError("no such rule, recording or side")
        self.tap.points[index] = number << 1 | side

    def clear(self, uint32_t index):
        if index >= self.tap.rules:
            raise IndexError("no such rule")
        self.tap.points[index] = NOT_TAPPED

    # of the recorder's thread

    def head(self):
        return tap_head(self.tap)

    def open(self, uint32_t number, int fd, int format, uint64_t start_ns, uint64_t wall_ns):
        cdef int error
        with nogil:
            error = recorder_open(self.recorder, number, fd, format, start_ns, wall_ns)
        return error

    def face(self, uint32_t number, int side, bytes local):
        if number >= MAX_RECORDINGS or not 0 <= side <= 1 or len(local) != sizeof(address):
            raise ValueError("no such recording or side, or not a packed address")
        recorder_face(self.recorder, number, side, <const address *><const char *>local)

    def drain(self, uint64_t end, uint64_t now_ns):
        cdef int failed
        with nogil:
            failed = recorder_drain(self.recorder, end, now_ns)
        return failed

    def close(self, uint32_t number):
        cdef record_totals t
        if number >= MAX_RECORDINGS:
            raise IndexError("no such recording")
        with nogil:
            recorder_close(self.recorder, number, &t)
        return t.packets, t.lost, t.late, t.unreadable, t.frames, t.error

    def totals(self, uint32_t number):
        cdef record_totals t
        if number >= MAX_RECORDINGS:
            raise IndexError("no such recording")
        recorder_totals(self.recorder, number, &t)
        return t.packets, t.lost, t.late, t.unreadable, t.frames, t.error


def convert(bytes data, int coding, int channels, uint32_t rate_hz):
    cdef int error
    cdef const uint8_t *octets = data
    cdef uint32_t frame_bytes = <uint32_t>channels * (2 if coding == 1 else 1)
    if not 8000 <= rate_hz <= 48000 or not 1 <= channels <= 2:
        raise ValueError("no such rate or number of channels")
    cdef uint32_t frames = <uint32_t>(len(data) // frame_bytes)
    cdef uint32_t samples = wave_samples(frames, rate_hz)
    ulaw, alaw = bytearray(samples), bytearray(samples)
    cdef uint8_t *u = ulaw
    cdef uint8_t *a = alaw
    with nogil:
        error = wave_convert(octets, frames, coding, channels, rate_hz, u, a)
    if error:
        raise OSError(error, "convert")
    return bytes(ulaw), bytes(alaw)
