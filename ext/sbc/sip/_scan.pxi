# Character classes, the table of header names, and the scanners of the grammar: included by _message.pyx.

cdef enum:
    C_TOKEN = 1    # token (§25.1)
    C_SPACE = 2    # SP, HTAB, CR, LF: inside a value the index has proved that CR and LF belong to a fold
    C_HOST = 4     # hostname, with the underscore that real networks use
    C_V6 = 8       # inside an IPv6 reference
    C_VALUE = 16   # unquoted parameter value: token, host, or IPv6 reference
    C_URI = 32     # anywhere in a URI: no blank, control, quote, angle bracket
    C_DISPLAY = 64 # unquoted display name, leniently: tokens in the grammar, any printable text in the wild
    C_WORD = 128   # Call-ID

cdef uint8_t CLASS[256]


cdef void _fill_classes() noexcept:
    cdef int c
    cdef bint alnum
    for c in range(256):
        alnum = (48 <= c <= 57) or (65 <= c <= 90) or (97 <= c <= 122)
        CLASS[c] = 0
        if alnum or (0 < c < 128 and memchr(b"-.!%*_+`'~", c, 10) != NULL):
            CLASS[c] |= C_TOKEN
        if c == 32 or c == 9 or c == 13 or c == 10:
            CLASS[c] |= C_SPACE
        if alnum or c == 45 or c == 46 or c == 95:
            CLASS[c] |= C_HOST
        if (48 <= c <= 58) or (65 <= c <= 70) or (97 <= c <= 102) or c == 46:
            CLASS[c] |= C_V6
        if c > 32 and c != 127 and memchr(b",;\"<>", c, 5) == NULL:
            CLASS[c] |= C_VALUE
        if c > 32 and c != 127 and memchr(b"\"<>", c, 3) == NULL:
            CLASS[c] |= C_URI
        if c >= 32 and c != 127 and memchr(b"\"<>,;\\", c, 6) == NULL:
            CLASS[c] |= C_DISPLAY
        if 32 < c < 127:
            CLASS[c] |= C_WORD


cdef struct Known:
    char lower[32]
    uint8_t length
    uint8_t id         # row + 1; 0 ends a chain

cdef Known SLOTS[1024]
cdef uint8_t ARITY[128]
cdef list LONG_NAMES = [None]
cdef list LOWER_NAMES = [None]


cdef inline unsigned int _slot(Octets name, Py_ssize_t length) noexcept nogil:
    # Length with the first, middle and last letter tells all known names apart but for a few; | 0x20 folds case.
    return (
        <unsigned int>length * 131
        + (name[0] | 0x20) * 31
        + (name[length - 1] | 0x20) * 7
        + (name[length >> 1] | 0x20) * 211
    ) & 1023


cdef inline int _known(Octets name, Py_ssize_t length) noexcept nogil:
    """The id of a header name that consists of token characters, or 0."""
    cdef unsigned int slot
    cdef Known* known
    cdef Py_ssize_t i
    if length == 0 or length > 31:
        return 0
    slot = _slot(name, length)
    while True:
        known = &SLOTS[slot]
        if known.id == 0:
            return 0
        if known.length == length:
            # Exact for tokens: known names hold letters, digits and '-', and no other token character folds to those.
            for i in range(length):
                if (name[i] | 0x20) != <unsigned char>known.lower[i]:
                    break
            else:
                return known.id
        slot = (slot + 1) & 1023


cdef void _learn(bytes lower, int ident):
    cdef Py_ssize_t length = len(lower)
    cdef unsigned int slot = _slot(<Octets>PyBytes_AS_STRING(lower), length)
    if length > 31:
        raise ValueError("header name too long for the table")
    while SLOTS[slot].id:
        slot = (slot + 1) & 1023
    memcpy(SLOTS[slot].lower, PyBytes_AS_STRING(lower), length)
    SLOTS[slot].length = <uint8_t>length
    SLOTS[slot].id = <uint8_t>ident


