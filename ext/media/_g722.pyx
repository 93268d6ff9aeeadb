# cython: language_level=3
"""G.722 at 64 kbit/s (ITU-T G.722) by libspandsp, as functions for the datapath: see ext/c/transcode.h."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int16_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free

cdef extern from "transcode.h":
    cdef struct codec_functions:
        uint32_t rate_hz
        void *(*open)(uint32_t rate_hz) noexcept nogil
        void (*close)(void *state) noexcept nogil
        int (*decode)(void *state, const uint8_t *octets, int length, int16_t *samples, int room) noexcept nogil
        int (*encode)(void *state, const int16_t *samples, int count, uint8_t *octets, int room) noexcept nogil

cdef extern from "spandsp.h":
    ctypedef struct g722_encode_state_t:
        pass
    ctypedef struct g722_decode_state_t:
        pass
    g722_encode_state_t *g722_encode_init(g722_encode_state_t *s, int rate, int options) nogil
    int g722_encode_free(g722_encode_state_t *s) nogil
    int g722_encode(g722_encode_state_t *s, uint8_t *octets, const int16_t *samples, int count) nogil
    g722_decode_state_t *g722_decode_init(g722_decode_state_t *s, int rate, int options) nogil
    int g722_decode_free(g722_decode_state_t *s) nogil
    int g722_decode(g722_decode_state_t *s, int16_t *samples, const uint8_t *octets, int length) nogil

cdef struct both:
    g722_encode_state_t *encoder
    g722_decode_state_t *decoder


cdef void *start(uint32_t rate_hz) noexcept nogil:
    cdef both *state = <both *>calloc(1, sizeof(both))
    if state == NULL:
        return NULL
    state.encoder = g722_encode_init(NULL, 64000, 0)
    state.decoder = g722_decode_init(NULL, 64000, 0)
    if state.encoder == NULL or state.decoder == NULL:
        stop(state)
        return NULL
    return state


cdef void stop(void *given) noexcept nogil:
    cdef both *state = <both *>given
    if state.encoder != NULL:
        g722_encode_free(state.encoder)
    if state.decoder != NULL:
        g722_decode_free(state.decoder)
    free(state)


cdef int decode(void *state, const uint8_t *octets, int length, int16_t *samples, int room) noexcept nogil:
    if 2 * length > room:
        return -1
    return g722_decode((<both *>state).decoder, samples, octets, length)


cdef int encode(void *state, const int16_t *samples, int count, uint8_t *octets, int room) noexcept nogil:
    if count // 2 > room:
        return -1
    return g722_encode((<both *>state).encoder, octets, samples, count)


cdef codec_functions functions
functions.rate_hz = 16000
functions.open = start
functions.close = stop
functions.decode = decode
functions.encode = encode

FUNCTIONS = PyCapsule_New(&functions, b"media.codec", NULL)
