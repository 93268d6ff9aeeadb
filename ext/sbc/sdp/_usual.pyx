# cython: boundscheck=False, wraparound=False, cdivision=True
"""The usual session description, audio over RTP/AVP, in one pass. Contract: ``_usual.pyi``.

Whatever is not usual (other media, ICE, IPv6, host names, blanks where none belong, any fault) is left to the Python
parser, which is the reference: a test holds the two against each other.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcmp

ctypedef const unsigned char* Octets

cdef enum:
    MAX_OCTETS = 8192
    MAX_LINES = 100
    MAX_FORMATS = 32
    KEEP = 0


cdef inline str _text(Octets p, Octets end):
    return PyUnicode_DecodeASCII(<const char*>p, end - p, NULL)


cdef inline bint _begins(Octets p, Octets end, const char* text, Py_ssize_t length) noexcept nogil:
    return end - p >= length and memcmp(p, text, length) == 0


cdef inline bint _is(Octets p, Octets end, const char* text, Py_ssize_t length) noexcept nogil:
    return end - p == length and memcmp(p, text, length) == 0


cdef Octets _number(Octets p, Octets end, int digits, long limit, long* value) noexcept nogil:
    """Behind a number without leading zeros, NULL where there is none or it is too large."""
    cdef Octets start = p
    value[0] = 0
    while p < end and 48 <= p[0] <= 57:
        value[0] = value[0] * 10 + (p[0] - 48)
        p += 1
        if p - start > digits:
            return NULL
    if p == start or value[0] > limit or (start[0] == 48 and p - start > 1):
        return NULL
    return p


cdef bint _dotted(Octets p, Octets end) noexcept nogil:
    """Four numbers up to 255 with dots between."""
    cdef long value
    cdef int i
    for i in range(4):
        p = _number(p, end, 3, 255, &value)
        if p == NULL:
            return False
        if i < 3:
            if p == end or p[0] != 46:
                return False
            p += 1
    return p == end


cdef tuple _origin(Octets p, Octets end):
    """The six fields of o=, None where they are not parted by one blank each."""
    cdef list fields = []
    cdef Octets start = p
    while True:
        if p == end or p[0] == 32:
            if p == start or p - start > 40:
                return None
            fields.append(_text(start, p))
            if p == end:
                break
            start = p + 1
        p += 1
    return tuple(fields) if len(fields) == 6 else None


def usual_description(type session_type, type media_type, dict owners, dict clocks, bytes data not None):
    """See ``_usual.pyi``."""
    cdef Octets p = <Octets>PyBytes_AS_STRING(data)
    cdef Octets end = p + PyBytes_GET_SIZE(data)
    cdef Octets newline
    cdef Octets stop
    cdef Octets q
    cdef Octets r
    cdef long number
    cdef int lines = 0
    cdef bint in_media = False, passes, mux = False, has_origin = False
    cdef list section = [], passing = [], streams = [], formats
    cdef str first_format = ""
    cdef str session_address = "", media_address = "", session_direction = "sendrecv", line
    cdef object media = None, media_direction = None, clock = 8000, rtcp_port = 0
    if end - p > MAX_OCTETS or not _begins(p, end, b"v=0", 3):
        return None
    sdp = session_type()
    sdp.lines = section
    sdp.passing = passing
    sdp.streams = streams
    while p < end:
        newline = <Octets>memchr(p, 10, end - p)
        if newline == NULL:
            newline = end
        stop = newline
        if newline < end and stop > p and (stop - 1)[0] == 13:
            stop -= 1
        lines += 1
        if stop - p < 3 or (p + 1)[0] != 61 or lines > MAX_LINES:
            return None
        if not _plain(p, stop):
            return None
        line = _text(p, stop)
        passes = False
        if p[0] == 97:                                   # a=
            q = <Octets>memchr(p, 58, stop - p)
            if q == NULL:
                q = stop
            if _begins(p, stop, b"a=rtpmap:", 9):
                passes = True
                if in_media:
                    q = _number(p + 9, stop, 3, 127, &number)
                    if q == NULL or q == stop or q[0] != 32:
                        return None
                    if _text(p + 9, q) == first_format:
                        r = <Octets>memchr(q, 47, stop - q)
                        if r == NULL:
                            return None
                        q = _number(r + 1, stop, 6, 999999, &number)
                        if q == NULL or number == 0 or (q < stop and q[0] != 47):
                            return None
                        clock = number
            elif _begins(p, stop, b"a=ptime:", 8) or _begins(p, stop, b"a=maxptime:", 11):
                if _number(q + 1, stop, 3, 999, &number) != stop or number == 0:
                    return None
                passes = True
            elif q == stop and (
                _is(p, stop, b"a=sendrecv", 10)
                or _is(p, stop, b"a=sendonly", 10)
                or _is(p, stop, b"a=recvonly", 10)
                or _is(p, stop, b"a=inactive", 10)
            ):
                if in_media:
                    media_direction = line[2:]
                else:
                    session_direction = line[2:]
                passes = True
            elif _is(p, stop, b"a=rtcp-mux", 10):
                mux = in_media
            elif _begins(p, stop, b"a=rtcp:", 7):
                if in_media:
                    q = _number(p + 7, stop, 5, 65535, &number)
                    if q == NULL or (q < stop and q[0] != 32):
                        return None
                    rtcp_port = number
            else:
                owner = owners.get(_text(p + 2, q))
                if owner is None or owner > 3:
                    return None
                passes = owner == KEEP
        elif p[0] == 109:                                # m=
            if in_media or not _begins(p, stop, b"m=audio ", 8):
                return None
            in_media = True
            q = _number(p + 8, stop, 5, 65535, &number)
            if q == NULL or not _begins(q, stop, b" RTP/AVP ", 9):
                return None
            media = media_type.__new__(media_type)
            media.port = number
            q += 9
            formats = []
            while True:
                r = _number(q, stop, 3, 127, &number)
                if r == NULL or len(formats) == MAX_FORMATS:
                    return None
                formats.append(_text(q, r))
                if r == stop:
                    break
                if r[0] != 32:
                    return None
                q = r + 1
            first_format = formats[0]
            clock = clocks.get(first_format, 8000)
            media.formats = formats
            section = [line]
            passing = []
            media.lines = section
            media.passing = passing
            streams.append(media)
            p = newline + 1
            continue
        elif p[0] == 99:                                 # c=
            if not _begins(p, stop, b"c=IN IP4 ", 9) or not _dotted(p + 9, stop):
                return None
            if in_media:
                media_address = media_address or line[9:]
            else:
                session_address = session_address or line[9:]
        elif p[0] == 111:                                # o=
            if in_media or has_origin:
                return None
            origin = _origin(p + 2, stop)
            if origin is None:
                return None
            has_origin = True
            sdp.origin = origin
        elif p[0] == 118:                                # v=
            if lines > 1 or stop - p != 3:
                return None
        elif p[0] == 116 or p[0] == 98:                  # t= and b=
            passes = True
        elif p[0] != 115:                                # s=
            return None
        section.append(line)
        if passes:
            passing.append(line)
        p = newline + 1
    if not in_media or not has_origin:
        return None
    sdp.address = session_address
    sdp.direction = session_direction
    media.kind = "audio"
    media.protocol = "RTP/AVP"
    media.is_rtp = True
    media.address = media_address
    media.direction = media_direction
    media.rtcp_port = rtcp_port
    media.rtcp_mux = mux
    media.clock_rate_hz = clock
    media.keys = None
    return sdp


cdef bint _plain(Octets p, Octets end) noexcept nogil:
    """Printable ASCII alone."""
    cdef unsigned char bad = 0
    while p < end:
        bad |= (p[0] < 32) | (p[0] > 126)
        p += 1
    return not bad