def _build_tables():
    _fill_classes()
    memset(SLOTS, 0, sizeof(SLOTS))
    for ident, header in enumerate(HEADERS, 1):
        LONG_NAMES.append(header.name)
        LOWER_NAMES.append(header.name.lower())
        ARITY[<int>ident] = {Arity.SINGLE: SINGLE, Arity.LIST: LIST}.get(header.arity, 0)
        _learn(header.name.lower().encode(), ident)
        if header.compact:
            _learn(header.compact.encode(), ident)


_build_tables()

# ---------------------------------------------------------------------------------------------------------------------
# Scanning. Every function takes [p, end) and answers where it stopped, or NULL where the grammar is broken.


cdef inline Octets _skip_space(Octets p, Octets end) noexcept nogil:
    while p < end and CLASS[p[0]] & C_SPACE:
        p += 1
    return p


cdef inline Octets _skip(Octets p, Octets end, uint8_t which) noexcept nogil:
    while p < end and CLASS[p[0]] & which:
        p += 1
    return p


cdef inline Octets _quoted(Octets p, Octets end) noexcept nogil:
    """Past the closing quote of a quoted-string; ``p`` is after the opening one."""
    while p < end:
        if p[0] == 34:
            return p + 1
        if p[0] == 92:
            p += 1
        p += 1
    return NULL


cdef inline Octets _host(Octets p, Octets end) noexcept nogil:
    """A host: name, IPv4 address or IPv6 reference."""
    cdef Octets start = p
    cdef int colons = 0
    if p < end and p[0] == 91:
        p += 1
        while p < end and CLASS[p[0]] & C_V6:
            colons += p[0] == 58
            p += 1
        if p == end or p[0] != 93 or colons < 2:
            return NULL
        return p + 1
    p = _skip(p, end, C_HOST)
    if p == start:
        return NULL
    return p


cdef inline Octets _port(Octets p, Octets end) noexcept nogil:
    """One to five digits, up to 65535."""
    cdef Octets start = p
    cdef int port = 0
    while p < end and 48 <= p[0] <= 57:
        port = port * 10 + (p[0] - 48)
        p += 1
        if port > 65535 or p - start > 5:
            return NULL
    if p == start:
        return NULL
    return p


cdef bint _sip_uri(Octets p, Octets end, bint with_headers) noexcept nogil:
    """Is [p, end), what follows 'sip:', a SIP-URI? Every octet is known to be C_URI (§19.1.1)."""
    cdef Octets at = <Octets>memchr(p, 64, end - p)
    cdef Octets question
    if at != NULL:
        if at == p:
            return False
        p = at + 1
    p = _host(p, end)
    if p == NULL:
        return False
    if p < end and p[0] == 58:
        p = _port(p + 1, end)
        if p == NULL:
            return False
    if p == end:
        return True
    if p[0] != 59 and p[0] != 63:
        return False
    question = <Octets>memchr(p, 63, end - p)
    if question != NULL and not with_headers:
        return False
    # A second @ before the headers would let two readers see two hosts.
    return memchr(p, 64, (end if question == NULL else question) - p) == NULL


cdef inline bint _is(Octets p, Py_ssize_t length, const char* lower, Py_ssize_t lower_length) noexcept nogil:
    cdef Py_ssize_t i
    if length != lower_length:
        return False
    for i in range(length):
        if (p[i] | 0x20) != <unsigned char>lower[i]:
            return False
    return True


cdef bint _tel_number(Octets p, Octets end) noexcept nogil:
    """Does [p, end) begin with a number: at least one digit, up to the end or a semicolon (RFC 3966 §3)?"""
    cdef bint some = False
    if p < end and p[0] == 43:
        p += 1
    while p < end and p[0] != 59:
        if 48 <= p[0] <= 57 or 65 <= (p[0] & 0xDF) <= 70 or p[0] == 42 or p[0] == 35:
            some = True
        elif p[0] != 45 and p[0] != 46 and p[0] != 40 and p[0] != 41:
            return False
        p += 1
    return some


