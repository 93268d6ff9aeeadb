# The usual forms of URI, address and Via in one pass: included by _message.pyx. Each answers None for whatever is not
# usual (escapes in quotes, blanks, IPv6, headers, any fault); the Python parsers then take the long way.

cdef object _new_tuple = tuple.__new__


cdef dict _plain_params(Octets p, Octets end, bint uri):
    """``;name=value;flag`` up to ``end``; None where it is not that plain. The first of a repeated name counts."""
    cdef dict params = {}
    cdef Octets name
    cdef Octets value
    while p < end:
        name = p + 1
        if p[0] != 59:
            return None
        p = _skip(name, end, C_TOKEN)
        if p == name:
            return None
        key = _text(name, p - name)
        content = None
        if p < end and p[0] == 61:
            value = p + 1
            p = value
            while p < end and p[0] != 59:
                if not CLASS[p[0]] & C_VALUE or (uri and (p[0] == 64 or p[0] == 63)):
                    return None
                p += 1
            content = _text(value, p - value)
        if key not in params:
            params[key] = content
    return params


cdef object _plain_uri(type uri_type, object no_params, Octets p, Octets end):
    cdef Octets start = p
    cdef Octets at
    cdef Octets host
    cdef str scheme = "sip"
    cdef object user = None, port = None, params = no_params
    if end - p < 5 or memcmp(p, b"sip", 3) != 0:
        return None
    p += 3
    if p[0] == 115:
        scheme = "sips"
        p += 1
    if p[0] != 58:
        return None
    p += 1
    at = <Octets>memchr(p, 64, end - p)
    if at != NULL:
        start = p
        while p < at:
            if not CLASS[p[0]] & C_VALUE or p[0] == 58 or p[0] == 63:
                return None
            p += 1
        if p == start:
            return None
        user = _text(start, p - start)
        p += 1
    host = p
    p = _skip(host, end, C_HOST)
    if p == host:
        return None
    text = _text(host, p - host)
    if p < end and p[0] == 58:
        start = p + 1
        p = _port(start, end)
        if p == NULL:
            return None
        port = _small(start, p)
    if p < end:
        params = _plain_params(p, end, True)
        if params is None:
            return None
    return _new_tuple(uri_type, (scheme, user, None, text, port, params, ""))


cdef inline int _small(Octets p, Octets end) noexcept nogil:
    cdef int value = 0
    while p < end:
        value = value * 10 + (p[0] - 48)
        p += 1
    return value


def usual_uri(type uri_type, no_params, str text not None):
    cdef Py_ssize_t length
    cdef Octets p
    if not PyUnicode_IS_ASCII(text):
        return None
    p = <Octets>PyUnicode_AsUTF8AndSize(text, &length)
    return _plain_uri(uri_type, no_params, p, p + length)


def usual_address(type address_type, type uri_type, no_params, str text not None):
    cdef Py_ssize_t length
    cdef Octets p
    cdef Octets end
    cdef Octets start
    cdef Octets last
    cdef str display = ""
    cdef object params = no_params
    if not PyUnicode_IS_ASCII(text):
        return None
    p = <Octets>PyUnicode_AsUTF8AndSize(text, &length)
    end = p + length
    start = p
    if p < end and p[0] == 34:
        start = p + 1
        p = start
        while p < end and p[0] != 34:
            if p[0] == 92:
                return None
            p += 1
        if p == end:
            return None
        display = _text(start, p - start)
        p += 1
        while p < end and p[0] == 32:
            p += 1
    else:
        while p < end and (CLASS[p[0]] & C_TOKEN or (p[0] == 32 and p > start)):
            p += 1
        last = p
        while last > start and (last - 1)[0] == 32:
            last -= 1
        display = _text(start, last - start)
    if p == end or p[0] != 60:
        return None
    start = p + 1
    p = <Octets>memchr(start, 62, end - start)
    if p == NULL:
        return None
    uri = _plain_uri(uri_type, no_params, start, p)
    if uri is None:
        return None
    p += 1
    if p < end:
        params = _plain_params(p, end, False)
        if params is None:
            return None
    return _new_tuple(address_type, (display, uri, params))


def usual_via(type via_type, no_params, str text not None):
    cdef Py_ssize_t length
    cdef Octets p
    cdef Octets end
    cdef Octets start
    cdef str transport, host
    cdef object port = None, params = no_params
    if not PyUnicode_IS_ASCII(text):
        return None
    p = <Octets>PyUnicode_AsUTF8AndSize(text, &length)
    end = p + length
    if length < 10 or memcmp(p, b"SIP/2.0/", 8) != 0:
        return None
    start = p + 8
    p = start
    while p < end and 65 <= p[0] <= 90:
        p += 1
    if p == start or p == end or p[0] != 32:
        return None
    transport = _text(start, p - start)
    start = p + 1
    p = _skip(start, end, C_HOST)
    if p == start:
        return None
    host = _text(start, p - start)
    if p < end and p[0] == 58:
        start = p + 1
        p = _port(start, end)
        if p == NULL:
            return None
        port = _small(start, p)
    if p < end:
        params = _plain_params(p, end, False)
        if params is None:
            return None
    return _new_tuple(via_type, (transport, host, port, params))
