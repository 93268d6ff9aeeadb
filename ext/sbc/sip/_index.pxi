# The one pass over a message, and the checks of the fields that routing depends on: included by _message.pyx.

cdef inline Span _between(Octets base, Octets start, Octets end) noexcept nogil:
    cdef Span span
    span.at = <uint16_t>(start - base)
    span.length = <uint16_t>(end - start)
    return span


cdef const char* _start_line(Message m, Octets p, Octets end, int* status) noexcept:
    """Request line or status line, without its line end (§7.1, §7.2)."""
    cdef Octets base = m._base
    cdef Octets q
    cdef long code = 0
    if end - p >= 8 and _is(p, 4, b"sip/", 4):
        if memcmp(p + 4, b"2.0 ", 4) != 0:
            return "the SIP version of the response is not 2.0"
        q = p + 8
        p = q + 3
        if p > end or not _number(q, p, 699, &code) or code < 100:
            return "the status code is not within 100 to 699"
        m.status = <int>code
        if p < end:
            if p[0] != 32:
                return "the status code is not three digits"
            p += 1
        m._start_second = _between(base, p, end)
        return NULL
    q = _skip(p, end, C_TOKEN)
    if q == p or q == end or q[0] != 32:
        return "the start line is neither a request line nor a status line"
    m.is_request = True
    m._start_first = _between(base, p, q)
    if q - p > MAX_METHOD:
        return "the method is too long"
    p = q + 1
    q = <Octets>memchr(p, 32, end - p)
    if q == NULL:
        return "the request line has no SIP version"
    m._start_second = _between(base, p, q)
    if q - p > MAX_URI:
        status[0] = 414
        return "the Request-URI is too long"
    if end - q != 8 or memcmp(q + 1, b"SIP/2.0", 7) != 0:
        if end - q > 5 and _is(q + 1, 4, b"sip/", 4) and memchr(q + 1, 32, end - q - 1) == NULL:
            if _is(q + 1, end - q - 1, b"sip/2.0", 7):
                pass                       # SIP-Version is compared without regard to case (§7.1)
            else:
                status[0] = 505
                return "the SIP version of the request is not 2.0"
        else:
            return "the request line does not end in one SIP version"
    if not _uri(p, q, False):
        return "the Request-URI is malformed"
    return NULL


cdef const char* _via(Message m, Octets p, Octets end, bint top) noexcept:
    """A line of via-parms (§20.42). Of the topmost one the index keeps what responses and transactions need."""
    cdef Octets start
    cdef Octets host
    cdef Octets after
    cdef Param param
    cdef int found, i
    while True:
        for i in range(3):                 # protocol-name / protocol-version / transport
            start = _skip_space(p, end)
            p = _skip(start, end, C_TOKEN)
            if p == start:
                return "a Via is malformed"
            if i < 2:
                p = _skip_space(p, end)
                if p == end or p[0] != 47:
                    return "a Via is malformed"
                p += 1
        start = p
        p = _skip_space(p, end)
        host = p
        if p == start:
            return "a Via is malformed"
        p = _host(host, end)
        if p == NULL:
            return "the sent-by of a Via is malformed"
        if top:
            m._sent_host = _between(m._base, host, p)
        after = _skip_space(p, end)
        if after < end and after[0] == 58:
            p = _port(_skip_space(after + 1, end), end)
            if p == NULL:
                m._sent_host.length = 0
                return "the port of a Via is malformed"
        if top:
            after = _skip_space(p, end)
            if after < end and after[0] != 59 and after[0] != 44:
                return "a Via is malformed"
            m._sent_by_end = <uint16_t>(p - m._base)
        while True:
            found = _param(&p, end, &param)
            if found < 0:
                return "a parameter of a Via is malformed"
            if found == 0:
                break
            if top:
                if _is(param.name, param.name_length, b"branch", 6):
                    if m._branch_at.length:
                        return "the top Via has two branches"
                    m._branch_at = _between(m._base, param.value, param.value + param.value_length)
                elif _is(param.name, param.name_length, b"rport", 5) and param.value_length == 0:
                    # 'rport=' without a value counts as asked for too; what follows the name is replaced
                    m._rport_end = <uint16_t>(param.name + param.name_length - m._base)
                    if param.value != param.name + param.name_length:
                        return "an rport parameter has '=' without a value"
                elif _is(param.name, param.name_length, b"received", 8):
                    m._received_at = _between(m._base, param.mark, param.end)
        top = False
        if p == end:
            return NULL
        if p[0] != 44:
            return "a Via is malformed"
        p += 1