cdef bint _uri(Octets p, Octets end, bint with_headers) noexcept nogil:
    """Is [p, end) a URI of any scheme, and a proper one where the scheme is ours?"""
    cdef Octets colon = p
    cdef Py_ssize_t length
    if p == end or not (65 <= (p[0] & 0xDF) <= 90):
        return False
    while colon < end and colon[0] != 58:
        if not CLASS[colon[0]] & C_HOST and colon[0] != 43:
            return False
        colon += 1
    length = colon - p
    if colon >= end - 1 or _skip(colon, end, C_URI) != end:
        return False
    if _is(p, length, b"sip", 3) or _is(p, length, b"sips", 4):
        return _sip_uri(colon + 1, end, with_headers)
    if _is(p, length, b"tel", 3):
        return _tel_number(colon + 1, end)
    return True


cdef struct Param:
    Octets mark        # the semicolon
    Octets name
    Py_ssize_t name_length
    Octets value
    Py_ssize_t value_length
    Octets end


cdef int _param(Octets* cursor, Octets end, Param* out) noexcept nogil:
    """Next ``;name[=value]`` with LWS anywhere it may stand: 1 found, 0 something else follows, -1 broken."""
    cdef Octets p = _skip_space(cursor[0], end)
    cursor[0] = p
    if p == end or p[0] != 59:
        return 0
    out.mark = p
    p = _skip_space(p + 1, end)
    out.name = p
    p = _skip(p, end, C_TOKEN)
    out.name_length = p - out.name
    if out.name_length == 0:
        return -1
    out.value = p
    out.value_length = 0
    out.end = p
    p = _skip_space(p, end)
    if p < end and p[0] == 61:
        p = _skip_space(p + 1, end)
        out.value = p
        if p < end and p[0] == 34:
            p = _quoted(p + 1, end)
            if p == NULL:
                return -1
        else:
            p = _skip(p, end, C_VALUE)
        out.value_length = p - out.value
        out.end = p
    else:
        p = out.end
    cursor[0] = p
    return 1


cdef Octets _address(Octets p, Octets end) noexcept nogil:
    """A name-addr or addr-spec, without its parameters (§20.10)."""
    cdef Octets start
    cdef Octets uri
    p = _skip_space(p, end)
    if p < end and p[0] == 34:
        p = _quoted(p + 1, end)
        if p == NULL:
            return NULL
        p = _skip_space(p, end)
        if p == end or p[0] != 60:
            return NULL
    start = p
    while p < end:
        if CLASS[p[0]] & (C_DISPLAY | C_SPACE):
            p += 1
        elif p[0] == 92 and p + 1 < end and (p[1] == 34 or p[1] == 92):
            p += 2                         # \\"name\\" unquoted: wrong, but sent by phones in the field
        else:
            break
    if p < end and p[0] == 60:
        uri = p + 1
        p = <Octets>memchr(uri, 62, end - uri)
        if p == NULL or not _uri(uri, p, True):
            return NULL
        return p + 1
    # Without angle brackets the URI ends at the first ; , or blank, and may hold no ? (§20).
    p = start
    while p < end and p[0] != 59 and p[0] != 44 and not CLASS[p[0]] & C_SPACE:
        p += 1
    if memchr(start, 63, p - start) != NULL or not _uri(start, p, False):
        return NULL
    return p


cdef bint _number(Octets p, Octets end, long limit, long* out) noexcept nogil:
    """[p, end) is digits only, at most ``limit``."""
    cdef long value = 0
    if p == end:
        return False
    while p < end:
        if not 48 <= p[0] <= 57:
            return False
        value = value * 10 + (p[0] - 48)
        if value > limit:
            return False
        p += 1
    out[0] = value
    return True


