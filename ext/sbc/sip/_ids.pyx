# cython: boundscheck=False, wraparound=False, cdivision=True
"""Identifiers that we mint, written without a detour. Contract: ``sbc/sip/ids.py``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII

cdef const char* LETTERS = b"abcdefghijklmnopqrstuvwxyz234567"

cdef enum:
    LONGEST = 64


cdef class Mint:
    """Writes random octets as text, five bits a letter; draws from ``source`` at least ``size`` octets at a time."""

    cdef object _source
    cdef Py_ssize_t _size
    cdef bytes _pool
    cdef Py_ssize_t _at

    def __init__(self, source, Py_ssize_t size):
        self._source = source
        self._size = size
        self._pool = b""
        self._at = 0

    cpdef str letters(self, str prefix, int count):
        """``prefix``, which is ASCII, and ``count`` random letters."""
        cdef char text[LONGEST]
        cdef Py_ssize_t n = 0
        cdef Py_ssize_t octets = (count + 7) // 8 * 5
        cdef const unsigned char* p
        cdef unsigned long long group
        cdef int i
        cdef bytes drawn
        if count < 0 or len(prefix) + count > LONGEST - 7:
            raise ValueError("an identifier of that length is none")
        if self._at + octets > PyBytes_GET_SIZE(self._pool):
            drawn = self._source(max(self._size, octets))
            if PyBytes_GET_SIZE(drawn) < octets:
                raise ValueError("the source of randomness gave too little")
            self._pool = drawn
            self._at = 0
        for letter in prefix:
            text[n] = <char>letter
            n += 1
        p = <const unsigned char*>PyBytes_AS_STRING(self._pool) + self._at
        self._at += octets
        while octets:
            group = 0
            for i in range(5):
                group = group << 8 | p[i]
            for i in range(35, -1, -5):
                text[n] = LETTERS[group >> i & 31]
                n += 1
            p += 5
            octets -= 5
        return PyUnicode_DecodeASCII(text, len(prefix) + count, NULL)
