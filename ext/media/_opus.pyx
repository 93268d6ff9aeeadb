# cython: language_level=3
"""Opus (RFC 6716) by libopus, as functions for the datapath: see ext/c/transcode.h."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free

cdef extern from "transcode.h":
    cdef struct codec_functions:
        uint32_t rate_hz
        void *(*open)(uint32_t rate_hz) noexcept nogil
        void (*close)(void *state) noexcept nogil
        int (*decode)(void *state, const uint8_t *octets, int length, int16_t *samples, int room) noexcept nogil
        int (*encode)(void *state, const int16_t *samples, int count, uint8_t *octets, int room) noexcept nogil

cdef extern from "opus/opus.h":
    enum: OPUS_APPLICATION_VOIP
    ctypedef struct OpusEncoder:
        pass
    ctypedef struct OpusDecoder:
        pass
    OpusEncoder *opus_encoder_create(int32_t rate_hz, int channels, int application, int *error) nogil
    void opus_encoder_destroy(OpusEncoder *encoder) nogil
    int opus_encode(OpusEncoder *encoder, const int16_t *samples, int count, uint8_t *octets, int32_t room) nogil
    int opus_encoder_ctl(OpusEncoder *encoder, int request, ...) nogil
    int OPUS_SET_BITRATE_REQUEST, OPUS_SET_COMPLEXITY_REQUEST
    OpusDecoder *opus_decoder_create(int32_t rate_hz, int channels, int *error) nogil
    void opus_decoder_destroy(OpusDecoder *decoder) nogil
    int opus_decode(OpusDecoder *decoder, const uint8_t *octets, int32_t length, int16_t *samples, int room,
                    int fec) nogil

DEF COMPLEXITY = 4     # of 10: telephone bandwidth gains nothing above, and it is the encoder that costs
DEF OCTETS_MOST = 1000

cdef struct both:
    OpusEncoder *encoder
    OpusDecoder *decoder


cdef void *start(uint32_t rate_hz) noexcept nogil:
    cdef int error = 0
    cdef both *state = <both *>calloc(1, sizeof(both))
    if state == NULL:
        return NULL
    state.encoder = opus_encoder_create(<int32_t>rate_hz, 1, OPUS_APPLICATION_VOIP, &error)
    state.decoder = opus_decoder_create(<int32_t>rate_hz, 1, &error)
    if state.encoder == NULL or state.decoder == NULL:
        stop(state)
        return NULL
    opus_encoder_ctl(state.encoder, OPUS_SET_COMPLEXITY_REQUEST, <int32_t>COMPLEXITY)
    opus_encoder_ctl(state.encoder, OPUS_SET_BITRATE_REQUEST, <int32_t>(16000 if rate_hz == 8000 else 24000))
    return state


cdef void stop(void *given) noexcept nogil:
    cdef both *state = <both *>given
    if state.encoder != NULL:
        opus_encoder_destroy(state.encoder)
    if state.decoder != NULL:
        opus_decoder_destroy(state.decoder)
    free(state)


cdef int decode(void *state, const uint8_t *octets, int length, int16_t *samples, int room) noexcept nogil:
    return opus_decode((<both *>state).decoder, octets, length, samples, room, 0)


cdef int encode(void *state, const int16_t *samples, int count, uint8_t *octets, int room) noexcept nogil:
    return opus_encode((<both *>state).encoder, samples, count, octets, OCTETS_MOST if room > OCTETS_MOST else room)


cdef codec_functions functions
functions.rate_hz = 0
functions.open = start
functions.close = stop
functions.decode = decode
functions.encode = encode

FUNCTIONS = PyCapsule_New(&functions, b"media.codec", NULL)