cdef const char* _party(Message m, Octets p, Octets end, Span* tag) noexcept:
    """From or To: one address and its parameters (§20.20)."""
    cdef Param param
    cdef int found
    p = _address(p, end)
    if p == NULL:
        return "From or To is malformed"
    while True:
        found = _param(&p, end, &param)
        if found < 0:
            return "a parameter of From or To is malformed"
        if found == 0:
            break
        if _is(param.name, param.name_length, b"tag", 3):
            if tag.length:
                return "From or To has two tags"
            tag[0] = _between(m._base, param.value, param.value + param.value_length)
    if p != end:
        return "something follows the address in From or To"
    return NULL


cdef const char* _contacts(Octets p, Octets end) noexcept nogil:
    """A line of Contact values, or the lone star of REGISTER (§20.10)."""
    cdef Param param
    cdef int found
    if end - p == 1 and p[0] == 42:
        return NULL
    while True:
        p = _address(p, end)
        if p == NULL:
            return "a Contact is malformed"
        while True:
            found = _param(&p, end, &param)
            if found < 0:
                return "a parameter of a Contact is malformed"
            if found == 0:
                break
        if p == end:
            return NULL
        if p[0] != 44:
            return "something follows the address in a Contact"
        p += 1


cdef const char* _cseq(Message m, Octets p, Octets end) noexcept:
    cdef Octets start = p
    cdef long number
    while p < end and not CLASS[p[0]] & C_SPACE:
        p += 1
    if not _number(start, p, MAX_CSEQ, &number):
        return "the CSeq number is malformed or beyond 2**31 - 1"
    start = _skip_space(p, end)
    if start == p or start == end or _skip(start, end, C_TOKEN) != end:
        return "CSeq has no method"
    m.cseq_number = <int>number
    m._cseq_method_at = _between(m._base, start, end)
    if m.is_request and (
        m._cseq_method_at.length != m._start_first.length
        or memcmp(start, m._base + m._start_first.at, m._start_first.length) != 0
    ):
        return "the method of CSeq is not that of the request line"
    return NULL


cdef const char* _nul(Octets p, Octets end) noexcept nogil:
    """A NUL may stand only behind a backslash in a quoted string (quoted-pair, §25.1; RFC 4475 intmeth)."""
    cdef bint quoted = False
    while p < end:
        if p[0] == 92 and quoted:
            p += 1
        elif p[0] == 34:
            quoted = not quoted
        elif p[0] == 0:
            return "a header holds a NUL"
        p += 1
    return NULL


cdef const char* _header(Message m, Line* line, long* content_length) noexcept:
    """Check one of the fields that routing depends on, and keep what it tells."""
    cdef Octets p = m._base + line.value.at
    cdef Octets end = p + line.value.length
    cdef const char* fault
    cdef long number
    cdef bint top
    if line.id == VIA:
        top = m._top_via < 0
        if top:
            m._top_via = m._count
        return _via(m, p, end, top)
    if line.id == FROM:
        return _party(m, p, end, &m._from_tag_at)
    if line.id == TO:
        return _party(m, p, end, &m._to_tag_at)
    if line.id == CALL_ID:
        if p == end or _skip(p, end, C_WORD) != end:
            return "the Call-ID is malformed"
        m._call_id_at = line.value
        return NULL
    if line.id == CSEQ:
        return _cseq(m, p, end)
    if line.id == CONTACT:
        return _contacts(p, end)
    if line.id == MAX_FORWARDS:
        if not _number(p, end, 255, &number):
            return "Max-Forwards is not within 0 to 255"
        m._max_forwards = <int>number
        return NULL
    if line.id == CONTENT_LENGTH:
        if not _number(p, end, MAX_MESSAGE, content_length):
            return "Content-Length is malformed or beyond the limit"
    return NULL


