# Building messages in one pass: included by _message.pyx.

cdef struct Buffer:
    char* at
    Py_ssize_t length
    Py_ssize_t room
    bint on_heap

cdef enum:
    FIRST_ROOM = 4096


cdef inline void _open(Buffer* out, char* first) noexcept nogil:
    """Begin in the caller's stack; a message that outgrows it moves to the heap."""
    out.at = first
    out.length = 0
    out.room = FIRST_ROOM
    out.on_heap = False


cdef inline int _reserve(Buffer* out, Py_ssize_t more) except -1:
    cdef Py_ssize_t room
    cdef char* grown
    if out.length + more <= out.room:
        return 0
    room = (out.length + more) * 2
    grown = <char*>realloc(out.at if out.on_heap else NULL, room)
    if grown == NULL:
        raise MemoryError
    if not out.on_heap:
        memcpy(grown, out.at, out.length)
        out.on_heap = True
    out.at = grown
    out.room = room
    return 0


cdef inline int _put(Buffer* out, const char* data, Py_ssize_t length) except -1:
    _reserve(out, length)
    memcpy(out.at + out.length, data, length)
    out.length += length
    return 0


cdef int _put_number(Buffer* out, long number) except -1:
    cdef char digits[20]
    cdef int n = 20
    while True:
        n -= 1
        digits[n] = <char>(48 + number % 10)
        number //= 10
        if number == 0:
            return _put(out, digits + n, 20 - n)


cdef inline bint _breaks_line(const char* text, Py_ssize_t length) noexcept nogil:
    """Does the text hold CR, LF or NUL? One pass without branches, which the compiler turns into vectors."""
    cdef unsigned char bad = 0
    cdef Py_ssize_t i
    for i in range(length):
        bad |= (text[i] == 13) | (text[i] == 10) | (text[i] == 0)
    return bad


cdef int _put_text(Buffer* out, str text) except -1:
    """Append text that must stay on its line."""
    cdef Py_ssize_t length
    cdef const char* data
    cdef bytes octets
    if PyUnicode_IS_ASCII(text):
        data = PyUnicode_AsUTF8AndSize(text, &length)
    else:
        octets = text.encode("utf-8", "surrogateescape")
        data = PyBytes_AS_STRING(octets)
        length = PyBytes_GET_SIZE(octets)
    if _breaks_line(data, length):
        raise SipSyntaxError("a value holds CR, LF or NUL", 500)
    return _put(out, data, length)


cdef int _put_token(Buffer* out, str text, bint uri) except -1:
    """Append a method or header name (token), or a Request-URI (no blanks)."""
    cdef Py_ssize_t start = out.length
    cdef Octets written
    _put_text(out, text)
    written = <Octets>out.at + start
    if out.length == start or _skip(written, <Octets>out.at + out.length, C_URI if uri else C_TOKEN) != (
        <Octets>out.at + out.length
    ):
        raise SipSyntaxError("a method, Request-URI or header name cannot be written", 500)
    return 0


cdef int _put_header(Buffer* out, str name, str value) except -1:
    cdef Py_ssize_t start = out.length
    _put_token(out, name, False)
    if _known(<Octets>out.at + start, out.length - start) == CONTENT_LENGTH:
        out.length = start                               # the true length is written at the end
        return 0
    _put(out, b": ", 2)
    _put_text(out, value)
    return _put(out, b"\r\n", 2)


cdef int _put_headers(Buffer* out, headers) except -1:
    for name, value in headers:
        _put_header(out, name, value)
    return 0


cdef bytes _finish(Buffer* out, bytes body):
    cdef Py_ssize_t length = PyBytes_GET_SIZE(body)
    _put(out, b"Content-Length: ", 16)
    _put_number(out, length)
    _put(out, b"\r\n\r\n", 4)
    _put(out, PyBytes_AS_STRING(body), length)
    return PyBytes_FromStringAndSize(out.at, out.length)


cdef int _put_status_line(Buffer* out, int status, str reason) except -1:
    if not 100 <= status <= 699:
        raise ValueError(f"{status} is no SIP status")
    _put(out, b"SIP/2.0 ", 8)
    _put_number(out, status)
    _put(out, b" ", 1)
    _put_text(out, reason)
    return _put(out, b"\r\n", 2)


def build_request(str method not None, str uri not None, headers, bytes body not None=b""):
    """One request as octets."""
    cdef char first[FIRST_ROOM]
    cdef Buffer out
    _open(&out, first)
    try:
        _put_token(&out, method, False)
        _put(&out, b" ", 1)
        _put_token(&out, uri, True)
        _put(&out, b" SIP/2.0\r\n", 10)
        _put_headers(&out, headers)
        return _finish(&out, body)
    finally:
        if out.on_heap:
            free(out.at)


def build_response(int status, str reason not None, headers, bytes body not None=b""):
    """One response as octets."""
    cdef char first[FIRST_ROOM]
    cdef Buffer out
    _open(&out, first)
    try:
        _put_status_line(&out, status, reason)
        _put_headers(&out, headers)
        return _finish(&out, body)
    finally:
        if out.on_heap:
            free(out.at)


