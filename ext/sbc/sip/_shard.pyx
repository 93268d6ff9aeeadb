# cython: boundscheck=False, wraparound=False, cdivision=True
"""Which shard a message belongs to, before it is parsed. Contract: ``_shard.pyi``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcpy

from sbc.sip.ids import CALL_ID_LENGTH as _CALL_ID_LENGTH

ctypedef const unsigned char* Octets

cdef enum:
    SHARD_MASK = 1023
    OURS = 24

if _CALL_ID_LENGTH != OURS:
    raise ImportError("the shape of our Call-IDs changed in sbc.sip.ids alone")


cdef inline uint64_t _rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void _round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[0] = _rotate(v[0], 32)
    v[2] += v[3]
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[2] = _rotate(v[2], 32)


cdef uint64_t _siphash(Octets data, Py_ssize_t length, Octets key) noexcept nogil:
    """SipHash-2-4 (Aumasson, Bernstein 2012). Words are little-endian, as on every machine that we build for."""
    cdef uint64_t k0, k1, word
    cdef uint64_t v[4]
    cdef Py_ssize_t whole = length & ~7
    cdef Py_ssize_t i
    memcpy(&k0, key, 8)
    memcpy(&k1, key + 8, 8)
    v[0] = k0 ^ <uint64_t>0x736F6D6570736575
    v[1] = k1 ^ <uint64_t>0x646F72616E646F6D
    v[2] = k0 ^ <uint64_t>0x6C7967656E657261
    v[3] = k1 ^ <uint64_t>0x7465646279746573
    for i in range(0, whole, 8):
        memcpy(&word, data + i, 8)
        v[3] ^= word
        _round(v)
        _round(v)
        v[0] ^= word
    word = <uint64_t>(length & 0xFF) << 56
    for i in range(whole, length):
        word |= <uint64_t>data[i] << (8 * (i - whole))
    v[3] ^= word
    _round(v)
    _round(v)
    v[0] ^= word
    v[2] ^= 0xFF
    for i in range(4):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline int _letter(unsigned char c) noexcept nogil:
    """Value of a character of a-z2-7, or -1."""
    if 97 <= c <= 122:
        return c - 97
    if 50 <= c <= 55:
        return c - 24
    return -1


cdef int _shard(Octets call_id, Py_ssize_t length, Octets key) noexcept nogil:
    cdef Py_ssize_t i
    if length == OURS:
        for i in range(OURS):
            if _letter(call_id[i]) < 0:
                break
        else:
            return _letter(call_id[0]) << 5 | _letter(call_id[1])
    return <int>(_siphash(call_id, length, key) & SHARD_MASK)


cdef Octets _peek(Octets p, Octets end, Py_ssize_t* length) noexcept nogil:
    """The first Call-ID (or i) header's value: same reading as the parser's, without the checks."""
    cdef Octets q
    cdef Octets start
    while p < end and (p[0] == 13 or p[0] == 10):
        p += 1
    while True:
        p = <Octets>memchr(p, 10, end - p)
        if p == NULL or p + 1 >= end:
            return NULL
        p += 1
        if p[0] == 10 or (p[0] == 13 and p + 1 < end and p[1] == 10):
            return NULL                                  # end of the headers
        if (p[0] | 0x20) == 105:
            q = p + 1
        elif (
            (p[0] | 0x20) == 99
            and end - p > 8
            and (p[1] | 0x20) == 97
            and (p[2] | 0x20) == 108
            and (p[3] | 0x20) == 108
            and p[4] == 45
            and (p[5] | 0x20) == 105
            and (p[6] | 0x20) == 100
        ):
            q = p + 7
        else:
            continue
        while q < end and (q[0] == 32 or q[0] == 9):
            q += 1
        if q == end or q[0] != 58:
            continue
        q += 1
        while q < end:                                   # blanks and folds before the value
            if q[0] == 32 or q[0] == 9:
                q += 1
            elif q[0] == 10 and q + 1 < end and (q[1] == 32 or q[1] == 9):
                q += 2
            elif q[0] == 13 and q + 2 < end and q[1] == 10 and (q[2] == 32 or q[2] == 9):
                q += 3
            else:
                break
        start = q
        while q < end and q[0] > 32 and q[0] < 127:
            q += 1
        if q == start:
            return NULL
        length[0] = q - start
        return start


cdef Octets _key(bytes key) except NULL:
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("the shard key is 16 octets")
    return <Octets>PyBytes_AS_STRING(key)


def siphash24(bytes data not None, bytes key not None):
    """SipHash-2-4 of ``data`` as an unsigned 64-bit number."""
    return _siphash(<Octets>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), _key(key))


def shard_of(call_id, bytes key not None):
    """The shard of a Call-ID."""
    cdef bytes octets = call_id if isinstance(call_id, bytes) else (<str?>call_id).encode("utf-8", "surrogateescape")
    return _shard(<Octets>PyBytes_AS_STRING(octets), PyBytes_GET_SIZE(octets), _key(key))


def peek_call_id(bytes data not None):
    """The Call-ID of a datagram, or None."""
    cdef Py_ssize_t length = 0
    cdef Octets p = <Octets>PyBytes_AS_STRING(data)
    p = _peek(p, p + PyBytes_GET_SIZE(data), &length)
    return None if p == NULL else PyBytes_FromStringAndSize(<const char*>p, length)


def shard_of_datagram(bytes data not None, bytes key not None):
    """The shard of a datagram, -1 where it has no Call-ID."""
    cdef Py_ssize_t length = 0
    cdef Octets secret = _key(key)
    cdef Octets p = <Octets>PyBytes_AS_STRING(data)
    p = _peek(p, p + PyBytes_GET_SIZE(data), &length)
    return -1 if p == NULL else _shard(p, length, secret)