cdef const char* _index(Message m, int* status, bint stream, bint lenient) noexcept:
    """Find every line, check what must be right. With ``lenient`` go on after a fault: the caller wants what there is."""
    cdef Line lines[MAX_HEADERS]
    cdef uint8_t seen[128]
    cdef Octets base = m._base
    cdef Octets p = base
    cdef Octets end = base + PyBytes_GET_SIZE(m.raw)
    cdef Octets newline
    cdef Octets stop
    cdef Octets q
    cdef Line* line
    cdef const char* fault = NULL
    cdef long content_length = -1
    cdef bint has_nul, started = False, closed = False

    m._max_forwards = m._top_via = -1
    if end - base > MAX_MESSAGE:
        status[0] = 513
        end = base + MAX_MESSAGE
        if not lenient:
            return "the message is longer than 65535 octets"
    memset(seen, 0, sizeof(seen))
    while p < end and (p[0] == 13 or p[0] == 10):        # §7.5: empty lines before the start line
        p += 1
    if p == end:
        return "the message is empty"
    has_nul = memchr(p, 0, end - p) != NULL

    while p < end:
        newline = <Octets>memchr(p, 10, end - p)
        if newline == NULL:
            break
        stop = newline
        if stop > p and (stop - 1)[0] == 13:
            stop -= 1
        if stop == p:
            closed = True
            p = newline + 1
            break
        if memchr(p, 13, stop - p) != NULL:
            if not lenient or not started:
                return "a carriage return stands alone"
            p = newline + 1
            continue
        if not started:
            started = True
            if has_nul and memchr(p, 0, stop - p) != NULL:
                return "the start line holds a NUL"
            fault = _start_line(m, p, stop, status)
            if fault != NULL and (not lenient or not m.is_request):
                return fault
            fault = NULL
            p = newline + 1
            continue
        if m._count == MAX_HEADERS:
            fault = "the message has more than 200 header lines"
            break
        line = &lines[m._count]
        line.folded = 0
        q = _skip(p, stop, C_TOKEN)
        line.name = _between(base, p, q)
        while q < stop and (q[0] == 32 or q[0] == 9):    # HCOLON: blanks before the colon are allowed (§25.1)
            q += 1
        if line.name.length == 0 or q == stop or q[0] != 58:
            if not lenient:
                return "a header line has no proper name"
            p = newline + 1
            continue
        line.id = <uint8_t>_known(p, line.name.length)
        p = q + 1
        while newline + 1 < end and ((newline + 1)[0] == 32 or (newline + 1)[0] == 9):
            line.folded = 1                              # §7.3.1: the next line goes on with this value
            q = newline + 1
            newline = <Octets>memchr(q, 10, end - q)
            if newline == NULL:
                break
            stop = newline
            if (stop - 1)[0] == 13:
                stop -= 1
            if memchr(q, 13, stop - q) != NULL:
                fault = "a carriage return stands alone"
        if newline == NULL:
            break
        if fault != NULL:
            if not lenient:
                return fault
            fault = NULL
            p = newline + 1
            continue
        while p < stop and CLASS[p[0]] & C_SPACE:
            p += 1
        while stop > p and CLASS[(stop - 1)[0]] & C_SPACE:
            stop -= 1
        line.value = _between(base, p, stop)
        if has_nul:
            fault = _nul(p, stop)
            if fault != NULL:
                if not lenient:
                    return fault
                fault = NULL
                p = newline + 1
                continue
        if line.id:
            if ARITY[line.id] == SINGLE:
                if seen[line.id]:
                    if not lenient:
                        return "a header that may appear once appears twice"
                    p = newline + 1
                    continue
                seen[line.id] = 1
            if line.id <= CONTACT:
                fault = _header(m, line, &content_length)
                if fault != NULL and not lenient:
                    return fault
                fault = NULL
        m._count += 1
        p = newline + 1

    if m._count:
        m._lines = <Line*>malloc(m._count * sizeof(Line))
        if m._lines == NULL:
            m._count = 0
            status[0] = 500
            return "no memory"
        memcpy(m._lines, lines, m._count * sizeof(Line))
    if lenient:
        return NULL
    if fault != NULL:
        return fault
    if not started or (stream and not closed):
        return "the message ends within its headers"
    if m._top_via < 0 or not m._call_id_at.length or not m._cseq_method_at.length or not seen[FROM] or not seen[TO]:
        return "one of Via, From, To, Call-ID and CSeq is missing"
    if not closed:
        p = end                                          # a datagram cut short: its last, partial line does not count
    m._body_at = <int>(p - base)
    if content_length < 0:
        if stream:
            return "Content-Length is missing on a stream"
        m._body_length = <int>(end - p)
    elif content_length > end - p:
        return "the body is shorter than Content-Length says"
    elif stream and content_length != end - p:
        return "the body is longer than Content-Length says"
    else:
        m._body_length = <int>content_length             # §18.3: what follows on a datagram is ignored
    return NULL