cdef int _put_raw(Buffer* out, Octets p, Octets end, bint folded) except -1:
    """Append received octets; the index has proved that they hold no line end other than folds."""
    if not folded:
        return _put(out, <const char*>p, end - p)
    _reserve(out, end - p)
    out.length += _unfold(p, end - p, out.at + out.length)
    return 0


cdef int _put_top_via(Buffer* out, Message m, Line* line, str host, int port) except -1:
    """The top Via with received and rport (RFC 3261 §18.2.1, RFC 3581 §4). The order of parameters says nothing, so
    received goes right behind sent-by, where it is well-formed whatever follows."""
    cdef Octets base = m._base
    cdef Octets p = base + line.value.at
    cdef Octets end = p + line.value.length
    cdef Octets cut
    cdef Py_ssize_t length
    cdef Octets source = <Octets>PyUnicode_AsUTF8AndSize(host, &length)
    cdef Octets sent = base + m._sent_host.at
    cdef Py_ssize_t sent_length = m._sent_host.length
    if sent_length and sent[0] == 91:                    # [2001:db8::1]
        sent += 1
        sent_length -= 2
    if m._rport_end == 0 and length == sent_length and memcmp(sent, source, length) == 0 and not m._received_at.length:
        return _put_raw(out, p, end, line.folded)
    cut = base + m._sent_by_end
    _put_raw(out, p, cut, line.folded)
    _put(out, b";received=", 10)
    _put_text(out, host)
    p = cut
    # What the sender itself wrote into received is not for him to say; rport may stand on either side of it.
    if m._received_at.length and (m._rport_end == 0 or m._received_at.at < m._rport_end):
        _put_raw(out, p, base + m._received_at.at, line.folded)
        p = base + m._received_at.at + m._received_at.length
    if m._rport_end:
        cut = base + m._rport_end
        _put_raw(out, p, cut, line.folded)
        _put(out, b"=", 1)
        _put_number(out, port)
        p = cut
        if m._received_at.length and m._received_at.at >= m._rport_end:
            _put_raw(out, p, base + m._received_at.at, line.folded)
            p = base + m._received_at.at + m._received_at.length
    return _put_raw(out, p, end, line.folded)


cdef int _put_copy(Buffer* out, Message m, Line* line, const char* name, Py_ssize_t name_length, str to_tag) except -1:
    _put(out, name, name_length)
    _put_raw(out, m._base + line.value.at, m._base + line.value.at + line.value.length, line.folded)
    if to_tag is not None:
        _put(out, b";tag=", 5)
        _put_text(out, to_tag)
    return _put(out, b"\r\n", 2)


def reply_to(
    Message request not None,
    int status,
    *,
    str reason=None,
    str to_tag not None="",
    received,
    headers=(),
    bytes body not None=b"",
):
    """One response to ``request`` as octets, its Vias copied as they came (RFC 3261 §8.2.6)."""
    if request._came is not None:
        request = request._came
    cdef char first[FIRST_ROOM]
    cdef Buffer out
    cdef Line* line
    cdef int i, wanted
    cdef str host = None
    cdef int port = 0
    if received is not None:
        host, port = received
    if not request.is_request:
        raise ValueError("a response has no reply")
    if reason is None:
        reason = REASONS.get(status) or reason_of(status)
    _open(&out, first)
    try:
        _put_status_line(&out, status, reason)
        for i in range(request._count):
            line = &request._lines[i]
            if line.id == VIA:
                _put(&out, b"Via: ", 5)
                if host is not None and i == request._top_via and request._sent_by_end:
                    _put_top_via(&out, request, line, host, port)
                else:
                    _put_raw(
                        &out,
                        request._base + line.value.at,
                        request._base + line.value.at + line.value.length,
                        line.folded,
                    )
                _put(&out, b"\r\n", 2)
        for wanted in range(FROM, CSEQ + 1):
            for i in range(request._count):
                line = &request._lines[i]
                if line.id == wanted:
                    if wanted == FROM:
                        _put_copy(&out, request, line, b"From: ", 6, None)
                    elif wanted == TO:
                        _put_copy(
                            &out, request, line, b"To: ", 4, to_tag if to_tag and not request._to_tag_at.length else None
                        )
                    elif wanted == CALL_ID:
                        _put_copy(&out, request, line, b"Call-ID: ", 9, None)
                    else:
                        _put_copy(&out, request, line, b"CSeq: ", 6, None)
                    break
        if status == 100:                                # §8.2.6.1
            for i in range(request._count):
                if request._lines[i].id == TIMESTAMP:
                    _put_copy(&out, request, &request._lines[i], b"Timestamp: ", 11, None)
                    break
        _put_headers(&out, headers)
        return _finish(&out, body)
    finally:
        if out.on_heap:
            free(out.at)
